"""Layer: set up, reshape, forward, backward (Caffe: layer.hpp, python_layer.hpp), and the registry of layer types."""

from __future__ import annotations

from operator import attrgetter

from caffe.errors import CaffeError

TRAIN, TEST = 0, 1  # phases, as in caffe.proto
Count = int | tuple[int, int | None] | None

REGISTRY: dict[str, type[Layer]] = {}


def register(type_name):
    """Class decorator: make a layer class known under its Caffe type name."""

    def add(cls):
        if type_name in REGISTRY:
            raise CaffeError(f"Layer type {type_name} already registered.")
        REGISTRY[type_name] = cls
        cls.type = type_name
        return cls

    return add


class Layer:
    """One layer of a net; the base class of layers written in Python: `class Mine(caffe.Layer)`.

    Such a layer defines

        setup(bottom, top)                      once, when the net is built: read `param_str`, make parameters
        reshape(bottom, top)                    before every forward: set the tops' shapes
        forward(bottom, top)                    compute the tops' data
        backward(top, propagate_down, bottom)   compute the bottoms' diffs where `propagate_down`, and add to those of
                                                `blobs`; not asked for where nothing below learns

    and finds `param_str` (text from the prototxt), `phase` (caffe.TRAIN or caffe.TEST), `type`, and `blobs`, its
    parameters (`self.blobs.add_blob(2, 3)` makes one). These names are Caffe's; every other one is the layer's own.

    Beyond BVLC Caffe, which does not call them, a layer may define any of

        __caffe_seed__(seed)         before `setup`, and when a snapshot is restored: the number that all randomness of
                                     this layer is to follow from, so that runs repeat and resumed runs go on exactly
        __caffe_seek__(batch)        the next `reshape` and `forward` give batch number `batch`, 0 being the first one
        __caffe_pack__()             in place of `forward`, where tops travel to a GPU: a list of arrays that hold what
                                     the tops will, in a smaller form
        __caffe_unpack__(*tensors)   the tops' values, in order, from what `__caffe_pack__` gave, now on the device
        __caffe_saved__(path, came_from)   weights have been written to `path`, of a net that was loaded from the files
                                     `came_from`: something may be written beside them
    """

    __slots__ = ("__caffe_blobs__", "__dict__", "__weakref__")
    type = property(lambda self: "Python", doc="the name of the layer's type")
    blobs = property(attrgetter("__caffe_blobs__"), doc="parameters, which the net learns and saves")
    phase: int
    param_str: str
    param_str_: str
    __caffe_blobs__: BlobVec

    def __new__(cls, *args, **kwargs):
        layer = super().__new__(cls)
        layer.__caffe_blobs__ = BlobVec()
        return layer

    def __init__(self, param):
        self.phase = param.phase
        self.param_str = self.param_str_ = param.python_param.param_str  # with a line below: as Caffe of 2015 had it

    def setup(self, bottom, top):
        """Once, when the net is built."""

    def reshape(self, bottom, top):
        """Before every forward."""


class BlobVec(list):
    """A layer's parameters: blobs, each of which stays the one that it is; more can be added in `setup`."""

    def add_blob(self, *shape):
        """Append a blob of zeros of this shape, and give it."""
        from caffe.blob import Blob  # needs torch, which a module of layers can do without until a net is built

        self.append(Blob(shape))
        return self[-1]

    def append(self, blob):
        from caffe.blob import Blob

        if not isinstance(blob, Blob):
            raise TypeError(f"a layer's parameters are blobs: append wants a caffe.Blob, not {type(blob).__name__}")
        super().append(blob)

    def extend(self, blobs):
        for blob in blobs:
            self.append(blob)

    def __setitem__(self, index, value):
        raise TypeError(
            f"a layer's parameters are blobs that stay, and this {type(value).__name__} cannot take the place of one; "
            f"write into it: blobs[{index}].data[...] = values"
        )

    def _refuse(self, *_, **__):
        raise TypeError("a layer's parameters stay as they are: add_blob and append add one at the end")

    __delitem__ = __iadd__ = __imul__ = insert = pop = remove = clear = reverse = sort = _refuse
