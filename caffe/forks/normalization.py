"""Normalising layers of forks: Normalize (SSD), BN (SegNet, PSPNet)."""

import torch

from caffe.layer import TRAIN, register
from caffe.proto import caffe_pb2
from caffe.torch_layer import TorchLayer


class _Scaled(torch.autograd.Function):
    """scale x / n and SSD's gradient of it, which weighs channels by their scale after the product with x."""

    @staticmethod
    def forward(ctx, x, scale, norm, axes):
        ctx.save_for_backward(x, scale, norm)
        ctx.axes = axes
        return scale * (x / norm)

    @staticmethod
    def backward(ctx, grad):
        x, scale, norm = ctx.saved_tensors
        dot = (x * grad).sum(ctx.axes, keepdim=True)
        dscale = grad * x / norm
        others = [i for i in range(x.dim()) if scale.shape[i] == 1]
        return scale * (grad / norm - x * dot / norm**3), dscale.sum(others, keepdim=True), None, None


@register("Normalize")
class Normalize(TorchLayer):
    """scale x / n, n = sqrt(sum x^2 + eps) over all of an item, or over the channels of each place with
    across_spatial: false. One blob, the scale: a number, or (C,) with channel_shared: false; 1 without a filler.

    With scales that differ between channels the gradient for x is SSD's, not exact. SSD: normalize_layer.cpp."""

    num_bottom = num_top = 1
    saves_output = False

    def configure(self, bottom):
        p = self.param.norm_param
        if len(bottom[0].shape) < 2:
            self.fail(f"bottom has shape {bottom[0].shape}; wanted (N, C, ...)")
        self.channels = bottom[0].shape[1]
        one = caffe_pb2.FillerParameter(value=1)
        filler = p.scale_filler if p.HasField("scale_filler") else one
        self.add_blob(() if p.channel_shared else (self.channels,), filler)

    def top_shapes(self, shape):
        if shape[1] != self.channels:
            self.fail(f"bottom has shape {tuple(shape)}; wanted {self.channels} channels on axis 1")
        return [shape]

    def compute(self, x):
        p, scale = self.param.norm_param, self.weights[0]
        scale = scale.reshape(1, -1, *(1,) * (x.dim() - 2))
        axes = tuple(range(1, x.dim())) if p.across_spatial else (1,)
        norm = (x.square().sum(axes, keepdim=True) + p.eps).sqrt()
        if torch.compiler.is_exporting():
            return scale * (x / norm)
        return _Scaled.apply(x, scale, norm.detach(), axes)


SEGNET = ("scale_filler", "shift_filler", "bn_mode")
PSPNET = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")


@register("BN")
class BN(TorchLayer):
    """Batch normalisation with scale and shift, of two forks; the fields of bn_param tell which is meant.

    SegNet (scale_filler, shift_filler, bn_mode): blobs scale and shift (1, C, 1, 1). LEARN normalises by the batch,
    with variance E[x^2] - E[x]^2 and eps 1e-9, and gives mean and variance as further tops; INFERENCE is scale x +
    shift, for scales that hold the statistics. SegNet: bn_layer.cpp.

    PSPNet (slope_filler, bias_filler, momentum, eps, frozen): blobs slope, bias, mean, variance (1, C, 1, 1). In TRAIN
    it normalises by the batch, variance biased, and the stored statistics become momentum old + (1 - momentum) new; in
    TEST, and with `frozen`, it normalises by those; frozen slope and bias do not learn. PSPNet: bn_layer.cpp.

    Fillers that are not given fill with 0, as in both forks."""

    num_bottom = 1
    num_top = (1, 3)
    saves_output = False

    def configure(self, bottom):
        p, shape = self.param.bn_param, bottom[0].shape
        if len(shape) < 2:
            self.fail(f"bottom has shape {shape}; wanted (N, C, ...)")
        segnet, pspnet = (any(p.HasField(f) for f in fields) for fields in (SEGNET, PSPNET))
        pspnet = pspnet or len(self.param.param) > 2  # SegNet's has two
        if segnet == pspnet:
            self.fail(
                "SegNet's and PSPNet's forks each have a BN, and bn_param "
                + ("mixes" if segnet else "tells not which; give")
                + " bn_mode, scale_filler, shift_filler (SegNet) or momentum, eps, frozen, "
                "slope_filler, bias_filler (PSPNet)"
            )
        self.segnet, self.channels = segnet, shape[1]
        of_channel = (1, self.channels, 1, 1)
        for filler in (p.scale_filler, p.shift_filler) if segnet else (p.slope_filler, p.bias_filler):
            self.add_blob(of_channel, filler)
        if segnet:
            return
        for value in (0, 1 if p.frozen else 0):
            self.add_blob(of_channel, caffe_pb2.FillerParameter(value=value))
        while len(self.param.param) < 4:
            self.param.param.add()
        for spec in self.param.param[2:]:  # statistics are not learned
            spec.lr_mult = spec.decay_mult = 0

    def top_shapes(self, shape):
        if shape[1] != self.channels:
            self.fail(f"bottom has shape {tuple(shape)}; wanted {self.channels} channels on axis 1")
        return [shape, (1, self.channels, 1, 1), (1, self.channels, 1, 1)]

    def setup(self, bottom, top):
        super().setup(bottom, top)
        if len(top) > 1 and not (self.segnet and self.param.bn_param.bn_mode == caffe_pb2.BNParameter.LEARN):
            self.fail("mean and variance are tops of SegNet's BN in bn_mode LEARN alone")

    def compute(self, x):
        p, shape = self.param.bn_param, (1, self.channels, *(1,) * (x.dim() - 2))
        scale, shift, *stored = (w.reshape(shape) for w in self.weights)
        axes = [i for i in range(x.dim()) if i != 1]
        if self.segnet:
            if p.bn_mode == p.INFERENCE:
                return scale * x + shift
            mean = x.mean(axes, keepdim=True)
            variance = x.square().mean(axes, keepdim=True) - mean.square()
            top = scale * ((x - mean) / (variance + 1e-9).sqrt()) + shift
            flat = (1, self.channels, 1, 1)
            return top, mean.reshape(flat), variance.reshape(flat)
        if p.frozen or self.phase != TRAIN:
            mean, variance = (s.detach() for s in stored)
            if p.frozen:
                scale, shift = scale.detach(), shift.detach()
        else:
            mean = x.mean(axes, keepdim=True)
            variance = (x - mean).square().mean(axes, keepdim=True)
            if x.device.type != "meta":
                self._store(mean, variance)
        return scale * ((x - mean) / (variance + p.eps).sqrt()) + shift

    @torch.no_grad()
    def _store(self, *new):
        """Blend the batch's statistics into the stored ones; a batch that is not finite leaves no trace."""
        momentum = self.param.bn_param.momentum
        whole = torch.isfinite(torch.cat([value.flatten() for value in new])).all()
        for stored, value in zip(self.weights[2:], new):
            blended = momentum * stored + (1 - momentum) * value.reshape(stored.shape)
            stored.data.copy_(torch.where(whole, blended, stored))
        for blob in self.blobs[2:]:
            blob.memory.written()
