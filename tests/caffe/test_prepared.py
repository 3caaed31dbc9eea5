"""Nets in phase TEST prepare their parameters once: whoever changes them, and however, gets the values of a net that is
built anew with the same parameters."""

import gc

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.layer import REGISTRY
from caffe.net import Net
from caffe.ops.vision import Convolution
from caffe.proto import caffe_pb2

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 5 dim: 9 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 6 kernel_size: 3
        pad: 1 stride: 2 weight_filler { type: "xavier" } bias_filler { type: "gaussian" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "deep" type: "Convolution" bottom: "conv" top: "deep" convolution_param { num_output: 6 kernel_size: 3
        group: 6 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "whole" type: "Convolution" bottom: "deep" top: "whole" convolution_param { num_output: 7 kernel_h: 3
        kernel_w: 2 weight_filler { type: "xavier" } bias_filler { type: "gaussian" } } }
layer { name: "norm" type: "BatchNorm" bottom: "whole" top: "norm" }
layer { name: "up" type: "Deconvolution" bottom: "norm" top: "up" convolution_param { num_output: 2 kernel_size: 3
        weight_filler { type: "xavier" } bias_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "up" top: "ip" inner_product_param { num_output: 4
        weight_filler { type: "xavier" } bias_filler { type: "gaussian" } } }
"""
CLOSE = dict(rtol=1e-4, atol=1e-5)  # float32, another order of summation
LAYERS = ["conv", "bn", "scale", "deep", "whole", "norm", "up", "ip"]


def built(phase=caffe.TEST, net=NET):
    param = text_format.Parse(net, caffe_pb2.NetParameter())
    param.state.phase = phase
    made = Net.from_proto(param, seed=3)
    rng = np.random.default_rng(1)
    for name in ("bn", "norm", "scale"):
        for blob in made.params[name]:
            blob.data[...] = rng.uniform(0.5, 1.5, blob.shape)
    return made


def frames(seed=0, shape=(3, 5, 9, 8)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def passed(net, x=None):
    """All blobs that are there after a pass."""
    net.blobs["data"].data[...] = frames() if x is None else x
    net.forward()
    return {name: blob.data.copy() for name, blob in net.blobs.items()}


def expected(net, x=None):
    """The same in float64 and by no other code than torch's plain functions."""
    F, p = (
        torch.nn.functional,
        {n: [torch.from_numpy(b.data.copy()).double() for b in bs] for n, bs in net.params.items()},
    )
    wide = lambda v: v.view(1, -1, 1, 1)  # noqa: E731

    def normal(x, name):
        mean, variance, weight = p[name]
        return (x - wide(mean / weight)) / wide(variance / weight + 1e-5).sqrt()

    found = {"data": torch.from_numpy(frames() if x is None else x).double()}
    y = normal(F.conv2d(found["data"], *p["conv"], 2, 1), "bn")
    found["conv"] = (y * wide(p["scale"][0]) + wide(p["scale"][1])).relu()
    found["deep"] = F.conv2d(found["conv"], p["deep"][0], groups=6)
    found["whole"] = F.conv2d(found["deep"], *p["whole"])
    found["norm"] = normal(found["whole"], "norm")
    found["up"] = F.conv_transpose2d(found["norm"], *p["up"])
    found["ip"] = F.linear(found["up"].flatten(1), *p["ip"])
    return {name: value.numpy() for name, value in found.items()}


def check(net, x=None):
    want, got = expected(net, x), passed(net, x)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, **CLOSE, err_msg=name)


def prepared(net, name):
    """Whether the layer keeps something for the next pass."""
    layer = net.layer_dict[name]
    return layer.prepared is not None and layer.prepared.kept is not None


def test_every_blob_of_a_prepared_net_is_right():
    net = built()
    check(net)
    gc.collect()
    passed(net)
    assert all(prepared(net, name) for name in ("conv", "deep", "whole", "norm", "up", "ip"))
    check(net)
    check(net, frames(5))


@pytest.mark.parametrize("layer", LAYERS)
def test_values_written_between_passes_count(layer):
    net = built()
    passed(net)
    for blob in net.params[layer]:
        blob.data[...] *= 1.5  # an array that is gone at once
        check(net)


@pytest.mark.parametrize("layer", LAYERS)
def test_values_written_into_an_array_taken_before_count(layer):
    net = built()
    arrays = [blob.data for blob in net.params[layer]]
    views = [array.reshape(-1)[::2] for array in arrays]
    del arrays
    for factor in (1.5, 0.5, 3):
        passed(net)
        for view in views:
            view *= factor
        check(net)
    buffers = [memoryview(view) for view in views]
    del views, view
    passed(net)
    for buffer in buffers:
        np.asarray(buffer)[...] *= 1.25
    check(net)
    assert not prepared(net, "conv" if layer in ("bn", "scale") else layer)
    del buffers, buffer
    check(net)


def test_tensors_over_an_array_count():
    net = built()
    tensor = torch.from_numpy(net.params["conv"][0].data)
    for _ in range(2):
        passed(net)
        tensor.mul_(1.5)
        check(net)


def test_looking_changes_no_bit():
    net = built()
    before = passed(net)
    held = {name: [blob.data for blob in blobs] for name, blobs in net.params.items()}
    after = passed(net)
    del held
    again = passed(net)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
        np.testing.assert_array_equal(again[name], value)


@pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
def test_weights_loaded_between_passes_count(ending, tmp_path):
    other = built()
    for blobs in other.params.values():
        for blob in blobs:
            blob.data[...] *= 1.5
    (other.save_hdf5 if ending.endswith("h5") else other.save)(str(tmp_path / f"other.{ending}"))
    net = built()
    passed(net)
    net.copy_from(str(tmp_path / f"other.{ending}"))
    check(net)
    for name, value in passed(other).items():
        np.testing.assert_array_equal(passed(net)[name], value)


def test_shared_parameters_count_whoever_writes_them():
    net, other = built(), built()
    passed(net)
    net.share_with(other)
    check(net)
    for blobs in other.params.values():
        for blob in blobs:
            blob.data[...] *= 1.25
    check(net)
    for blobs in net.params.values():
        for blob in blobs:
            blob.memory.tensor().mul_(0.8)  # as an update does
    check(net)
    check(other)


LOSS = (
    NET
    + """
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 3 dim: 4 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
)


@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdaDelta"])
def test_a_net_that_shares_with_one_in_training_follows_it(kind, frugal, tmp_path):
    path = tmp_path / "solver.prototxt"
    (tmp_path / "net.prototxt").write_text(LOSS)
    rule = {
        "SGD": "momentum: 0.9",
        "Adam": "momentum: 0.9 momentum2: 0.99 delta: 1e-3",
        "AdaDelta": "momentum: 0.9 delta: 1e-3",
    }[kind]
    path.write_text(
        f'net: "{tmp_path}/net.prototxt" type: "{kind}" base_lr: 0.05 lr_policy: "fixed" {rule}\n'
        "weight_decay: 0.01 random_seed: 3 snapshot_after_train: false\n"
    )
    solver = caffe.get_solver(str(path))
    if frugal:
        solver.frugal()
    net = built()
    net.share_with(solver.net)
    for step in range(4):  # BatchNorm's statistics change, too
        passed(net)
        solver.net.blobs["data"].data[...] = frames(step)
        solver.step(1)
        fresh = built()
        for name, blobs in fresh.params.items():
            for blob, source in zip(blobs, solver.net.params[name]):
                blob.memory.assign(source.memory.tensor().clone())
        for name, value in passed(fresh).items():
            np.testing.assert_allclose(passed(net)[name], value, rtol=1e-5, atol=1e-6, err_msg=f"{name} after {step}")


def test_other_shapes_of_the_bottom():
    net = built()
    for batch in (3, 1, 4, 1, 2):
        net.blobs["data"].reshape(batch, 5, 9, 8)
        net.reshape()
        check(net, frames(batch, (batch, 5, 9, 8)))


def test_partial_passes_end_where_they_are_told():
    net = built()
    whole = passed(net)
    net.forward(end="conv")
    F, p = torch.nn.functional, [torch.from_numpy(b.data.copy()) for b in net.params["conv"]]
    np.testing.assert_allclose(net.blobs["conv"].data, F.conv2d(torch.from_numpy(frames()), *p, 2, 1), **CLOSE)
    net.forward(start="bn")
    for name, value in passed(net).items():
        np.testing.assert_allclose(net.blobs[name].data, value, **CLOSE)
        np.testing.assert_array_equal(value, whole[name])


def test_callbacks_see_what_is_between_layers_in_place():
    net, seen = built(), {}
    whole = passed(net)
    net.after_forward(lambda i: seen.update({net._layer_names[i]: net.blobs["conv"].data.copy()}))
    for name, value in passed(net).items():
        np.testing.assert_allclose(value, whole[name], **CLOSE)
    assert (seen["conv"] != seen["bn"]).any() and (seen["bn"] != seen["scale"]).any()
    assert seen["scale"].min() < 0 == seen["relu"].min()


def test_what_is_not_finite_stays_so():
    net = built()
    net.params["bn"][1].data[2] = -9  # no root
    net.params["scale"][0].data[1] = np.inf
    got = passed(net)["conv"]
    assert np.isnan(got[:, 2]).all() and set(np.unique(got[:, 1])) == {0, np.inf}
    assert np.isfinite(got[:, [0, 3, 4, 5]]).all()
    x = frames()
    x[1] = np.nan
    fine = built()
    got = passed(fine, x)["ip"]
    assert np.isnan(got[1]).all() and np.isfinite(got[[0, 2]]).all()


APART = (
    NET.replace(
        """bottom: "conv" top: "conv" }
layer { name: "scale\"""",
        """bottom: "conv" top: "bn" }
layer { name: "scale\"""",
    )
    .replace('"Scale" bottom: "conv" top: "conv"', '"Scale" bottom: "bn" top: "scaled"')
    .replace('"ReLU" bottom: "conv" top: "conv"', '"ReLU" bottom: "scaled" top: "relu"')
    .replace('"deep" type: "Convolution" bottom: "conv"', '"deep" type: "Convolution" bottom: "relu"')
)


def test_an_optimized_net_computes_the_same_and_skips_blobs():
    plain, net = built(net=APART), caffe.optimize(built(net=APART))
    assert passed(plain)["relu"].min() == 0 > plain.blobs["scaled"].data.min()
    net.blobs["data"].data[...] = frames()
    for _ in range(2):
        net.forward()
        for name in ("relu", "deep", "norm", "up", "ip"):
            np.testing.assert_allclose(net.blobs[name].data, plain.blobs[name].data, **CLOSE, err_msg=name)
        for name in ("conv", "bn", "scaled", "whole"):
            with pytest.raises(caffe.CaffeError, match=f"blob '{name}' has no values: caffe.optimize"):
                net.blobs[name].data  # noqa: B018
    for blobs, others in zip(net.params.values(), plain.params.values()):
        for blob in (*blobs, *others):
            blob.data[...] *= 1.25
    net.forward(), plain.forward()
    np.testing.assert_allclose(net.blobs["ip"].data, plain.blobs["ip"].data, **CLOSE)
    with pytest.raises(caffe.CaffeError, match="blob 'scaled' has no values: caffe.optimize"):
        net.forward(start="relu")
    net.forward(end="bn")  # what a pass ends with is there
    np.testing.assert_allclose(net.blobs["bn"].data, plain.blobs["bn"].data, **CLOSE)


def test_what_was_looked_at_before_optimize_is_computed():
    net = built(net=APART)
    looked = net.blobs["scaled"].data
    caffe.optimize(net)
    net.blobs["data"].data[...] = frames()
    net.forward()
    plain = built(net=APART)
    want = passed(plain)
    np.testing.assert_allclose(looked, want["scaled"], **CLOSE)
    np.testing.assert_allclose(net.blobs["ip"].data, want["ip"], **CLOSE)


def test_optimize_is_for_nets_in_phase_test():
    with pytest.raises(caffe.CaffeError, match="not in phase TEST"):
        caffe.optimize(built(caffe.TRAIN))


def test_training_prepares_nothing():
    net = built(caffe.TRAIN)
    passed(net)
    assert not any(node.builtin.prepared for node in net.nodes)


def test_a_type_of_its_own_computation_has_no_faster_way_of_another():
    class Twice(Convolution):
        def compute(self, *bottoms):
            return [2 * top for top in super().compute(*bottoms)]

    node = built().nodes[5]
    node.bottoms[0].data[...] = 1
    node.layer.forward(node.bottoms, node.tops)
    want, other = 2 * node.tops[0].data, Twice(node.param)
    other.setup(node.bottoms, node.tops)
    other.duty.backward = False
    other.blobs[0].data[...] = node.layer.blobs[0].data
    other.reshape(node.bottoms, node.tops)
    other.forward(node.bottoms, node.tops)
    np.testing.assert_allclose(node.tops[0].data, want, **CLOSE)


def test_a_type_of_its_own_computation_leaves_layers_in_place_their_work(monkeypatch):
    class Negated(Convolution):
        def compute(self, *bottoms):
            return [-top for top in super().compute(*bottoms)]

    monkeypatch.setitem(REGISTRY, "Negated", Negated)
    net, watched = (built(net=NET.replace('"conv" type: "Convolution"', '"conv" type: "Negated"')) for _ in range(2))
    watched.after_forward(lambda number: None)  # each layer runs alone
    got, want = passed(net)["conv"], passed(watched)["conv"]
    np.testing.assert_allclose(got, want, **CLOSE)
    assert np.abs(got - passed(built())["conv"]).max() > 0.1


@pytest.mark.parametrize("ready", [lambda net: net, caffe.optimize])
def test_without_onednn_no_layer_is_left_out(monkeypatch, ready):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # as with --deterministic
    net = built()
    want = expected(net)
    net = ready(net)
    net.blobs["data"].data[...] = frames()
    net.forward()
    for name in ("conv", "deep", "norm", "up", "ip"):
        np.testing.assert_allclose(net.blobs[name].data, want[name], **CLOSE, err_msg=name)


def test_arrays_of_a_reshaped_parameter_are_followed_no_longer():
    blob = caffe.Blob((2, 3))
    array = blob.data
    blob.reshape(3, 2)
    assert blob.memory.held and blob.memory.stamp() is None
    array[0, 0] = 5
    assert blob.data[0, 0] == 5
