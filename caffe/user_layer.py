"""Layer types of users: `@caffe.layer("Mish")` on a class with `compute`, in any module."""

import importlib
import os
import sys
from typing import Any

from caffe.errors import CaffeError, PythonLayerError
from caffe.layer import REGISTRY, register


def layer(type_name, number=None, **declared):
    """Class decorator: makes a class with `compute` the layer type `type_name`.

        @caffe.layer("Mish", mish_param=dict(beta=1.0))
        class Mish:
            def compute(self, x):
                return x * torch.tanh(torch.nn.functional.softplus(self.mish_param.beta * x))

    The class becomes a TorchLayer (caffe/torch_layer.py): `compute` takes the bottoms' tensors and gives the tops',
    `configure` makes parameters with `add_blob(shape, filler)`, `self.weights` are their tensors; shapes and gradients
    follow from it. `num_bottom` and `num_top` are counts that the net checks: a number, or (least, most).

    `<name>_param=dict(...)` declares options that a prototxt may give (see options.declare, `number` too); the layer
    reads them as an attribute of that name, defaults included. Declaring a type again, as a notebook does, replaces it.
    Raises CaffeError for a type that Caffe has, or that another module has declared."""
    if not isinstance(type_name, str) or not type_name:
        raise CaffeError(f'@caffe.layer wants the name of a layer type, as in @caffe.layer("Mish"), not {type_name!r}')
    if len(declared) > 1:
        raise CaffeError(f"layer type {type_name} declares {', '.join(declared)}; wanted one message of options")
    from caffe import options  # protobuf and torch, which `import caffe` does without
    from caffe.torch_layer import TorchLayer

    def add(cls):
        if not isinstance(cls, type) or not callable(getattr(cls, "compute", None)):
            raise CaffeError(f"layer type {type_name}: {cls!r} is no class with a method compute(self, *bottoms)")
        attributes: dict[str, Any] = {
            "__doc__": cls.__doc__,
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
        }
        if "capturable" not in vars(cls):
            attributes["capturable"] = False  # its author has to know what a CUDA graph can hold
        for name, fields in declared.items():
            attributes[name] = _options(options.declare(name, fields, number))
        bases = (cls,) if issubclass(cls, TorchLayer) else (cls, TorchLayer)
        made: Any = type(cls.__name__, bases, attributes)
        known = REGISTRY.get(type_name)
        if getattr(known, "declared_in", None) == (cls.__module__, cls.__qualname__):
            del REGISTRY[type_name]
        made.declared_in = (cls.__module__, cls.__qualname__)
        return register(type_name)(made)

    return add


def _options(extension):
    return property(lambda self: self.param.Extensions[extension], doc=f"the layer's {extension.name}")


def load_layers(names):
    """Import the modules `names`, which declare layer types."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as for Python layers
    for name in names:
        if "" in name.split("."):
            raise PythonLayerError(f"layers are wanted from '{name}'; wanted the name of a Python module")
        try:
            importlib.import_module(name)
        except ImportError as e:
            raise PythonLayerError(f"cannot import the module of layers '{name}' ({e}); is its folder in "
                                   "PYTHONPATH?") from e  # fmt: skip
        except SystemExit as e:
            raise PythonLayerError(f"the module of layers '{name}' ends the program ({e!r}); is it a script?") from e
