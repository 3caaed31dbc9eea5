"""How many bottoms and tops each layer type takes, and which make their own top (each type's header)."""

import pytest

import caffe
from caffe.errors import CaffeError
from caffe.layer import REGISTRY
from caffe.ops.pooling import Pooling
from caffe.proto import caffe_pb2

ANY = None
NEURON = ("AbsVal BNLL Clip Dropout ELU Exp Log Power PReLU ReLU Sigmoid Swish TanH Threshold").split()
ONE_TO_ONE = "ArgMax BatchNorm Embed Flatten Im2col InnerProduct LRN MVN Reduction Reshape Softmax SPP Tile".split()
TWO_TO_ONE = "BatchReindex Crop EuclideanLoss HingeLoss MultinomialLogisticLoss SigmoidCrossEntropyLoss".split()
TABLE = {  # type: ((least, most) bottoms, (least, most) tops)
    **dict.fromkeys(NEURON + ONE_TO_ONE, ((1, 1), (1, 1))),
    **dict.fromkeys(TWO_TO_ONE, ((2, 2), (1, 1))),
    "SoftmaxWithLoss": ((2, 2), (1, 2)),
    "InfogainLoss": ((2, 3), (1, 2)),
    "ContrastiveLoss": ((3, 3), (1, 1)),
    "Accuracy": ((2, 2), (1, 2)),
    "Bias": ((1, 2), (1, 1)),
    "Scale": ((1, 2), (1, 1)),
    "Concat": ((1, ANY), (1, 1)),
    "Eltwise": ((2, ANY), (1, 1)),
    "Convolution": ((1, ANY), (1, ANY)),
    "Deconvolution": ((1, ANY), (1, ANY)),
    "Data": ((0, 0), (1, 2)),
    "DummyData": ((0, 0), (1, ANY)),
    "Filter": ((2, ANY), (1, ANY)),
    "HDF5Data": ((0, 0), (1, ANY)),
    "HDF5Output": ((2, 2), (0, 0)),
    "ImageData": ((0, 0), (2, 2)),
    "Input": ((0, 0), (1, ANY)),
    "LSTM": ((2, 3), (1, 1)),
    "RNN": ((2, 3), (1, 1)),
    "LSTMUnit": ((3, 3), (2, 2)),
    "MemoryData": ((0, 0), (2, 2)),
    "Parameter": ((0, 0), (1, 1)),
    "Pooling": ((1, 1), (1, 2)),
    "Silence": ((1, ANY), (0, 0)),
    "Slice": ((1, 1), (1, ANY)),
    "Split": ((1, 1), (1, ANY)),
    "WindowData": ((0, 0), (2, 2)),
}


def taken(layer, bottoms, tops):
    try:
        layer.check_counts([None] * bottoms, [None] * tops)
    except CaffeError as e:
        assert f"{layer.type} Layer" in str(e) and "blob" in str(e)
        return False
    return True


def accepts(count, bounds):
    return bounds[0] <= count and (bounds[1] is ANY or count <= bounds[1])


def test_the_table_is_whole():
    assert TABLE.keys() == {name for name, cls in REGISTRY.items() if cls.__module__.startswith("caffe.ops.")}


@pytest.mark.parametrize("name", TABLE)
def test_counts(name):
    layer = REGISTRY[name](caffe_pb2.LayerParameter(name="l", type=name))
    bottoms, tops = TABLE[name]
    for n in range(6):
        equal = name in ("Convolution", "Deconvolution")
        assert taken(layer, n, n if equal else tops[0]) == accepts(n, bottoms), f"{n} bottoms"
        assert taken(layer, n if equal else bottoms[0], n) == accepts(n, tops), f"{n} tops"


def test_counts_that_depend_on_parameters():
    for pool, most in (("MAX", 2), ("AVE", 1), ("STOCHASTIC", 1)):
        param = caffe_pb2.LayerParameter(name="l", type="Pooling")
        param.pooling_param.pool = param.pooling_param.PoolMethod.Value(pool)
        assert [taken(Pooling(param), 1, n) for n in range(4)] == [0 < n <= most for n in range(4)]
    for name, states in (("RNN", 1), ("LSTM", 2)):
        param = caffe_pb2.LayerParameter(name="l", type=name)
        param.recurrent_param.expose_hidden = True
        layer = REGISTRY[name](param)
        assert [n for n in range(8) if taken(layer, n, 1 + states)] == [2 + states, 3 + states]
        assert [n for n in range(8) if taken(layer, 2 + states, n)] == [1 + states]


@pytest.mark.parametrize("name", TABLE)
def test_only_losses_make_their_own_top(name):
    assert REGISTRY[name].auto_top == REGISTRY[name].is_loss == (name.endswith("Loss"))


def test_an_anonymous_top_has_caffes_name(tmp_path):
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "a" }
        layer { name: "m" type: "EuclideanLoss" bottom: "a" bottom: "a" loss_weight: 2 }""")
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    assert list(net.blobs)[-1] == "(automatic)" and net.top_names["l"] == net.top_names["m"] == ["(automatic)"]
    assert net.outputs == [] and net.forward() == {}
    net.backward()


@pytest.mark.parametrize("name", ["Convolution", "Deconvolution"])
def test_a_top_for_each_bottom(name):
    layer = REGISTRY[name](caffe_pb2.LayerParameter(name="l", type=name))
    assert taken(layer, 2, 2) and not taken(layer, 2, 1) and not taken(layer, 1, 2)
