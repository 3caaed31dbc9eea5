"""The head of a log: what is needed to repeat the run. Data layers add a line about their data with `caffe.log`."""

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

from caffe import glog as log

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gaitnet-caffe", "torch", "numpy", "opencv-python-headless", "protobuf", "h5py")  # the first is this one


def log_header(command: str, seed: int | None = None) -> None:
    """Write one line each about command, folder, commit, versions, device, and seed if there is one to tell yet."""
    told = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),  # of the lines' prefixes, which lack year and zone
        "command": command,
        "folder": os.getcwd(),
        "commit": commit(),
        "versions": versions(),
        "device": device(),
        "seed": "" if seed is None else str(seed),
    }
    for what, text in told.items():
        if text:
            log.info("provenance.py:1", f"{what}: {text}")


def commit() -> str:
    """The commit checked out around this package, with "+changes" when tracked files differ; "" outside a clone."""
    if _git("rev-parse", "--show-toplevel") != str(ROOT):
        return ""  # no clone, or installed somewhere inside another project's
    return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue  # not installed, only on PYTHONPATH; or OpenCV under another name
    return ", ".join(found)


def device() -> str:
    import torch

    from caffe import device

    where = device.current
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    return f"{where} ({name}), {torch.get_num_threads()} CPU threads"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
