"""caffe.draw: labels, learning rate multipliers, graphs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caffe import CaffeError, draw
from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_net_file

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "tests" / "golden" / "files" / "small_net.prototxt"

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")


def layer(text):
    return parse_text(f"layer {{ {text} }}".encode(), caffe_pb2.NetParameter, "net").layer[0]


CONV = 'name: "c" type: "Convolution" convolution_param { num_output: 7 kernel_size: 5 stride: 2 }'
LRS = "param { lr_mult: 0.5 } param { lr_mult: 2 }"


@pytest.mark.parametrize(
    "text, label",
    [
        (CONV, 7),
        ('type: "Deconvolution" convolution_param { num_output: 3 }', 3),
        ('type: "InnerProduct" inner_product_param { num_output: 4 }', 4),
        ('type: "Data" data_param { batch_size: 9 }', "Batch 9"),
        ('type: "ReLU"', '""'),
    ],
)
def test_edge_label(text, label):
    assert draw.get_edge_label(layer(text)) == label


def test_learning_rate_multipliers():
    assert draw.get_layer_lr_mult(layer(CONV)) == (1, 1)
    assert draw.get_layer_lr_mult(layer(CONV + "param { lr_mult: 0 }")) == (0, 1)
    assert draw.get_layer_lr_mult(layer(CONV + LRS)) == (0.5, 2)
    with pytest.raises(ValueError, match="ReLU layers do not have a learning rate multiplier"):
        draw.get_layer_lr_mult(layer('type: "ReLU"'))
    with pytest.raises(ValueError, match="3 params"):
        draw.get_layer_lr_mult(layer(CONV + LRS + "param { }"))


@pytest.mark.parametrize(
    "text, label",
    [
        (CONV, '"c (Convolution) kernel size: 5 stride: 2 pad: 0"'),
        (
            'name: "p" type: "Pooling" pooling_param { pool: AVE kernel_size: 3 pad: 1 }',
            '"p (Pooling AVE) kernel size: 3 stride: 1 pad: 1"',
        ),
        ('name: "r" type: "ReLU"', '"r (ReLU)"'),
    ],
)
def test_layer_label(text, label):
    assert draw.get_layer_label(layer(text), "TB") == label
    wide = draw.get_layer_label(layer(text), "LR")
    assert wide.startswith(label.split(" (")[0] + r"\n(") and wide.count(r"\n") == len(wide.split(r"\n")) - 1


def test_layer_label_shows_multipliers_when_asked():
    assert "lrm" not in draw.get_layer_label(layer(CONV + LRS), "TB")
    assert draw.get_layer_label(layer(CONV + LRS), "TB", display_lrm=True).endswith(' pad: 0 lrm: 0.5/2"')
    assert "lrm" not in draw.get_layer_label(layer('type: "ReLU"'), "TB", display_lrm=True)


def test_colors_and_pooling_names():
    assert draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}
    assert draw.choose_color_by_layertype("Pooling") != draw.choose_color_by_layertype("ReLU")


def test_without_pydot_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(CaffeError, match="pip install pydot"):
        draw.draw_net(read_net_file(SMALL), "LR")


def test_graph_of_a_net():
    pytest.importorskip("pydot")
    net = read_net_file(SMALL)
    graph = draw.get_pydot_graph(net, "LR")
    blobs = {"data", "label", "conv", "ip", "loss"}
    labels = {node.get_label().strip('"').split(r"\n")[0] for node in graph.get_nodes()}
    assert labels == blobs | {layer.name for layer in net.layer} and len(graph.get_nodes()) == 8 + 5
    assert len(graph.get_edges()) == sum(len(layer.bottom) + len(layer.top) for layer in net.layer)
    assert sorted(str(e.get_label()) for e in graph.get_edges() if e.get_label() not in ('""', None)) == ["3", "4"]


def test_phase_names_with_quotes_and_twins():
    pytest.importorskip("pydot")
    net = parse_text(
        b"""name: "a \\"net\\"" layer { name: "x:\\"1\\"" type: "Input" top: "a" include { phase: TRAIN } }
        layer { name: "x" type: "Silence" bottom: "a" exclude { phase: TEST } }
        layer { name: "x" type: "Silence" bottom: "a" include { stage: "s" } }""",
        caffe_pb2.NetParameter,
        "net",
    )
    assert len(draw.get_pydot_graph(net, "TB").get_nodes()) == 3 + 1
    assert len(draw.get_pydot_graph(net, "TB", phase=caffe_pb2.TEST).get_nodes()) == 1 + 1
    assert rb"x:\"1\"" in draw.draw_net(net, "TB", ext="dot")


@needs_dot
def test_pictures(tmp_path):
    pytest.importorskip("pydot")
    net = read_net_file(SMALL)
    assert draw.draw_net(net, "LR").startswith(b"\x89PNG")
    draw.draw_net_to_file(net, str(tmp_path / "net.svg"), "TB", display_lrm=True)
    assert "lrm: 1/2" in (tmp_path / "net.svg").read_text()
    with pytest.raises(CaffeError, match="could not draw the net as smurf"):
        draw.draw_net_to_file(net, str(tmp_path / "net.smurf"))
    assert [p.name for p in tmp_path.iterdir()] == ["net.svg"]


def test_without_graphviz_the_error_says_what_to_install(monkeypatch, tmp_path):
    pytest.importorskip("pydot")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaffeError, match="`dot` of Graphviz, which is not installed"):
        draw.draw_net(read_net_file(SMALL), "LR")


def test_command(tmp_path):
    pytest.importorskip("pydot")
    command = [sys.executable, "-m", "caffe.draw", "--rankdir", "TB", "--phase", "TRAIN", "--display-lrm"]
    done = subprocess.run(
        [*command, SMALL, tmp_path / "net.dot"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "conv (Convolution)" in (tmp_path / "net.dot").read_text()


def test_command_tells_what_is_wrong(tmp_path, capsys):
    assert draw.main([str(tmp_path / "absent"), str(tmp_path / "net.dot")]) == 1
    assert capsys.readouterr().err == f"error: File not found: {tmp_path}/absent\n"
