"""What the forks' layers compute, beside plain loops."""

import math

import numpy as np
import pytest

import caffe
from caffe import CaffeError
from caffe.proto import caffe_pb2
from caffe.read import parse_text
from tests.caffe.ops.checks import backward, forward, layer_net

RNG = np.random.default_rng(5)


def rounded(v):
    return math.copysign(math.floor(abs(v) + 0.5), v)


def roi_pool(x, rois, ph, pw, scale):
    top = np.zeros((len(rois), x.shape[1], ph, pw), np.float32)
    h, w = x.shape[2:]
    for r, (n, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (int(rounded(np.float32(c) * np.float32(scale))) for c in corners)
        tall, wide = np.float32(max(y2 - y1 + 1, 1)) / np.float32(ph), np.float32(max(x2 - x1 + 1, 1)) / np.float32(pw)
        for i, j in np.ndindex(ph, pw):
            rows = [np.clip(f, 0, h) for f in (math.floor(i * tall) + y1, math.ceil((i + 1) * tall) + y1)]
            columns = [np.clip(f, 0, w) for f in (math.floor(j * wide) + x1, math.ceil((j + 1) * wide) + x1)]
            part = x[int(n), :, rows[0] : rows[1], columns[0] : columns[1]]
            if part.size:
                top[r, :, i, j] = part.max((1, 2))
    return top


def test_roi_pooling():
    x = RNG.normal(size=(2, 3, 9, 7)).astype(np.float32)
    rois = [
        [0, 0, 0, 13, 17],
        [1, 3, 5, 8, 9],
        [1, 2, 2, 2, 2],
        [0, -4, -6, 3, 2],
        [0, 9, 3, 40, 50],
        [1, 20, 30, 22, 33],
    ]
    rois = np.array(rois, np.float32)
    net = layer_net(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }', x.shape, rois.shape
    )
    np.testing.assert_array_equal(forward(net, x, rois)[0], roi_pool(x, rois, 3, 2, 0.5))


def test_roi_pooling_gives_equal_elements_to_the_first():
    net = layer_net('type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', (1, 1, 3, 4), (1, 5))
    forward(net, np.ones((1, 1, 3, 4)), np.array([[0, 1, 1, 3, 2]]))
    diff = backward(net, np.array([[[[5.0]]]]))[0][0, 0]
    assert diff[1, 1] == 5 and diff.sum() == 5


def test_region_of_no_item():
    net = layer_net('type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', (1, 1, 3, 4), (1, 5))
    with pytest.raises(CaffeError, match="a region in bottom\\[1\\] is of item 1; wanted 0..0"):
        forward(net, np.ones((1, 1, 3, 4)), np.array([[1, 1, 1, 3, 2]]))


def test_psroi_pooling():
    k, outputs, scale = 3, 2, 0.25
    x = RNG.normal(size=(2, outputs * k * k, 6, 8)).astype(np.float32)
    rois = np.array([[0, 0, 0, 31, 23], [1, 3, 5, 8, 9], [1, 6, 7, 6, 7], [0, -9, -3, 10, 50.5]], np.float32)
    own = f"psroi_pooling_param {{ spatial_scale: {scale} output_dim: {outputs} group_size: {k} }}"
    net = layer_net(f'type: "PSROIPooling" {own}', x.shape, rois.shape)
    top = np.zeros((len(rois), outputs, k, k))
    for r, (n, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (rounded(c) for c in corners)
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        tall, wide = max(y2 - y1, 0.1) / k, max(x2 - x1, 0.1) / k
        for c, i, j in np.ndindex(outputs, k, k):
            rows = [int(np.clip(f, 0, 6)) for f in (math.floor(i * tall + y1), math.ceil((i + 1) * tall + y1))]
            columns = [int(np.clip(f, 0, 8)) for f in (math.floor(j * wide + x1), math.ceil((j + 1) * wide + x1))]
            part = x[int(n), (c * k + i) * k + j, rows[0] : rows[1], columns[0] : columns[1]]
            top[r, c, i, j] = part.mean() if part.size else 0
    np.testing.assert_allclose(forward(net, x, rois)[0], top, rtol=1e-5, atol=1e-6)


def test_shapes_moved():
    x = np.arange(2 * 4 * 4 * 6, dtype=np.float32).reshape(2, 4, 4, 6)
    for text, wanted in {
        'type: "Permute" permute_param { order: 0 order: 3 }': x.transpose(0, 3, 1, 2),
        'type: "Transpose" transpose_param { dim: 3 dim: 0 dim: 1 dim: 2 }': x.transpose(3, 0, 1, 2),
        'type: "Reverse"': x[::-1],
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }': x[:, [0, 2, 1, 3]],
    }.items():
        np.testing.assert_array_equal(forward(layer_net(text, x.shape), x)[0], wanted, text)


def test_reorg():
    n, c, h, w, s = 2, 8, 4, 6, 2
    x = RNG.normal(size=(n, c, h, w)).astype(np.float32)
    view, flat = x.reshape(n, c // s**2, h * s, w * s), np.zeros_like(x)
    for k, j, i in np.ndindex(c, h, w):
        oc, phase = c // s**2, k // (c // s**2)
        flat[:, k, j, i] = view[:, k % oc, j * s + phase // s, i * s + phase % s]
    top = forward(layer_net(f'type: "Reorg" reorg_param {{ stride: {s} }}', x.shape), x)[0]
    np.testing.assert_array_equal(top, flat.reshape(n, c * s**2, h // s, w // s))
    oc, wide = c // s**2, np.zeros((n, c // s**2, h * s, w * s))
    for k, j, i in np.ndindex(c, h, w):
        wide[:, k % oc, j * s + k // oc // s, i * s + k // oc % s] = x[:, k, j, i]
    top = forward(layer_net(f'type: "Reorg" reorg_param {{ stride: {s} reverse: true }}', x.shape), x)[0]
    np.testing.assert_array_equal(top, wide)


def test_box_annotator():
    rois = np.zeros((7, 5), np.float32)
    rois[:, 0] = [0, 1, 0, 0, 1, 0, 2]
    losses = np.array([0.1, 0.5, 0.9, 0.3, 0.5, 0.3, 0], np.float32)
    labels, weights = np.arange(1, 8, dtype=np.float32), RNG.normal(size=(7, 8)).astype(np.float32)
    net = layer_net(
        'type: "BoxAnnotatorOHEM" box_annotator_ohem_param { roi_per_img: 2 ignore_label: 255 }',
        rois.shape,
        (7,),
        (7,),
        weights.shape,
        tops=2,
    )
    kept_labels, kept_weights = forward(net, rois, losses, labels, weights)
    kept = [False, True, True, True, True, False, True]  # of equals the first
    np.testing.assert_array_equal(kept_labels, np.where(kept, labels, 255))
    np.testing.assert_array_equal(kept_weights, np.where(np.array(kept)[:, None], weights, 0))


def test_spatial_dropout():
    x = np.ones((8, 16, 3, 2), np.float32)
    own = 'type: "SpatialDropout" spatial_dropout_param { dropout_ratio: 0.25 }'
    net = layer_net(own, x.shape)
    top = forward(net, x)[0]
    channels = top[:, :, 0, 0]
    assert (top == channels[:, :, None, None]).all() and set(np.unique(channels)) == {0, np.float32(1 / 0.75)}
    assert 0.1 < (channels == 0).mean() < 0.4
    np.testing.assert_array_equal(backward(net, np.ones(x.shape))[0], top)
    test = layer_net('type: "SpatialDropout" dropout_param { dropout_ratio: 0.25 }', x.shape, phase=caffe.TEST)
    np.testing.assert_array_equal(forward(test, x)[0], x)


@pytest.mark.parametrize(
    "text, size",
    [
        ("height: 7 width: 3", (7, 3)),
        ("zoom_factor: 3", (13, 16)),
        ("shrink_factor: 2", (3, 3)),
        ("shrink_factor: 2 zoom_factor: 3", (7, 7)),
        ("pad_beg: -1 pad_end: -1 height: 6 width: 9", (6, 9)),
        ("height: 1 width: 1", (1, 1)),
        ("height: 4 width: 4 zoom_factor: 2", (9, 11)),
        ("height: 4 width: 4 zoom_factor: 2 shrink_factor: 2", (4, 4)),
    ],
)
def test_interp(text, size):
    x = RNG.normal(size=(1, 2, 5, 6)).astype(np.float32)
    inner = x[:, :, 1:-1, 1:-1] if "pad" in text else x
    wanted = np.zeros((1, 2, *size))
    for i, j in np.ndindex(*size):
        place = [k * (n - 1) / (m - 1) if m > 1 else 0 for k, n, m in zip((i, j), inner.shape[2:], size)]
        (a, b), (p, q) = (int(v) for v in place), (v - int(v) for v in place)
        c, d = min(a + 1, inner.shape[2] - 1), min(b + 1, inner.shape[3] - 1)
        wanted[:, :, i, j] = (1 - p) * ((1 - q) * inner[:, :, a, b] + q * inner[:, :, a, d]) + p * (
            (1 - q) * inner[:, :, c, b] + q * inner[:, :, c, d]
        )
    top = forward(layer_net(f'type: "Interp" interp_param {{ {text} }}', x.shape), x)[0]
    assert top.shape == wanted.shape
    np.testing.assert_allclose(top, wanted, rtol=0, atol=3e-6)


def test_upsample_puts_what_pooling_took_back():
    layers = """
        layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 6 } } }
        layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "t" upsample_param { pad_out_h: true } }"""
    net = caffe.Net.from_proto(parse_text(layers.encode(), caffe_pb2.NetParameter, "net"))
    x = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32)
    net.blobs["x"].data[...] = x
    top = net.forward()["t"]
    kept = top != 0
    np.testing.assert_array_equal(top[kept], x[kept])
    assert top.shape == x.shape and kept.sum() == net.blobs["p"].data.size
    net.blobs["m"].data[0, 0, 0, 0] = 99
    with pytest.raises(CaffeError, match="holds .*99; a top of 5 x 6 has places 0..29"):
        net.forward(start="u")


def test_neurons():
    x = np.linspace(-3, 9, 24).reshape(2, 3, 2, 2).astype(np.float32)
    np.testing.assert_array_equal(forward(layer_net('type: "ReLU6"', x.shape), x)[0], x.clip(0, 6))
    top = forward(layer_net('type: "ReLU6" relu6_param { negative_slope: 0.5 n: 4 }', x.shape), x)[0]
    np.testing.assert_allclose(top, np.where(x > 0, x.clip(0, 4), 0.5 * x), rtol=1e-6)
    a = RNG.normal(size=(2, 3, 1, 1)).astype(np.float32)
    np.testing.assert_allclose(
        forward(layer_net('type: "Axpy"', a.shape, x.shape, x.shape), a, x, -2 * x)[0], a * x - 2 * x, rtol=1e-5
    )
    edge = np.array([[0, 6, 3]], np.float32)
    net = layer_net('type: "ReLU6"', edge.shape)
    forward(net, edge)
    np.testing.assert_array_equal(backward(net, np.ones_like(edge))[0], [[0, 0, 1]])


def test_depthwise_is_a_grouped_convolution():
    x = RNG.normal(size=(2, 4, 6, 5)).astype(np.float32)
    own = "kernel_size: 3 pad: 1 stride: 2 weight_filler { type: 'gaussian' } bias_filler { value: 0.5 }"
    net = layer_net(f'type: "ConvolutionDepthwise" convolution_param {{ num_output: 7 {own} }}', x.shape)
    weight, bias = (blob.data.copy() for blob in net.params["layer"])
    assert weight.shape == (4, 1, 3, 3) and bias.shape == (4,)
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    top = np.zeros((2, 4, 3, 3))
    for i, j in np.ndindex(3, 3):
        top[:, :, i, j] = (wide[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weight[:, 0]).sum((2, 3)) + bias
    np.testing.assert_allclose(forward(net, x)[0], top, rtol=1e-4, atol=1e-5)
    same = layer_net(f'type: "DepthwiseConvolution" convolution_param {{ num_output: 4 group: 4 {own} }}', x.shape)
    for blob, value in zip(same.params["layer"], (weight, bias)):
        blob.data[...] = value
    np.testing.assert_allclose(forward(same, x)[0], top, rtol=1e-4, atol=1e-5)


def test_normalize():
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    net = layer_net('type: "Normalize" norm_param { scale_filler { value: 20 } }', x.shape)
    assert net.params["layer"][0].shape == ()
    np.testing.assert_allclose(forward(net, x)[0], 20 * x / np.sqrt((x**2).sum((1, 2, 3), keepdims=True)), rtol=1e-5)
    net = layer_net('type: "Normalize" norm_param { across_spatial: false channel_shared: false }', x.shape)
    scale = net.params["layer"][0]
    assert scale.shape == (3,) and (scale.data == 1).all()
    scale.data[...] = s = np.array([1, 2, 3], np.float32)
    norm, s = np.sqrt((x**2).sum(1, keepdims=True)), s[:, None, None]
    np.testing.assert_allclose(forward(net, x)[0], s * x / norm, rtol=1e-5)
    dy = RNG.normal(size=x.shape)
    dot = (x * dy).sum(1, keepdims=True)
    np.testing.assert_allclose(backward(net, dy)[0], s * (dy / norm - x * dot / norm**3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.params["layer"][0].diff, (x / norm * dy).sum((0, 2, 3)), rtol=1e-4)


def test_bn_of_pspnet():
    x = RNG.normal(2, 3, size=(4, 3, 2, 2)).astype(np.float32)
    own = "slope_filler { value: 1.5 } bias_filler { value: 0.5 } momentum: 0.8 eps: 0.01"
    net = layer_net(f'type: "BN" bn_param {{ {own} }}', x.shape)
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        forward(net, x)[0], 1.5 * (x - mean) / np.sqrt(variance + 0.01) + 0.5, rtol=1e-4, atol=1e-5
    )
    stored = net.params["layer"][2:]
    np.testing.assert_allclose(stored[0].data, 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(stored[1].data, 0.2 * variance, rtol=1e-5)
    test = layer_net(f'type: "BN" bn_param {{ {own} }}', x.shape, phase=caffe.TEST)
    for blob, source in zip(test.params["layer"], net.params["layer"]):
        blob.data[...] = source.data
    wanted = 1.5 * (x - 0.2 * mean) / np.sqrt(0.2 * variance + 0.01) + 0.5
    np.testing.assert_allclose(forward(test, x)[0], wanted, rtol=1e-4, atol=1e-5)


def test_bn_of_segnet():
    x = RNG.normal(2, 3, size=(4, 3, 2, 2)).astype(np.float32)
    fillers = "scale_filler { value: 1.5 } shift_filler { value: 0.5 }"
    top, mean, variance = forward(layer_net(f'type: "BN" bn_param {{ {fillers} }}', x.shape, tops=3), x)
    np.testing.assert_allclose(mean, x.mean((0, 2, 3), keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 2, 3), keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(top, 1.5 * (x - mean) / np.sqrt(variance) + 0.5, rtol=1e-4, atol=1e-5)
    net = layer_net(f'type: "BN" bn_param {{ {fillers} bn_mode: INFERENCE }}', x.shape)
    np.testing.assert_allclose(forward(net, x)[0], 1.5 * x + 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "text, shapes, words",
    [
        ('type: "BN"', [(2, 3, 4, 4)], "tells not which"),
        ('type: "BN" bn_param { bn_mode: LEARN frozen: true }', [(2, 3, 4, 4)], "mixes"),
        ('type: "Reorg" reorg_param { stride: 2 reverse: true }', [(2, 6, 4, 4)], "C a multiple of 4$"),
        ('type: "Reorg"', [(2, 4, 4, 4)], "stride must be given"),
        ('type: "Interp"', [(2, 4, 4, 4)], "give height and width"),
        ('type: "Permute" permute_param { order: 1 order: 1 }', [(2, 4)], "each once"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', [(2, 4)], "must divide"),
        ('type: "ROIPooling"', [(2, 4, 4, 4), (1, 5)], "pooled_h is 0"),
        ('type: "PSROIPooling" psroi_pooling_param { output_dim: 1 }', [(2, 4, 4, 4), (1, 5)], "spatial_scale must be"),
        ('type: "Proposal"', [(1, 2, 4, 4), (1, 4, 4, 4), (1, 3)], "give ratio and scale"),
        ('type: "PriorBox"', [(1, 2, 4, 4), (1, 3, 8, 8)], "min_size must be given"),
        ('type: "DetectionOutput"', [(1, 4), (1, 2), (1, 2, 4)], "num_classes must be given"),
        ('type: "SpatialDropout"', [(2, 4, 4, 4)], "give spatial_dropout_param"),
        ('type: "BoxAnnotatorOHEM"', [(3, 5), (3,), (3,), (3, 2)], "roi_per_img must be given"),
    ],
)
def test_what_is_refused(text, shapes, words):
    with pytest.raises(CaffeError, match=words):
        layer_net(text, *shapes, tops=2 if "OHEM" in text else 1)
