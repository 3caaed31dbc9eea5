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
    where = f"layer '{param.name}': "
    module = import_module(module_name, where, fork_words.PYTHON_LAYERS.get(module_name, ""))
    cls = getattr(module, layer_name, None)
    if cls is None:
        raise PythonLayerError(f"{where}module '{module_name}' has no layer '{layer_name}'")
    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise PythonLayerError(f"{where}{module_name}.{layer_name} is not a caffe.Layer")
    return cls(param)


# packages whose names are not those of their modules, and modules of Python 2 with their names now
PACKAGES = {"yaml": "PyYAML", "PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
OF_PYTHON_2 = {"cPickle": "pickle", "Queue": "queue", "StringIO": "io", "cStringIO": "io", "urllib2": "urllib.request"}
OF_PYTHON_2 |= {"ConfigParser": "configparser", "Tkinter": "tkinter", "__builtin__": "builtins", "Image": "PIL.Image"}


def _where_to_get(module):
    """What to do about a module that a user's module imports and that is not there."""
    if module in OF_PYTHON_2:
        return f"that name is of Python 2: write {OF_PYTHON_2[module]}, see docs/FROM_BVLC.md."
    if module in PACKAGES:
        return f"pip install {PACKAGES[module]}, or leave it out there."
    return "install it, put its folder into PYTHONPATH, or leave it out there."


def import_module(name, where, instead=""):
    """The module `name` of a user's, which may lie in the current folder; errors begin with `where`, and tell of what
    can be done `instead`."""
    if "" in name.split("."):
        raise PythonLayerError(f"{where}module is '{name}'; wanted the name of a Python module")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as embedded Python finds modules beside the prototxt
    try:
        return importlib.import_module(name)
    except ImportError as e:
        own = e.name is None or f"{name}.".startswith(f"{e.name}.")  # not one that it imports in turn
        advice = "is its folder in PYTHONPATH?" if own else _where_to_get(e.name)
        told = f"{where}cannot import Python module '{name}' ({e}); {advice}"
        raise PythonLayerError(told + (f" Or {instead}" if instead else "")) from e
    except SyntaxError as e:
        told = f"{where}Python module '{name}' is no Python 3 ({e}); for Python 2 code see docs/FROM_BVLC.md"
        raise PythonLayerError(told) from e
    except SystemExit as e:  # a script; its status would pass for that of the command
        raise PythonLayerError(f"{where}Python module '{name}' ends the program ({e!r}); is it a script?") from e
