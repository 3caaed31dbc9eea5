"""Gradients are of what lies in the blobs when backward runs, as in Caffe; and to look there changes nothing."""

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.net import Net
from caffe.ops.linear import InnerProduct
from caffe.proto import caffe_pb2

RNG = np.random.default_rng(3)
INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }'
IP = 'inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }'


def net_of(text, phase=caffe.TRAIN, force=True, shape=None):
    param = text_format.Parse(INPUT + text, caffe_pb2.NetParameter(force_backward=force))
    if shape:
        param.layer[0].input_param.shape[0].dim[:] = shape
    param.state.phase = phase
    return Net.from_proto(param, seed=5)


def ip(name, bottom, top=None):
    return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top or name}" {IP}'


def layer(name, kind, bottom, top=None, more=""):
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or bottom}" {more} }}'


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_backward_of_one_layer_with_a_diff_set_by_hand_and_no_forward():
    net = net_of(ip("ip", "data"))
    x, g = net.blobs["data"].data, net.blobs["ip"].diff
    x[...], g[...] = values(2, 3), values(2, 4)
    net.backward(start="ip", end="ip")
    np.testing.assert_allclose(net.params["ip"][0].diff, g.T @ x, rtol=1e-5)  # float32 sums of 2
    np.testing.assert_allclose(net.blobs["data"].diff, g @ net.params["ip"][0].data, rtol=1e-5)


def test_forward_from_the_middle_of_a_fresh_net_and_backward():
    net = net_of(ip("a", "data") + layer("relu", "ReLU", "a") + ip("b", "a"))
    net.blobs["a"].data[...] = x = values(2, 4)
    net.forward(start="relu")
    net.blobs["b"].diff[...] = g = values(2, 4)
    net.backward()
    np.testing.assert_allclose(net.params["b"][0].diff, g.T @ np.maximum(x, 0), rtol=1e-5)
    assert ((net.blobs["a"].diff != 0) == (x > 0)).all()


@pytest.mark.parametrize("looked_at_before", [False, True])
def test_what_is_written_between_forward_and_backward_counts(looked_at_before, either_memory):
    net = net_of(ip("a", "data") + layer("relu", "ReLU", "a", "r") + ip("b", "r") + layer("t", "TanH", "b", "t"))
    if looked_at_before:
        [(k, v.data.shape) for k, v in net.blobs.items()]
    net.blobs["data"].data[...] = values(2, 3)
    net.forward()
    x, a, r, t, g = values(2, 3), values(2, 4), values(2, 4), values(2, 4), values(2, 4)
    for name, value in {"data": x, "a": a, "r": r, "t": t}.items():
        net.blobs[name].data[...] = value
    net.blobs["t"].diff[...] = g
    net.backward()
    db = g * (1 - t * t)
    da = (db @ net.params["b"][0].data) * (a > 0)
    np.testing.assert_allclose(net.params["b"][0].diff, db.T @ r, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net.params["a"][0].diff, da.T @ x, rtol=1e-5, atol=1e-6)


def test_a_part_run_again_counts():
    net = net_of(ip("a", "data") + ip("b", "a"))
    net.blobs["data"].data[...] = values(2, 3)
    net.forward()
    net.blobs["data"].data[...] = values(2, 3)
    net.forward(end="a")
    a = net.blobs["a"].data.copy()
    net.blobs["b"].diff[...] = g = values(2, 4)
    net.backward()
    np.testing.assert_allclose(net.params["b"][0].diff, g.T @ a, rtol=1e-5)


SLOPES = {
    "Clip": ("clip_param { min: 0 max: 1 }", lambda y: np.ones_like(y)),
    "BNLL": ("", lambda y: 1 / (1 + np.exp(-y))),
    "Exp": ("", lambda y: y),
    "Sigmoid": ("", lambda y: y * (1 - y)),
    "TanH": ("", lambda y: 1 - y * y),
    "ELU": ("elu_param { alpha: 0.5 }", lambda y: np.where(y > 0, 1, 0.5 + y)),
    "ReLU": ("relu_param { negative_slope: 0.2 }", lambda y: np.where(y > 0, 1, 0.2)),
}


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("frugal, looked_at", [(False, False), (False, True), (True, False)])
def test_in_place_the_slope_is_that_of_what_has_overwritten_the_bottom(kind, frugal, looked_at):
    options, slope = SLOPES[kind]
    net = net_of(ip("a", "data") + layer("f", kind.strip(), "a", more=options) + layer("g", "Power", "a", "end"))
    net.blobs["data"].data[...] = 0.5 * values(2, 3)
    net.forward(end="f")
    y = net.blobs["a"].data.copy() if looked_at else net_copy(net, "a")
    if frugal:
        net.frugal()
    net.forward()
    net.blobs["end"].diff[...] = g = values(2, 4)
    net.params["a"][1].diff[...] = 0
    net.backward()
    np.testing.assert_allclose(net.params["a"][1].diff, (g * slope(y)).sum(0), rtol=1e-4, atol=1e-6)


def net_copy(net, name):
    """The blob's values, without having looked at them as a user does."""
    return net.blobs[name].tensor().detach().cpu().numpy().copy()


def test_a_frugal_net_tells_of_blobs_that_it_has_given_up(either_memory):
    text = (
        ip("a", "data") + layer("r", "ReLU", "a") + ip("b", "a") + layer("l", "Reduction", "b", "l", "loss_weight: 1")
    )
    whole, frugal = net_of(text), net_of(text)
    frugal.frugal()
    x = values(2, 3)
    for net in (whole, frugal):
        net.blobs["data"].data[...] = x
        for _ in range(2):
            net.forward()
            net.blobs["l"].data.sum()  # an output stays
            net.backward()
            net.blobs["a"].data.sum()  # before the next forward pass, which counts
    np.testing.assert_array_equal(frugal.params["a"][0].diff, whole.params["a"][0].diff)
    frugal.forward()
    frugal.blobs["b"].data[...] = 1
    with pytest.raises(caffe.CaffeError, match="layer 'l': blob 'b' was asked for .* given it up.*without frugal"):
        frugal.backward()
    frugal.forward()
    frugal.backward()


def test_saturated_units_of_an_in_place_clip_pass_the_gradient_on():
    net = net_of(ip("a", "data") + layer("f", "Clip", "a", more="clip_param { min: 0 max: 1 }"))
    net.params["a"][1].data[...] = [-3, 0.5, 0.25, 7]
    net.forward()
    net.blobs["a"].diff[0] = 1
    net.backward()
    assert net.params["a"][1].diff.tolist() == [1, 1, 1, 1]


READERS = {
    "InnerProduct": IP.removesuffix(" }"),
    "Pooling": "pooling_param { kernel_size: 1 }",
    "Convolution": 'convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "xavier" } }',
    "BatchNorm": "",
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("view", ["Flatten", "Reshape"])
@pytest.mark.parametrize("layer_type", ["Sigmoid", "TanH", "Exp", "Softmax"])
def test_looking_at_blobs_between_steps_changes_nothing(kind, view, layer_type):
    text = layer("i", "Reshape", "data", "i", "reshape_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } }")
    text += 'layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } } }'
    text += 'layer { name: "sum" type: "Eltwise" bottom: "i" bottom: "w" top: "sum" }'
    shaped = "reshape_param { shape { dim: 2 dim: 3 } }" if view == "Reshape" else ""
    text += layer("s", layer_type, "sum", "s") + layer("c", kind, "s", "c", READERS[kind])
    text += layer("v", view, "s", "v", shaped) + 'layer { name: "l1" type: "Reduction" bottom: "c" top: "l1" '
    text += 'loss_weight: 1 reduction_param { operation: SUMSQ } } layer { name: "l2" type: "Reduction" bottom: "v" '
    text += 'top: "l2" loss_weight: 1 reduction_param { operation: SUMSQ } }'
    losses = []
    for look in (False, True):
        solver = solver_of(text)
        for _ in range(4):
            solver.step(1)
            if look:
                [(k, v.data.shape) for k, v in solver.net.blobs.items()]
        solver.net.forward()
        solver.net.backward()
        losses.append([*solver.net.params["p"][0].data.ravel(), *solver.net.params["p"][0].diff.ravel()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def solver_of(text):
    param = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", random_seed=3, max_iter=9)
    text_format.Parse(INPUT + text, param.train_net_param)
    return caffe.get_solver(param)


def test_a_reshaped_net_computes_gradients_of_its_new_shapes():
    net = net_of(ip("a", "data") + layer("r", "ReLU", "a") + ip("b", "a"))
    net.forward()
    net.blobs["data"].reshape(5, 3)
    with pytest.raises(caffe.CaffeError, match=r"layer 'a': bottom 'data' has shape \(5, 3\).*call net.reshape\(\)"):
        net.backward()
    net.reshape()
    net.blobs["data"].data[...] = x = values(5, 3)
    net.blobs["a"].data[...] = values(5, 4)
    net.blobs["b"].diff[...] = values(5, 4)
    net.backward()
    assert net.blobs["data"].diff.shape == (5, 3)
    np.testing.assert_allclose(net.params["a"][0].diff, net.blobs["a"].diff.T @ x, rtol=1e-4, atol=1e-6)


def test_what_caffe_keeps_beside_the_blobs_is_not_read_again():
    """Pooling goes by the winners of the forward pass, EuclideanLoss by its differences."""
    net = net_of(
        layer("i", "Reshape", "data", "i", "reshape_param { shape { dim: 1 dim: 1 dim: 2 dim: 3 } }")
        + layer("p", "Pooling", "i", "p", "pooling_param { kernel_h: 2 kernel_w: 3 }")
    )
    net.blobs["data"].data[...] = [[1, 2, 9], [3, 4, 5]]
    net.forward()
    net.blobs["i"].data[...] = 0
    net.blobs["p"].diff[...] = 1
    net.backward()
    assert net.blobs["i"].diff.ravel().tolist() == [0, 0, 1, 0, 0, 0]


def test_batch_norm_keeps_its_statistics_when_backward_looks_again():
    net = net_of(layer("n", "BatchNorm", "data", "n"))
    net.blobs["data"].data[...] = values(2, 3)
    before = [b.data.copy() for b in net.params["n"]]
    net.blobs["n"].diff[...] = 1
    net.backward()
    for blob, old in zip(net.params["n"], before):
        np.testing.assert_array_equal(blob.data, old)


def test_nothing_is_computed_again_where_nobody_can_have_written(monkeypatch, either_memory):
    net = net_of(ip("ip", "data") + layer("end", "TanH", "ip", "end"))
    calls, compute = [], InnerProduct.compute
    monkeypatch.setattr(InnerProduct, "compute", lambda self, x: (calls.append(1), compute(self, x))[1])

    def passes(**given):
        calls.clear()
        net.forward(**given)
        net.backward()
        return len(calls)

    assert [passes(data=values(2, 3)), passes(), passes(data=values(2, 3))] == [1, 1, 1]  # the blob was written before
    held = net.blobs["data"].data
    assert passes() == 2  # who holds the array may write at any time
    del held


def test_what_is_written_into_an_array_held_since_before_the_forward_pass_counts():
    net = net_of(ip("ip", "data") + layer("end", "TanH", "ip", "end"))
    held = net.blobs["data"].data
    net.forward()
    held[...] = x = values(2, 3)
    del held
    net.blobs["end"].diff[...] = g = values(2, 4)
    net.backward()
    y = net.blobs["end"].data
    net.params["ip"][0].diff[...] = 0
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, (g * (1 - y * y)).T @ x, rtol=1e-4, atol=1e-6)
