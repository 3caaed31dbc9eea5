import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(19)


def randn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def columns(x, kernel, stride, pad, dilation):
    """(N, C kh kw, H', W'): the windows of a convolution, one cell of the kernel after another."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, pad, dilation
    wide = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    h = (wide.shape[2] - dh * (kh - 1) - 1) // sh + 1
    w = (wide.shape[3] - dw * (kw - 1) - 1) // sw + 1
    cells = [wide[:, :, i * dh :, j * dw :][:, :, : (h - 1) * sh + 1 : sh, : (w - 1) * sw + 1 : sw]
             for i in range(kh) for j in range(kw)]  # fmt: skip
    return np.stack(cells, 2).reshape(len(x), -1, h, w)


GEOMETRIES = [  # kernel, stride, pad, dilation
    ((3, 2), (1, 1), (0, 0), (1, 1)),
    ((2, 3), (2, 1), (1, 2), (1, 1)),
    ((2, 2), (1, 2), (1, 0), (2, 3)),
    ((5, 6), (1, 1), (0, 0), (1, 1)),  # covers the whole input
]


def sizes(kernel, stride, pad, dilation):
    return (f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} "
            f"pad_h: {pad[0]} pad_w: {pad[1]} dilation: {dilation[0]} dilation: {dilation[1]}")  # fmt: skip


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
    kernel = weight.reshape(group, 6 // group, -1)
    cols = columns(x, *geometry)
    grouped = cols.reshape(2, group, -1, *cols.shape[2:])
    want = np.einsum("gok,ngkhw->ngohw", kernel, grouped).reshape(2, 6, *cols.shape[2:]) + bias[:, None, None]
    np.testing.assert_allclose(forward(net, x)[0], want, atol=2e-5)
    check_gradients(net, x)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("geometry, shape", [
    *[(geometry, (2, 4, 3, 4)) for geometry in GEOMETRIES],
    *[(geometry, (2, 4, 1, 1)) for geometry in GEOMETRIES if geometry[2] == (0, 0)],
])  # fmt: skip
def test_deconvolution_is_the_transpose_of_convolution(geometry, shape, group):
    kernel, stride, pad, dilation = geometry
    text = f"group: {group} {sizes(*geometry)} bias_term: false {FILLERS}"
    net = layer_net(f'type: "Deconvolution" convolution_param {{ num_output: 6 {text} }}', shape)
    x = randn(*shape)
    (top,) = forward(net, x)
    assert top.shape[2:] == tuple(s * (n - 1) + d * (k - 1) + 1 - 2 * p
                                  for n, k, s, p, d in zip(shape[2:], kernel, stride, pad, dilation))  # fmt: skip
    back = layer_net(f'type: "Convolution" convolution_param {{ num_output: 4 {text} }}', top.shape)
    back.params["layer"][0].data[...] = net.params["layer"][0].data  # (in, out / group, kh, kw), as in Caffe
    y = randn(*top.shape)
    convolved = forward(back, y)[0]
    assert (top.astype(np.float64) * y).sum() == pytest.approx((x.astype(np.float64) * convolved).sum(), rel=1e-4)
    check_gradients(net, x)


@pytest.mark.parametrize("axis, offset, begin", [(2, "", (0, 0, 0, 0)), (1, "offset: 1", (0, 1, 1, 1)),
                                                 (-2, "offset: 2 offset: 0", (0, 0, 2, 0))])  # fmt: skip
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


@pytest.mark.parametrize("layer, shapes, text", [
    ('type: "Crop" crop_param { offset: 3 }', [(2, 3, 5, 5), (2, 3, 4, 2)], "dimension 2 is out-of-bounds: size 4 "),
    ('type: "Crop" crop_param { axis: 1 offset: 3 offset: 1 }', [(2, 3, 5, 5)] * 2, "2 offsets; wanted none, one, or "),
    ('type: "Crop"', [(2, 3, 5, 5), (2, 3)], "wanted at least the 4 axes"),
    ('type: "Im2col" convolution_param { kernel_size: 7 }', [(1, 1, 5, 5)], r"kernel \(7, 7\) .* is larger than"),
    ('type: "Convolution" convolution_param { kernel_size: 3 }', [(1, 1, 5, 5)], "num_output must be at least 1"),
    ('type: "Convolution" convolution_param { num_output: 2 }', [(1, 1, 5, 5)], "must be nonzero"),
    ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3 }', [(1, 1, 5, 5)],
     "give either kernel_size or kernel_h and kernel_w"),
    ('type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 group: 2 }', [(1, 2, 5, 5)],
     "group 2 must divide"),
    ('type: "Convolution" convolution_param { num_output: 3 kernel_size: 3 }', [(1, 2)], r"shape \(1, 2\); wanted"),
])  # fmt: skip
def test_bad_input(layer, shapes, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(layer, *shapes)
