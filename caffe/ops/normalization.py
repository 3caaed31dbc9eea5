"""Normalising layers: BatchNorm, LRN, MVN."""

import torch
import torch.nn.functional as F

from caffe import bvlc
from caffe.layer import register
from caffe.torch_layer import TorchLayer


@register("BatchNorm")
class BatchNorm(TorchLayer):
    """top = (x - mean) / sqrt(variance + eps) for each channel (axis 1); no scale and bias of its own.

    Blobs, each old moving_average_fraction + new: mean (C,), unbiased variance (C,), and their weight (1,), by which
    the stored ones are divided (weight 0: mean and variance are 0). The stored statistics are used where
    use_global_stats says so (by default in TEST); else those of the batch, with the biased variance, and the blobs
    are updated, in TEST too. Caffe: batch_norm_layer.cpp."""

    num_bottom = num_top = 1
    saves_output = False
    keeps_own = True

    def configure(self, bottom):
        p = self.param.batch_norm_param
        self.stored = p.use_global_stats if p.HasField("use_global_stats") else self.phase == 1
        if not bottom[0].shape:
            self.fail("bottom has shape (); wanted at least one axis")
        self.channels = _channels(bottom[0].shape)
        if len(bottom[0].shape) == 1:
            bvlc.refuses(self, "BatchNorm of a blob with one axis")
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_blob(shape)
        for i in range(3):  # statistics are not learned
            if i == len(self.param.param):
                self.param.param.add(lr_mult=0)
            elif self.param.param[i].lr_mult != 0:
                self.fail("Cannot configure batch normalization statistics as layer parameters; set lr_mult: 0")

    def top_shapes(self, shape):
        if _channels(shape) != self.channels:
            self.fail(f"bottom has shape {shape}; wanted {self.channels} channels on axis 1")
        return [shape]

    @property
    def by_channel(self):
        """Whether each channel has a scale and shift that no batch changes."""
        return self.stored

    def per_channel(self):
        """(scale, shift) of each channel by the stored statistics."""
        mean, variance, weight = (b.tensor() for b in self.blobs)
        factor = torch.where(weight == 0, weight, 1 / weight)
        scale = (variance * factor + self.param.batch_norm_param.eps).rsqrt()
        return scale, -mean * factor * scale

    def infer(self, x):
        if not self.stored or x.dim() < 2:
            return self.compute(x)
        scale, shift = self.once(self.per_channel)
        axes = (-1, *(1,) * (x.dim() - 2))
        return torch.addcmul(shift.view(axes), x, scale.view(axes))

    def forward(self, bottom, top):
        super().forward(bottom, top)
        if not self.stored:
            for blob in self.blobs:
                blob.memory.written()  # by `compute`

    def remember(self, bottom, top):
        stored = [b.tensor().clone() for b in self.blobs]
        super().remember(bottom, top)
        for blob, values in zip(self.blobs, stored):
            blob.tensor().copy_(values)

    def compute(self, x):
        p = self.param.batch_norm_param
        rows = x if x.dim() > 1 else x[:, None]
        if self.stored:
            mean, variance, weight = (w.detach() for w in self.weights)
            scale = torch.where(weight == 0, weight, 1 / weight)
            top = torch.batch_norm(rows, None, None, mean * scale, variance * scale, False, 0.0, p.eps, True)
            return top.view_as(x)
        if torch.compiler.is_exporting():  # ONNX's BatchNormalization keeps statistics where it has this mode
            axes = [axis for axis in range(rows.dim()) if axis != 1]
            centred = rows - rows.mean(axes, keepdim=True)
            return (centred * (centred.square().mean(axes, keepdim=True) + p.eps).rsqrt()).view_as(x)
        mean, variance = rows.new_zeros(self.channels), rows.new_zeros(self.channels)
        if rows.numel() > self.channels:
            # With momentum 1 torch leaves the statistics of this batch alone, the variance unbiased.
            top = torch.batch_norm(rows, None, None, mean, variance, True, 1.0, p.eps, True)
        else:  # a single value is its own mean, and has no variance
            mean, top = rows.detach().reshape(-1), rows - rows
        with torch.no_grad():
            # A batch that is not finite leaves no trace: training stops there, and saves what was before.
            whole = torch.isfinite(mean).all() & torch.isfinite(variance).all()
            for stored, new in zip(self.weights, (mean, variance, 1)):
                stored.copy_(torch.where(whole, stored * p.moving_average_fraction + new, stored))
        # A ReLU writing over a view would cost a copy in the backward pass.
        return top if top.shape == x.shape else top.view_as(x)


def _channels(shape):
    return shape[1] if len(shape) > 1 else 1


@register("LRN")
class LRN(TorchLayer):
    """top = x / (k + alpha / n sum x^2)^beta, summed over n = local_size neighbouring channels (ACROSS_CHANNELS); or
    top = x / (1 + alpha mean x^2)^beta over local_size x local_size positions (WITHIN_CHANNEL, where `k` is ignored).
    Borders count as zeros. Caffe, whose backward over channels reads the top and keeps the sums: lrn_layer.cpp."""

    num_bottom = num_top = 1
    bottom_diff = property(lambda self: self._diff_over_channels if self.reads_top else None)

    def configure(self, bottom):
        p = self.param.lrn_param
        self.reads_top = self.keeps_own = p.norm_region == p.ACROSS_CHANNELS
        if p.local_size % 2 == 0:
            self.fail(f"LRN only supports odd values for local_size, not {p.local_size}")

    def top_shapes(self, shape):
        self.require_planes(shape)
        return [shape]

    def compute(self, x):
        p, squares = self.param.lrn_param, x.square()
        n = p.local_size
        if p.norm_region == p.WITHIN_CHANNEL:
            return x * (1 + p.alpha * F.avg_pool2d(squares, n, 1, n // 2)) ** -p.beta
        return x * (p.k + p.alpha * self._over_channels(squares)) ** -p.beta

    def _over_channels(self, x):
        """Means over the neighbouring channels."""
        n = self.param.lrn_param.local_size
        return _Neighbours.apply(x, n) if torch.is_grad_enabled() and x.requires_grad else neighbours(x, n)

    def _diff_over_channels(self, x, y, g):
        p = self.param.lrn_param
        scale = p.k + p.alpha * self._over_channels(x.square())
        return g * scale**-p.beta - 2 * p.alpha * p.beta * x * self._over_channels(g * y / scale)


def neighbours(x, n):
    """For each channel of x (N, C, H, W) the mean of the n around it, those outside of x being 0. Several times as fast
    as torch's pooling, with the same bits."""
    wide, channels = F.pad(x, (0, 0, 0, 0, n // 2, n // 2)), x.shape[1]
    top = wide[:, :channels].clone() if n == 1 else wide[:, :channels] + wide[:, 1 : channels + 1]
    for i in range(2, n):
        top += wide[:, i : i + channels]
    return top.div_(n)


class _Neighbours(torch.autograd.Function):
    """`neighbours`, whose gradient is the same means of the top's: a channel counts in those that count in it."""

    @staticmethod
    def forward(ctx, x, n):
        ctx.n = n
        return neighbours(x, n)

    @staticmethod
    def backward(ctx, g):
        return neighbours(g, ctx.n), None


@register("MVN")
class MVN(TorchLayer):
    """top = (x - mean) / (std + eps) over each plane, or each item with across_channels; without normalize_variance
    x - mean. The top always has four axes. Caffe, whose backward reads the top and keeps std + eps: mvn_layer.cpp."""

    num_bottom = num_top = 1
    keeps_own = True
    reads_top = property(lambda self: self.param.mvn_param.normalize_variance)
    spoils_diff = property(lambda self: "here the gradient is right" if self.reads_top else "")

    def top_shapes(self, shape):
        return [self.legacy_shape(shape)]

    def compute(self, x):
        p = self.param.mvn_param
        x = x.reshape(self.legacy_shape(x.shape))
        axes = self._axes()
        centred = x - x.mean(axes, keepdim=True)
        if not p.normalize_variance:
            return centred
        variance = centred.square().mean(axes, keepdim=True)
        # Equal to std + eps, but with the gradient that Caffe takes: eps enters the value, not the derivative of std.
        std = variance.detach().sqrt()
        return centred / (variance + ((std + p.eps).square() - std.square())).sqrt()

    def _axes(self):
        return (1, 2, 3) if self.param.mvn_param.across_channels else (2, 3)

    def bottom_diff(self, x, y, g):
        p, axes = self.param.mvn_param, self._axes()
        dx = g - g.mean(axes, keepdim=True)
        if p.normalize_variance:
            std = x.reshape(y.shape).var(axes, correction=0, keepdim=True).sqrt()
            dx = (dx - y * (y * g).mean(axes, keepdim=True)) / (std + p.eps)
        return dx.reshape(x.shape)
