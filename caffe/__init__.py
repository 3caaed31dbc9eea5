"""Caffe for today: the pycaffe API on PyTorch, on the CPU and any CUDA GPU.

Importing this costs next to nothing: what needs torch is imported when it is first used, so that Python layers, NetSpec
and `caffe.io` do without.
"""

import importlib
import os

from caffe import program as program  # guards our commands while they import the rest
from caffe.errors import CaffeError as CaffeError
from caffe.glog import init_log as init_log
from caffe.glog import log as log
from caffe.layer import TEST as TEST
from caffe.layer import TRAIN as TRAIN
from caffe.layer import Layer as Layer
from caffe.python_layer import allow_python_modules as allow_python_modules
from caffe.ranks import set_multiprocess as set_multiprocess
from caffe.ranks import set_solver_count as set_solver_count
from caffe.ranks import set_solver_rank as set_solver_rank
from caffe.ranks import solver_count as solver_count
from caffe.ranks import solver_rank as solver_rank
from caffe.user_layer import layer as layer  # the module caffe.layer is imported already

# OpenCV reads this when it is first imported: an image of a hundred bytes may claim to unpack to gigabytes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))

# libgomp reads this when torch is first imported. Threads that wait for others spin before they sleep, by default for
# 300,000 rounds, which takes the processor from those waited for on a busy machine; 10,000 still reach from one layer
# to the next. A value of yours, or OMP_WAIT_POLICY, stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# torch reads this at its first array: large ones come in pages of 2 MB where the kernel has them. The command `caffe`
# asks glibc for the same, which takes more than a variable set here, see caffe.process.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "1.0.0"  # of the Caffe whose behaviour this is

# Where the other names live.
_RULES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_HOMES = {
    "net": ("Net",),
    "blob": ("Blob",),
    "solver": ("get_solver", "Solver", *(f"{rule}Solver" for rule in _RULES)),
    "device": ("set_device", "set_mode_cpu", "set_mode_gpu"),
    "random": ("set_random_seed",),
    "net_build": ("layer_type_list",),
    "net_check": ("check",),
    "timer": ("Timer",),
    "nccl": ("NCCL", "has_nccl"),
    "net_spec": ("NetSpec", "layers", "params", "to_proto"),
    "torch_net": ("to_torch",),
    "onnx_file": ("to_onnx",),
    "chains": ("optimize",),
    "classifier": ("Classifier",),
    "detector": ("Detector",),
}
_MODULES = ("classifier", "coord_map", "detector", "dnn", "draw", "io", "net_spec", "proto", "pycaffe")

_BEYOND = ("net_check", "torch_net", "onnx_file", "chains")  # what pycaffe has not
# What `from caffe import *` gives, as in pycaffe.
__all__ = [name for module, names in _HOMES.items() if module not in _BEYOND for name in names]
__all__ += ["Layer", "TRAIN", "TEST", "init_log", "log", "set_multiprocess", "set_solver_count", "set_solver_rank"]
__all__ += ["solver_count", "solver_rank", "classifier", "detector", "io", "net_spec", "proto", "pycaffe"]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"caffe.{name}")
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f"caffe.{module}"), name)
            return value
    raise AttributeError(f"module 'caffe' has no attribute '{name}'")


def __dir__():
    return sorted({*globals(), *_MODULES, *(name for names in _HOMES.values() for name in names)})
