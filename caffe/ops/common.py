"""Layers with learned weights that are no windows: InnerProduct, Embed, Bias, Scale."""

import math

import torch.nn.functional as F

from caffe.layer import TorchLayer, register
from caffe.ops.axes import canonical_axis


@register("InnerProduct")
class InnerProduct(TorchLayer):
    """y = W x + b over all axes from `axis` (1) on: (N, ...) -> (N, num_output).

    Weights (num_output, K), with `transpose` (K, num_output); bias (num_output). Caffe: inner_product_layer.cpp."""

    num_bottom = num_top = 1
    saves_output = False

    def configure(self, bottom):
        p = self.param.inner_product_param
        if p.num_output < 1:
            self.fail("num_output must be at least 1")
        shape = bottom[0].shape
        self.axis = canonical_axis(self, p.axis, shape)
        self.inputs = math.prod(shape[self.axis :])
        self.add_blob((self.inputs, p.num_output) if p.transpose else (p.num_output, self.inputs), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def top_shapes(self, shape):
        found = math.prod(shape[self.axis :])
        if found != self.inputs:
            self.fail("Input size incompatible with inner product parameters: "
                      f"bottom shape {tuple(shape)} has {found} values from axis {self.axis} on, "
                      f"weights of shape {self.blobs[0].shape} want {self.inputs}")  # fmt: skip
        return [(*shape[: self.axis], self.param.inner_product_param.num_output)]

    def compute(self, x):
        p = self.param.inner_product_param
        weight, bias = self.weights[0], self.weights[1] if p.bias_term else None
        return F.linear(x.flatten(self.axis), weight.t() if p.transpose else weight, bias)
