import math

import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(3)


def pool_loops(x, method, kernel, stride, pad, round_up=True):
    """Pooling as Caffe's loops do it: windows clipped to the input (MAX) or to the padded input (area of AVE)."""
    n, c, h, w = x.shape
    sizes = []
    for size, k, s, p in zip((h, w), kernel, stride, pad):
        span = (size + 2 * p - k) / s
        count = (math.ceil(span) if round_up else math.floor(span)) + 1
        if any(pad) and (count - 1) * s >= size + p:
            count -= 1
        sizes.append(count)
    top, mask = np.zeros((n, c, *sizes)), np.zeros((n, c, *sizes))
    for i, j in np.ndindex(*sizes):
        top0, left0 = i * stride[0] - pad[0], j * stride[1] - pad[1]
        bottom, right = min(top0 + kernel[0], h + pad[0]), min(left0 + kernel[1], w + pad[1])
        area = (bottom - top0) * (right - left0)
        top1, left1, bottom, right = max(top0, 0), max(left0, 0), min(bottom, h), min(right, w)
        window = x[:, :, top1:bottom, left1:right].astype(np.float64)
        if method == "AVE":
            top[:, :, i, j] = window.sum((2, 3)) / area
        else:
            best = window.reshape(n, c, -1).argmax(2)
            row, column = np.divmod(best, right - left1)
            mask[:, :, i, j] = (top1 + row) * w + left1 + column
            top[:, :, i, j] = window.max((2, 3))
    return top, mask


def pooling(method, kernel, stride, pad, extra=""):
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, pad
    return (
        f'type: "Pooling" pooling_param {{ pool: {method} kernel_h: {kh} kernel_w: {kw} stride_h: {sh} '
        f"stride_w: {sw} pad_h: {ph} pad_w: {pw} {extra} }}"
    )


def distinct(shape):
    """Values at least 0.1 apart, so that a finite difference never changes the winner of a window."""
    return 0.1 * RNG.permutation(math.prod(shape)).reshape(shape).astype(np.float32)


# kernel, stride, pad: with a last window over the edge, one dropped, padding above half of the kernel, a kernel larger
# than the input
GEOMETRIES = [
    ((3, 3), (2, 2), (0, 0)),
    ((3, 2), (2, 3), (1, 0)),
    ((2, 2), (2, 2), (1, 1)),
    ((3, 4), (1, 2), (2, 3)),
    ((3, 3), (2, 2), (2, 2)),
    ((4, 4), (3, 1), (3, 0)),
    ((9, 5), (2, 1), (4, 2)),
]


@pytest.mark.parametrize("rounding", ["CEIL", "FLOOR"])
@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("kernel, stride, pad", GEOMETRIES)
def test_windows(method, kernel, stride, pad, rounding):
    x = distinct((2, 2, 6, 7))
    tops = 2 if method == "MAX" else 1
    net = layer_net(pooling(method, kernel, stride, pad, f"round_mode: {rounding}"), x.shape, tops=tops)
    top, mask = pool_loops(x, method, kernel, stride, pad, rounding == "CEIL")
    found = forward(net, x)
    np.testing.assert_allclose(found[0], top, rtol=1e-6)
    if method == "MAX":
        np.testing.assert_array_equal(found[1], mask)
    check_gradients(net, x, tops=(0,))


def test_equal_elements_first_wins_also_with_wide_padding():
    x = np.zeros((1, 1, 4, 4), np.float32)
    net = layer_net(pooling("MAX", (3, 3), (2, 2), (2, 2)), x.shape, tops=2)
    mask = forward(net, x)[1]
    np.testing.assert_array_equal(mask[0, 0], pool_loops(x, "MAX", (3, 3), (2, 2), (2, 2))[1][0, 0])


def test_global_pooling_follows_the_bottom():
    net = layer_net('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', (2, 3, 4, 5))
    for shape in ((2, 3, 4, 5), (1, 3, 7, 2)):
        net.blobs["b0"].reshape(*shape)
        x = RNG.normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(forward(net, x)[0], x.mean((2, 3), keepdims=True), atol=1e-6)


STOCHASTIC = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }'


def test_stochastic_draws_in_proportion():
    x = np.array([[1, 3], [0, 4]], np.float32)
    many = np.tile(x, (1, 1, 60, 60))
    net = layer_net(STOCHASTIC, many.shape)
    top = forward(net, many)[0]
    shares = [(top == v).mean() for v in (0, 1, 3, 4)]
    # 3600 draws: standard deviation at most sqrt(0.25 / 3600) = 0.0083
    np.testing.assert_allclose(shares, [0, 1 / 8, 3 / 8, 4 / 8], atol=0.035)
    (diff,) = backward(net, np.full(top.shape, 2.0))
    chosen = (many * diff / 2).reshape(60, 2, 60, 2).sum((1, 3))  # each window's gradient is at what it drew
    np.testing.assert_array_equal(chosen, top[0, 0])
    assert diff.sum() == 2 * top.size and (diff > 0).sum() == top.size
    assert (forward(net, many)[0] != top).any()


def test_stochastic_windows_over_the_edge_and_of_zeros():
    x = RNG.uniform(0.5, 1, (2, 3, 5, 5)).astype(np.float32)
    x[0] = 0
    top = forward(layer_net(STOCHASTIC, x.shape), x)[0]
    assert top.shape == (2, 3, 3, 3)
    assert (top[0] == 0).all() and (top[1] >= 0.5).all()
    np.testing.assert_array_equal(top[1, :, 2, 2], x[1, :, 4, 4])


def test_stochastic_test_phase_gives_the_expected_value():
    x = RNG.uniform(0.1, 1, (2, 3, 4, 5)).astype(np.float32)
    net = layer_net(STOCHASTIC, x.shape, phase=caffe.TEST)
    wide = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
    windows = wide.reshape(2, 3, 2, 2, 3, 2)
    want = (windows**2).sum((3, 5)) / windows.sum((3, 5))
    np.testing.assert_allclose(forward(net, x)[0], want, rtol=1e-5)
    check_gradients(net, x, step=1e-3, tolerance=5e-3)  # 1 / sum is curved; a smaller step has more rounding
    assert (forward(net, np.zeros_like(x))[0] == 0).all()


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_spp_joins_the_levels(method):
    x = distinct((2, 3, 6, 5))
    net = layer_net(f'type: "SPP" spp_param {{ pyramid_height: 2 pool: {method} }}', x.shape)
    levels = [pool_loops(x, method, (6, 5), (6, 5), (0, 0)), pool_loops(x, method, (3, 3), (3, 3), (0, 1))]
    want = np.concatenate([top.reshape(2, -1) for top, _ in levels], 1)
    (top,) = forward(net, x)
    assert top.shape == (2, 3 * (1 + 4))
    np.testing.assert_allclose(top, want, rtol=1e-6)
    check_gradients(net, x)


def test_spp_of_one_level_is_a_pooling():
    x = distinct((2, 3, 6, 5))
    (top,) = forward(layer_net('type: "SPP" spp_param { pyramid_height: 1 }', x.shape), x)
    np.testing.assert_array_equal(top, x.max((2, 3), keepdims=True))


@pytest.mark.parametrize(
    "param, text",
    [
        ("kernel_size: 3 kernel_h: 3 kernel_w: 3", "give either kernel_size, or kernel_h and kernel_w"),
        ("kernel_h: 3", "give either kernel_size, or kernel_h and kernel_w"),
        ("stride: 2", "give kernel_size, or kernel_h and kernel_w"),
        ("kernel_size: 0", "Filter dimensions cannot be zero"),
        ("kernel_size: 3 stride: 0", "stride must be at least 1"),
        ("kernel_size: 2 pad: 2", r"pad \(2, 2\) must be smaller than the kernel \(2, 2\)"),
        ("global_pooling: true kernel_size: 2", "filter size cannot be specified"),
        ("global_pooling: true pad: 1", "only pad = 0 and stride = 1"),
        ("pool: STOCHASTIC kernel_size: 3 pad: 1", "Padding implemented only for average and max pooling"),
        ("kernel_size: 9", "has no window: kernel 9"),
    ],
)
def test_bad_parameters(param, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(f'type: "Pooling" pooling_param {{ {param} }}', (1, 2, 3, 6))


def test_padding_on_one_axis_clips_on_both():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    (top,) = forward(layer_net(pooling("MAX", (2, 1), (2, 2), (1, 0)), x.shape), x)
    assert top.tolist() == [[[[0, 2], [8, 10], [12, 14]]]]


def test_a_last_window_outside_of_the_input(capfd):
    x, lowest = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), np.finfo(np.float32).min
    net = layer_net('type: "Pooling" pooling_param { kernel_size: 1 stride: 2 }', x.shape, tops=2)
    assert "the last window lies outside of the input" in capfd.readouterr().err
    top, mask = forward(net, x)
    assert top.tolist() == [[[[0, 2, lowest], [8, 10, lowest], [lowest] * 3]]]
    assert mask.tolist() == [[[[0, 2, -1], [8, 10, -1], [-1, -1, -1]]]]
    (diff,) = backward(net, np.ones(top.shape))
    assert diff.tolist() == [[[[1, 0, 1, 0], [0] * 4, [1, 0, 1, 0], [0] * 4]]]
    net = layer_net('type: "Pooling" pooling_param { pool: AVE kernel_size: 1 stride: 2 }', x.shape)
    nan = np.nan
    np.testing.assert_array_equal(forward(net, x)[0], [[[[0, 2, nan], [8, 10, nan], [nan] * 3]]])
    np.testing.assert_array_equal(backward(net, np.ones(top.shape))[0], diff)


def test_a_window_further_outside_has_a_negative_area():
    x = np.ones((1, 1, 4, 6), np.float32)  # windows of 2 at 0 and 5: 4 - 5 rows, 6 - 5 columns
    (top,) = forward(layer_net('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 5 }', x.shape), x)
    assert top.tolist() == [[[[1, 1], [0, 0]]]]  # 0 / -1, and 0 / -2


def test_kernel_size_with_one_of_the_two_others():
    x = distinct((1, 1, 4, 4))
    one = forward(layer_net('type: "Pooling" pooling_param { kernel_size: 2 kernel_h: 3 }', x.shape), x)[0]
    np.testing.assert_array_equal(one, forward(layer_net(pooling("MAX", (2, 2), (1, 1), (0, 0)), x.shape), x)[0])


def test_bad_bottom_and_tops():
    with pytest.raises(caffe.CaffeError, match=r"Input must have 4 axes.*\(2, 3\)"):
        layer_net('type: "Pooling" pooling_param { kernel_size: 2 }', (2, 3))
    with pytest.raises(caffe.CaffeError, match="produces 1 top"):
        layer_net('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 }', (1, 1, 4, 4), tops=2)


def test_max_takes_what_is_larger_than_the_lowest_number():
    """Caffe begins with -FLT_MAX and compares by >: a NaN is overlooked, and of nothing comes -FLT_MAX, at -1."""
    nan, inf, lowest = np.nan, np.inf, np.finfo(np.float32).min
    x = np.array([[nan, 2, nan, nan, -inf, nan], [1, nan, nan, nan, -inf, inf]], np.float32).reshape(1, 1, 2, 6)
    net = layer_net('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', x.shape, tops=2)
    top, mask = forward(net, x)
    np.testing.assert_array_equal(top, [[[[2, lowest, inf]]]])
    np.testing.assert_array_equal(mask, [[[[1, -1, 11]]]])
    (diff,) = backward(net, np.full(top.shape, 7))
    np.testing.assert_array_equal(diff, [[[[0, 7, 0, 0, 0, 0], [0, 0, 0, 0, 0, 7]]]])
    np.testing.assert_array_equal(forward(net, np.ones_like(x))[0], [[[[1, 1, 1]]]])
    spp = layer_net('type: "SPP" spp_param { pyramid_height: 2 }', (1, 1, 2, 2))
    np.testing.assert_array_equal(forward(spp, [[nan, 2], [nan, -1]])[0], [[2, lowest, 2, lowest, -1]])
