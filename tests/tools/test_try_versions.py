"""tools/try_versions.sh: which versions it asks pip for, with a stand-in for Python."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
# `-m venv DIR` makes DIR/bin/python, which is this file again; every call is noted.
echo "$*" >>"$NOTED"
case $2 in venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;; esac
case "$*" in *freeze*) echo numpy==9.9 ;; esac
"""


def run(tmp_path, *words):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    noted = tmp_path / "noted"
    environment = {**os.environ, "PYTHON": str(python), "NOTED": str(noted), "TRY_VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        ["sh", ROOT / "tools/try_versions.sh", *words], env=environment, capture_output=True, text=True
    )
    return done, noted.read_text().splitlines() if noted.exists() else []


def packages():
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|gait) = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    listed = "".join(lists).splitlines()
    return [re.fullmatch(r'\s*"([\w-]+)>=([\w.]+),<([\w.]+)",', line).groups() for line in listed]


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_what_it_installs_and_runs(tmp_path, which):
    done, calls = run(tmp_path, which)
    assert done.returncode == 0 and done.stdout == "numpy==9.9\n", done.stderr
    asked = next(call for call in calls if " install " in call).split()
    pinned = re.search(r"^torch==\S+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[0]
    assert pinned in asked
    for name, low, _ in packages():
        if name != "torch":
            assert (f"{name}=={low}" if which == "oldest" else name) in asked
    assert "pytest" in asked and any(call.endswith("pip --disable-pip-version-check check") for call in calls)
    assert calls[-1] == "-m pytest -q -p no:cacheprovider -m not slow and not medium"


def test_every_pinned_version_is_within_its_bounds():
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))

    def number(version):
        return [int(part) for part in version.split(".")]

    assert pinned.keys() - {"setuptools"} == {name for name, _, _ in packages()}  # which installs the project alone
    for name, low, high in packages():
        assert number(low) <= number(pinned[name]) < number(high), name


@pytest.mark.parametrize("words, status", [([], 2), (["other"], 2), (["--help"], 0)])
def test_usage(tmp_path, words, status):
    done, calls = run(tmp_path, *words)
    assert done.returncode == status and not calls
    assert "sh tools/try_versions.sh newest" in done.stdout + done.stderr
