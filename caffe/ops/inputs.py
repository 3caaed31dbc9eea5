"""Layers that make blobs without files: Input, DummyData, Parameter, MemoryData."""

from caffe.fillers import fill
from caffe.layer import Layer, register
from caffe.proto import caffe_pb2


def one_or_each(layer, values, tops, what, zero=False):
    """`values` given once for all tops, once for each (or, with `zero`, not at all): a list with one for each."""
    if len(values) not in ({0, 1, tops} if zero else {1, tops}):
        layer.fail(f"Must specify either {'0, ' if zero else ''}1 or {tops} (one for each top) {what}; "
                   f"found {len(values)}")  # fmt: skip
    return list(values) * tops if len(values) == 1 else list(values)


@register("Input")
class Input(Layer):
    """Tops that the user fills, of the shapes in input_param. Caffe: input_layer.cpp."""

    num_bottom, num_top = 0, (1, None)

    def setup(self, bottom, top):
        shapes = one_or_each(self, self.param.input_param.shape, len(top), "shape", zero=True)
        for blob, shape in zip(top, shapes):
            blob.reshape(*shape.dim)


@register("DummyData")
class DummyData(Layer):
    """Tops filled by fillers: constants once, everything else anew in each forward. Caffe: dummy_data_layer.cpp."""

    num_bottom, num_top = 0, (1, None)

    def setup(self, bottom, top):
        p = self.param.dummy_data_param
        fillers = p.data_filler or [caffe_pb2.FillerParameter()]  # constant 0
        self.fillers = one_or_each(self, fillers, len(top), "data_filler")
        for blob, shape, filler in zip(top, self._shapes(p, len(top)), self.fillers):
            blob.reshape(*shape)
            if filler.type == "constant":
                fill(blob, filler, self.random)

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
                fill(blob, filler, (lambda: generator) if generator else None)
