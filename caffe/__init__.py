"""Caffe for today: the pycaffe API on PyTorch, on the CPU and any CUDA GPU."""

from caffe.device import set_device, set_mode_cpu, set_mode_gpu
from caffe.errors import CaffeError
from caffe.glog import init_log, log
from caffe.layer import layer_type_list
from caffe.net import TEST, TRAIN, Net
from caffe.parallel import solver_count, solver_rank
from caffe.python_layer import PythonLayer as Layer
from caffe.python_layer import allow_python_modules
from caffe.random import set_random_seed
from caffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
    get_solver,
)
