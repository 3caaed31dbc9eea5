"""What leaves the repository: the wheel, the workflow of public CI, the container."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.medium
def test_the_wheel_holds_caffe_alone(tmp_path):
    """Built from a copy, since building leaves folders behind; then run from a folder of its own."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "caffe", "layers", "models", "eval"):
        place = ROOT / name
        shutil.copytree(place, copy / name) if place.is_dir() else shutil.copy(place, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {re.sub(r"gaitnet_caffe-.*", "dist-info", name.split("/")[0]) for name in names} == {"caffe", "dist-info"}
    for name in ROOT.glob("caffe/**/*"):  # nothing that lies in the folder was forgotten
        if name.suffix in (".py", ".proto", ".pyi"):
            assert name.relative_to(ROOT).as_posix() in names

    site = tmp_path / "site"
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True, timeout=120)
    code = "import caffe, sys; print(caffe.__file__); assert 'layers' not in sys.modules; import caffe.tools.parse_log"
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))


def test_the_workflow_runs_what_is_there():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    files = {word for command in commands for word in re.findall(r"[\w./-]+\.(?:py|txt)\b|\.ci/run", command)}
    assert {"requirements-dev.txt", "tests/try_installed.py", ".ci/run"} <= files
    for file in files:
        assert (ROOT / file).is_file(), f"ci.yml names {file}, which is not there"


def test_the_container_copies_what_is_there():
    text = (ROOT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY --chown=gaitnet (.*)", text, re.M) for word in line.split()[:-1]]
    assert "tools/setup.sh" in copied and "." in copied
    for name in copied:
        assert (ROOT / name).exists(), f"Dockerfile copies {name}, which is not there"
    assert re.search(r"^USER gaitnet$", text, re.M)  # no root at run time


def test_the_container_gets_every_file_of_the_repository():
    """The tests run there, too. To Docker a slash at the end says nothing: models/*/ leaves models/gaitnet.py out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [(line[0] == "!", docker_pattern(line.lstrip("!"))) for line in lines if line and line[0] != "#"]

    def copied(path):
        decided = [again for again, pattern in rules if pattern.match(path)]
        return not decided or decided[-1]

    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not files:
        pytest.skip("not a repository")
    assert [path for path in files if not copied(path)] == []
    for path in (
        ".git/config",
        ".venv/bin/python",
        "data/CASIA-B/x.png",
        "models/szu/a.bin",
        "eval/feat/a.npz",
        "caffe/__pycache__/a.pyc",
        "experiments/walkers/gaitnet-seg_iter_9.solverstate",
    ):
        assert not copied(path), path


def docker_pattern(text):
    """As Docker reads a line: ** crosses folders, and what matches a folder takes along what is below it."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = re.split(r"(\*\*/|\*\*|\*|\?)", text.strip("/"))
    return re.compile("".join(parts.get(word, re.escape(word)) for word in words) + "(?:/.*)?$")


def test_citation_and_changelog_tell_this_version():
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version
