"""Net: forward and backward in parts, names, memory, saving, gradients that are asked for and those that are not."""

import gc
from collections import OrderedDict

import numpy as np
import pytest

import caffe

NUM_OUTPUT = 13

SIMPLE = """
name: 'testnet'
force_backward: true
layer { name: 'data' type: 'DummyData' top: 'data' top: 'label'
  dummy_data_param { num: 5 channels: 2 height: 3 width: 4 num: 5 channels: 1 height: 1 width: 1
    data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' } } }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 11 kernel_size: 2 pad: 3
    weight_filler { type: 'gaussian' std: 1 } bias_filler { type: 'constant' value: 2 } }
  param { decay_mult: 1 } param { decay_mult: 0 } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'conv' top: 'ip_blob'
  inner_product_param { num_output: %d weight_filler { type: 'gaussian' std: 2.5 }
    bias_filler { type: 'constant' value: -3 } } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip_blob' bottom: 'label' top: 'loss' }
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(SIMPLE % NUM_OUTPUT)
    return str(path)


@pytest.fixture
def net(path):
    caffe.set_random_seed(1)
    net = caffe.Net(path, caffe.TRAIN)
    net.blobs["label"].data[...] = np.random.RandomState(0).randint(NUM_OUTPUT, size=net.blobs["label"].data.shape)
    return net


def net_of(tmp_path, text, phase=caffe.TRAIN, **kwargs):
    path = tmp_path / "some.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase, **kwargs)


def inputs(*shapes):
    return "".join(
        f'layer {{ name: "in_{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {' '.join(f'dim: {d}' for d in shape)} }} }} }}\n"
        for name, shape in shapes
    )


# ---- names and views


def test_names(net):
    assert list(net._layer_names) == ["data", "conv", "ip", "loss"]
    assert list(net.layer_dict) == list(net._layer_names)
    for i, name in enumerate(net._layer_names):
        assert net.layer_dict[name].type == net.layers[i].type
    assert net.top_names == OrderedDict(data=["data", "label"], conv=["conv"], ip=["ip_blob"], loss=["loss"])
    assert net.bottom_names == OrderedDict(data=[], conv=["data"], ip=["conv"], loss=["ip_blob", "label"])
    assert list(net.blobs) == ["data", "label", "conv", "ip_blob", "loss"]
    assert net.inputs == [] and net.outputs == ["loss"]
    assert [len(net.params[name]) for name in ("conv", "ip")] == [2, 2] and list(net.params) == ["conv", "ip"]
    assert net.blob_loss_weights["loss"] == 1 and net.blob_loss_weights["conv"] == 0
    assert net.name == "testnet"
    assert net._bottom_ids(3) == [3, 1] and net._top_ids(0) == [0, 1] and net._outputs == [4]


def test_shapes(net):
    assert net.blobs["conv"].data.shape == (5, 11, 8, 9) and net.blobs["loss"].data.shape == ()
    blob = net.blobs["conv"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (5, 11, 8, 9, 3960)
    assert tuple(blob.shape) == (5, 11, 8, 9)
    assert net.params["ip"][0].data.shape == (NUM_OUTPUT, 11 * 8 * 9)


def test_memory_outlives_the_net(net):
    """Arrays and blobs are good after the net is gone."""
    net.forward()
    blobs, params = list(net.blobs.values()), sum((list(p) for p in net.params.values()), [])
    arrays, wanted = [b.data for b in blobs], [b.data.copy() for b in blobs]
    del net
    gc.collect()
    for array, want in zip(arrays, wanted):
        assert np.array_equal(array, want)
    assert np.isfinite(sum(p.data.sum() + p.diff.sum() for p in (*params, *blobs)))


def test_views_show_what_comes_later(net):
    """`net.forward()` returns views, and so does `data`: they change with the next pass."""
    first = net.forward()["loss"]
    value, view = float(first), net.blobs["conv"].data
    net.params["conv"][0].data[...] *= 2
    net.forward()
    assert float(first) == float(net.blobs["loss"].data) != value
    assert view is not net.blobs["conv"].data and np.array_equal(view, net.blobs["conv"].data)
    view[...] = 0
    assert not net.blobs["conv"].data.any()


# ---- forward and backward


def test_forward_and_backward(net):
    assert list(net.forward()) == ["loss"]
    net.backward()
    assert np.abs(net.params["conv"][0].diff).max() > 0 and np.abs(net.blobs["data"].diff).max() > 0


def test_forward_from_start_to_end(net):
    net.blobs["conv"].data[...] = np.random.RandomState(3).rand(*net.blobs["conv"].data.shape)
    out = net.forward(start="ip", end="ip")
    assert list(out) == ["ip_blob"]
    weights, bias = (p.data for p in net.params["ip"])
    want = net.blobs["conv"].data.reshape(5, -1) @ weights.T + bias
    np.testing.assert_allclose(out["ip_blob"], want, rtol=1e-4)  # float32 sums of 792 terms
    assert set(net.forward(blobs=["conv"])) == {"loss", "conv"}
    assert set(net.forward(end="conv")) == {"conv"}


def test_backward_from_start_to_end(net):
    net.forward()
    net.blobs["ip_blob"].diff[...] = np.random.RandomState(4).rand(5, NUM_OUTPUT)
    out = net.backward(start="ip", end="ip")
    assert list(out) == ["conv"]
    want = (net.blobs["ip_blob"].diff @ net.params["ip"][0].data).reshape(5, 11, 8, 9)
    np.testing.assert_allclose(out["conv"], want, rtol=1e-4, atol=1e-5)
    assert set(net.backward(diffs=["ip_blob"])) == {"ip_blob"}


def test_diffs_of_parameters_add_up_until_cleared(net):
    diff = net.params["conv"][0].diff
    net.forward()
    net.backward()
    once = diff.copy()
    assert once.any()
    net.backward()
    np.testing.assert_allclose(diff, 2 * once, rtol=1e-5)
    net.clear_param_diffs()
    assert not diff.any()


def test_inputs_and_diffs_by_keyword(tmp_path):
    net = net_of(
        tmp_path,
        "force_backward: true\n"
        + inputs(("a", (2, 3)), ("b", (2, 3)))
        + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "y" '
        "eltwise_param { coeff: 2 coeff: -1 } }",
    )
    a, b = np.ones((2, 3)), np.arange(6).reshape(2, 3)
    assert np.array_equal(net.forward(a=a, b=b)["y"], 2 * a - b)
    grads = net.backward(y=np.full((2, 3), 5))
    assert (grads["a"] == 10).all() and (grads["b"] == -5).all()
    for wrong, words in (({"a": a}, "do not match net inputs"), ({"a": a, "b": b[:1]}, "not batch sized: 'b'")):
        with pytest.raises(caffe.CaffeError, match=words):
            net.forward(**wrong)
    with pytest.raises(caffe.CaffeError, match="do not match net outputs"):
        net.backward(z=a)


def test_unknown_names_are_told_with_the_known_ones(net):
    with pytest.raises(caffe.CaffeError, match="no layer 'nosuch' .*data, conv, ip, loss"):
        net.forward(start="nosuch")
    with pytest.raises(caffe.CaffeError, match="no blob 'nosuch' .*ip_blob"):
        net.forward(blobs=["nosuch"])


def test_forward_all_pads_the_last_batch(tmp_path):
    net = net_of(
        tmp_path,
        inputs(("x", (4, 2))) + 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } }',
    )
    x = np.random.RandomState(0).randn(10, 2).astype(np.float32)
    assert np.array_equal(net.forward_all(x=x)["y"], 3 * x)
    assert set(net.forward_all(blobs=["x"], x=x)) == {"x", "y"}


def test_forward_backward_all(tmp_path):
    net = net_of(
        tmp_path,
        "force_backward: true\n"
        + inputs(("x", (4, 2)))
        + 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { power: 2 } }',
    )
    x = np.random.RandomState(0).randn(10, 2).astype(np.float32)
    outs, diffs = net.forward_backward_all(x=x, y=np.ones((10, 2), np.float32))
    np.testing.assert_allclose(outs["y"], x**2, rtol=1e-6)
    np.testing.assert_allclose(diffs["x"], 2 * x, rtol=1e-6)


def test_reshape_of_an_input(tmp_path):
    net = net_of(
        tmp_path,
        inputs(("x", (4, 2, 5, 5))) + 'layer { name: "pool" type: "Pooling" bottom: "x" top: "y" '
        "pooling_param { kernel_size: 2 stride: 2 } }",
    )
    net.blobs["x"].reshape(1, 2, 9, 7)
    net.reshape()
    assert net.blobs["y"].data.shape == (1, 2, 5, 4)
    net.blobs["x"].data[...] = 1
    assert (net.forward()["y"] == 1).all()


def test_callbacks_get_the_number_of_each_layer(net):
    calls = []
    for when in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, when)(lambda layer, when=when: calls.append((when, layer)))
    net.forward()
    net.backward()
    forward = [(when, i) for i in range(4) for when in ("before_forward", "after_forward")]
    backward = [(when, i) for i in (3, 2, 1, 0) for when in ("before_backward", "after_backward")]
    assert calls == forward + backward


# ---- where gradients are computed


def test_nothing_runs_backward_below_frozen_parameters(tmp_path):
    text = (
        inputs(("x", (2, 3)), ("label", (2,)))
        + """
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 }
                param { lr_mult: 0 } param { lr_mult: 0 } }
        layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 3 } }
        layer { name: "acc" type: "Accuracy" bottom: "b" bottom: "label" top: "acc" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss" }"""
    )
    net = net_of(tmp_path, text)
    ran = []
    net.forward()
    for layer in net.layers:
        original = layer.backward
        layer.backward = lambda *args, name=layer.name, call=original: (ran.append(name), call(*args))
    net.backward()
    assert ran == ["loss", "b_b_0_split", "b"]
    assert not net.params["a"][0].diff.any()


def test_propagate_down_false_stops_the_gradient(tmp_path):
    text = (
        "force_backward: %s\n"
        + inputs(("x", (2, 3)), ("y", (2, 4)))
        + """
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a"
                inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
        layer { name: "p" type: "Power" bottom: "a" top: "p" %s }
        layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }"""
    )
    for stop, learns in (("", True), ("propagate_down: false", False)):
        net = net_of(tmp_path, text % ("false", stop))
        net.blobs["x"].data[...], net.blobs["y"].data[...] = 1, 5
        net.forward()
        net.backward()
        assert net.params["a"][0].diff.any() == learns
    with pytest.raises(caffe.CaffeError, match="layer 'p': propagate_down param must be specified either 0 or"):
        net_of(tmp_path, text % ("false", "propagate_down: false propagate_down: true"))


@pytest.mark.parametrize("learns", [False, True])
def test_propagate_down_true_makes_no_layer_differentiable_over_which_nothing_learns(tmp_path, learns):
    below = 'type: "Bias" bias_param { axis: 0 num_axes: 2 }' if learns else 'type: "Power"'
    net = net_of(
        tmp_path,
        inputs(("x", (2, 3)), ("y", (2,)))
        + f"""layer {{ name: "p" {below} bottom: "x" top: "p" }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "p" bottom: "y" top: "loss"
                propagate_down: true propagate_down: true }}""",
    )
    net.forward()
    if learns:
        with pytest.raises(caffe.CaffeError, match="SoftmaxWithLoss Layer cannot backpropagate to label inputs"):
            net.backward()
    else:
        net.backward()
        assert not net.blobs["p"].diff.any()


def test_a_top_has_its_gradient_although_its_layer_stops_it(tmp_path):
    net = net_of(
        tmp_path,
        inputs(("x", (2, 3)), ("y", (2, 3)))
        + """layer { name: "a" type: "Bias" bottom: "x" top: "a" bias_param { axis: 0 num_axes: 2 } }
        layer { name: "p" type: "Power" bottom: "a" top: "p" propagate_down: false }
        layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }""",
    )
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert (net.blobs["p"].diff == 0.5).all() and not net.params["a"][0].diff.any()


def test_force_backward_runs_every_layer_and_refuses_accuracy(tmp_path):
    text = (
        "force_backward: true\n"
        + inputs(("x", (2, 3)), ("label", (2,)))
        + """
        layer { name: "acc" type: "Accuracy" bottom: "x" bottom: "label" top: "acc" }"""
    )
    net = net_of(tmp_path, text)
    net.forward()
    with pytest.raises(caffe.CaffeError, match="layer 'acc' .Accuracy.: has no backward"):
        net.backward()


def test_loss_is_the_weighted_sum_of_tops(tmp_path):
    text = (
        inputs(("x", (2, 3)), ("y", (2, 3)))
        + """
        layer { name: "a" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "a" loss_weight: 0.5 }
        layer { name: "b" type: "Reduction" bottom: "x" top: "b" loss_weight: 3 }
        layer { name: "c" type: "EuclideanLoss" bottom: "x" bottom: "y" loss_weight: 2 }"""
    )
    net = net_of(tmp_path, text)
    net.blobs["x"].data[...] = np.arange(6).reshape(2, 3)
    squares = (np.arange(6) ** 2).sum() / 4
    assert net._forward(0, len(net.layers) - 1) == pytest.approx(0.5 * squares + 3 * 15 + 2 * squares)


def test_the_logged_loss_where_another_layer_reads_a_loss(tmp_path):
    text = (
        inputs(("x", (2, 3)), ("y", (2, 3)))
        + """
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
                inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
        layer { name: "a" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "a" loss_weight: 2 }
        layer { name: "twice" type: "Power" bottom: "a" top: "twice" power_param { scale: 2 } loss_weight: 0.5 }"""
    )
    net = net_of(tmp_path, text)
    net.blobs["x"].data[...], net.blobs["y"].data[...] = 1, 5
    # As in Caffe: the loss_weight has moved to the split, so the loss counts again with its own weight, 1 by default,
    # which is kept in its diff; there the first backward leaves the sum of its readers' gradients, 2 + 0.5 * 2.
    for own in (1, 3):
        net.clear_param_diffs()
        loss = net._forward(0, len(net.layers) - 1)
        net.backward()
        assert loss == pytest.approx((3 + own) * float(net.blobs["a"].data))
        # the bias's gradient is 3 (ip - y) / N, summed over N
        want = 3 * (net.blobs["ip"].data - 5).mean(0)
        np.testing.assert_allclose(net.params["ip"][1].diff, want, rtol=1e-5)


# ---- shared parameters


def test_parameters_shared_by_name_are_one(tmp_path):
    text = inputs(("x", (2, 3))) + "".join(
        f'layer {{ name: "{n}" type: "InnerProduct" bottom: "x" top: "{n}" '
        f'inner_product_param {{ num_output: 4 bias_term: false weight_filler {{ type: "xavier" }} }} '
        f'param {{ name: "w" lr_mult: {lr} }} }}\n'
        for n, lr in (("a", 2), ("b", 2))
    )
    net = net_of(tmp_path, text)
    assert len(net.learnable_params) == 1 and net.params_lr == [2]
    net.params["a"][0].data[...] = 7
    assert (net.params["b"][0].data == 7).all()
    with pytest.raises(caffe.CaffeError, match="Shared param 'w' has mismatched lr_mult"):
        net_of(tmp_path, text.replace("lr_mult: 2", "lr_mult: 1", 1))
    with pytest.raises(caffe.CaffeError, match="owned by layer 'a' with layer 'b'.*shape mismatch"):
        net_of(tmp_path, text[::-1].replace("4 :tuptuo_mun", "5 :tuptuo_mun", 1)[::-1])


def test_share_with_gives_two_nets_one_memory(path, net):
    other = caffe.Net(path, caffe.TEST)
    assert not np.array_equal(other.params["ip"][0].data, net.params["ip"][0].data)
    other.share_with(net)
    net.params["ip"][0].data[0, 0] = 42
    assert other.params["ip"][0].data[0, 0] == 42


# ---- saving


@pytest.mark.parametrize("ending", ["caffemodel", "h5"])
def test_save_and_read(ending, path, net, tmp_path):
    file = str(tmp_path / f"weights.{ending}")
    net.forward()
    (net.save_hdf5 if ending == "h5" else net.save)(file)
    again = [
        caffe.Net(path, caffe.TRAIN, weights=file),
        caffe.Net(path, file, caffe.TRAIN),
        caffe.Net(path, caffe.TEST),
    ]
    (again[2].load_hdf5 if ending == "h5" else again[2].copy_from)(file)
    for other in again:
        for name, blobs in net.params.items():
            for a, b in zip(blobs, other.params[name]):
                assert np.array_equal(a.data, b.data)


def test_constructor_forms(path):
    for args, kwargs in (
        ((path, caffe.TEST), {}),
        ((path,), {"phase": caffe.TEST}),
        ((path, caffe.TEST, 1, ["a"]), {}),
    ):
        assert all(layer.phase == caffe.TEST for layer in caffe.Net(*args, **kwargs).layers)
    with pytest.raises(TypeError, match="network_file, phase"):
        caffe.Net(path)


# ---- nets that cannot be


IP = 'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" inner_product_param { num_output: 2 } }\n'


@pytest.mark.parametrize(
    "text, words",
    [
        (IP % ("a", "nosuch", "a"), "Unknown bottom blob 'nosuch' .layer 'a', bottom index 0."),
        (
            inputs(("x", (2, 3))) + IP % ("a", "x", "y") + IP % ("b", "x", "y"),
            "Top blob 'y' produced by multiple sources",
        ),
        ('layer { name: "a" type: "Nosuch" }', "Unknown layer type: Nosuch .known types: AbsVal, .*Tile"),
        (
            inputs(("x", (2, 3))) + 'layer { name: "s" type: "Softmax" bottom: "x" bottom: "x" top: "y" }',
            "Softmax Layer takes 1",
        ),
        (inputs(("x", (2, -3))), "negative dimension|-3"),
        (inputs(("x", (65536, 65536))), "blob size exceeds INT_MAX"),
        (
            inputs(("x", (2, 3))) + (IP % ("a", "x", "y")).replace("} }", "} param {} param {} param {} }"),
            "Too many params specified for layer a",
        ),
        (
            inputs(("x", (2, 3)))
            + 'layer { name: "p" type: "Power" bottom: "x" top: "y" loss_weight: 1 loss_weight: 1 }',
            "layer 'p': loss_weight must be unspecified or specified once per top blob",
        ),
        (
            inputs(("x", (2, 3)), ("y", (4, 3)))
            + 'layer { name: "e" type: "Eltwise" bottom: "x" bottom: "y" top: "z" }',
            r"layer 'e' .*\(4, 3\).*\(2, 3\)",
        ),
    ],
)
def test_bad_nets_are_one_sentence(text, words, tmp_path):
    with pytest.raises(caffe.CaffeError, match=words) as e:
        net_of(tmp_path, text)
    assert "\n" not in str(e.value)


def test_a_refused_shape_leaves_no_trace(tmp_path):
    """After shapes that a layer refuses, the old ones are computed as before."""
    cut = 'layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { axis: 0 slice_point: 1 } }'
    net = net_of(tmp_path, inputs(("x", (3, 2))) + cut)
    net.blobs["x"].reshape(1, 2)
    with pytest.raises(caffe.CaffeError, match="slice points"):
        net.reshape()
    net.blobs["x"].reshape(3, 2)
    net.blobs["x"].data[...] = [[1, 2], [3, 4], [5, 6]]
    net.forward()
    assert net.blobs["a"].data.tolist() == [[1, 2]] and net.blobs["b"].data.tolist() == [[3, 4], [5, 6]]
