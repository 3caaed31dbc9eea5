"""Element by element, or channel by channel: Axpy (SENet), ReLU6 (MobileNet forks), SpatialDropout (ENet)."""

import torch
import torch.nn.functional as F

from caffe.layer import register
from caffe.ops.neuron import Dropout
from caffe.torch_layer import TorchLayer


@register("Axpy")
class Axpy(TorchLayer):
    """top = a x + y: bottoms a (N, C) or (N, C, 1, 1), x and y (N, C, H, W). SENet: axpy_layer.cpp."""

    num_bottom, num_top = 3, 1
    saves_output = False

    def top_shapes(self, a, x, y):
        if tuple(x) != tuple(y) or len(x) < 2 or tuple(a[:2]) != tuple(x[:2]) or any(size != 1 for size in a[2:]):
            self.fail(
                f"bottoms have shapes {tuple(a)}, {tuple(x)}, {tuple(y)}; wanted (N, C, 1, 1), and (N, C, H, W) twice"
            )
        return [x]

    def compute(self, a, x, y):
        return a.reshape(*x.shape[:2], *(1,) * (x.dim() - 2)) * x + y


@register("ReLU6")
class ReLU6(TorchLayer):
    """min(max(x, 0), 6), `n` in place of 6 and negative_slope x below 0 where they are given; the gradient passes
    between 0 and 6, bounds excluded. Forks for MobileNet: relu6_layer.cpp."""

    num_bottom = num_top = 1

    def configure(self, bottom):
        if not self.param.relu6_param.n >= 0:
            self.fail(f"n is {self.param.relu6_param.n}; wanted 0 or more")

    def top_shapes(self, shape):
        return [shape]

    def compute(self, x):
        p = self.param.relu6_param
        top = F.hardtanh(x, 0.0, p.n)
        return torch.where(x > 0, top, p.negative_slope * x) if p.negative_slope else top


@register("SpatialDropout")
class SpatialDropout(Dropout):
    """TRAIN: each channel of each item is 0 with probability dropout_ratio, else scaled by 1 / (1 - ratio); TEST:
    identity. The ratio must be given, in spatial_dropout_param or dropout_param. ENet: spatial_dropout_layer.cpp."""

    def configure(self, bottom):
        given = [p for p in (self.param.spatial_dropout_param, self.param.dropout_param) if p.HasField("dropout_ratio")]
        if not given:
            self.fail("give spatial_dropout_param { dropout_ratio: .. }")
        self.take(given[0])
        if len(bottom[0].shape) < 2:
            self.fail(f"bottom has shape {bottom[0].shape}; wanted (N, C, ...)")

    def mask_shape(self, x):
        return (*x.shape[:2], *(1,) * (x.dim() - 2))
