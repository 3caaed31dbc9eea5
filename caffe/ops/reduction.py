"""Layers that summarise an axis: Softmax, Accuracy, ArgMax, Reduction."""

import torch

from caffe.layer import TorchLayer, register
from caffe.ops.axes import canonical_axis
from caffe.ops.labels import class_index, predictions


@register("Softmax")
class Softmax(TorchLayer):
    """exp(x) / sum exp(x) along `axis` (1). Caffe: softmax_layer.cpp."""

    num_bottom = num_top = 1

    def top_shapes(self, shape):
        self.axis = canonical_axis(self, self.param.softmax_param.axis, shape)
        return [shape]

    def compute(self, x):
        return x.softmax(self.axis)


@register("Accuracy")
class Accuracy(TorchLayer):
    """Share of labels among the `top_k` best scores; a tie with another class counts against the label.

    bottom[0] (N, C, ...) scores, bottom[1] (N, ...) labels; top[0] (), top[1] (C) the share for each class, 0 for a
    class without labels. Caffe: accuracy_layer.cpp."""

    num_bottom, num_top = 2, (1, 2)
    differentiable = False

    def top_shapes(self, scores, labels):
        p = self.param.accuracy_param
        self.axis = predictions(self, scores, labels, p.axis)
        classes = scores[self.axis]
        if not 1 <= p.top_k <= classes:
            self.fail(f"top_k must be less than or equal to the number of classes: {p.top_k}, {classes} classes")
        return [(), (classes,)]

    def compute(self, scores, labels):
        p = self.param.accuracy_param
        classes = scores.shape[self.axis]
        rows = scores.movedim(self.axis, -1).reshape(-1, classes)
        ignore = p.ignore_label if p.HasField("ignore_label") else None
        index, counted, poison = class_index(self, labels.reshape(-1), classes, ignore)
        own = rows.gather(1, index[:, None])
        hit = ((rows >= own).sum(1) <= p.top_k) & counted
        total = hit.sum() / counted.sum().clamp(min=1) + poison
        per_class = torch.zeros(2, classes, device=rows.device)
        per_class.scatter_add_(1, index.expand(2, -1), torch.stack([hit, counted]).float())
        return total, per_class[0] / per_class[1].clamp(min=1)
