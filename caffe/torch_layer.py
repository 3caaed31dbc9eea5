"""TorchLayer: what the built-in layer types have in common.

A built-in layer is a short class over torch tensors:

    @register("Power")
    class Power(TorchLayer):
        def compute(self, x):
            p = self.param.power_param
            return (p.shift + p.scale * x) ** p.power

`compute` takes the bottoms' tensors and gives the tops'; parameters are in `self.weights` (made in `configure`). Shapes
of the tops are found by running it on tensors without values, gradients by autograd. A layer overrides `top_shapes`
or `backward` only where that is not enough.

Caffe's gradients are of what the blobs hold when backward runs, whoever has written it. A layer whose top Caffe's
backward reads says so by its formula: `bottom_diff(x, y, g)` is the bottom's gradient where bottom and top hold x and y
and the top's gradient is g.
"""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd import Variable

from caffe import device
from caffe.blob import Blob, lacks_memory
from caffe.builtin_layer import BuiltinLayer
from caffe.errors import CaffeError
from caffe.fillers import fill
from caffe.layer import TEST
from caffe.prepared import Prepared
from caffe.proto import caffe_pb2

_run_backward = Variable._execution_engine.run_backward  # what torch.autograd.grad comes to


class TorchLayer(BuiltinLayer):
    """A built-in layer: `compute` on torch tensors, gradient by autograd."""

    capturable = True
    keeps_own = False  # Caffe's backward works from what its forward has kept beside the blobs, not from their values
    bottom_diff: Any = None  # Caffe's formula; goes by what the blobs hold where that may have changed since forward
    by_formula = False  # and in every pass

    def __init__(self, param):
        super().__init__(param)
        self.weights = []  # the parameters' tensors, during compute
        self._shapes_for = None  # bottom and parameter shapes that the tops' shapes were found for
        self._top_shapes: list[tuple[int, ...]] = []
        self._record: Any = None  # of the last forward: inputs, parameters and outputs
        self._values: Any = None  # of bottom and top, for `bottom_diff`
        self.in_place = False

    def __init_subclass__(cls, **given):
        super().__init_subclass__(**given)
        if "compute" in vars(cls) and "infer" not in vars(cls):
            cls.infer = TorchLayer.infer  # type: ignore[method-assign]  # a faster way belongs to the computation that it was written for

    # ---- what a layer type defines

    def configure(self, bottom):
        """Check parameters against the bottoms' shapes and make the blobs (`add_blob`)."""

    def compute(self, *bottoms):
        """Tops from bottoms: a tensor, or a tuple of tensors."""
        raise CaffeError(f"layer type {self.type} defines no compute")

    @property
    def infers(self):
        """Whether a forward pass is `infer`: in phase TEST, with no backward pass to follow, on the CPU."""
        return self.phase == TEST and device.shares_host and not (self.duty.backward and self.differentiable)

    def infer(self, *bottoms):
        """As `compute`; a layer type defines it where it knows a faster way."""
        return self.compute(*bottoms)

    def once(self, make, *also, blobs=None):
        """What `make()` gives, until one of the `blobs` (default: the layer's) may have other values, or `also`."""
        self.prepared = self.prepared or Prepared()
        return self.prepared.get(self.blobs if blobs is None else blobs, also, make)

    def top_shapes(self, *shapes):
        """Shapes of the tops for bottoms of these shapes (lists of int tuples)."""
        try:
            return self._computed_shapes("meta", shapes)
        except (RuntimeError, TypeError) as e:
            if "meta" not in str(e).lower():
                raise
        return self._computed_shapes("cpu", shapes)  # an operation that needs values, as ctc_loss or item()

    def _computed_shapes(self, device, shapes):
        self.weights = [torch.zeros(b.shape, device=device) for b in self.blobs]
        tops = several(self.compute(*(torch.zeros(s, device=device) for s in shapes)))
        return [tuple(t.shape) for t in tops]

    # ---- the life of a layer

    def setup(self, bottom, top):
        self.in_place = any(t is b for t in top for b in bottom)
        self.configure(bottom)

    def add_blob(self, shape, filler=None):
        """Append a parameter blob, filled as FillerParameter `filler` says, or a dict of its fields; default: zeros."""
        if not isinstance(filler, caffe_pb2.FillerParameter):
            filler = caffe_pb2.FillerParameter(**(filler or {}))
        blob = Blob(shape)
        try:
            fill(blob, filler, self.random.fixed("blob", len(self.blobs)) if self.random else None)
        except CaffeError as e:
            self.fail(e)
        self.blobs.append(blob)

    def reshape(self, bottom, top):
        key = tuple(b.shape for b in bottom)
        if key == self._shapes_for:
            for blob, shape in zip(top, self._top_shapes):
                if blob.shape != shape:
                    blob.reshape(*shape)
            return
        self._shapes_for = None  # what a refused shape leaves behind is of no use
        try:
            with torch.no_grad():
                shapes = self.top_shapes(*key)
        except (RuntimeError, IndexError) as e:  # torch's complaint about shapes that do not fit
            raise self.error(f"bottom shapes {', '.join(map(str, key))} do not fit: {str(e).splitlines()[0]}") from e
        self._top_shapes = [tuple(s) for s in shapes][: len(top)]
        for blob, own, shape in zip(top, bottom, self._top_shapes):
            if blob is own and math.prod(shape) != own.count:
                self.fail(
                    f"works in place on a blob of shape {own.shape}, but its top has shape {shape}; "
                    "give it a top of its own"
                )
        for blob, shape in zip(top, self._top_shapes):
            blob.reshape(*shape)
        self._shapes_for = key

    def forward(self, bottom, top):
        inputs = [b.tensor() for b in bottom]
        if self.in_place and bottom[0].memory.exposed:
            inputs[0] = inputs[0].clone()  # the result will be copied over it
        self._values = None
        if self.duty.backward and self.differentiable and not self.by_formula:
            outputs = self._recorded(bottom, inputs)
        else:
            self._record = None
            way = self.infer if self.infers else self.compute
            outputs = self._computed(bottom, inputs, [b.tensor() for b in self.blobs], False, way)
        try:
            for blob, value in zip(top, outputs):
                blob.memory.assign(value.detach() if value.requires_grad else value)
        except RuntimeError as e:
            shapes = f"{_shapes(self.blobs)} give {_shapes(outputs)} where {_shapes(top)} is wanted"
            raise self.error(f"parameters of shape {shapes}; were they reshaped?") from e
        if self.by_formula and self.duty.backward:
            self.remember(bottom, top)

    def again(self):
        plain = type(self).forward is TorchLayer.forward and not self.in_place
        return self.infer if plain and self.infers else None

    def remember(self, bottom, top):
        stands = self._record is not None and [tuple(x.shape) for x in self._record[0]] == [b.shape for b in bottom]
        if self.bottom_diff is not None:
            x = self._record[0][0].detach() if stands and self.keeps_own else bottom[0].tensor()
            self._values = x, top[0].tensor()
        elif self.differentiable and not (stands and (self.keeps_own or self.in_place)):
            self._recorded(bottom, [b.tensor() for b in bottom])

    def _recorded(self, bottom, inputs):
        """The tops' values; what led to them is kept for backward."""
        # `data`, not `detach()`: values may be written, and updates come, before another backward pass, as in Caffe.
        wanted = self.duty.bottoms or [True] * len(inputs)
        inputs = [
            x.data.requires_grad_(wish and i not in self.no_gradient) for i, (x, wish) in enumerate(zip(inputs, wanted))
        ]
        weights = [b.tensor().data.requires_grad_(p) for b, p in zip(self.blobs, self.duty.params)]
        outputs = self._computed(bottom, inputs, weights, True, self.compute)
        self._record = (inputs, weights, outputs)
        return outputs

    def _computed(self, bottom, inputs, weights, recorded, way):
        self.weights = weights
        try:
            with nullcontext() if torch.is_grad_enabled() == recorded else torch.set_grad_enabled(recorded):
                return several(way(*inputs))
        except (MemoryError, RuntimeError, IndexError) as e:
            shapes = _shapes(bottom)
            if lacks_memory(e):
                self.fail(f"not enough memory for bottoms of shape {shapes}")
            raise self.error(f"cannot be computed for bottoms of shape {shapes}: {str(e).splitlines()[0]}") from e

    def backward(self, top, propagate_down, bottom):
        if self._values is None:
            self._backward_recorded(top, propagate_down, bottom)
        elif propagate_down[0]:
            bottom[0].grad.assign(self.bottom_diff(*self._values, top[0].grad.tensor()))
        if not self.duty.keep:
            self._record = self._values = None

    def _backward_recorded(self, top, propagate_down, bottom):
        if self._record is None:
            self.fail("backward without a forward pass before it")
        inputs, weights, outputs = self._record
        learned = [(w, blob.grad) for w, blob in zip(weights, self.blobs) if w.requires_grad]
        wanted = [(x, b.grad) for x, b, p in zip(inputs, bottom, propagate_down) if p and x.requires_grad]
        pairs = [(y, t.grad.tensor()) for y, t in zip(outputs, top) if y.requires_grad and not t.grad.is_zero]
        sources = tuple(x for x, _ in (*learned, *wanted))
        if pairs and sources:
            tops, diffs = zip(*pairs)
            grads: tuple[torch.Tensor | None, ...] = gradients(tops, diffs, sources, self.duty.keep)
        else:
            grads = (None,) * len(sources)
        taken = {g.data_ptr() for _, g in pairs}  # one array must not serve as the diff of two blobs
        # The parameters first: in place, the bottom's diff is written over the top's, which their gradients may be.
        for (w, memory), g in zip(learned, grads):
            if g is not None:
                memory.add(_own(g if g.stride() == w.stride() else g.contiguous(), taken))
        owned = [g if g is None else _own(g, taken) for g in grads[len(learned) :]]
        for (_, memory), g in zip(wanted, owned):
            memory.zero() if g is None else memory.assign(g)


def gradients(outputs, diffs, inputs, keep_graph):
    """As torch.autograd.grad; None for an input that plays no part. That function imports sympy to compare shapes: half
    a second before the first update, and 34 MB."""
    return _run_backward(outputs, diffs, keep_graph, False, inputs, allow_unreachable=True, accumulate_grad=False)


def _own(gradient, taken):
    if gradient.data_ptr() in taken:
        return gradient.clone()
    taken.add(gradient.data_ptr())
    return gradient


def _shapes(blobs):
    return ", ".join(str(tuple(blob.shape)) for blob in blobs)


def several(value):
    return value if isinstance(value, (tuple, list)) else (value,)
