"""Layers that users write in Python: `type: "Python"`, python_param { module, layer, param_str }.

(Caffe: python_layer.hpp)"""

import importlib
import os
import sys

from caffe import fork_words
from caffe.errors import PythonLayerError
from caffe.layer import Layer

_allowed = None  # modules that prototxts may name; None: any


def allow_python_modules(names) -> None:
    """Let prototxts load Python layers from these modules only (an empty list: from none); None lifts the limit.

    A prototxt can name any importable module, and importing runs its code: use this before reading strangers' files."""
    global _allowed
    _allowed = None if names is None else frozenset(names)


def make_python_layer(param):
    """The user's layer object for LayerParameter `param`."""
    module_name, layer_name = param.python_param.module, param.python_param.layer
    if _allowed is not None and module_name not in _allowed:
        raise PythonLayerError(
            f"layer '{param.name}' wants Python module '{module_name}', which is not allowed here "
            f"(allowed: {', '.join(sorted(_allowed)) or 'none'})"
        )
    if "" in module_name.split("."):
        raise PythonLayerError(f"layer '{param.name}': module is '{module_name}'; wanted the name of a Python module")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as embedded Python finds modules beside the prototxt
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        instead = fork_words.PYTHON_LAYERS.get(module_name, "")
        raise PythonLayerError(
            f"layer '{param.name}': cannot import Python module '{module_name}' ({e}); is its folder in PYTHONPATH?"
            + (f" Or {instead}" if instead else "")
        ) from e
    except SystemExit as e:  # a script; its status would pass for that of the command
        raise PythonLayerError(
            f"layer '{param.name}': Python module '{module_name}' ends the program ({e!r}); is it a script?"
        ) from e
    cls = getattr(module, layer_name, None)
    if cls is None:
        raise PythonLayerError(f"layer '{param.name}': module '{module_name}' has no layer '{layer_name}'")
    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise PythonLayerError(f"layer '{param.name}': {module_name}.{layer_name} is not a caffe.Layer")
    return cls(param)
