"""The bundled Caffe's modules that import nothing of it, for a process in which `import caffe` finds another Caffe."""

import importlib.util
import os


def load(name):
    caffe = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "caffe")
    spec = importlib.util.spec_from_file_location(f"layers._{name}", os.path.join(caffe, f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = load("program")  # alone at first: until a command is guarded by it, Ctrl-C shows a traceback


def __getattr__(name):
    if name in ("regular", "revision", "whole", "wire_format"):
        module = globals()[name] = load(name)
        return module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
