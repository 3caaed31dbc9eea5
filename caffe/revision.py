"""The commit of this repository that runs. Imports nothing of this package, see `caffe.whole`; as a program it prints
the commit."""

import os
import subprocess


def commit() -> str:
    """The commit checked out around this package, with "+changes" when tracked files differ; "" outside a clone."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if _git(root, "rev-parse", "--show-toplevel") != root:
        return ""  # no clone, or installed somewhere inside another project's
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return _git(root, "rev-parse", "HEAD") + ("+changes" if changes else "")


def _git(root, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", root, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    print(commit())
