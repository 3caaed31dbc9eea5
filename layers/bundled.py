"""The bundled Caffe's modules that import nothing of it, for a process in which `import caffe` finds another Caffe."""

import importlib.util
from pathlib import Path
from typing import Any


def load(name) -> Any:
    path = Path(__file__).resolve().parent.parent / "caffe" / f"{name}.py"
    spec: Any = importlib.util.spec_from_file_location(f"layers._{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = load("program")
revision = load("revision")
whole = load("whole")
wire_format = load("wire_format")
