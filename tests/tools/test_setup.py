"""tools/setup.sh, with stand-ins for Python: nothing is installed here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Answers what setup.sh asks: its version; can it make environments; is there pip; install (logged).
PYTHON = """#!/bin/sh
case "$*" in
    *'sys.version_info[:2]'*) echo {version} ;;
    *'sys.version_info < '*) exit {too_old} ;;
    *ensurepip*) exit {no_venv} ;;
    '-m pip --version') exit 0 ;;
    '-m pip install'*) echo "$*" >>installed; exit ${{PIP_STATUS:-0}} ;;
    '-m venv'*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo made >>installed ;;
esac
"""


@pytest.fixture
def root(tmp_path):
    """A repository with what setup.sh reads, and Pythons old, bare and fit."""
    (tmp_path / "tools").mkdir()
    for name in (
        "tools/setup.sh",
        "requirements.txt",
        "requirements-dev.txt",
        "requirements.lock",
        "requirements-dev.lock",
        "pyproject.toml",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    for name, answers in {
        "old": dict(version="3.9", too_old=1, no_venv=0),
        "bare": dict(version="3.11", too_old=0, no_venv=1),
        "fit": dict(version="3.12", too_old=0, no_venv=0),
        "newer": dict(version="3.13", too_old=0, no_venv=0),
    }.items():
        (tmp_path / name).write_text(PYTHON.format(**answers))
        (tmp_path / name).chmod(0o755)
    return tmp_path


def setup(root, python, *options, **env):
    env = {**os.environ, "PYTHON": str(root / (python or "")), "PATH": "/usr/bin:/bin", **env}  # no uv of this machine
    if python is None:
        del env["PYTHON"]
    command = ["sh", str(root / "tools/setup.sh"), *options]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=60)


def installed(root):
    path = root / "installed"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    "python, words",
    [
        ("old", "is Python 3.9; wanted 3.10 or newer"),
        ("bare", "apt-get install python3-venv"),
        ("missing", "not found; install Python 3.10"),
    ],
)
def test_an_unfit_python_is_named(root, python, words):
    done = setup(root, python)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert not (root / ".venv").exists()


def test_set_up_once(root):
    first = setup(root, "fit")
    assert first.returncode == 0, first.stderr
    made, hashed, packages, project = installed(root)
    assert hashed.endswith("--require-hashes --no-deps -r requirements.lock")
    assert made == "made" and "-r requirements.txt" in packages and project.endswith("-e .")
    assert setup(root, "fit").stdout == ""
    assert setup(root, "fit").returncode == 0
    assert len(installed(root)) == 4


def test_what_the_tests_need_is_installed_on_demand(root):
    assert setup(root, "fit").returncode == 0
    assert setup(root, "fit", "--dev").returncode == 0
    assert "-r requirements-dev.txt" in installed(root)[-2] and installed(root).count("made") == 1
    assert setup(root, "fit", "--dev").stdout == "" and setup(root, "fit").stdout == ""
    with open(root / "requirements-dev.txt", "a") as f:
        f.write("another==1.0\n")
    assert setup(root, "fit").stdout == ""  # training does not need it
    assert "Installing" in setup(root, "fit", "--dev").stdout


@pytest.mark.parametrize("status, by", [("0", ["uv"]), ("2", ["uv", "pip"])])
def test_uv_installs_where_it_is_and_pip_where_it_fails(root, status, by):
    uv = root / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\necho "uv $*" >>{root}/installed\nexit {status}\n')
    uv.chmod(0o755)
    done = setup(root, "fit", PATH=f"{uv.parent}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    packages = [line for line in installed(root) if "-r requirements.txt" in line]
    assert ["uv" if line.startswith("uv pip install --python ") else "pip" for line in packages] == by


def test_an_interrupted_set_up_is_taken_up_again(root):
    failed = setup(root, "fit", PIP_STATUS="1")
    assert failed.returncode == 1 and "error: pip could not install" in failed.stderr
    assert not list((root / ".venv").glob("set-up-for*"))
    assert setup(root, "fit").returncode == 0
    assert installed(root).count("made") == 1


def test_changed_requirements_are_installed(root):
    setup(root, "fit")
    with open(root / "requirements.txt", "a") as f:
        f.write("another==1.0\n")
    assert setup(root, "fit").returncode == 0
    assert len(installed(root)) == 7 and installed(root).count("made") == 1


def test_another_python_makes_another_environment(root):
    setup(root, "fit")
    assert setup(root, "newer").returncode == 0
    assert installed(root).count("made") == 2
    (root / "installed").unlink()
    assert setup(root, None).returncode == 0  # no wish: what is there serves
    assert installed(root) == []


NAME = r"[A-Za-z0-9._-]+"


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_holds_every_version_of_the_list_with_hashes(name):
    """torch apart, whose builds differ; `sh tools/lock.sh` writes the lock anew."""
    lock = (ROOT / f"{name}.lock").read_text()
    locked = re.findall(
        rf"^({NAME})==(\S+)(?: ;[^\\]*)? \\\n(?:    --hash=sha256:[0-9a-f]{{64}}(?: \\)?\n?)+", lock, re.M
    )
    assert len(locked) == lock.count("==") - len(
        re.findall("_version ==|_full_version ==|machine ==|platform ==|name ==", lock)
    )
    listed = (ROOT / f"{name}.txt").read_text() + (ROOT / "requirements.txt").read_text()
    wanted = {(package.lower(), version) for package, version in re.findall(rf"^({NAME})==([^\s;#]+)", listed, re.M)}
    assert wanted - set(locked) == {("torch", "2.13.0")}
    assert not re.search(r"^(torch|triton|nvidia-|cuda-)", lock, re.M)
