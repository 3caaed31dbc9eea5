"""Linear layers but windows: InnerProduct, Embed, Bias, Scale."""

import math

import torch
import torch.nn.functional as F

from caffe import bvlc, precision, prepared
from caffe.layer import register
from caffe.ops.labels import class_index
from caffe.proto import caffe_pb2
from caffe.torch_layer import TorchLayer


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
        self.axis = self.canonical_axis(p.axis, shape)
        self.inputs = math.prod(shape[self.axis :])
        self.add_blob((self.inputs, p.num_output) if p.transpose else (p.num_output, self.inputs), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def top_shapes(self, shape):
        found = math.prod(shape[self.axis :])
        if found != self.inputs:
            self.fail(
                "Input size incompatible with inner product parameters: "
                f"bottom shape {tuple(shape)} has {found} values from axis {self.axis} on, "
                f"weights of shape {self.blobs[0].shape} want {self.inputs}"
            )
        return [(*shape[: self.axis], self.param.inner_product_param.num_output)]

    def compute(self, x):
        p = self.param.inner_product_param
        weight, bias = self.weights[0], self.weights[1] if p.bias_term else None
        with precision.products(x):
            return F.linear(x.flatten(self.axis), weight.t() if p.transpose else weight, bias).to(x.dtype)

    def infer(self, x):
        rows, p = x.reshape(-1, self.inputs), self.param.inner_product_param
        if len(rows) < 2 or not prepared.available(x):  # a single one reads the weights once in any order
            return self.compute(x)
        weight, bias = self.weights[0], self.weights[1] if p.bias_term else None
        top = self.once(lambda: prepared.product(weight.t() if p.transpose else weight, bias))(rows)
        return top.view(*x.shape[: self.axis], p.num_output)


@register("Embed")
class Embed(TorchLayer):
    """Row number x of the weights, plus bias: (...) -> (..., num_output) for x = 0 .. input_dim - 1.

    Weights (input_dim, num_output), bias (num_output). Caffe: embed_layer.cpp."""

    num_bottom = num_top = 1
    no_gradient = (0,)
    saves_output = False

    def configure(self, bottom):
        p = self.param.embed_param
        if p.num_output < 1 or p.input_dim < 1:
            self.fail(f"num_output is {p.num_output}, input_dim is {p.input_dim}; both must be at least 1")
        self.add_blob((p.input_dim, p.num_output), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def top_shapes(self, shape):
        return [(*shape, self.param.embed_param.num_output)]

    def compute(self, x):
        p = self.param.embed_param
        index, _, poison = class_index(self, x, p.input_dim, what="an index in bottom[0]")
        top = F.embedding(index, self.weights[0]) + poison
        return top + self.weights[1] if p.bias_term else top


class _Spread(TorchLayer):
    """An operand that is repeated over the other axes of bottom[0]: a parameter of the shape of its axes `axis` ..
    `axis` + `num_axes` - 1 (`num_axes` -1: to the last one; 0: a single number), or bottom[1], laid on from `axis`."""

    num_bottom, num_top = (1, 2), 1
    saves_output = False
    options: property  # the layer's BiasParameter or ScaleParameter

    def parameter_shape(self, shape):
        p = self.options
        if p.num_axes < -1:
            self.fail(f"num_axes is {p.num_axes}; it must be non-negative, or -1 to extend to the end of bottom[0]")
        axis = self.canonical_axis(p.axis, shape)
        end = len(shape) if p.num_axes == -1 else axis + p.num_axes
        if end > len(shape):
            self.fail(f"axis {axis} and num_axes {p.num_axes} extend past bottom[0]'s shape {tuple(shape)}")
        return shape[axis:end]

    def top_shapes(self, shape, operand=None):
        operand = tuple(self.blobs[0].shape if operand is None else operand)
        self.axis = self.canonical_axis(self.options.axis, shape) if operand else 0
        found = tuple(shape[self.axis : self.axis + len(operand)])
        if found != operand:
            self.fail(
                f"dimension mismatch: bottom[0] has shape {tuple(shape)}, {found} from axis {self.axis} on; "
                f"it wants to be {operand}"
            )
        for blob in self.blobs[-1:]:
            if blob.shape != operand:  # the bias beside a scale that is a bottom
                self.fail(f"bottom[1] has shape {operand}; wanted that of the bias, {blob.shape}")
        return [shape]

    @property
    def by_channel(self):
        """Whether it is a parameter for each channel (axis 1) that is applied."""
        return len(self.blobs) > 0 and self.axis == 1 and len(self.blobs[0].shape) == 1

    def spread(self, operand, x):
        return operand.reshape((*operand.shape, *(1,) * (x.dim() - self.axis - operand.dim())))


@register("Bias")
class Bias(_Spread):
    """x + b with b repeated over the other axes. Caffe: bias_layer.cpp."""

    options = property(lambda self: self.param.bias_param)

    def configure(self, bottom):
        if len(bottom) == 1:
            self.add_blob(self.parameter_shape(bottom[0].shape), self.options.filler)

    def compute(self, x, b=None):
        return x + self.spread(self.weights[0] if b is None else b, x)

    def per_channel(self):
        """(scale, shift) of each channel."""
        shift = self.blobs[0].tensor()
        return torch.ones_like(shift), shift


@register("Scale")
class Scale(_Spread):
    """x s, with `bias_term` x s + b; s and b are repeated over the other axes and start as 1 and 0.

    Caffe: scale_layer.cpp."""

    options = property(lambda self: self.param.scale_param)

    def configure(self, bottom):
        p = self.options
        if len(bottom) == 1:
            shape = self.parameter_shape(bottom[0].shape)
            self.add_blob(shape, p.filler if p.HasField("filler") else caffe_pb2.FillerParameter(value=1))
        else:
            shape = bottom[1].shape
        if p.bias_term:
            if not -len(bottom[0].shape) <= p.axis < len(bottom[0].shape):
                bvlc.refuses(self, f"axis {p.axis} of a bottom with {len(bottom[0].shape)} axes, with bias_term: true")
            self.add_blob(shape, p.bias_filler)

    def compute(self, x, s=None):
        top = x * self.spread(self.weights[0] if s is None else s, x)
        return top + self.spread(self.weights[-1], x) if self.options.bias_term else top

    def infer(self, x, s=None):
        if not self.options.bias_term:
            return self.compute(x, s)
        return torch.addcmul(self.spread(self.weights[-1], x), x, self.spread(self.weights[0] if s is None else s, x))

    def per_channel(self):
        """(scale, shift) of each channel."""
        scale = self.blobs[0].tensor()
        return scale, self.blobs[1].tensor() if self.options.bias_term else torch.zeros_like(scale)
