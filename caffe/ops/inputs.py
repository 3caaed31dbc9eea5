"""Layers that make blobs without files: Input, DummyData, Parameter, MemoryData."""

import numpy as np
import torch

from caffe import glog
from caffe.blob import Blob
from caffe.builtin_layer import BuiltinLayer
from caffe.fillers import fill
from caffe.layer import register
from caffe.proto import caffe_pb2


def one_or_each(layer, values, tops, what, zero=False):
    """`values` given once for all tops, once for each (or, with `zero`, not at all): a list with one for each."""
    if len(values) not in ({0, 1, tops} if zero else {1, tops}):
        layer.fail(
            f"Must specify either {'0, ' if zero else ''}1 or {tops} (one for each top) {what}; found {len(values)}"
        )
    return list(values) * tops if len(values) == 1 else list(values)


@register("Input")
class Input(BuiltinLayer):
    """Tops that the user fills, of the shapes in input_param. Caffe: input_layer.cpp."""

    num_bottom, num_top = 0, (1, None)

    def setup(self, bottom, top):
        shapes = one_or_each(self, self.param.input_param.shape, len(top), "shape", zero=True)
        for blob, shape in zip(top, shapes):
            blob.reshape(*shape.dim)


@register("DummyData")
class DummyData(BuiltinLayer):
    """Tops filled by fillers: constants once, everything else anew in each forward. Caffe: dummy_data_layer.cpp."""

    num_bottom, num_top = 0, (1, None)

    def setup(self, bottom, top):
        p = self.param.dummy_data_param
        fillers = p.data_filler or [caffe_pb2.FillerParameter()]  # constant 0
        self.fillers = one_or_each(self, fillers, len(top), "data_filler")
        for blob, shape, filler in zip(top, self._shapes(p, len(top)), self.fillers):
            blob.reshape(*shape)
            if filler.type == "constant":
                fill(blob, filler, self.random() if self.random else None)

    def _shapes(self, p, tops):
        old = (p.num, p.channels, p.height, p.width)
        if any(old):
            if p.shape:
                self.fail("give either shape or num, channels, height and width, not both")
            names = ("num", "channels", "height", "width")
            return list(zip(*(one_or_each(self, values, tops, name) for name, values in zip(names, old))))
        return [shape.dim for shape in one_or_each(self, p.shape, tops, "shape")]

    def forward(self, bottom, top):
        generator = self.random() if self.random else None  # one for all tops, so that they differ
        for blob, filler in zip(top, self.fillers):
            if filler.type != "constant":
                fill(blob, filler, generator)


@register("Parameter")
class Parameter(BuiltinLayer):
    """A learned blob of shape parameter_param.shape as the top. Caffe: parameter_layer.hpp."""

    num_bottom, num_top = 0, 1

    def setup(self, bottom, top):
        self.blobs.append(Blob(self.param.parameter_param.shape.dim))

    def reshape(self, bottom, top):
        top[0].reshape(*self.blobs[0].shape)
        top[0].share(self.blobs[0])  # anew each time: the net may make this layer share another's blob


@register("MemoryData")
class MemoryData(BuiltinLayer):
    """Tops: data (N, C, H, W) and labels (N), from the first batch on (N, 1, 1, 1), N = batch_size, from the arrays
    given to Net.set_input_arrays: batch after batch, again and again. Caffe: memory_data_layer.cpp."""

    num_bottom, num_top = 0, 2

    def setup(self, bottom, top):
        p = self.param.memory_data_param
        self.shape = (p.batch_size, p.channels, p.height, p.width)
        if not all(self.shape):
            self.fail(
                "batch_size, channels, height, and width must be specified and positive in memory_data_param; "
                f"found {self.shape}"
            )
        self.data = self.labels = None
        self.position = 0
        for blob, shape in zip(top, (self.shape, self.shape[:1])):
            blob.reshape(*shape)

    def set_arrays(self, data, labels):
        """Give from now on the rows of `data` (n, C, H, W) and `labels` (n) or (n, 1, 1, 1); both C-contiguous float32,
        n a multiple of the batch size. They are not copied: later changes are seen."""
        for name, array, wanted in (("data", data, self.shape[1:]), ("labels", labels, (1, 1, 1))):
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.flags.c_contiguous:
                self.fail(f"the {name} array must be C contiguous float32 (use np.ascontiguousarray(a, np.float32))")
            if array.shape[1:] != wanted and not (name == "labels" and array.ndim == 1):
                self.fail(f"the {name} array has shape {array.shape}; wanted (n, {', '.join(map(str, wanted))})")
        if len(data) != len(labels):
            self.fail(f"data and labels must have the same first dimension; found {len(data)} and {len(labels)}")
        if not len(data) or len(data) % self.shape[0]:
            self.fail(f"first dimension {len(data)} must be a multiple of batch size {self.shape[0]}")
        if self.param.HasField("transform_param"):
            glog.warning("memory_data_layer.cpp:90", "MemoryData does not transform array data on Reset()")
        self.data, self.labels, self.position = data, labels.reshape(-1, 1, 1, 1), 0

    def seek(self, batch):
        self.position = batch * self.shape[0]

    def forward(self, bottom, top):
        if self.data is None:
            self.fail("MemoryDataLayer needs to be initialized by calling Reset: call net.set_input_arrays")
        start = self.position % len(self.data)
        top[1].reshape(self.shape[0], 1, 1, 1)
        for blob, rows in zip(top, (self.data, self.labels)):
            blob.memory.assign(torch.from_numpy(rows[start : start + self.shape[0]].copy()))
        self.position += self.shape[0]
