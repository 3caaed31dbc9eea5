import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, forward, layer_net

RNG = np.random.default_rng(13)


def randn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("rank", [3, 5])
def test_concat_and_slice_undo_each_other(axis, rank):
    whole = randn(6, 7, 4, 2, 5)[(..., *[0] * (5 - rank))].copy()
    points = [1, 3]
    parts = np.split(whole, points, axis)
    joined = layer_net(f'type: "Concat" concat_param {{ axis: {axis} }}', *[p.shape for p in parts])
    np.testing.assert_array_equal(forward(joined, *parts)[0], whole)
    cut = layer_net(f'type: "Slice" slice_param {{ axis: {axis} slice_point: 1 slice_point: 3 }}', whole.shape, tops=3)
    for got, want in zip(forward(cut, whole), parts):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(backward(joined, whole), parts):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(backward(cut, *parts)[0], whole)


def test_slice_in_equal_parts():
    x = randn(2, 6)
    a, b, c = forward(layer_net('type: "Slice"', x.shape, tops=3), x)
    np.testing.assert_array_equal(np.concatenate([a, b, c], 1), x)
    assert a.shape == b.shape == c.shape == (2, 2)


def test_writing_to_a_slice_leaves_its_bottom_alone():
    net = layer_net('type: "Slice" slice_param { axis: 0 }', (4, 2), tops=2)
    x = randn(4, 2)
    forward(net, x)
    net.blobs["t0"].data[...] = 99
    np.testing.assert_array_equal(net.blobs["b0"].data, x)


@pytest.mark.parametrize(
    "layer, shapes, tops, text",
    [
        (
            'type: "Concat" concat_param { axis: 2 }',
            [(2, 3)],
            1,
            r"axis 2 out of range for a 2-D blob with shape \(2, 3\)",
        ),
        ('type: "Concat"', [(2, 3, 4), (2, 5, 3)], 1, r"bottom\[1\] has shape \(2, 5, 3\).*except at axis 1"),
        ('type: "Concat"', [(2, 3), (2, 3, 1)], 1, "must have the same shape"),
        ('type: "Concat" concat_param { axis: 1 concat_dim: 1 }', [(2, 3)], 1, "Either axis or concat_dim"),
        ('type: "Slice" slice_param { axis: 1 slice_dim: 1 }', [(2, 3)], 1, "Either axis or slice_dim"),
        ('type: "Slice"', [(2, 5)], 2, r"tops? blobs? \(2\) should evenly divide input slice axis \(5\)"),
        ('type: "Slice" slice_param { slice_point: 1 }', [(2, 5)], 3, "1 slice points for 3 tops"),
        ('type: "Slice" slice_param { slice_point: 5 }', [(2, 5)], 2, r"shape \(2, 5\) is 5 long; slice points \[5\]"),
        ('type: "Slice" slice_param { slice_point: 3 slice_point: 2 }', [(2, 5)], 3, "must rise"),
    ],
)
def test_bad_concat_and_slice(layer, shapes, tops, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(layer, *shapes, tops=tops)


def test_split_sums_the_gradients():
    x, diffs = randn(2, 3), [randn(2, 3) for _ in range(3)]
    net = layer_net('type: "Split"', x.shape, tops=3)
    for top in forward(net, x):
        np.testing.assert_array_equal(top, x)
    np.testing.assert_allclose(backward(net, *diffs)[0], sum(diffs), rtol=1e-6, atol=1e-6)


def test_split_with_one_gradient_and_with_none():
    net = layer_net('type: "Split"', (3,), tops=2)
    forward(net, 1)
    assert (backward(net)[0] == 0).all()
    (diff,) = backward(net, [1, 2, 3])
    np.testing.assert_array_equal(diff, [1, 2, 3])
    net.blobs["b0"].diff[...] = 0  # its own memory
    np.testing.assert_array_equal(net.blobs["t0"].diff, [1, 2, 3])


@pytest.mark.parametrize(
    "layer, shape, want",
    [
        ('type: "Flatten"', (2, 3, 4), (2, 12)),
        ('type: "Flatten" flatten_param { axis: 0 end_axis: -2 }', (2, 3, 4), (6, 4)),
        ('type: "Flatten" flatten_param { axis: 2 end_axis: 2 }', (2, 3, 4), (2, 3, 4)),
        ('type: "Reshape" reshape_param { shape { dim: 0 dim: 2 dim: -1 } }', (2, 3, 4), (2, 2, 6)),
        ('type: "Reshape" reshape_param { shape { dim: 4 dim: 0 } axis: 1 }', (2, 4, 3), None),
        ('type: "Reshape" reshape_param { shape { dim: 6 } axis: 0 num_axes: 2 }', (2, 3, 4), (6, 4)),
        ('type: "Reshape" reshape_param { shape { dim: 1 dim: 1 } axis: -1 }', (2, 3), (2, 3, 1, 1)),
        ('type: "Reshape" reshape_param { shape { dim: 2 dim: 2 } axis: -2 num_axes: 1 }', (2, 4), (2, 2, 2)),
        ('type: "Reshape" reshape_param { shape { } axis: 1 num_axes: 1 }', (2, 1, 3), (2, 3)),
    ],
)
def test_flatten_and_reshape(layer, shape, want):
    x = randn(*shape)
    want = want or shape
    net = layer_net(layer, shape)
    np.testing.assert_array_equal(forward(net, x)[0], x.reshape(want))
    g = randn(*want)
    np.testing.assert_array_equal(backward(net, g)[0], g.reshape(shape))


@pytest.mark.parametrize(
    "layer, text",
    [
        ('type: "Flatten" flatten_param { axis: 2 end_axis: 1 }', "end_axis 1 comes before axis 2"),
        ('type: "Flatten" flatten_param { end_axis: 3 }', "end_axis 3 out of range"),
        ('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }', "at most one -1"),
        ('type: "Reshape" reshape_param { shape { dim: -2 } }', "dims >= 0"),
        ('type: "Reshape" reshape_param { shape { dim: 5 dim: -1 } }', "must be divisible by 5"),
        ('type: "Reshape" reshape_param { shape { dim: 5 } }', r"\[5\] has 5, bottom \(2, 3, 4\) has 24"),
        ('type: "Reshape" reshape_param { shape { dim: 24 dim: 1 dim: 1 dim: 0 } }', "copies axis 3"),
        ('type: "Reshape" reshape_param { shape { dim: 1 } axis: 4 }', "axis 4 with num_axes -1 does not fit"),
        (
            'type: "Reshape" reshape_param { shape { dim: 1 } axis: 2 num_axes: 2 }',
            "axis 2 with num_axes 2 does not fit",
        ),
        ('type: "Reshape" reshape_param { shape { dim: 1 } num_axes: -2 }', "num_axes must be >= 0, or -1"),
        ('type: "Tile" tile_param { axis: 1 }', "Number of tiles must be positive"),
        ('type: "Tile" tile_param { axis: 3 tiles: 2 }', "axis 3 out of range"),
    ],
)
def test_bad_shapes(layer, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(layer, (2, 3, 4))


@pytest.mark.parametrize("type_name", ["Flatten", "Reshape"])
def test_no_new_shape_in_place(type_name):
    with pytest.raises(caffe.CaffeError, match=f"{type_name} Layer does not allow in-place computation"):
        layer_net(f'type: "{type_name}"', (2, 3), in_place=True)


def test_tile_adds_up_its_gradients():
    x, g = randn(2, 3, 2), randn(2, 9, 2)
    net = layer_net('type: "Tile" tile_param { axis: -2 tiles: 3 }', x.shape)
    np.testing.assert_array_equal(forward(net, x)[0], np.concatenate([x] * 3, 1))
    np.testing.assert_allclose(backward(net, g)[0], g.reshape(2, 3, 3, 2).sum(1), rtol=1e-5, atol=1e-6)


def test_batch_reindex():
    x, index = randn(4, 2, 3), [2, 0, 2, 2, 3]
    net = layer_net('type: "BatchReindex"', x.shape, (5,))
    np.testing.assert_array_equal(forward(net, x, index)[0], x[index])
    g, want = randn(5, 2, 3), np.zeros_like(x)
    np.add.at(want, index, g)
    np.testing.assert_allclose(backward(net, g)[0], want, rtol=1e-5, atol=1e-6)
    with pytest.raises(caffe.CaffeError, match="items 0 to 3, the indices go from 0 to 4"):
        forward(net, x, [0, 1, 2, 3, 4])
    with pytest.raises(caffe.CaffeError, match=r"must have one axis; its shape is \(5, 1\)"):
        layer_net('type: "BatchReindex"', x.shape, (5, 1))


def test_filter_keeps_the_selected_items():
    x, y = randn(4, 2, 3), randn(4)
    net = layer_net('type: "Filter"', x.shape, y.shape, (4, 1, 1), tops=2)
    assert net.blobs["t0"].shape == (4, 2, 3)  # before anything was selected: room for the whole batch
    for chosen in ([1, 2], [0, 1, 2, 3], [], [3]):
        selector = np.isin(np.arange(4), chosen) * -2.0
        tops = forward(net, x, y, selector.reshape(4, 1, 1))
        np.testing.assert_array_equal(tops[0], x[chosen].reshape(-1, 2, 3))
        np.testing.assert_array_equal(tops[1], y[chosen])
        g, h = randn(len(chosen), 2, 3), randn(len(chosen))
        diffs = backward(net, g, h)
        for diff, value, shape in ((diffs[0], g, x.shape), (diffs[1], h, y.shape)):
            want = np.zeros(shape)
            want[chosen] = value
            np.testing.assert_array_equal(diff, want.astype(np.float32))


@pytest.mark.parametrize(
    "shapes, tops, text",
    [
        ([(4, 2), (4, 2)], 1, r"must be singletons \(1\), except the first; its shape is \(4, 2\)"),
        ([(4, 2), (3,)], 1, r"bottom\[0\] has shape \(4, 2\); wanted the selector's 3 items"),
        ([(4, 2), (4,), (4,)], 1, "3 bottoms, 1 tops"),
    ],
)
def test_bad_filter(shapes, tops, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net('type: "Filter"', *shapes, tops=tops)


def test_silence_sends_zeros():
    net = layer_net('type: "Silence"', (2, 3), (4,), tops=0)
    assert forward(net, 1, 2) == []
    net.blobs["b0"].diff[...] = 5
    for diff in backward(net):
        np.testing.assert_array_equal(diff, 0)
