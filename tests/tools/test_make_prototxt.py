"""The committed prototxts are what models/gaitnet.py defines."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from caffe.proto import caffe_pb2
from tools.make_prototxt import texts

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def copy(tmp_path):
    """The parts of the repository that the tool reads and writes."""
    for name in ("caffe", "layers", "models", "tools", "experiments", "eval"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("*.caffemodel*", "*.solverstate*", "*.log", "feat"),
        )
    return tmp_path


def make(root, *args):
    command = [sys.executable, str(root / "tools/make_prototxt.py"), *args]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


@pytest.mark.parametrize("path, text", texts().items())
def test_committed_is_what_would_be_written(path, text):
    assert (ROOT / path).read_text() == text


def test_all_twelve_published_files_parse():
    for path, text in texts().items():
        message = caffe_pb2.SolverParameter() if "solver-" in path else caffe_pb2.NetParameter()
        text_format.Parse(text, message)
        assert "\\'" not in text
    assert len(texts()) == 4 * 4 * 2 + 1


def test_solver_names_the_weights_that_the_step_before_writes():
    text = texts()["experiments/casiab/solver-joint.prototxt"]
    assert "--weights=gaitnet-rec_iter_60000.caffemodel" in text


@pytest.mark.medium
def test_check_names_an_edited_file_and_a_run_mends_it(copy):
    assert make(copy, "--check").returncode == 0
    edited = copy / "experiments/szu/solver-rec.prototxt"
    edited.write_text(edited.read_text().replace("0.01", "0.02"))

    found = make(copy, "--check")
    assert found.returncode == 1
    assert found.stderr.startswith("error: ") and "experiments/szu/solver-rec.prototxt" in found.stderr
    assert "Traceback" not in found.stderr

    mended = make(copy)
    assert mended.returncode == 0 and "wrote experiments/szu/solver-rec.prototxt" in mended.stdout
    assert edited.read_text() == (ROOT / "experiments/szu/solver-rec.prototxt").read_text()
    assert not list(copy.rglob("*.new"))


def test_help_has_an_example():
    assert "python tools/make_prototxt.py --check" in make(ROOT, "--help").stdout
