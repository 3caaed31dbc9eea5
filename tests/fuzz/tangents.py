"""Gradients by which Caffe's backward differs from a derivative: it reads blobs that have been overwritten in place.

Each function takes the layer's LayerParameter, what the layer's bottom and top hold when backward runs (x, y), what the
bottom held in the forward pass, and the step dx of the bottom. It gives the step of the top that Caffe's formula for
the gradient stands for: where backward computes J' g, it is J dx."""

import numpy as np

from tests.fuzz.loops import base_of, sigmoid


def swish(layer, x, y, was, dx):
    beta = layer.swish_param.beta
    return dx * (beta * y + sigmoid(beta * was) * (1 - beta * y))


def softmax(layer, x, y, was, dx):
    return y * (dx - (y * dx).sum(layer.softmax_param.axis, keepdims=True))


def lrn(layer, x, y, was, dx):
    p = layer.lrn_param
    half = p.local_size // 2

    def around(v):
        wide = np.pad(v, [(0, 0), (half, half), (0, 0), (0, 0)])
        return sum(wide[:, k : k + v.shape[1]] for k in range(p.local_size))

    scale = p.k + p.alpha / p.local_size * around(was**2)
    return dx * scale**-p.beta - 2 * p.alpha * p.beta / p.local_size * y / scale * around(x * dx)


def mvn(layer, x, y, was, dx):
    p = layer.mvn_param
    axes = (1, 2, 3) if p.across_channels else (2, 3)
    dx, was = dx.reshape(y.shape), was.reshape(y.shape)
    step = dx - dx.mean(axes, keepdims=True)
    if p.normalize_variance:
        step = (step - y * (y * dx).mean(axes, keepdims=True)) / (was.std(axes, keepdims=True) + p.eps)
    return step


def power_slope(layer, x, y):
    p = layer.power_param
    if p.power * p.scale == 0 or p.power == 1:
        return np.full_like(x, p.power * p.scale)
    base = p.scale * x + p.shift
    return p.power * p.scale * (base if p.power == 2 else y / base)


def log_slope(layer, x, y):
    p = layer.log_param
    return p.scale / (p.shift + p.scale * x) / np.log(base_of(p))


def by(slope):
    return lambda layer, x, y, was, dx: dx * slope(layer, x, y)


TANGENTS = {
    "BNLL": by(lambda layer, x, y: sigmoid(x)),
    "Clip": by(lambda layer, x, y: (layer.clip_param.min <= x) & (x <= layer.clip_param.max)),
    "ELU": by(lambda layer, x, y: np.where(x > 0, 1, layer.elu_param.alpha + y)),
    "Exp": by(lambda layer, x, y: layer.exp_param.scale * np.log(base_of(layer.exp_param)) * y),
    "LRN": lrn,
    "Log": by(log_slope),
    "MVN": mvn,
    "Power": by(power_slope),
    "ReLU": by(lambda layer, x, y: np.where(x > 0, 1, layer.relu_param.negative_slope)),
    "Sigmoid": by(lambda layer, x, y: y * (1 - y)),
    "Softmax": softmax,
    "Swish": swish,
    "TanH": by(lambda layer, x, y: 1 - y * y),
}
# In place these two write their slope over the top's gradient, and multiply it by that: the slope squared is left.
SPOILERS = {"Power": power_slope, "Log": log_slope}


def reads_back(layer, in_place):
    """Whether Caffe's backward of the layer reads its top's values, under whatever name."""
    if layer.type == "LRN":
        return layer.lrn_param.norm_region == layer.lrn_param.ACROSS_CHANNELS
    if layer.type == "MVN":
        return layer.mvn_param.normalize_variance
    if layer.type == "Power" and not in_place:
        return layer.power_param.power not in (0, 1, 2)
    return layer.type in TANGENTS if in_place else layer.type in ("Sigmoid", "TanH", "Exp", "ELU", "Swish", "Softmax")
