import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(19)


def randn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def columns(x, kernel, stride, pad, dilation):
    """(N, C k1 k2 .., n1, n2, ..): the windows of a convolution, one cell of the kernel after another."""
    wide = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    out = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(wide.shape[2:], kernel, stride, dilation)]
    cells = [
        wide[(..., *(slice(i * d, i * d + (n - 1) * s + 1, s) for i, n, s, d in zip(cell, out, stride, dilation)))]
        for cell in np.ndindex(*kernel)
    ]
    return np.stack(cells, 2).reshape(len(x), -1, *out)


def convolved(x, weight, bias, group, geometry):
    """The formula of a convolution, in float64; weight (out, C / group, kernel..)."""
    cols = columns(x, *geometry).astype(np.float64)
    n, out, spatial = len(x), len(weight), cols.shape[2:]
    top = np.einsum(
        "gok,ngkp->ngop", weight.reshape(group, out // group, -1), cols.reshape(n, group, cols.shape[1] // group, -1)
    )
    return top.reshape(n, out, *spatial) + bias.reshape(-1, *(1,) * len(spatial))


GEOMETRIES = [  # kernel, stride, pad, dilation
    ((3, 2), (1, 1), (0, 0), (1, 1)),
    ((2, 3), (2, 1), (1, 2), (1, 1)),
    ((2, 2), (1, 2), (1, 0), (2, 3)),
    ((5, 6), (1, 1), (0, 0), (1, 1)),  # covers the whole input
]


def sizes(kernel, stride, pad, dilation):
    return (
        f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} "
        f"pad_h: {pad[0]} pad_w: {pad[1]} dilation: {dilation[0]} dilation: {dilation[1]}"
    )


SPATIAL = [  # bottom without batch and channels; kernel, stride, pad, dilation
    ((9,), ((3,), (2,), (1,), (2,))),
    ((4,), ((4,), (1,), (0,), (1,))),  # covers the whole input
    ((5, 3, 4), ((2, 3, 1), (1, 1, 2), (1, 0, 1), (2, 1, 1))),
]


def repeated(*geometry):
    """The fields of a convolution over any number of axes: each size once for each axis."""
    return " ".join(
        f"{name}: {value}"
        for name, values in zip(("kernel_size", "stride", "pad", "dilation"), geometry)
        for value in values
    )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_im2col(geometry):
    x = randn(2, 3, 5, 6)
    net = layer_net(f'type: "Im2col" convolution_param {{ {sizes(*geometry)} }}', x.shape)
    np.testing.assert_array_equal(forward(net, x)[0], columns(x, *geometry))
    check_gradients(net, x)


FILLERS = "weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' }"


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution(geometry, group):
    x = randn(2, 4, 5, 6)
    text = f"num_output: 6 group: {group} {sizes(*geometry)} {FILLERS}"
    net = layer_net(f'type: "Convolution" convolution_param {{ {text} }}', x.shape)
    weight, bias = (blob.data.astype(np.float64) for blob in net.params["layer"])
    np.testing.assert_allclose(forward(net, x)[0], convolved(x, weight, bias, group, geometry), atol=2e-5)
    check_gradients(net, x)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("spatial, geometry", SPATIAL)
def test_convolution_over_one_and_three_axes(spatial, geometry, group):
    x = randn(2, 4, *spatial)
    text = f"num_output: 6 group: {group} {repeated(*geometry)} {FILLERS}"
    net = layer_net(f'type: "Convolution" convolution_param {{ {text} }}', x.shape)
    weight, bias = (blob.data.astype(np.float64) for blob in net.params["layer"])
    assert weight.shape == (6, 4 // group, *geometry[0])
    np.testing.assert_allclose(forward(net, x)[0], convolved(x, weight, bias, group, geometry), atol=2e-5)
    check_gradients(net, x)


@pytest.mark.parametrize("spatial, geometry", SPATIAL)
def test_im2col_over_one_and_three_axes(spatial, geometry):
    x = randn(2, 3, *spatial)
    net = layer_net(f'type: "Im2col" convolution_param {{ {repeated(*geometry)} force_nd_im2col: true }}', x.shape)
    np.testing.assert_array_equal(forward(net, x)[0], columns(x, *geometry))
    check_gradients(net, x)


def test_one_size_is_for_all_axes():
    net = layer_net(
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 }', (1, 2, 5, 6, 7)
    )
    assert net.blobs["t0"].shape == (1, 2, 3, 3, 4)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_no_axis_after_the_channels(kind, group):
    """Each item is a point, multiplied by its group's weights."""
    x = randn(2, 3, 5, 4)
    net = layer_net(f'type: "{kind}" convolution_param {{ axis: 3 num_output: 6 group: {group} {FILLERS} }}', x.shape)
    weight, bias = (blob.data.astype(np.float64) for blob in net.params["layer"])
    assert weight.shape == ((6, 4 // group) if kind == "Convolution" else (4, 6 // group))
    parts = zip(np.split(x, group, 3), np.split(weight, group))
    want = np.concatenate([part @ (w.T if kind == "Convolution" else w) for part, w in parts], 3) + bias
    np.testing.assert_allclose(forward(net, x)[0], want, atol=2e-5)
    check_gradients(net, x)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Im2col"])
def test_axes_before_the_channels_count_items(kind):
    x = randn(2, 3, 4, 5, 6)
    own = "" if kind == "Im2col" else "num_output: 2 weight_filler { type: 'gaussian' }"
    text = f'type: "{kind}" convolution_param {{ kernel_size: 3 pad: 1 stride: 2 {own} axis:'
    net, plain = layer_net(f"{text} -3 }}", x.shape), layer_net(f"{text} 1 }}", (6, 4, 5, 6))
    for ours, given in zip(plain.params.get("layer", []), net.params.get("layer", [])):
        ours.data[...] = given.data
    (top,), (want,) = forward(net, x), forward(plain, x.reshape(6, 4, 5, 6))
    assert top.shape == (2, 3, *want.shape[1:])
    np.testing.assert_array_equal(top.reshape(want.shape), want)
    check_gradients(net, x)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    "geometry, shape",
    [
        *[(geometry, (2, 4, 3, 4)) for geometry in GEOMETRIES],
        *[(geometry, (2, 4, 1, 1)) for geometry in GEOMETRIES if geometry[2] == (0, 0)],
        *[(geometry, (2, 4, *spatial)) for spatial, geometry in SPATIAL],
        (SPATIAL[1][1], (2, 4, 1)),
    ],
)
def test_deconvolution_is_the_transpose_of_convolution(geometry, shape, group):
    kernel, stride, pad, dilation = geometry
    text = f"group: {group} {repeated(*geometry)} bias_term: false {FILLERS}"
    net = layer_net(f'type: "Deconvolution" convolution_param {{ num_output: 6 {text} }}', shape)
    x = randn(*shape)
    (top,) = forward(net, x)
    assert top.shape[2:] == tuple(
        s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in zip(shape[2:], kernel, stride, pad, dilation)
    )
    back = layer_net(f'type: "Convolution" convolution_param {{ num_output: 4 {text} }}', top.shape)
    back.params["layer"][0].data[...] = net.params["layer"][0].data  # (in, out / group, kh, kw), as in Caffe
    y = randn(*top.shape)
    projected = forward(back, y)[0]
    assert (top.astype(np.float64) * y).sum() == pytest.approx((x.astype(np.float64) * projected).sum(), rel=1e-4)
    check_gradients(net, x)


@pytest.mark.parametrize(
    "axis, offset, begin",
    [(2, "", (0, 0, 0, 0)), (1, "offset: 1", (0, 1, 1, 1)), (-2, "offset: 2 offset: 0", (0, 0, 2, 0))],
)
def test_crop(axis, offset, begin):
    x, size = randn(3, 4, 6, 5), (3, 2, 3, 4)
    want = (*x.shape[: axis % 4], *size[axis % 4 :])
    net = layer_net(f'type: "Crop" crop_param {{ axis: {axis} {offset} }}', x.shape, size)
    where = tuple(slice(b, b + n) for b, n in zip(begin, want))
    np.testing.assert_array_equal(forward(net, x, 0)[0], x[where])
    g, expected = randn(*want), np.zeros_like(x)
    expected[where] = g
    diffs = backward(net, g)
    np.testing.assert_array_equal(diffs[0], expected)
    np.testing.assert_array_equal(diffs[1], 0)


@pytest.mark.parametrize(
    "layer, shapes, text",
    [
        (
            'type: "Crop" crop_param { offset: 3 }',
            [(2, 3, 5, 5), (2, 3, 4, 2)],
            "dimension 2 is out-of-bounds: size 4 ",
        ),
        (
            'type: "Crop" crop_param { axis: 1 offset: 3 offset: 1 }',
            [(2, 3, 5, 5)] * 2,
            "2 offsets; wanted none, one, or ",
        ),
        ('type: "Crop"', [(2, 3, 5, 5), (2, 3)], "wanted at least the 4 axes"),
        ('type: "Im2col" convolution_param { kernel_size: 7 }', [(1, 1, 5, 5)], r"kernel \(7, 7\) .* is larger than"),
        ('type: "Convolution" convolution_param { kernel_size: 3 }', [(1, 1, 5, 5)], "num_output must be at least 1"),
        (
            'type: "Convolution" convolution_param { num_output: 2 }',
            [(1, 1, 5, 5)],
            "kernel_size specified 0 times; 2 spatial dims",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 kernel_size: 0 }',
            [(1, 1, 5, 5)],
            "must be nonzero",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 kernel_size: 2 }',
            [(1, 1, 5, 5, 5)],
            "kernel_size specified 2 times; 3 spatial dims",
        ),
        (
            'type: "Im2col" convolution_param { kernel_h: 2 kernel_w: 2 }',
            [(1, 1, 5)],
            "kernel_h & kernel_w can only be used for 2D convolution",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 dilation: 2 }',
            [(1, 1, 2, 2)],
            "do not fit",
        ),
        (
            'type: "Convolution" top: "second" convolution_param { num_output: 2 kernel_size: 2 }',
            [(1, 1, 5, 5), (1, 1, 5)],
            "wanted 1 channels at axis 1, and 2 axes after it",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3 }',
            [(1, 1, 5, 5)],
            "give either kernel_size or kernel_h and kernel_w",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 group: 2 }',
            [(1, 2, 5, 5)],
            "group 2 must divide",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 }',
            [(1, 2, 3, 3, 3, 3)],
            r"shape \(1, 2, 3, 3, 3, 3\); wanted at most 3 axes after the channels",
        ),
    ],
)
def test_bad_input(layer, shapes, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(layer, *shapes)


@pytest.mark.parametrize(
    "shape, geometry",
    [
        ((2, 1, 4, 5), ((3, 5), (1, 3), (1, 0), (1, 1))),
        ((3, 1, 5, 3), ((4, 2), (1, 3), (2, 0), (1, 1))),
        ((3, 1, 9, 4), ((5, 5), (1, 2), (2, 1), (1, 1))),
        ((2, 1, 8, 1), ((5, 3), (1, 3), (0, 2), (1, 1))),
    ],
)
def test_one_window_along_an_axis_whatever_the_stride(shape, geometry):
    """oneDNN gives garbage there for one channel in the layout in which channels come last."""
    x, weight = randn(*shape), randn(3, 1, *geometry[0])
    net = layer_net(
        f'type: "Convolution" convolution_param {{ num_output: 3 bias_term: false {sizes(*geometry)} }}', shape
    )
    net.params["layer"][0].data[...] = weight
    for _ in range(3):
        np.testing.assert_allclose(
            forward(net, x)[0], convolved(x, weight, np.zeros(3), 1, geometry), rtol=1e-4, atol=1e-5
        )
    check_gradients(net, x)
