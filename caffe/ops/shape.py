"""Layers that move or select values: Concat, Slice, Split, Flatten, Reshape, Tile, BatchReindex, Filter, Silence."""

import math

import torch

from caffe.builtin_layer import BuiltinLayer
from caffe.layer import register
from caffe.torch_layer import TorchLayer


@register("Split")
class Split(BuiltinLayer):
    """Every top is the bottom, in the same memory; the bottom's gradient is the sum of theirs. Nets insert it where a
    blob has several consumers. Caffe: split_layer.cpp."""

    num_bottom = 1
    num_top = (1, None)
    capturable = True

    def setup(self, bottom, top):
        if any(t is bottom[0] for t in top):
            self.fail("Split Layer does not allow in-place computation")

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
        self.axis = self.canonical_axis(_axis(self.param.concat_param, "concat_dim"), shapes[0])
        for i, shape in enumerate(shapes):
            if len(shape) != len(shapes[0]) or any(
                a != b for k, (a, b) in enumerate(zip(shape, shapes[0])) if k != self.axis
            ):
                self.fail(
                    f"bottom[{i}] has shape {shape}, bottom[0] {shapes[0]}; "
                    f"all inputs must have the same shape, except at axis {self.axis}"
                )
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
        self.axis = self.canonical_axis(_axis(self.param.slice_param, "slice_dim"), shape)
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
                self.fail(
                    f"axis {self.axis} of bottom shape {shape} is {length} long; slice points {points} must rise "
                    "and lie inside it (check the batch size)"
                )
        return [(*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in self.sizes]

    def compute(self, x):
        # Copies, so that a layer working in place on a top leaves the bottom alone.
        return [part.clone() for part in x.split(self.sizes, self.axis)]


def _axis(p, legacy):
    """The axis of a ConcatParameter or SliceParameter, which may be given under its old name."""
    return getattr(p, legacy) if p.HasField(legacy) else p.axis


class _SameValues(TorchLayer):
    """Flatten and Reshape: the top is the bottom's memory in another shape, which `top_shapes` tells."""

    num_bottom = num_top = 1

    def configure(self, bottom):
        if self.in_place:
            self.fail(f"{self.type} Layer does not allow in-place computation")

    def compute(self, x):
        return x.reshape(self.top_shapes(tuple(x.shape))[0])


@register("Flatten")
class Flatten(_SameValues):
    """Axes `axis` (1) to `end_axis` (-1) become one. Caffe: flatten_layer.cpp."""

    def top_shapes(self, shape):
        p = self.param.flatten_param
        start, end = self.canonical_axis(p.axis, shape), self.canonical_axis(p.end_axis, shape, "end_axis")
        if end < start:
            self.fail(f"end_axis {p.end_axis} comes before axis {p.axis} (bottom shape {shape})")
        return [(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])]


@register("Reshape")
class Reshape(_SameValues):
    """The num_axes axes from `axis` on are replaced by the dims of `shape`: 0 copies the bottom's dim at that place,
    one -1 is found from the count. A negative axis counts from one past the end. Caffe: reshape_layer.cpp."""

    def top_shapes(self, shape):
        p = self.param.reshape_param
        dims, n = list(p.shape.dim), len(shape)
        start = p.axis if p.axis >= 0 else n + 1 + p.axis
        end = n if p.num_axes == -1 else start + p.num_axes
        if p.num_axes < -1:
            self.fail("num_axes must be >= 0, or -1 for all")
        if not 0 <= start <= end <= n:
            self.fail(f"axis {p.axis} with num_axes {p.num_axes} does not fit a {n}-D bottom with shape {shape}")
        if min(dims, default=0) < -1 or dims.count(-1) > 1:
            self.fail(f"new shape {dims} wants dims >= 0 and at most one -1")
        for i, d in enumerate(dims):
            if d == 0:
                if start + i >= n:
                    self.fail(f"new shape {dims} copies axis {start + i}, which the bottom {shape} does not have")
                dims[i] = shape[start + i]
        top = [*shape[:start], *dims, *shape[end:]]
        count = math.prod(shape)
        if -1 in top:
            known = -math.prod(top)
            if known == 0 or count % known:
                self.fail(f"bottom count {count} (shape {shape}) must be divisible by {known}, the product of the dims")
            top[top.index(-1)] = count // known
        if math.prod(top) != count:
            self.fail(f"output count must match input count: {top} has {math.prod(top)}, bottom {shape} has {count}")
        return [tuple(top)]


@register("Tile")
class Tile(TorchLayer):
    """The bottom `tiles` times along `axis` (1). Caffe: tile_layer.cpp."""

    num_bottom = num_top = 1
    saves_output = False

    def configure(self, bottom):
        if self.param.tile_param.tiles < 1:
            self.fail("Number of tiles must be positive")

    def compute(self, x):
        p = self.param.tile_param
        repeats = [1] * x.dim()
        repeats[self.canonical_axis(p.axis, x.shape)] = p.tiles
        return x.repeat(repeats)


@register("BatchReindex")
class BatchReindex(TorchLayer):
    """top[i] = x[index[i]]: bottoms x (N, ...) and index (M,), top (M, ...). An item taken twice sums its gradients.
    Caffe: batch_reindex_layer.cpp."""

    num_bottom, num_top = 2, 1
    no_gradient = (1,)
    saves_output = False
    capturable = False  # the indices are checked on the host

    def top_shapes(self, shape, index):
        if len(index) != 1:
            self.fail(f"the permutation, bottom[1], must have one axis; its shape is {index}")
        return [(*index, *shape[1:])]

    def compute(self, x, index):
        told = not torch.compiler.is_exporting() and index.numel()
        if told and not (0 <= index.min() and index.max() < x.shape[0]):
            self.fail(
                f"index out of range: the batch has items 0 to {x.shape[0] - 1}, "
                f"the indices go from {index.min():g} to {index.max():g}"
            )
        return x.index_select(0, index.long())


@register("Filter")
class Filter(TorchLayer):
    """Of each bottom (N, ...) but the last keep the items whose value in the last, the selector (N,) or (N, 1, ..), is
    not 0: tops (n, ...), where n is known only when the selector is. Caffe: filter_layer.cpp."""

    num_bottom = (2, None)
    num_top = (1, None)
    saves_output = False
    capturable = False  # the number of items that stay is data

    def setup(self, bottom, top):
        if len(top) != len(bottom) - 1:
            self.fail(f"wants a top for every bottom but the selector; {len(bottom)} bottoms, {len(top)} tops")
        self.no_gradient = (len(bottom) - 1,)
        self.built = False
        super().setup(bottom, top)

    def reshape(self, bottom, top):
        *data, selector = bottom
        if math.prod(selector.shape[1:]) != 1 or not selector.shape:
            self.fail(
                f"Selector blob dimensions must be singletons (1), except the first; its shape is {selector.shape}"
            )
        for i, blob in enumerate(data):
            if blob.shape[:1] != selector.shape[:1]:
                self.fail(f"bottom[{i}] has shape {blob.shape}; wanted the selector's {selector.shape[0]} items")
        self.chosen = selector.tensor().reshape(-1).nonzero()[:, 0]
        # When the net is built nothing is chosen yet; the layers above are sized for a full batch.
        count = len(self.chosen) if self.built else selector.shape[0]
        self.built = True
        for blob, source in zip(top, data):
            blob.reshape(count, *source.shape[1:])

    def compute(self, *bottoms):
        return [x.index_select(0, self.chosen) for x in bottoms[:-1]]


@register("Silence")
class Silence(TorchLayer):
    """Takes blobs that nobody reads; sends them zero gradients. Caffe: silence_layer.cpp."""

    num_bottom = (1, None)
    num_top = 0

    def compute(self, *bottoms):
        return ()
