import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(7)
SHAPE = (2, 3, 4, 2)


def away_from_kinks(*kinks):
    """Values at least 0.05 away from each kink, where a finite difference would straddle it."""
    x = RNG.uniform(-2, 2, SHAPE).astype(np.float32)
    for kink in kinks:
        x[np.abs(x - kink) < 0.05] += 0.1
    return x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# layer, formula, kinks
LAYERS = [
    ('type: "ReLU"', lambda x: np.maximum(x, 0), [0]),
    ('type: "ReLU" relu_param { negative_slope: 0.3 }', lambda x: np.where(x > 0, x, 0.3 * x), [0]),
    ('type: "ReLU" relu_param { negative_slope: -0.5 }', lambda x: np.where(x > 0, x, -0.5 * x), [0]),
    ('type: "PReLU" prelu_param { filler { value: 0.4 } }', lambda x: np.where(x > 0, x, 0.4 * x), [0]),
    ('type: "ELU" elu_param { alpha: 0.7 }', lambda x: np.where(x > 0, x, 0.7 * (np.exp(x) - 1)), [0]),
    ('type: "Sigmoid"', sigmoid, []),
    ('type: "Swish" swish_param { beta: 1.7 }', lambda x: x * sigmoid(1.7 * x), []),
    ('type: "Swish"', lambda x: x * sigmoid(x), []),
    ('type: "TanH"', np.tanh, []),
    ('type: "AbsVal"', np.abs, [0]),
    ('type: "BNLL"', lambda x: np.log(1 + np.exp(x)), []),
    ('type: "Power" power_param { power: 2 scale: 0.5 shift: 0.3 }', lambda x: (0.5 * x + 0.3) ** 2, []),
    ('type: "Power" power_param { power: -1.5 shift: 4 }', lambda x: (x + 4.0) ** -1.5, []),
    ('type: "Power"', lambda x: x, []),
    ('type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }', lambda x: 2.0 ** (0.5 * x + 1), []),
    ('type: "Log" log_param { base: 10 scale: -0.5 shift: 2 }', lambda x: np.log10(2 - 0.5 * x), []),
    ('type: "Clip" clip_param { min: -0.8 max: 1.1 }', lambda x: np.clip(x, -0.8, 1.1), [-0.8, 1.1]),
]


@pytest.mark.parametrize("layer, formula, kinks", LAYERS, ids=lambda v: v[6:40] if isinstance(v, str) else "")
def test_formula_and_gradient(layer, formula, kinks):
    x = away_from_kinks(*kinks)
    net = layer_net(layer, SHAPE)
    np.testing.assert_allclose(forward(net, x)[0], formula(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    check_gradients(net, x)


# Where Caffe's backward reads the bottom it has another gradient in place: tests/caffe/test_from_blobs.py, and below.
OTHERS = ("negative_slope: -", "BNLL", "Power", "Log", "Clip")
IN_PLACE = [(layer, kinks) for layer, _, kinks in LAYERS if not any(word in layer for word in OTHERS)]


@pytest.mark.parametrize("layer, kinks", IN_PLACE, ids=lambda v: v[6:40] if isinstance(v, str) else "")
def test_in_place_gives_the_same(layer, kinks):
    x, g = away_from_kinks(*kinks), RNG.normal(size=SHAPE)
    apart = layer_net(layer, SHAPE)
    (want,) = forward(apart, x)
    (diff,) = backward(apart, g)
    net = layer_net(layer, SHAPE, in_place=True)
    np.testing.assert_array_equal(forward(net, x)[0], want)
    np.testing.assert_array_equal(backward(net, g)[0], diff)


def test_relu_with_negative_slope_in_place():
    """Caffe reads the sign from the overwritten bottom: all outputs are positive, every gradient passes unchanged."""
    net = layer_net('type: "ReLU" relu_param { negative_slope: -0.5 }', (3,), in_place=True)
    np.testing.assert_array_equal(forward(net, [-2, 1, 3])[0], [1, 1, 3])
    np.testing.assert_array_equal(backward(net, [5, 6, 7])[0], [5, 6, 7])


@pytest.mark.parametrize(
    "layer, at_kink, gradient",
    [
        ('type: "ReLU"', 0, 0),
        ('type: "ReLU" relu_param { negative_slope: 0.3 }', 0, 0.3),
        ('type: "PReLU" prelu_param { filler { value: 0.4 } }', 0, 0.4),
        ('type: "ELU" elu_param { alpha: 0.7 }', 0, 0.7),
        ('type: "AbsVal"', 0, 0),
        ('type: "Clip" clip_param { min: -0.5 max: 1 }', -0.5, 1),
        ('type: "Clip" clip_param { min: -0.5 max: 1 }', 1, 1),
    ],
)
def test_gradient_at_the_kink(layer, at_kink, gradient):
    net = layer_net(layer, (1, 1))
    forward(net, at_kink)
    np.testing.assert_allclose(backward(net, 1)[0], gradient, rtol=1e-6)


def test_bnll_and_sigmoid_do_not_overflow():
    x = np.array([-200, -90, 0, 90, 200], np.float32)
    np.testing.assert_allclose(forward(layer_net('type: "BNLL"', (5,)), x)[0], [0, 0, np.log(2), 90, 200], atol=1e-6)
    np.testing.assert_array_equal(forward(layer_net('type: "Sigmoid"', (5,)), x)[0], [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    "param, value",
    [("power: 0 scale: 2 shift: 3", 1), ("power: 2 scale: 0 shift: 3", 9), ("power: 3 scale: 0 shift: 0", 0)],
)
def test_constant_power(param, value):
    net = layer_net(f'type: "Power" power_param {{ {param} }}', (3,))
    np.testing.assert_array_equal(forward(net, [0, np.inf, -2])[0], value)
    np.testing.assert_array_equal(backward(net, 1)[0], 0)


@pytest.mark.parametrize(
    "text, value",
    [
        ('type: "Exp" exp_param { shift: 1e38 }', np.inf),
        ('type: "Power" power_param { scale: 0 power: -1 }', np.inf),
        ('type: "Power" power_param { scale: 0 shift: -1 power: 0.5 }', np.nan),
        ('type: "Power" power_param { scale: 0 shift: 1e30 power: 9 }', np.inf),
    ],
)
def test_constants_beyond_all_numbers_are_those_of_c(text, value):
    np.testing.assert_array_equal(forward(layer_net(text, (2,)), [1, 2])[0], [value] * 2)


def test_threshold_is_strict_and_has_no_gradient():
    net = layer_net('type: "Threshold" threshold_param { threshold: 1 }', (3,))
    np.testing.assert_array_equal(forward(net, [0.5, 1, 1.5])[0], [0, 0, 1])
    with pytest.raises(caffe.CaffeError, match="has no backward"):
        backward(net, 1)


def test_prelu_slopes_are_per_channel_or_shared():
    x = away_from_kinks(0)
    net = layer_net('type: "PReLU"', SHAPE)
    np.testing.assert_array_equal(net.params["layer"][0].data, [0.25] * 3)
    net.params["layer"][0].data[...] = [0.1, -0.2, 0.3]
    want = np.where(x > 0, x, x * np.array([0.1, -0.2, 0.3]).reshape(1, 3, 1, 1))
    np.testing.assert_allclose(forward(net, x)[0], want, rtol=1e-6)
    check_gradients(net, x)
    shared = layer_net('type: "PReLU" prelu_param { channel_shared: true }', SHAPE)
    assert shared.params["layer"][0].shape == ()
    check_gradients(shared, x)


@pytest.mark.parametrize("phase, ratio", [(caffe.TRAIN, 0.3), (caffe.TEST, 0.3)])
def test_dropout(phase, ratio):
    x = np.ones((50, 80), np.float32)
    net = layer_net(f'type: "Dropout" dropout_param {{ dropout_ratio: {ratio} }}', x.shape, phase=phase)
    (top,) = forward(net, x)
    (diff,) = backward(net, x)
    np.testing.assert_array_equal(diff, top)  # the same mask both ways
    if phase == caffe.TEST:
        np.testing.assert_array_equal(top, x)
        return
    np.testing.assert_allclose(np.unique(top), [0, 1 / (1 - ratio)], rtol=1e-6)
    # 4000 draws: standard deviation sqrt(0.21 / 4000) = 0.0072
    assert abs((top == 0).mean() - ratio) < 0.03
    assert (forward(net, x)[0] != top).any()


def test_dropout_that_scales_in_test():
    """Fast R-CNN's scale_train: false."""
    x, own = np.ones((50, 80), np.float32), 'type: "Dropout" dropout_param { dropout_ratio: 0.25 scale_train: false }'
    np.testing.assert_array_equal(np.unique(forward(layer_net(own, x.shape), x)[0]), [0, 1])
    net = layer_net(own, x.shape, phase=caffe.TEST)
    np.testing.assert_array_equal(forward(net, x)[0], 0.75 * x)
    np.testing.assert_array_equal(backward(net, x)[0], 0.75 * x)


@pytest.mark.parametrize(
    "layer, text",
    [
        ('type: "Exp" exp_param { base: -2 }', "base must be strictly positive"),
        ('type: "Log" log_param { base: 0 }', "base must be strictly positive"),
        ('type: "Log" log_param { base: 1 }', "to base 1 is infinite"),
        ('type: "Dropout" dropout_param { dropout_ratio: 1 }', "dropout_ratio is 1.0"),
        ('type: "PReLU"', "Number of axes of bottom blob must be >=2"),
    ],
)
def test_bad_parameters(layer, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(layer, (3,))


def test_clip_with_min_above_max_and_of_nan():
    x = np.array([-1, 0.5, 3, np.nan], np.float32)
    net = layer_net('type: "Clip" clip_param { min: 2 max: 1 }', (4,))
    assert forward(net, x)[0].tolist() == [2, 2, 2, 2] and backward(net, np.ones(4))[0].tolist() == [0, 0, 0, 0]
    net = layer_net('type: "Clip" clip_param { min: -1 max: 1 }', (4,))
    assert forward(net, x)[0].tolist() == [-1, 0.5, 1, -1] and backward(net, np.ones(4))[0].tolist() == [1, 1, 0, 0]


def test_dropout_of_nothing():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(
        forward(layer_net('type: "Dropout" dropout_param { dropout_ratio: 0 }', (3, 4)), x)[0], x
    )


def test_prelu_wants_its_channels():
    net = layer_net('type: "PReLU"', (2, 3))
    net.blobs["b0"].reshape(2, 4)
    with pytest.raises(caffe.CaffeError, match=r"shape \(2, 4\); wanted 3 channels"):
        net.reshape()
