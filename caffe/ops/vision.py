"""Convolution, Deconvolution: sliding windows with learned weights."""

import torch.nn.functional as F

from caffe.layer import TorchLayer, register


def pair(repeated, h, w, default, layer, what):
    """(height, width) of a size given as `what_h`/`what_w`, once for both, or twice."""
    if h or w:
        if len(repeated):
            layer.fail(f"give either {what} or {what}_h and {what}_w, not both")
        return h, w
    if len(repeated) > 2:
        layer.fail(f"{what} is given {len(repeated)} times; 2-D input wants it once or twice (height, width)")
    values = list(repeated) or [default]
    return values[0], values[-1]


class _Windows(TorchLayer):
    """What both have: kernel, stride, pad, dilation, group; weights from the first bottom's channels."""

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
        self.channels, self.group, outputs = shape[1], p.group, p.num_output
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
        return [self.slide(x, weight, bias) for x in bottoms]


@register("Convolution")
class Convolution(_Windows):
    """top (N, num_output, H', W'), H' = (H + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded down.

    Weights (num_output, C / group, kh, kw), bias (num_output,). Caffe: conv_layer.cpp."""

    def weight_shape(self, outputs):
        return (outputs, self.channels // self.group, *self.kernel)

    def slide(self, x, weight, bias):
        if tuple(x.shape[2:]) == self.kernel and self.pad == (0, 0) and self.group == 1:
            # The window covers the whole input: a matrix product, several times faster than a convolution.
            return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
        return F.conv2d(x, weight, bias, self.stride, self.pad, self.dilation, self.group)


@register("Deconvolution")
class Deconvolution(_Windows):
    """top (N, num_output, H', W'), H' = stride (H - 1) + dilation (kernel - 1) + 1 - 2 pad.

    Weights (C, num_output / group, kh, kw), bias (num_output,). Caffe: deconv_layer.cpp."""

    def weight_shape(self, outputs):
        return (self.channels, outputs // self.group, *self.kernel)

    def slide(self, x, weight, bias):
        if tuple(x.shape[2:]) == (1, 1) and self.pad == (0, 0) and self.group == 1 and self.dilation == (1, 1):
            top = (x.flatten(1) @ weight.flatten(1)).view(x.shape[0], -1, *self.kernel)
            return top if bias is None else top + bias[:, None, None]
        return F.conv_transpose2d(x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation)
