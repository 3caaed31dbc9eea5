import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(5)
SHAPES = [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)]


def randn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def others(x):
    return tuple(i for i in range(x.ndim) if i != 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_uses_and_stores_the_batch(shape):
    x = 2 * randn(*shape) + 1
    net = layer_net('type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 eps: 0.01 }', shape)
    old = [randn(3), 1 + np.abs(randn(3)), np.array([2.0])]
    for blob, value in zip(net.params["layer"], old):
        blob.data[...] = value
    (top,) = forward(net, x)
    mean, var = x.mean(others(x), keepdims=True), x.var(others(x), keepdims=True)
    np.testing.assert_allclose(top, (x - mean) / np.sqrt(var + 0.01), atol=1e-5)
    m = x.size / 3
    for blob, value, new in zip(net.params["layer"], old, (mean.ravel(), var.ravel() * m / (m - 1), 1)):
        np.testing.assert_allclose(blob.data, 0.9 * value + new, rtol=1e-5)
    check_gradients(net, x, params=False, step=2e-2)
    assert all((blob.diff == 0).all() for blob in net.params["layer"])


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_with_stored_statistics(shape):
    x = randn(*shape)
    net = layer_net('type: "BatchNorm" batch_norm_param { use_global_stats: true }', shape)
    stored = [randn(3), 1 + np.abs(randn(3)), np.array([2.5], np.float32)]
    for blob, value in zip(net.params["layer"], stored):
        blob.data[...] = value
    side = (1, 3, *(1,) * (x.ndim - 2))
    mean, var = stored[0].reshape(side) / 2.5, stored[1].reshape(side) / 2.5
    np.testing.assert_allclose(forward(net, x)[0], (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    check_gradients(net, x, params=False)
    for blob, value in zip(net.params["layer"], stored):
        np.testing.assert_array_equal(blob.data, value)


def test_batch_norm_of_a_vector_is_one_channel():
    x = randn(7)
    (top,) = forward(layer_net('type: "BatchNorm"', x.shape), x)
    np.testing.assert_allclose(top, (x - x.mean()) / np.sqrt(x.var() + 1e-5), atol=1e-5)


def test_batch_norm_of_single_values_is_zero():
    net = layer_net('type: "BatchNorm"', (1, 3))
    (top,) = forward(net, [[1e3, -7.7, 0.3]])
    np.testing.assert_array_equal(top, 0)
    np.testing.assert_array_equal(backward(net, np.ones((1, 3)))[0], 0)
    np.testing.assert_array_equal(net.params["layer"][1].data, 0)


def test_batch_norm_keeps_running_when_nothing_is_learned_below():
    """Its statistics are gathered whether or not a gradient is wanted."""
    net = caffe.net.Net.from_proto(_without_gradient())
    net.blobs["b0"].data[...] = 4
    net.forward()
    np.testing.assert_array_equal(net.params["layer"][0].data, [4, 4, 4])
    assert net.params["layer"][2].data[0] == 1


def _without_gradient():
    param = caffe.proto.caffe_pb2.NetParameter()
    param.layer.add(name="in", type="Input", top=["b0"]).input_param.shape.add(dim=(2, 3))
    param.layer.add(name="layer", type="BatchNorm", bottom=["b0"], top=["t0"])
    param.state.phase = caffe.TRAIN
    return param


def test_batch_norm_statistics_cannot_be_learned():
    with pytest.raises(caffe.CaffeError, match="batch normalization statistics as layer parameters"):
        layer_net('type: "BatchNorm" param { lr_mult: 1 }', (2, 3))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_across_channels(size):
    x = randn(2, 4, 3, 2)
    net = layer_net(f'type: "LRN" lrn_param {{ local_size: {size} alpha: 0.7 beta: 0.6 k: 1.5 }}', x.shape)
    near = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) <= size // 2
    scale = 1.5 + 0.7 / size * np.einsum("dc,nchw->ndhw", near, x.astype(np.float64) ** 2)
    np.testing.assert_allclose(forward(net, x)[0], x * scale**-0.6, atol=1e-5)
    check_gradients(net, x)


def test_lrn_within_channel():
    x = randn(2, 2, 4, 5)
    text = 'type: "LRN" lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 norm_region: WITHIN_CHANNEL }'
    net = layer_net(text, x.shape)
    wide = np.pad(x.astype(np.float64) ** 2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    squares = sum(wide[:, :, i : i + 4, j : j + 5] for i in range(3) for j in range(3))
    np.testing.assert_allclose(forward(net, x)[0], x * (1 + 0.7 / 9 * squares) ** -0.6, atol=1e-5)
    check_gradients(net, x)


def test_lrn_wants_an_odd_size():
    with pytest.raises(caffe.CaffeError, match="odd values for local_size, not 4"):
        layer_net('type: "LRN" lrn_param { local_size: 4 }', (1, 4, 3, 3))


@pytest.mark.parametrize("across", ["true", "false"])
def test_mvn(across):
    x = randn(3, 2, 3, 4) + 2
    net = layer_net(f'type: "MVN" mvn_param {{ across_channels: {across} }}', x.shape)
    axes = (1, 2, 3) if across == "true" else (2, 3)
    want = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
    np.testing.assert_allclose(forward(net, x)[0], want, atol=1e-5)
    check_gradients(net, x)  # eps is tiny here; with a large one Caffe's gradient is not that of the formula


def test_mvn_gives_four_axes():
    x = randn(2, 6)
    top = forward(layer_net('type: "MVN" mvn_param { across_channels: true }', x.shape), x)[0]
    assert top.shape == (2, 6, 1, 1)
    with pytest.raises(caffe.CaffeError, match="> 4 axes"):
        layer_net('type: "MVN"', (1, 2, 3, 2, 2))
