import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.proto import caffe_pb2


def net_of(text, seed=1):
    """The net of this prototxt text, in phase TRAIN."""
    return Net.from_proto(text_format.Parse(text, caffe_pb2.NetParameter(state={"phase": caffe.TRAIN})), seed=seed)


def forward(net, *names):
    """Copies of the blobs of these names after a forward pass."""
    net.forward()
    return [net.blobs[name].data.copy() for name in names]


def test_input_shapes():
    net = net_of(
        """layer { name: "a" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } } }
           layer { name: "b" type: "Input" top: "z" top: "s" input_param { shape { dim: 4 } shape {} } }
           layer { name: "c" type: "Input" top: "late" }"""
    )
    assert [net.blobs[n].shape for n in ("x", "y", "z", "s")] == [(2, 3), (2, 3), (4,), ()]
    assert net.inputs == ["x", "y", "z", "s", "late"]
    net.blobs["x"].reshape(5, 3)
    net.blobs["late"].reshape(7)
    net.forward()
    assert net.blobs["x"].shape == (5, 3) and net.blobs["late"].shape == (7,)


def test_input_with_a_shape_too_many():
    with pytest.raises(CaffeError, match=r"Must specify either 0, 1 or 1 .* shape; found 2"):
        net_of('layer { name: "a" type: "Input" top: "x" input_param { shape { dim: 2 } shape { dim: 3 } } }')


def dummy(param):
    return f'layer {{ name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {{ {param} }} }}'


def test_dummy_data_refills_all_but_constants():
    net = net_of(
        dummy(
            """shape { dim: 3 dim: 4 } data_filler { type: "constant" value: 2 }
               data_filler { type: "uniform" min: 5 max: 6 }"""
        )
    )
    x, first = forward(net, "x", "y")
    assert (x == 2).all() and first.shape == (3, 4) and (first >= 5).all() and (first <= 6).all()
    net.blobs["x"].data[...] = 7
    x, second = forward(net, "x", "y")
    assert (x == 7).all()  # filled once, when the net was built
    assert (first != second).any()


def test_dummy_data_tops_differ_and_repeat_with_the_seed():
    text = dummy('shape { dim: 20 } data_filler { type: "gaussian" }')
    net = net_of(text)
    x, y = forward(net, "x", "y")
    assert np.abs(np.corrcoef(x, y)[0, 1]) < 0.9
    np.testing.assert_array_equal(forward(net_of(text), "x", "y"), [x, y])
    assert (forward(net_of(text, seed=2), "x")[0] != x).any()


def test_dummy_data_in_the_old_form():
    net = net_of(dummy("num: 2 num: 5 channels: 3 height: 1 height: 4 width: 6"))
    assert net.blobs["x"].shape == (2, 3, 1, 6) and net.blobs["y"].shape == (5, 3, 4, 6)
    assert (net.blobs["x"].data == 0).all()


@pytest.mark.parametrize(
    "param, message",
    [
        ("", r"Must specify either 1 or 2 .* shape; found 0"),
        ("num: 2 channels: 3 height: 1", "width; found 0"),
        ("shape { dim: 1 } num: 2", "either shape or num"),
        ("shape { dim: 1 } data_filler {} data_filler {} data_filler {}", "data_filler; found 3"),
        ('shape { dim: 1 } data_filler { type: "chalk" }', "Unknown filler name: chalk"),
    ],
)
def test_dummy_data_that_does_not_fit(param, message):
    with pytest.raises(CaffeError, match=message):
        forward(net_of(dummy(param)), "x")


def test_parameter_learns_through_its_top():
    net = net_of(
        """layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } }
           layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 3 } } }
           layer { name: "loss" type: "EuclideanLoss" bottom: "w" bottom: "t" top: "loss" }"""
    )
    w, t = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    net.params["p"][0].data[...] = w
    net.blobs["t"].data[...] = t
    net.forward()
    np.testing.assert_array_equal(net.blobs["w"].data, w)
    net.backward()
    np.testing.assert_allclose(net.params["p"][0].diff, (w - t) / 2, rtol=1e-6)


MEMORY = """layer { name: "m" type: "MemoryData" top: "data" top: "label"
            memory_data_param { batch_size: 2 channels: 3 height: 1 width: 2 } }"""


def arrays(n):
    return np.arange(n * 6, dtype=np.float32).reshape(n, 3, 1, 2), np.arange(n, dtype=np.float32)


def test_memory_data_goes_round():
    net = net_of(MEMORY)
    images, labels = arrays(4)
    assert net.blobs["label"].shape == (2,)
    net.set_input_arrays(images, labels)
    for rows in (slice(0, 2), slice(2, 4), slice(0, 2)):
        x, y = forward(net, "data", "label")
        np.testing.assert_array_equal(x, images[rows])
        np.testing.assert_array_equal(y, labels[rows].reshape(2, 1, 1, 1))
    net.set_input_arrays(images[2:], labels[2:].reshape(2, 1, 1, 1))  # starts over
    np.testing.assert_array_equal(forward(net, "label")[0].ravel(), [2, 3])


def test_memory_data_needs_arrays():
    with pytest.raises(CaffeError, match="set_input_arrays"):
        net_of(MEMORY).forward()
    with pytest.raises(CaffeError, match="must be specified and positive"):
        net_of(MEMORY.replace("width: 2", ""))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (x.astype(np.float64), y), "data array must be C contiguous float32"),
        (lambda x, y: (x[::2], y[:2]), "data array must be C contiguous float32"),
        (lambda x, y: (x[:, :1].copy(), y), r"data array has shape \(4, 1, 1, 2\); wanted \(n, 3, 1, 2\)"),
        (lambda x, y: (x, y.reshape(2, 2)), r"labels array has shape \(2, 2\)"),
        (lambda x, y: (x, y[:2]), "same first dimension; found 4 and 2"),
        (lambda x, y: (x[:3], y[:3]), "3 must be a multiple of batch size 2"),
    ],
)
def test_memory_data_checks_its_arrays(change, message):
    with pytest.raises(CaffeError, match=message):
        net_of(MEMORY).set_input_arrays(*change(*arrays(4)))
