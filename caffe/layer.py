"""Layer: set up, reshape, forward, backward (Caffe: layer.hpp), and the registry of layer types."""

from __future__ import annotations

from typing import Any, NoReturn

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
    """One layer of a net; also the base class of users' Python layers (`class Mine(caffe.Layer)`).

    Attributes: `param` (LayerParameter), `phase` (0 TRAIN, 1 TEST), `blobs` (learnable parameters), `type`, `name`;
    Python layers also have `param_str`.
    """

    type = ""
    num_bottom: Count = None  # exact count, or (least, most) with None for no bound; None: any
    num_top: Count = None
    auto_top = False  # losses make their own top when the prototxt names none
    is_loss = False  # the first top has loss weight 1 unless told otherwise
    differentiable = True  # False: has no backward at all (Accuracy, ArgMax)
    no_gradient: tuple[int, ...] = ()  # bottoms that never get a gradient: labels, size references
    gradient_checked = True  # no_gradient bottoms: asking for their gradient is an error (labels), else it is ignored
    saves_output = True  # backward reads the top's values, so they must not be overwritten in place
    capturable = False  # computes on the device alone, the same kernels in every pass: may be part of a CUDA graph

    def __init__(self, param):
        self.param = param
        self.phase = param.phase
        self.name = param.name
        self.blobs = []
        self.param_propagate_down = []
        self.random: Any = None  # set by the net: () -> torch.Generator seeded for this layer and pass

    def setup(self, bottom, top):
        """Once, when the net is built: read parameters, make `blobs`."""

    def reshape(self, bottom, top):
        """Before every forward: set the tops' shapes from the bottoms'."""

    def forward(self, bottom, top):
        """Compute the tops' data."""

    def backward(self, top, propagate_down, bottom):
        """Compute bottoms' diffs where `propagate_down`, and add to the parameters' diffs."""

    def check_counts(self, bottom, top):
        for what, found, wanted in (("bottom", len(bottom), self.num_bottom), ("top", len(top), self.num_top)):
            if wanted is None:
                continue
            least, most = (wanted, wanted) if isinstance(wanted, int) else wanted
            if found < least or (most is not None and found > most):
                text = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
                verb, role = ("takes", "input") if what == "bottom" else ("produces", "output")
                raise CaffeError(f"{self.type} Layer {verb} {text} {what} blob(s) as {role}; "
                                 f"layer '{self.name}' has {found}.")  # fmt: skip

    def error(self, text) -> CaffeError:
        """The error `text`, naming this layer."""
        return CaffeError(f"layer '{self.name}' ({self.type}): {text}")

    def fail(self, text) -> NoReturn:
        """Raise the error `text`, naming this layer."""
        raise self.error(text)
