"""Layers that summarise an axis: Softmax, Accuracy, ArgMax, Reduction."""

import math

import torch

from caffe.layer import register
from caffe.ops.labels import NO_ONNX, class_index, predictions
from caffe.torch_layer import TorchLayer


@register("Softmax")
class Softmax(TorchLayer):
    """exp(x) / sum exp(x) along `axis` (1). Caffe: softmax_layer.cpp."""

    num_bottom = num_top = 1
    reads_top = True

    def top_shapes(self, shape):
        self.axis = self.canonical_axis(self.param.softmax_param.axis, shape)
        return [shape]

    def compute(self, x):
        return x.softmax(self.axis)

    def bottom_diff(self, x, y, g):
        return torch.ops.aten._softmax_backward_data(g, y, self.axis, g.dtype)  # (g - sum(g y)) y


@register("Accuracy")
class Accuracy(TorchLayer):
    """Share of labels among the `top_k` best scores; a tie with another class counts against the label.

    bottom[0] (N, C, ...) scores, bottom[1] (N, ...) labels; top[0] (), top[1] (C) the share for each class, 0 for a
    class without labels. Caffe: accuracy_layer.cpp."""

    num_bottom, num_top = 2, (1, 2)
    differentiable = False
    no_onnx = NO_ONNX

    def top_shapes(self, scores, labels):
        p = self.param.accuracy_param
        self.axis = predictions(self, scores, labels, p.axis)
        classes = scores[self.axis]
        if not 1 <= p.top_k <= classes:
            self.fail(f"top_k must be less than or equal to the number of classes: {p.top_k}, {classes} classes")
        return [(), (classes,)]

    def setup(self, bottom, top):
        self.by_class = len(top) > 1
        super().setup(bottom, top)

    def compute(self, scores, labels):
        p = self.param.accuracy_param
        classes = scores.shape[self.axis]
        rows = scores.movedim(self.axis, -1).reshape(-1, classes)
        ignore = p.ignore_label if p.HasField("ignore_label") else None
        index, counted, poison = class_index(self, labels.reshape(-1), classes, ignore)
        own = rows.gather(1, index[:, None])
        hit = ((rows >= own).sum(1) <= p.top_k) & counted
        total = hit.sum() / counted.sum().clamp(min=1) + poison
        if not self.by_class:
            return total
        per_class = torch.zeros(2, classes, device=rows.device)
        per_class.scatter_add_(1, index.expand(2, -1), torch.stack([hit, counted]).float())
        return total, per_class[0] / per_class[1].clamp(min=1)


@register("ArgMax")
class ArgMax(TorchLayer):
    """Indices of the `top_k` largest values, largest first, of equal ones the later first; not differentiable.

    Over all axes but the first: (N, ...) -> (N, 1, k), with `out_max_val` (N, 2, k): indices, then values. With `axis`:
    that axis shrinks to k and holds indices, with `out_max_val` values. Caffe: argmax_layer.cpp."""

    num_bottom = num_top = 1
    differentiable = False

    def top_shapes(self, shape):
        p = self.param.argmax_param
        if not shape:
            self.fail("bottom has shape (); wanted at least one axis")
        axis = self.canonical_axis(p.axis, shape) if p.HasField("axis") else None
        size = math.prod(shape[1:]) if axis is None else shape[axis]
        self.axis = axis
        if not 1 <= p.top_k <= size:
            self.fail(f"top_k is {p.top_k}; wanted 1..{size} for a bottom of shape {tuple(shape)}")
        if axis is not None:
            return [(*shape[:axis], p.top_k, *shape[axis + 1 :])]
        return [(shape[0], 2 if p.out_max_val else 1, p.top_k, *(1,) * (len(shape) - 3))]

    def compute(self, x):
        p = self.param.argmax_param
        axis, rows = (self.axis, x) if self.axis is not None else (1, x.reshape(x.shape[0], math.prod(x.shape[1:])))
        if torch.compiler.is_exporting():
            values, order = rows.flip(axis).topk(p.top_k, axis)  # ONNX's: of equals the first
        else:
            values, order = rows.flip(axis).sort(dim=axis, descending=True, stable=True)
        values = values.narrow(axis, 0, p.top_k)
        indices = (rows.shape[axis] - 1 - order.narrow(axis, 0, p.top_k)).to(x.dtype)
        if self.axis is not None:
            return values if p.out_max_val else indices
        top = torch.stack([indices, values] if p.out_max_val else [indices], 1)
        return top.reshape(*top.shape, *(1,) * (x.dim() - 3))


@register("Reduction")
class Reduction(TorchLayer):
    """coeff times the SUM, ASUM (of |x|), SUMSQ (of x^2) or MEAN over all axes from `axis` (0) on.

    Caffe: reduction_layer.cpp."""

    num_bottom = num_top = 1
    saves_output = False

    def top_shapes(self, shape):
        self.axis = self.canonical_axis(self.param.reduction_param.axis, shape)
        return [shape[: self.axis]]

    def compute(self, x):
        p = self.param.reduction_param
        x = x.flatten(self.axis)
        if p.operation == p.ASUM:
            x = x.abs()
        elif p.operation == p.SUMSQ:
            x = x.square()
        return p.coeff * (x.mean(-1) if p.operation == p.MEAN else x.sum(-1))
