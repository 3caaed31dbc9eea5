"""The committed prototxts are what models/gaitnet.py defines."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

from caffe.proto import caffe_pb2
from tools.make_prototxt import main, signed, texts

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
def test_a_file_edited_by_hand_is_touched_only_when_told(copy):
    assert make(copy, "--check").returncode == 0
    edited, old = copy / "experiments/szu/solver-rec.prototxt", copy / "experiments/szu/gaitnet-rec.prototxt"
    edited.write_text(edited.read_text().replace("0.01", "0.02"))
    older = old.read_text().replace("Edit im_path", "Change im_path")  # what another version of this tool wrote
    body = re.sub(r" Checksum \w+", "", older)
    old.write_text(signed(body))
    mine = edited.read_text()

    found = make(copy, "--check")
    assert found.returncode == 1
    assert found.stderr.startswith("error: ") and "experiments/szu/solver-rec.prototxt" in found.stderr
    assert "Traceback" not in found.stderr

    kept = make(copy)
    assert kept.returncode == 0 and "kept experiments/szu/solver-rec.prototxt: edited by hand; --force" in kept.stdout
    assert edited.read_text() == mine
    assert "wrote experiments/szu/gaitnet-rec.prototxt" in kept.stdout

    mended = make(copy, "--force")
    assert mended.returncode == 0 and "wrote experiments/szu/solver-rec.prototxt" in mended.stdout
    for path in (edited, old):
        assert path.read_text() == (ROOT / path.relative_to(copy)).read_text()
    assert not list(copy.rglob("*.new"))


SPLIT = ["casiab", "--train-num", "24", "--batch", "16", "--iter-size", "8", "--out", "experiments/casiab-tr24"]


@pytest.mark.medium
def test_an_experiment_of_its_own(copy):
    made = make(copy, *SPLIT)
    assert made.returncode == 0, made.stderr
    assert "24 subjects train, 100 are tested" in made.stdout
    assert "seg: An update sees 16 x 8 = 128 clips, 768 frames." in made.stdout
    assert "sia: An update sees 16 x 8 = 128 clips, 768 frames." in made.stdout
    assert "BatchNorm takes its statistics from 16 clips at a time, not from 128" in made.stdout
    folder = copy / "experiments/casiab-tr24"
    for step in ("seg", "rec", "joint", "sia"):
        net = text_format.Parse((folder / f"gaitnet-{step}.prototxt").read_text(), caffe_pb2.NetParameter())
        how = text_format.Parse((folder / f"solver-{step}.prototxt").read_text(), caffe_pb2.SolverParameter())
        assert how.iter_size == 8
        data = [yaml.safe_load(layer.python_param.param_str) for layer in net.layer if layer.type == "Python"]
        assert [d["train_num"] for d in data] == [24, 24]
        assert [d["batch_size"] for d in data] == ([8, 5] if step == "sia" else [16, 10])
        cuts = [list(layer.slice_param.slice_point) for layer in net.layer if layer.name == "make_pair"]
        clips = [[n * k for k in range(1, 6)] for n in (16, 10)]
        assert cuts == {"seg": [], "sia": [*clips, [8], [5]]}.get(step, clips)
        people = [layer.inner_product_param.num_output for layer in net.layer if layer.name == "fc_id"]
        assert people == ([] if step == "seg" else [24])
    assert make(copy, "--check").returncode == 0  # the committed ones are as they were

    solver = folder / "solver-seg.prototxt"
    solver.write_text(solver.read_text().replace("0.0001", "0.0002"))
    refused = make(copy, *SPLIT)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "solver-seg.prototxt: there already, and edited by hand" in refused.stderr
    assert "0.0002" in solver.read_text() and make(copy, *SPLIT, "--force").returncode == 0
    assert "0.0001" in solver.read_text()


@pytest.mark.parametrize(
    "words, told",
    [
        (["casiab"], "where is it to be?"),
        (["casiab", "--out", "/elsewhere/x"], "wanted a folder in experiments/"),
        (["casiab", "--out", "experiments/szu"], "kept for the published settings"),
        (["casiab", "--out", "experiments/x", "--batch", "15"], "wanted an even number"),
        (["casiab", "--out", "experiments/x", "--train-num", "124"], "wanted 1 to 123"),
        (["--batch", "16"], "want a data set first"),
    ],
)
def test_wrong_experiments_are_one_sentence(words, told, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2 and told in capsys.readouterr().err


def test_help_has_an_example():
    assert "python tools/make_prototxt.py --check" in make(ROOT, "--help").stdout
