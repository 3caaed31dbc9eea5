"""Which layers a net keeps for a phase, a level and stages."""

import pytest

import caffe
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.read import parse_text


def kept(rules, **state):
    """Is a layer with these rules in a net of this state?"""
    net = parse_text(f'layer {{ name: "x" {rules} }}'.encode(), caffe_pb2.NetParameter, "test")
    net.state.CopyFrom(caffe_pb2.NetState(**state))
    return bool(filter_net(net).layer)


@pytest.mark.parametrize(
    "rules, state, wanted",
    [
        ("", {}, True),
        ("include { phase: TRAIN }", {"phase": 0}, True),
        ("include { phase: TRAIN }", {"phase": 1}, False),
        ("exclude { phase: TRAIN }", {"phase": 1}, True),
        ("exclude { phase: TRAIN }", {"phase": 0}, False),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ("include { min_level: 1 max_level: 2 }", {"level": 2}, True),
        ("include { stage: 'a' }", {"stage": ["b"]}, False),
        ("include { stage: 'a' }", {"stage": ["b", "a"]}, True),
        ("include { stage: 'a' stage: 'b' }", {"stage": ["a"]}, False),
        ("include { not_stage: 'a' }", {"stage": ["a"]}, False),
        ("include { not_stage: 'a' }", {"stage": ["b"]}, True),
        ("include { not_stage: 'a' not_stage: 'b' }", {"stage": ["b"]}, False),
        ("include { stage: 'a' not_stage: 'b' }", {"stage": ["a"]}, True),
        ("include { phase: TRAIN } include { stage: 'a' }", {"phase": 1, "stage": ["a"]}, True),  # one is enough
        ("exclude { phase: TRAIN } exclude { stage: 'a' }", {"phase": 1, "stage": ["a"]}, False),
        ("include { phase: TEST min_level: 3 stage: 'a' }", {"phase": 1, "level": 3, "stage": ["a"]}, True),
        ("include { phase: TEST min_level: 3 stage: 'a' }", {"phase": 1, "level": 2, "stage": ["a"]}, False),
    ],
)
def test_rules(rules, state, wanted):
    assert kept(rules, **state) == wanted


def test_include_and_exclude_together_are_refused():
    with pytest.raises(caffe.CaffeError, match="include rules or exclude rules; not both. .layer 'x'."):
        kept("include { phase: TRAIN } exclude { phase: TEST }")


DATA = (
    'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }\n'
)
LAYER = 'layer {{ name: "{0}" type: "ReLU" bottom: "data" top: "{0}" include {{ {1} }} }}\n'


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        DATA
        + LAYER.format("zero", "max_level: 0")
        + LAYER.format("one", "min_level: 1")
        + LAYER.format("a", "stage: 'A'")
        + LAYER.format("b", "stage: 'B'")
        + LAYER.format("ab", "stage: 'A' stage: 'B'")
        + LAYER.format("test", "phase: TEST")
    )
    return str(path)


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        ({}, ["zero"]),
        ({"level": 1}, ["one"]),
        ({"stages": ["A"]}, ["a", "zero"]),
        ({"stages": ["B"], "level": 5}, ["b", "one"]),
        ({"stages": ["A", "B"]}, ["a", "ab", "b", "zero"]),
        ({"phase": caffe.TEST}, ["test", "zero"]),
    ],
)
def test_net_arguments(arguments, wanted, path):
    net = caffe.Net(path, **{"phase": caffe.TRAIN, **arguments})
    assert net.outputs == wanted
    assert [name for name in net.blobs if "data" not in name] == [
        n for n in ("zero", "one", "a", "b", "ab", "test") if n in wanted
    ]


def test_all_in_one_file(tmp_path):
    """train, val and deploy nets in one prototxt, told apart by phase and stage."""
    path = tmp_path / "net.prototxt"
    ip = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "data" top: "{0}" inner_product_param {{ num_output: 2 }} }}'
    )
    path.write_text(f"""
        layer {{ name: "train_data" type: "DummyData" top: "data" top: "label" include {{ phase: TRAIN }}
                 dummy_data_param {{ shape {{ dim: 4 dim: 3 }} shape {{ dim: 4 }} }} }}
        layer {{ name: "val_data" type: "DummyData" top: "data" top: "label"
                 include {{ phase: TEST not_stage: "deploy" }}
                 dummy_data_param {{ shape {{ dim: 5 dim: 3 }} shape {{ dim: 5 }} }} }}
        layer {{ name: "in" type: "Input" top: "data" include {{ stage: "deploy" }}
                 input_param {{ shape {{ dim: 1 dim: 3 }} }} }}
        {ip.format("ip")}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
                 exclude {{ stage: "deploy" }} }}
        layer {{ name: "prob" type: "Softmax" bottom: "ip" top: "prob" include {{ stage: "deploy" }} }}""")
    nets = [
        caffe.Net(str(path), phase, stages=stages)
        for phase, stages in ((caffe.TRAIN, None), (caffe.TEST, None), (caffe.TEST, ["deploy"]))
    ]
    assert [net.blobs["data"].data.shape for net in nets] == [(4, 3), (5, 3), (1, 3)]
    assert [net.outputs for net in nets] == [["loss"], ["loss"], ["prob"]]
    assert [net.inputs for net in nets] == [[], [], ["data"]]
