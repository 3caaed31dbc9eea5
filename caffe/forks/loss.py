"""Losses of forks: SmoothL1Loss (Fast R-CNN, SSD), CenterLoss."""

import math

import torch

from caffe import glog as log
from caffe.layer import register
from caffe.ops.labels import class_index
from caffe.torch_layer import TorchLayer


@register("SmoothL1Loss")
class SmoothL1Loss(TorchLayer):
    """sum of w_out f(w_in (a - b)) / N, f(d) = q d^2 / 2 where |d| < 1 / q, else |d| - 1 / (2 q), q = sigma^2.

    Bottoms a, b, and none or both of w_in, w_out, all of one shape. With w_in alone it is SSD's, whose gradient is not
    multiplied by w_in a second time. There is no loss weight unless the prototxt gives one (`loss_weight: 1`).
    Fast R-CNN: smooth_l1_loss_layer.cu; SSD: smooth_L1_loss_layer.cpp."""

    num_bottom, num_top = (2, 4), 1
    no_gradient = (2, 3)
    gradient_checked = False
    saves_output = False

    def configure(self, bottom):
        if self.param.smooth_l1_loss_param.sigma <= 0:
            self.fail(f"sigma is {self.param.smooth_l1_loss_param.sigma:g}; it must be above 0")
        if not self.param.loss_weight:
            log.warning("smooth_l1_loss.cpp:1", f"layer '{self.name}' has no loss_weight, and so no part in the loss")

    def top_shapes(self, *shapes):
        for i, shape in enumerate(shapes):
            if not shape or math.prod(shape) != math.prod(shapes[0]) or shape[0] != shapes[0][0]:
                self.fail(f"bottom[{i}] has shape {tuple(shape)}; wanted that of bottom[0], {tuple(shapes[0])}")
        return [()]

    def compute(self, a, b, *weights):
        q = self.param.smooth_l1_loss_param.sigma**2
        d = a - b.reshape(a.shape)
        if weights:
            inner = weights[0].reshape(a.shape)
            d = d + ((inner - 1) * d).detach() if len(weights) == 1 else inner * d
        cost = torch.where(d.abs() < 1 / q, q / 2 * d.square(), d.abs() - 0.5 / q)
        if len(weights) == 2:
            cost = weights[1].reshape(a.shape) * cost
        return cost.sum() / a.shape[0]


class _Centers(torch.autograd.Function):
    """The center loss; the centres' gradient is their own rule, whatever the loss weighs."""

    @staticmethod
    def forward(ctx, x, centers, index):
        difference = x - centers[index]
        ctx.save_for_backward(difference, index)
        ctx.classes = centers.shape[0]
        return difference.square().sum() / (2 * x.shape[0])

    @staticmethod
    def backward(ctx, grad):
        difference, index = ctx.saved_tensors
        pull = difference.new_zeros(ctx.classes, difference.shape[1]).index_add(0, index, -difference)
        count = difference.new_ones(ctx.classes).index_add(0, index, difference.new_ones(len(index)))
        return grad * difference / difference.shape[0], pull / count[:, None], None


@register("CenterLoss")
class CenterLoss(TorchLayer):
    """sum |x - c_y|^2 / (2 N): bottom[0] x (N, ...), flattened from `axis` (1) on, bottom[1] labels y (N).

    Centres (num_output, K), whose gradient is sum of (c - x) over the class's items / (1 + their number), not scaled by
    loss_weight. Caffe-face: center_loss_layer.cpp."""

    num_bottom, num_top = 2, 1
    auto_top = is_loss = True
    no_gradient = (1,)
    saves_output = False

    def configure(self, bottom):
        p = self.param.center_loss_param
        if p.num_output < 1:
            self.fail("num_output must be at least 1")
        self.inputs = math.prod(bottom[0].shape[p.axis :])
        self.add_blob((p.num_output, self.inputs), p.center_filler)

    def top_shapes(self, shape, labels):
        p = self.param.center_loss_param
        items = math.prod(shape[: p.axis])
        if math.prod(shape[p.axis :]) != self.inputs or math.prod(labels) != items:
            self.fail(
                f"bottoms have shapes {tuple(shape)} and {tuple(labels)}; wanted {self.inputs} values from axis "
                f"{p.axis} on, and one label for each of the {items} items"
            )
        return [()]

    def compute(self, x, labels):
        p = self.param.center_loss_param
        index, _, poison = class_index(self, labels.reshape(-1), p.num_output)
        return _Centers.apply(x.reshape(-1, self.inputs), self.weights[0], index) + poison
