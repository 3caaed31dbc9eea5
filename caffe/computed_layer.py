"""ComputedLayer: a layer that an object of a user's class computes (`@caffe.layer`)."""

import weakref
from typing import Any

import torch

from caffe import glog
from caffe.errors import CaffeError
from caffe.torch_layer import TorchLayer, several

OFFERED = ("weights", "blobs", "add_blob", "random", "name", "phase", "type", "param", "fail")
SAID = ("num_bottom", "num_top", "is_loss", "auto_top", "no_gradient", "differentiable", "capturable")


class ComputedLayer(TorchLayer):
    """The layer and its user's object, `own`, are apart, so that neither meets the other's names: the object finds what
    is OFFERED where its class or itself have nothing else under that name, and its class may say what is in SAID."""

    capturable = False  # the author of a class has to know what a CUDA graph can hold
    own_class: Any

    def __init__(self, param):
        super().__init__(param)
        self.own = self.own_class.__new__(self.own_class)
        self.own.__caffe_layer__ = weakref.ref(self)
        self.own.__init__()

    def configure(self, bottom):
        if hasattr(self.own, "configure"):
            self.own.configure(bottom)
        for name, value in vars(self.own).items():
            if isinstance(value, torch.nn.Module) and any(True for _ in value.parameters()):
                where = f"layer '{self.name}' ({self.type}): its {name}, a {type(value).__name__} of torch"
                told = "has parameters that are neither learned nor saved; those made by self.add_blob are"
                glog.warning(glog.here(), f"{where}, {told}")

    def top_shapes(self, *shapes):
        return self.own.top_shapes(*shapes) if hasattr(self.own, "top_shapes") else super().top_shapes(*shapes)

    def compute(self, *bottoms):
        tops, wanted = several(self.own.compute(*bottoms)), len(self.param.top) or int(self.auto_top)
        if len(tops) < wanted or not all(isinstance(top, torch.Tensor) for top in tops):
            found = ", ".join(type(top).__name__ for top in tops)
            self.fail(f"its compute gives {len(tops)} value(s) ({found}); wanted {wanted} tensor(s) of torch")
        return [top if top.dtype == torch.float32 else top.float() for top in tops]


class _Offered:
    """Gives what the layer has under a name, until the object has something else there."""

    def __init__(self, name):
        self.name = name

    def __get__(self, own, owner=None):
        return self if own is None else getattr(own.__caffe_layer__(), self.name)


def computed_by(cls, type_name, options):
    """The layer class, named as `cls` is, that objects of `cls` compute; `options` are names of theirs that it has."""
    if taken := [name for name in ("setup", "reshape", "forward", "backward") if name in vars(cls)]:
        raise CaffeError(
            f"layer type {type_name}: class {cls.__name__} defines {', '.join(taken)}; it computes in `compute`, and "
            "its gradient follows. To define them derive it from caffe.torch_layer.TorchLayer, or from caffe.Layer"
        )
    offered = {name: _Offered(name) for name in (*OFFERED, *options) if not hasattr(cls, name)}
    said = {name: getattr(cls, name) for name in SAID if hasattr(cls, name)}
    about = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    own_class = type(cls.__name__, (cls,), {**about, **offered})
    return type(cls.__name__, (ComputedLayer,), {**about, **said, "own_class": own_class})
