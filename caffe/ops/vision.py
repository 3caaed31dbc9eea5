"""Convolution, Deconvolution, Im2col: sliding windows; Crop."""

import torch
import torch.nn.functional as F

from caffe import precision
from caffe.layer import register
from caffe.ops.axes import canonical_axis
from caffe.torch_layer import TorchLayer


def pair(repeated, h, w, default, layer, what):
    """(height, width) of a size given as `<what>_h`/`<what>_w`, once for both, or twice."""
    if h or w:
        if len(repeated):
            stem = what.removesuffix("_size")
            layer.fail(f"give either {what} or {stem}_h and {stem}_w, not both")
        return h, w
    if len(repeated) > 2:
        layer.fail(f"{what} is given {len(repeated)} times; 2-D input wants it once or twice (height, width)")
    values = list(repeated) or [default]
    return values[0], values[-1]


class _Windows(TorchLayer):
    """What all have: kernel, stride, pad, dilation."""

    num_bottom = num_top = (1, None)
    saves_output = False

    def configure(self, bottom):
        p = self.param.convolution_param
        shape = bottom[0].shape
        if len(shape) != 4 or p.axis not in (1, -3):
            self.fail(f"bottom has shape {shape}; wanted (N, C, H, W) with axis 1")
        self.kernel = pair(p.kernel_size, p.kernel_h, p.kernel_w, 0, self, "kernel_size")
        self.stride = pair(p.stride, p.stride_h, p.stride_w, 1, self, "stride")
        self.pad = pair(p.pad, p.pad_h, p.pad_w, 0, self, "pad")
        self.dilation = pair(p.dilation, 0, 0, 1, self, "dilation")
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.dilation) < 1:
            self.fail("Filter dimensions, strides and dilations must be nonzero.")
        self.channels = shape[1]


class _Learned(_Windows):
    """Convolution and Deconvolution: weights from the first bottom's channels to num_output, in groups."""

    def configure(self, bottom):
        super().configure(bottom)
        p = self.param.convolution_param
        self.group, outputs = p.group, p.num_output
        if outputs < 1:
            self.fail("num_output must be at least 1")
        if self.group < 1 or self.channels % self.group or outputs % self.group:
            self.fail(f"group {self.group} must divide the {self.channels} channels and num_output {outputs}")
        self.add_blob(self.weight_shape(outputs), p.weight_filler)
        if p.bias_term:
            self.add_blob((outputs,), p.bias_filler)

    def compute(self, *bottoms):
        weight, bias = self.weights[0], self.weights[1] if len(self.weights) > 1 else None
        for x in bottoms:
            if x.dim() != 4 or x.shape[1] != self.channels:
                self.fail(f"bottom has shape {tuple(x.shape)}; wanted (N, {self.channels}, H, W)")
        with precision.products(bottoms[0]):
            return [self.slide(x, weight, bias).float() for x in bottoms]


@register("Convolution")
class Convolution(_Learned):
    """top (N, num_output, H', W'), H' = (H + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded down.

    Weights (num_output, C / group, kh, kw), bias (num_output,). Caffe: conv_layer.cpp."""

    def weight_shape(self, outputs):
        return (outputs, self.channels // self.group, *self.kernel)

    def slide(self, x, weight, bias):
        if tuple(x.shape[2:]) == self.kernel and self.pad == (0, 0) and self.group == 1:
            # The window covers the whole input: a matrix product, several times faster than a convolution.
            return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
        return F.conv2d(_channels_last(x), weight, bias, self.stride, self.pad, self.dilation, self.group)


def _channels_last(x):
    """x (N, C, H, W) in the layout in which CPU and GPU convolve, normalise and pool fastest."""
    if x.shape[1] == 1:  # both layouts at once, and torch takes it for the other one: say so by the strides
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


@register("Deconvolution")
class Deconvolution(_Learned):
    """top (N, num_output, H', W'), H' = stride (H - 1) + dilation (kernel - 1) + 1 - 2 pad.

    Weights (C, num_output / group, kh, kw), bias (num_output,). Caffe: deconv_layer.cpp."""

    def weight_shape(self, outputs):
        return (self.channels, outputs // self.group, *self.kernel)

    def slide(self, x, weight, bias):
        if tuple(x.shape[2:]) == (1, 1) and self.pad == (0, 0) and self.group == 1 and self.dilation == (1, 1):
            top = (x.flatten(1) @ weight.flatten(1)).view(x.shape[0], -1, *self.kernel)
            return top if bias is None else top + bias[:, None, None]
        return F.conv_transpose2d(x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation)


@register("Im2col")
class Im2col(_Windows):
    """The windows of a convolution as columns: (N, C, H, W) -> (N, C kh kw, H', W'), H' as in Convolution.
    Caffe: im2col_layer.cpp."""

    num_bottom = num_top = 1

    def top_shapes(self, shape):
        if len(shape) != 4:
            self.fail(f"bottom has shape {shape}; wanted (N, C, H, W)")
        geometry = zip(shape[2:], self.kernel, self.stride, self.pad, self.dilation)
        out = tuple((size + 2 * pad - (dilation * (kernel - 1) + 1)) // stride + 1
                    for size, kernel, stride, pad, dilation in geometry)  # fmt: skip
        if min(out) < 1:
            self.fail(f"kernel {self.kernel} with dilation {self.dilation} is larger than the padded bottom {shape}")
        return [(shape[0], shape[1] * self.kernel[0] * self.kernel[1], *out)]

    def compute(self, x):
        return F.unfold(x, self.kernel, self.dilation, self.pad, self.stride).view(self.top_shapes(tuple(x.shape))[0])


@register("Crop")
class Crop(TorchLayer):
    """The part of bottom[0] that has the size of bottom[1] from `axis` (2) on, starting at `offset` (none, one for all
    cropped axes, or one for each). Caffe: crop_layer.cpp."""

    num_bottom, num_top = 2, 1
    no_gradient = (1,)  # only its size counts
    gradient_checked = False
    saves_output = False

    def top_shapes(self, shape, reference):
        p = self.param.crop_param
        start = canonical_axis(self, p.axis, shape)
        cropped = len(shape) - start
        if len(reference) < len(shape):
            self.fail(f"bottom[1] has shape {reference}; wanted at least the {len(shape)} axes of bottom[0], {shape}")
        if len(p.offset) not in (0, 1, cropped):
            self.fail(f"{len(p.offset)} offsets; wanted none, one, or one for each of the {cropped} cropped axes")
        offsets = list(p.offset) or [0]
        self.begin = [0] * start + (offsets * cropped if len(offsets) == 1 else offsets)
        self.size = [*shape[:start], *reference[start : len(shape)]]
        for i in range(start, len(shape)):
            if self.begin[i] + self.size[i] > shape[i]:
                self.fail(f"the crop for dimension {i} is out-of-bounds: size {self.size[i]} at offset {self.begin[i]} "
                          f"of bottom shape {shape}")  # fmt: skip
        return [tuple(self.size)]

    def compute(self, x, _):
        # A copy, so that a layer working in place on the top leaves the bottom alone.
        return x[tuple(slice(b, b + n) for b, n in zip(self.begin, self.size))].clone()
