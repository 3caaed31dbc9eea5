"""draw_net: caffe.draw's graph with shapes and parameter counts; models.summary, which tells the same as a table."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.gaitnet import deploy, gaitnet
from models.summary import table

ROOT = Path(__file__).resolve().parents[2]


def run(*command, cwd):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.prototxt").write_text("""
layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "r" type: "ReLU" bottom: "y" top: "y" }
layer { name: "only" type: "ReLU" bottom: "y" top: "z" include { phase: TRAIN } }
""")
    return tmp_path


@pytest.mark.medium
def test_shapes_and_counts_in_the_graph(net):
    pytest.importorskip("pydot")
    made = run(ROOT / "tools" / "draw_net.py", "net.prototxt", "net.dot", cwd=net)
    assert (made.returncode, made.stdout) == (0, "net.dot\n"), made.stderr
    graph = (net / "net.dot").read_text()
    assert r"x\n2 x 3 x 7 x 6" in graph and r"y\n2 x 4 x 5 x 4" in graph
    assert r"\n112 parameters" in graph  # 4 * 3 * 3 * 3 + 4
    assert "only" not in graph


@pytest.mark.skipif(not shutil.which("dot"), reason="needs Graphviz")
@pytest.mark.medium
def test_gaitnets_training_net_without_its_data(tmp_path):
    pytest.importorskip("pydot")
    prototxt = ROOT / "experiments" / "casiab" / "gaitnet-joint.prototxt"
    made = run(ROOT / "tools" / "draw_net.py", "--phase", "TRAIN", prototxt, "joint.svg", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    picture = (tmp_path / "joint.svg").read_text()
    assert "768 x 1 x 64 x 64" in picture and "9,634,816 parameters" in picture


@pytest.mark.medium
def test_draw_mistakes(net):
    made = run(ROOT / "tools" / "draw_net.py", "absent.prototxt", "net.dot", cwd=net)
    assert made.returncode == 1 and made.stderr == "error: File not found: absent.prototxt\n"


def test_summary_of_the_deploy_net():
    """By hand: conv1_0 makes 6 x 48 x 60 x 60 values from 3 x 5 x 5 products each; conv8_0 spreads 6 x 1024 values over
    64 x 64; the parameters are those of the released weights, fc_id left out."""
    lines = table(deploy()).splitlines()
    row = {line.split()[0]: line.split() for line in lines}
    assert row["conv1_0"][-3:] == ["3,648", "155.52", "M"]  # 2 * 6 * 48 * 60 * 60 * 75 = 155,520,000
    assert row["conv8_0"][-3:] == ["4,194,305", "50.33", "M"]  # 2 * 6 * 1024 * 4096 = 50,331,648
    assert row["fc_fea"][-3:] == ["1,204,480", "2.41", "M"]
    assert row["total"][1] == "17,349,739"


@pytest.mark.medium
def test_summary_of_training_nets(tmp_path):
    made = run("-m", "models.gaitnet", "--summary", "sia", "--dataset", "walkers", cwd=ROOT)
    assert made.returncode == 0, made.stderr
    assert "in_sim" in made.stdout and "96 x 3 x 64 x 64" in made.stdout  # 6 frames of 2 * 8 clips
    assert "fc_id" in table(gaitnet("casiab", "rec"))
    assert run("-m", "models.gaitnet", "--summary", "nose", cwd=ROOT).returncode == 2
