"""What BVLC Caffe would not take is computed with one warning; what surprises there is followed, and told."""

import subprocess
import sys

import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import forward, layer_net
from tests.caffe.test_net import inputs, net_of

REFUSED = [
    ('type: "BatchNorm"', [(3,)], "a blob with one axis"),
    ('type: "EuclideanLoss"', [(2, 1, 1, 1, 3)] * 2, "more than 4 axes"),
    ('type: "HingeLoss"', [(2, 1, 1, 1, 3), (2,)], "more than 4 axes"),
    ('type: "MultinomialLogisticLoss"', [(2, 1, 1, 1, 3), (2,)], "more than 4 axes"),
    ('type: "ContrastiveLoss"', [(2, 3, 1, 1, 1)] * 2 + [(2,)], "more than 4 axes"),
    ('type: "PReLU"', [(2, 3, 1, 1, 1)], "more than 4 axes"),
    ('type: "InfogainLoss" loss_param { normalize: true }', [(2, 3), (2,), (3, 3)], "normalize"),
    ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 }', [(1, 1, 4, 4)], "STOCHASTIC"),
    ('type: "SPP" spp_param { pool: STOCHASTIC pyramid_height: 2 }', [(1, 1, 4, 4)], "STOCHASTIC"),
    ('type: "Scale" scale_param { axis: 2 bias_term: true }', [(2, 3), ()], "axis 2 of a bottom with 2 axes"),
    ('type: "Im2col" convolution_param { kernel_size: 1 }', [(2, 3)], "no axis after axis 1"),
]


@pytest.mark.parametrize("layer, shapes, words", REFUSED, ids=[case[0][7:40] for case in REFUSED])
def test_one_warning_for_what_bvlc_refuses(layer, shapes, words, capfd):
    net = layer_net(layer, *shapes)
    lines = [line for line in capfd.readouterr().err.splitlines() if "force_backward" not in line]
    assert len(lines) == 1 and "BVLC Caffe refuses this: " in lines[0] and words in lines[0] and "'layer'" in lines[0]
    net.forward()
    assert not capfd.readouterr().err


def test_absval_in_place_is_told(capfd):
    net = layer_net('type: "AbsVal"', (2, 3), in_place=True)
    assert "BVLC Caffe refuses this: AbsVal in place" in capfd.readouterr().err
    np.testing.assert_array_equal(forward(net, -np.ones((2, 3)))[0], np.ones((2, 3)))


@pytest.mark.parametrize(
    "kind, more, told",
    [
        ("Pooling", "pooling_param { kernel_size: 3 stride: 1 pad: 1 }", True),
        ("LRN", "", True),
        ("InnerProduct", "inner_product_param { num_output: 4 axis: 3 }", True),
        ("Softmax", "", False),
    ],
)
def test_what_is_no_use_in_place_there_is_told(kind, more, told, capfd):
    net = layer_net(f'type: "{kind}" {more}', (2, 3, 4, 4), in_place=True)
    assert ("that it has yet to read (here the result is right)" in capfd.readouterr().err) == told
    apart = layer_net(f'type: "{kind}" {more}', (2, 3, 4, 4))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    np.testing.assert_array_equal(forward(net, x)[0], forward(apart, x)[0])


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Pooling" pooling_param { kernel_size: 2 }',
        'type: "Reduction"',
        'type: "InnerProduct" inner_product_param { num_output: 7 }',
        'type: "Tile" tile_param { tiles: 2 }',
    ],
)
def test_a_shape_cannot_change_in_place(layer):
    with pytest.raises(caffe.CaffeError, match=r"works in place on a blob of shape \(2, 3, 4, 4\), but its top has"):
        layer_net(layer, (2, 3, 4, 4), in_place=True)


def test_no_split_in_place():
    with pytest.raises(caffe.CaffeError, match="Split Layer does not allow in-place computation"):
        layer_net('type: "Split"', (2, 3), in_place=True)


@pytest.mark.parametrize(
    "kind, shapes, told",
    [
        ("Embed", [(2,)], True),
        ("BatchReindex", [(2, 3), (2,)], True),
        ("InfogainLoss", [(2, 3), (2,), (3, 3)], True),
        ("SoftmaxWithLoss", [(2, 3), (2,)], False),
        ("Crop", [(2, 3, 4, 4)] * 2, False),
    ],
)
def test_force_backward_where_bvlc_has_no_gradient(kind, shapes, told, capfd):
    layer_net(f'type: "{kind}" embed_param {{ num_output: 2 input_dim: 3 }}', *shapes)
    assert ("BVLC Caffe refuses this: force_backward" in capfd.readouterr().err) == told


@pytest.mark.parametrize(
    "views, told",
    [
        ('{ name: "v" type: "Flatten" bottom: "x" top: "v" }', True),
        ('{ name: "v" type: "Reshape" bottom: "x" top: "v" reshape_param { shape { dim: -1 } } }', True),
        ('{ name: "v" type: "Slice" bottom: "x" top: "v" }', True),
        ('{ name: "v" type: "Split" bottom: "x" top: "v" }', True),
        ('{ name: "v" type: "Power" bottom: "x" top: "v" }', False),
        ('{ name: "v" type: "Slice" bottom: "x" top: "v" top: "w" }', False),
    ],
)
def test_in_place_on_memory_that_bvlc_shares(tmp_path, views, told, capfd):
    text = (
        inputs(("x", (2, 4)))
        + f"""layer {views}
      layer {{ name: "r" type: "ReLU" bottom: "v" top: "v" }}
      layer {{ name: "p" type: "Power" bottom: "x" top: "p" }}"""
    )
    net = net_of(tmp_path, text)
    assert ("layer 'r' (ReLU): works in place on memory that layer 'p' reads" in capfd.readouterr().err) == told
    net.blobs["x"].data[...] = -1
    net.forward()
    assert (net.blobs["p"].data == -1).all() and (net.blobs["v"].data == 0).all()
    alone = text[: text.index('layer { name: "p"')]  # nobody else reads: nothing to tell
    net_of(tmp_path, alone)
    assert not capfd.readouterr().err


def test_ordinary_layers_are_not_told_of(capfd):
    layer_net('type: "PReLU"', (2, 3, 1, 1))
    layer_net('type: "BatchNorm"', (2, 3))
    layer_net('type: "EuclideanLoss"', (2, 3, 1, 1), (2, 3, 1, 1))
    assert not capfd.readouterr().err


SPLIT_LOSS = (
    inputs(("x", (3, 2)), ("y", (3, 2)))
    + """
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 2
  weight_filler { type: "constant" value: 0.5 } } }
layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "l" %s }
layer { name: "p" type: "Power" bottom: "l" top: "p" }
"""
)


def test_a_loss_with_a_loss_weight_and_a_reader_counts_twice(tmp_path, capfd):
    found = []
    for reader in (True, False):
        text = SPLIT_LOSS if reader else SPLIT_LOSS[: SPLIT_LOSS.index('layer { name: "p"')]
        net = net_of(tmp_path, text % "loss_weight: 1")
        assert ("counts this layer once more" in capfd.readouterr().err) == reader
        net.blobs["x"].data[...] = np.arange(6).reshape(3, 2)
        for _ in range(2):  # the loss is the product of data and diff; the first backward must not change it
            logged = net._forward(0, len(net.layers) - 1)
            net.clear_param_diffs()
            net.backward()
            found.append((logged / float(net.blobs["l"].data), net.params["a"][0].diff.copy()))
    assert [ratio for ratio, _ in found] == [2, 2, 1, 1]
    for _, diff in found:
        np.testing.assert_array_equal(diff, found[0][1])


def test_a_slice_with_loss_weights_and_a_reader_keeps_one(tmp_path, capfd):
    text = (
        inputs(("x", (2, 4)))
        + """
      layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" loss_weight: 2 loss_weight: 3 }
      layer { name: "p" type: "Power" bottom: "a" top: "p" }"""
    )
    net = net_of(tmp_path, "force_backward: true " + text)
    assert "the loss_weight of 'b' is lost" in capfd.readouterr().err
    net.blobs["x"].data[...] = 1
    assert net._forward(0, len(net.layers) - 1) == 2 * 4
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, [[2, 2, 0, 0]] * 2)


SHARED = (
    inputs(("x", (3, 2)))
    + """
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" share_mode: PERMISSIVE }
  inner_product_param { num_output: 4 bias_term: false weight_filler { type: "gaussian" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" share_mode: PERMISSIVE }
  inner_product_param { num_output: 2 bias_term: false } loss_weight: 1 }
"""
)


@pytest.mark.parametrize("looked", [False, True])
def test_weights_shared_in_two_shapes(tmp_path, looked):
    net = net_of(tmp_path, SHARED)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    net.blobs["x"].data[...] = x
    net.forward()
    net.backward()
    w = net.params["a"][0].data if looked else net.params["a"][0].tensor().numpy()
    ones = np.ones((3, 2))
    want = (ones.T @ (x @ w.T)).ravel() + ((ones @ w.reshape(2, 4)).T @ x).ravel()
    for _ in range(2):
        np.testing.assert_allclose(net.params["a"][0].diff.ravel(), want, rtol=1e-5)
        np.testing.assert_array_equal(net.params["b"][0].diff, net.params["a"][0].diff.reshape(2, 4))
        net.clear_param_diffs()
        net.forward()
        net.backward()
    net.save(str(tmp_path / "w.caffemodel"))
    kept = w.copy()
    net.params["a"][0].data[...] = 0
    net.copy_from(str(tmp_path / "w.caffemodel"))
    np.testing.assert_array_equal(net.params["b"][0].data, kept.reshape(2, 4))


THIN = """
import numpy as np
from tests.caffe.ops.checks import backward, forward, layer_net
for kind in ("Convolution", "Deconvolution"):
    for shape, kernel in (((2, 3, 6, 1), "kernel_h: 2 kernel_w: 1"), ((2, 3, 1, 6), "kernel_h: 1 kernel_w: 2"),
                          ((1, 16, 9, 1), "kernel_h: 5 kernel_w: 1"), ((3, 8, 1, 1), "kernel_h: 1 kernel_w: 1"),
                          ((2, 4, 5), "kernel_size: 1"), ((2, 4, 1, 3, 1), "kernel_size: 1")):
        if kind == "Deconvolution":
            shape = tuple(d + 1 if i > 1 else d for i, d in enumerate(shape))
        for group in (1, shape[1]):
            outputs = 5 * group
            net = layer_net(f'type: "{kind}" convolution_param {{ num_output: {outputs} {kernel} stride: 2 pad: 1 '
                            f'dilation: 2 group: {group} }}', shape)
            for _ in range(3):
                top, = forward(net, np.ones(shape))
                backward(net, top)
print("done")
"""


@pytest.mark.medium
def test_no_thin_convolution_ends_the_process():
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", THIN], capture_output=True, text=True)
        assert run.returncode == 0 and run.stdout == "done\n", run.stderr[-500:]
