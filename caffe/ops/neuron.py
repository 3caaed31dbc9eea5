"""Element-wise layers: the top has the bottom's shape; all may work in place."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from caffe import bvlc
from caffe.layer import register
from caffe.proto import caffe_pb2
from caffe.torch_layer import TorchLayer


class Neuron(TorchLayer):
    num_bottom = num_top = 1

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self.by_formula = self.by_formula or (self.in_place and self.reads_bottom)

    def top_shapes(self, shape):
        return [shape]


@register("ReLU")
class ReLU(Neuron):
    """max(0, x) + negative_slope min(0, x); at 0 the gradient is the negative side's. Caffe: relu_layer.cpp.

    Its own backward works from the output, so that in place it needs no memory of its own. With a negative slope the
    sign of the output says nothing; Caffe's gradient reads the bottom, which in place is the output all the same."""

    reads_bottom = reads_sign = True
    _signs: Any = None  # an array of the signs that backward goes by

    def forward(self, bottom, top):
        x, slope = bottom[0].tensor(), self.param.relu_param.negative_slope
        if slope:
            y = F.leaky_relu(x, slope)
        elif self.duty.overwrite and not bottom[0].memory.exposed:
            y = x.relu_()
        else:
            y = x.relu()
        self._signs = (x if slope < 0 and not self.in_place else y) if self.duty.backward else None
        top[0].memory.assign(y)

    def remember(self, bottom, top):
        self._signs = bottom[0].tensor()

    def backward(self, top, propagate_down, bottom):
        if self._signs is None:
            self.fail("backward without a forward pass before it")
        if propagate_down[0]:
            diff, slope, aten = top[0].grad, self.param.relu_param.negative_slope, torch.ops.aten
            g = diff.tensor()
            if slope:
                dx = aten.leaky_relu_backward(g, self._signs, slope, False)
            elif self.in_place and not self.duty.keep and not diff.exposed and 0 not in g.stride():
                dx = aten.threshold_backward.grad_input(g, self._signs, 0, grad_input=g)  # nobody reads it any more
            else:
                dx = aten.threshold_backward(g, self._signs, 0)
            bottom[0].grad.assign(dx)
        if not self.duty.keep:
            self._signs = None


def sigmoid(x):
    """1 / (1 + exp(-x)) as Caffe computes it, exactly 0 far to the left."""
    return 0.5 * torch.tanh(0.5 * x) + 0.5


@register("Sigmoid")
class Sigmoid(Neuron):
    """1 / (1 + exp(-x)). Caffe: sigmoid_layer.cpp."""

    reads_top = True

    def compute(self, x):
        return sigmoid(x)

    def bottom_diff(self, x, y, g):
        return g * (y * (1 - y))


@register("Swish")
class Swish(Neuron):
    """x sigmoid(beta x). Caffe, whose backward reads the top and keeps the sigmoids: swish_layer.cpp."""

    reads_top = keeps_own = True

    def compute(self, x):
        return x * sigmoid(self.param.swish_param.beta * x)

    def bottom_diff(self, x, y, g):
        beta = self.param.swish_param.beta
        return g * (beta * y + sigmoid(beta * x) * (1 - beta * y))


@register("TanH")
class TanH(Neuron):
    """(exp(2x) - 1) / (exp(2x) + 1). Caffe: tanh_layer.cpp."""

    reads_top = True

    def compute(self, x):
        return torch.tanh(x)

    def bottom_diff(self, x, y, g):
        return g * (1 - y * y)


@register("PReLU")
class PReLU(Neuron):
    """max(0, x) + a[c] min(0, x) with a learned slope a, 0.25 at first, for each channel (axis 1): blob (C,), or ()
    when channel_shared. At 0 the gradient is the negative side's. Caffe: prelu_layer.cpp."""

    def configure(self, bottom):
        p = self.param.prelu_param
        if len(bottom[0].shape) < 2:
            self.fail(f"Number of axes of bottom blob must be >=2; its shape is {bottom[0].shape}")
        filler = p.filler if p.HasField("filler") else caffe_pb2.FillerParameter(value=0.25)
        self.add_blob(() if p.channel_shared else (bottom[0].shape[1],), filler)

    def top_shapes(self, shape):
        if self.blobs[0].shape not in ((), shape[1:2]):
            self.fail(f"bottom has shape {shape}; wanted {self.blobs[0].shape[0]} channels on axis 1")
        bvlc.refuses_axes(self, shape)
        return [shape]

    def compute(self, x):
        return F.prelu(x, self.weights[0])


@register("ELU")
class ELU(Neuron):
    """x for x > 0, else alpha (exp(x) - 1); at 0 the gradient is alpha. Caffe: elu_layer.cpp."""

    reads_top = reads_bottom = True

    def compute(self, x):
        return F.elu(x, self.param.elu_param.alpha)

    def bottom_diff(self, x, y, g):
        return g * torch.where(x > 0, 1.0, self.param.elu_param.alpha + y)


@register("AbsVal")
class AbsVal(Neuron):
    """|x|; at 0 the gradient is 0. Caffe: absval_layer.cpp."""

    def configure(self, bottom):
        if self.in_place:
            bvlc.refuses(self, "AbsVal in place")

    def compute(self, x):
        return x.abs()


@register("Power")
class Power(Neuron):
    """(shift + scale x) ^ power; with power 0 or scale 0 a constant without gradient. Caffe: power_layer.cpp.

    Caffe's gradient is power scale y / (shift + scale x), which at 0 / 0 is no number; in place see `spoils_diff`."""

    reads_bottom = True
    spoils_diff = "here, too"

    def configure(self, bottom):
        p = self.param.power_param
        self.factor = p.power * p.scale
        self.reads_top = self.by_formula = self.factor != 0 and p.power not in (1, 2)

    def compute(self, x):
        p = self.param.power_param
        if self.factor == 0:
            return torch.full_like(x, p.shift) ** p.power
        base = x if p.scale == 1 else p.scale * x
        base = base + p.shift if p.shift else base
        return base.view_as(base) if p.power == 1 else base**p.power

    def bottom_diff(self, x, y, g):
        p = self.param.power_param
        if self.factor == 0:
            return torch.zeros_like(x)
        base = p.scale * x + p.shift
        slope = self.factor * (torch.ones_like(x) if p.power == 1 else base if p.power == 2 else y / base)
        return slope * (slope if self.in_place else g)


class _Based(Neuron):
    """Exp and Log: `base` -1 means e, else it is positive."""

    def log_base(self, base):
        if base == -1:
            return 1.0
        if base <= 0:
            self.fail(f"base must be strictly positive (or -1, for e), not {base}")
        return math.log(base)


@register("Exp")
class Exp(_Based):
    """base ^ (shift + scale x); base -1 means e. Caffe: exp_layer.cpp."""

    reads_top = True

    def configure(self, bottom):
        p = self.param.exp_param
        log = self.log_base(p.base)
        self.inner, self.outer = log * p.scale, float(torch.tensor(log * p.shift).exp())  # may be infinite

    def compute(self, x):
        return self.outer * torch.exp(self.inner * x)

    def bottom_diff(self, x, y, g):
        return g * (self.inner * y)


@register("Log")
class Log(_Based):
    """log(shift + scale x) to `base`; base -1 means e. In place see `spoils_diff`. Caffe: log_layer.cpp."""

    reads_bottom = True
    spoils_diff = "here, too"

    def configure(self, bottom):
        p = self.param.log_param
        log = self.log_base(p.base)
        if log == 0:
            self.fail("the logarithm to base 1 is infinite")
        self.factor = 1 / log

    def compute(self, x):
        p = self.param.log_param
        return self.factor * torch.log(p.shift + p.scale * x)

    def bottom_diff(self, x, y, g):
        p = self.param.log_param
        slope = self.factor * p.scale / (p.shift + p.scale * x)
        return slope * (slope if self.in_place else g)


@register("BNLL")
class BNLL(Neuron):
    """log(1 + exp(x)), without overflow. Caffe: bnll_layer.cpp."""

    reads_bottom = True

    def compute(self, x):
        return F.softplus(x)

    def bottom_diff(self, x, y, g):
        return g * torch.sigmoid(x)


@register("Threshold")
class Threshold(Neuron):
    """1 where x > threshold, else 0; has no gradient. Caffe: threshold_layer.cpp."""

    differentiable = False

    def compute(self, x):
        return (x > self.param.threshold_param.threshold).float()


@register("Clip")
class Clip(Neuron):
    """x kept between min and max, ends included in the gradient. Where min is above max the top is min, as it is for a
    NaN. Caffe: clip_layer.cpp."""

    reads_bottom = True

    def compute(self, x):
        p = self.param.clip_param
        if p.min > p.max:
            return torch.full_like(x, p.min)
        return torch.where(x.isnan(), p.min, x.clamp(p.min, p.max))

    def bottom_diff(self, x, y, g):
        p = self.param.clip_param
        return g * ((x >= p.min) & (x <= p.max))


@register("Dropout")
class Dropout(Neuron):
    """TRAIN: each element is 0 with probability dropout_ratio, else scaled by 1 / (1 - ratio); TEST: identity. With
    scale_train: false (Fast R-CNN's) it is not scaled in TRAIN, and in TEST by 1 - ratio. Caffe: dropout_layer.cpp."""

    keeps_own = keeps_sign = True

    def configure(self, bottom):
        self.take(self.param.dropout_param)

    def take(self, p):
        """Go by the DropoutParameter `p`."""
        self.ratio, self.scaled = p.dropout_ratio, p.scale_train
        if not 0 <= self.ratio < 1:
            self.fail(f"dropout_ratio is {self.ratio}; wanted at least 0 and less than 1")

    def mask_shape(self, x):
        return x.shape

    def compute(self, x):
        share = 1 - self.ratio
        if self.phase == 1:
            return x.view_as(x) if self.scaled else x * share
        keep = torch.rand(self.mask_shape(x), device=x.device, generator=self.random(x.device)).lt_(share)
        return x * (keep.div_(share) if self.scaled else keep)
