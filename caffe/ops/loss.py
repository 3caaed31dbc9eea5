"""Losses: one number, shape (), of predictions and targets. The net applies `loss_weight`; gradients arrive with it."""

import math

import torch
import torch.nn.functional as F

from caffe import bvlc
from caffe.layer import Count, register
from caffe.ops.labels import NO_ONNX, class_index, predictions
from caffe.torch_layer import TorchLayer
from caffe.weights import read_array

FLT_MIN = torch.finfo(torch.float32).tiny  # SoftmaxWithLoss takes no probability for smaller
LOG_THRESHOLD = 1e-20  # nor do the other losses on probabilities


class _Loss(TorchLayer):
    """Two bottoms with the same number of items, one top; makes its own top when the prototxt names none."""

    num_bottom: Count = 2
    num_top: Count = 1
    auto_top = is_loss = True
    no_gradient: tuple[int, ...] = (1,)
    saves_output = False

    def top_shapes(self, *shapes):
        a, b = shapes[:2]
        if not a or not b or a[0] != b[0]:
            self.fail(
                "The data and label should have the same first dimension. "
                f"bottom[0] has shape {tuple(a)}, bottom[1] {tuple(b)}"
            )
        self.check(*shapes)
        return [()]

    def check(self, *shapes):
        """Fail when bottoms of these shapes cannot be compared."""


class _Clamp(torch.autograd.Function):
    """max(x, least) to the last bit, with a gradient of 1 everywhere."""

    @staticmethod
    def forward(ctx, x, least):
        return x.clamp(min=least)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


_clamped = _Clamp.apply


@register("EuclideanLoss")
class EuclideanLoss(_Loss):
    """sum (a - b)^2 / (2 N); gradient for both bottoms, (N, ...) each. Caffe: euclidean_loss_layer.cpp."""

    keeps_own = True
    no_gradient = ()

    def check(self, a, b):
        if math.prod(a) != math.prod(b):
            self.fail(f"Inputs must have the same dimension. bottom[0] has shape {tuple(a)}, bottom[1] {tuple(b)}")
        bvlc.refuses_axes(self, a)

    def compute(self, a, b):
        return F.mse_loss(a, b.reshape(a.shape), reduction="sum") / (2 * a.shape[0])


class _Contrast(torch.autograd.Function):
    """The contrastive loss and Caffe's gradient of it, which divides by distance + 1e-4 where the loss does not."""

    @staticmethod
    def forward(ctx, a, b, similar, margin, legacy):
        difference = a - b
        squared = difference.square().sum(1)
        distance = squared.sqrt()
        gap = (margin - squared if legacy else margin - distance).clamp(min=0)
        push = (gap > 0).to(a.dtype) if legacy else gap / (distance + 1e-4)
        ctx.save_for_backward(difference, torch.where(similar, 1.0, -push))
        return torch.where(similar, squared, gap if legacy else gap.square()).sum() / (2 * a.shape[0])

    @staticmethod
    def backward(ctx, grad):
        difference, pull = ctx.saved_tensors
        da = (grad / difference.shape[0] * pull)[:, None] * difference
        return da, -da, None, None, None


@register("ContrastiveLoss")
class ContrastiveLoss(_Loss):
    """1 / (2 N) sum of d^2 for similar pairs, max(margin - d, 0)^2 for others, with d = |a - b|.

    bottom[0], bottom[1] (N, C) or (N, C, 1, 1); bottom[2] (N): 0 for dissimilar. `legacy_version`: max(margin - d^2, 0)
    for dissimilar pairs. Caffe: contrastive_loss_layer.cpp."""

    keeps_own = True
    num_bottom = 3
    no_gradient = (2,)
    gradient_checked = False

    def check(self, a, b, similar):
        bvlc.refuses_axes(self, max(a, b, similar, key=len))
        if math.prod(a) != a[0] * (a[1] if len(a) > 1 else 1) or math.prod(b) != math.prod(a):
            self.fail(
                f"bottom[0] and bottom[1] have shapes {tuple(a)} and {tuple(b)}; wanted the same (N, C) or (N, C, 1, 1)"
            )
        if math.prod(similar) != a[0]:
            self.fail(f"bottom[2] has shape {tuple(similar)}; wanted one value for each of the {a[0]} pairs")

    def compute(self, a, b, similar):
        p, n = self.param.contrastive_loss_param, a.shape[0]
        similar = similar.reshape(n).trunc() != 0
        return _Contrast.apply(a.reshape(n, -1), b.reshape(n, -1), similar, p.margin, p.legacy_version)


class _Normalized(_Loss):
    """A loss divided by what loss_param.normalization names."""

    default_normalization: str | None = None  # None: as in caffe.proto

    @property
    def ignore_label(self):
        p = self.param.loss_param
        return p.ignore_label if p.HasField("ignore_label") else None

    def normalizer(self, items, positions, counted):
        """Divisor for `items` in the batch, each with `positions` labels; `counted`: the labels' mask. At least 1."""
        p = self.param.loss_param
        mode = p.normalization
        if not p.HasField("normalization"):
            if p.HasField("normalize"):
                mode = p.VALID if p.normalize else p.BATCH_SIZE
            elif self.default_normalization:
                mode = p.NormalizationMode.Value(self.default_normalization)
        if mode == p.VALID:
            return counted.sum().clamp(min=1)
        return max(1, {p.FULL: items * positions, p.BATCH_SIZE: items, p.NONE: 1}[mode])


class _ClassLoss(_Normalized):
    """Scores with classes along one axis (1), and a label for every other position. A second top has the probabilities,
    in the scores' shape; no gradient comes from it."""

    no_onnx = NO_ONNX

    num_top = (1, 2)
    class_axis: property

    def setup(self, bottom, top):
        self.gives_probabilities = len(top) > 1
        if self.gives_probabilities and len(self.param.loss_weight) != 2:
            bvlc.refuses(self, "two tops without two values of loss_weight; 1 and 0 are taken")
        super().setup(bottom, top)

    def top_shapes(self, scores, *others):
        return [*super().top_shapes(scores, *others), scores]

    def check(self, scores, labels, *_):
        self.axis = predictions(self, scores, labels, self.class_axis)

    def compute(self, scores, labels, *others):
        loss = self.loss(scores, labels, *others)
        return (loss, scores.detach().softmax(self.axis)) if self.gives_probabilities else loss

    def loss(self, scores, labels, *others):
        raise NotImplementedError

    def log_probabilities(self, scores, labels):
        """log softmax with the classes last, (positions, C); class index, mask (positions); number to add."""
        classes = scores.shape[self.axis]
        log_p = F.log_softmax(scores, self.axis).movedim(self.axis, -1).reshape(-1, classes)
        return log_p, *class_index(self, labels.reshape(-1), classes, self.ignore_label)

    def mean(self, scores, costs, counted, poison):
        """Normalised sum of the costs that count."""
        items = math.prod(scores.shape[: self.axis])
        positions = math.prod(scores.shape[self.axis + 1 :])
        return torch.where(counted, costs, 0.0).sum() / self.normalizer(items, positions, counted) + poison


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(_ClassLoss):
    """Mean of -log softmax(scores)[label]; bottom[0] (N, C, ...) scores, bottom[1] (N, ...) labels 0..C-1.

    A probability below FLT_MIN costs as much as FLT_MIN; the gradient is probability - 1 at the label all the same.
    Divided by the number of labels that count (loss_param: normalization VALID). Caffe: softmax_loss_layer.cpp."""

    keeps_own = True
    class_axis = property(lambda self: self.param.softmax_param.axis)

    def loss(self, scores, labels):
        log_p, index, counted, poison = self.log_probabilities(scores, labels)
        costs = -_clamped(log_p.gather(1, index[:, None]).squeeze(1), math.log(FLT_MIN))
        return self.mean(scores, costs, counted, poison)


@register("InfogainLoss")
class InfogainLoss(_ClassLoss):
    """Mean of -sum over classes l of H[label, l] log softmax(scores)[l]; with H the identity, SoftmaxWithLoss.

    bottom[0] (N, C, ...) scores, bottom[1] (N, ...) labels, bottom[2] H (C, C), or H as a BlobProto in the file
    infogain_loss_param.source. A probability below 1e-20 costs as much as 1e-20. Caffe: infogain_loss_layer.cpp."""

    keeps_own = True
    num_bottom = (2, 3)
    no_gradient = (1, 2)
    class_axis = property(lambda self: self.param.infogain_loss_param.axis)

    def configure(self, bottom):
        source = self.param.infogain_loss_param.source
        if self.param.loss_param.HasField("normalize"):
            bvlc.refuses(self, "loss_param.normalize; it wants normalization: VALID or BATCH_SIZE")
        if len(bottom) == 3:
            return
        if not source:
            self.fail("Infogain matrix source must be specified (infogain_loss_param.source), or a third bottom given")
        self.infogain = torch.from_numpy(read_array(source))

    def check(self, scores, labels, infogain=None):
        super().check(scores, labels)
        classes = scores[self.axis]
        found = tuple(self.infogain.shape) if infogain is None else tuple(infogain)
        if math.prod(found) != classes**2:
            self.fail(f"the infogain matrix has shape {found}; wanted ({classes}, {classes}), one row for each class")

    def loss(self, scores, labels, infogain=None):
        log_p, index, counted, poison = self.log_probabilities(scores, labels)
        if infogain is None:
            infogain = self.infogain = self.infogain.to(scores.device)
        rows = infogain.reshape(log_p.shape[1], -1)[index]
        costs = -(rows * _clamped(log_p, math.log(LOG_THRESHOLD))).sum(1)
        return self.mean(scores, costs, counted, poison)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_Normalized):
    """-sum t log s(x) + (1 - t) log(1 - s(x)), s the sigmoid, divided by the batch size unless loss_param says else.

    bottom[0] scores x, bottom[1] targets t in [0, 1], as many. Caffe: sigmoid_cross_entropy_loss_layer.cpp."""

    no_onnx = NO_ONNX

    keeps_own = True
    default_normalization = "BATCH_SIZE"

    def check(self, scores, targets):
        if math.prod(scores) != math.prod(targets):
            self.fail(
                "SIGMOID_CROSS_ENTROPY_LOSS layer inputs must have the same count. "
                f"bottom[0] has shape {tuple(scores)}, bottom[1] {tuple(targets)}"
            )

    def compute(self, scores, targets):
        targets = targets.reshape(scores.shape)
        counted = torch.ones_like(targets, dtype=torch.bool)
        if self.ignore_label is not None:
            counted = targets.long() != self.ignore_label
        costs = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        items, positions = scores.shape[0], math.prod(scores.shape[1:])
        return torch.where(counted, costs, 0.0).sum() / self.normalizer(items, positions, counted)


class _LabelOfItem(_Loss):
    """One label for each item: bottom[0] (N, C), or (N, ...) with C the number of values of an item; bottom[1] (N)."""

    no_onnx = NO_ONNX

    def check(self, values, labels):
        bvlc.refuses_axes(self, values)
        if math.prod(labels) != values[0]:
            self.fail(f"bottom[1] has shape {tuple(labels)}; wanted one label for each of the {values[0]} items")


@register("HingeLoss")
class HingeLoss(_LabelOfItem):
    """One-versus-all: 1 / N sum of max(0, 1 + x), with -x for x at the label; norm L2: of their squares.

    Caffe: hinge_loss_layer.cpp."""

    def compute(self, scores, labels):
        p, n = self.param.hinge_loss_param, scores.shape[0]
        scores = scores.reshape(n, -1)
        index, _, poison = class_index(self, labels.reshape(n), scores.shape[1])
        sign = torch.ones_like(scores).scatter(1, index[:, None], -1.0)
        margins = 1 + sign * scores
        margins = torch.where(margins > 0, margins, 0.0)  # a NaN is no margin either, as in Caffe
        return (margins.square() if p.norm == p.L2 else margins).sum() / n + poison


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(_LabelOfItem):
    """-1 / N sum of log p[label] for probabilities p; one below 1e-20 counts as 1e-20.

    Caffe: multinomial_logistic_loss_layer.cpp."""

    def compute(self, probabilities, labels):
        n = probabilities.shape[0]
        rows = probabilities.reshape(n, -1)
        index, _, poison = class_index(self, labels.reshape(n), rows.shape[1])
        return -_clamped(rows.gather(1, index[:, None]), LOG_THRESHOLD).log().sum() / n + poison
