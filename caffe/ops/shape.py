"""Layers that move or select values: Concat, Slice, Split, Flatten, Reshape, Tile, BatchReindex, Filter, Silence."""

import math

import torch

from caffe.layer import TorchLayer, register
from caffe.ops.axes import canonical_axis


@register("Split")
class Split(TorchLayer):
    """Every top is the bottom, in the same memory; the bottom's gradient is the sum of theirs. Nets insert it where a
    blob has several consumers. Caffe: split_layer.cpp."""

    num_bottom = 1
    num_top = (1, None)

    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        for blob in top:
            blob.memory.assign(bottom[0].tensor())

    def backward(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        grads = [t.grad.tensor() for t in top if not t.grad.is_zero]
        if len(grads) > 1:
            total = grads[0] + grads[1]
            for g in grads[2:]:
                total += g
            bottom[0].grad.assign(total)
        elif grads:
            bottom[0].grad.assign(grads[0].clone())
        else:
            bottom[0].grad.zero()


@register("Concat")
class Concat(TorchLayer):
    """The bottoms one after another along `axis` (1); all other axes must agree. Caffe: concat_layer.cpp."""

    num_bottom = (1, None)
    num_top = 1
    saves_output = False

    def configure(self, bottom):
        p = self.param.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            self.fail("Either axis or concat_dim should be specified; not both")

    def top_shapes(self, *shapes):
        self.axis = canonical_axis(self, _axis(self.param.concat_param, "concat_dim"), shapes[0])
        for i, shape in enumerate(shapes):
            if len(shape) != len(shapes[0]) or any(
                a != b for k, (a, b) in enumerate(zip(shape, shapes[0])) if k != self.axis
            ):
                self.fail(f"bottom[{i}] has shape {shape}, bottom[0] {shapes[0]}; "
                          f"all inputs must have the same shape, except at axis {self.axis}")  # fmt: skip
        top = list(shapes[0])
        top[self.axis] = sum(shape[self.axis] for shape in shapes)
        return [tuple(top)]

    def compute(self, *bottoms):
        return torch.cat(bottoms, self.axis)


@register("Slice")
class Slice(TorchLayer):
    """The bottom cut along `axis` (1): before each slice_point, or into equal parts. Caffe: slice_layer.cpp."""

    num_bottom = 1
    num_top = (1, None)
    saves_output = False

    def setup(self, bottom, top):
        p = self.param.slice_param
        if p.HasField("axis") and p.HasField("slice_dim"):
            self.fail("Either axis or slice_dim should be specified; not both")
        self.count = len(top)
        super().setup(bottom, top)

    def top_shapes(self, shape):
        points = list(self.param.slice_param.slice_point)
        self.axis = canonical_axis(self, _axis(self.param.slice_param, "slice_dim"), shape)
        length = shape[self.axis]
        if not points:
            if length % self.count:
                self.fail(f"Number of top blobs ({self.count}) should evenly divide input slice axis ({length})")
            self.sizes = [length // self.count] * self.count
        elif len(points) != self.count - 1:
            self.fail(f"{len(points)} slice points for {self.count} tops; wanted one less than the tops")
        else:
            edges = [0, *points, length]
            self.sizes = [b - a for a, b in zip(edges, edges[1:])]
            if min(self.sizes) < 1:
                self.fail(f"axis {self.axis} of bottom shape {shape} is {length} long; slice points {points} must rise "
                          "and lie inside it (check the batch size)")  # fmt: skip
        return [(*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in self.sizes]

    def compute(self, x):
        # Copies, so that a layer working in place on a top leaves the bottom alone.
        return [part.clone() for part in x.split(self.sizes, self.axis)]


def _axis(p, legacy):
    """The axis of a ConcatParameter or SliceParameter, which may be given under its old name."""
    return getattr(p, legacy) if p.HasField(legacy) else p.axis
