"""Where the nets compute: the mode (CPU or GPU) and device number, global as in Caffe."""

import contextlib

import torch

from caffe import precision
from caffe.errors import CaffeError

_current = torch.device("cpu")
_ordinal = 0


def current() -> torch.device:
    """The device on which every net computes now."""
    return _current


def shares_host() -> bool:
    """Whether tensors of the current device lie in the host's memory, where an array can be the tensor itself."""
    return _current.type == "cpu"


@contextlib.contextmanager
def host():
    """Context in which blobs are on the host, whatever the mode."""
    global _current
    mode, _current = _current, torch.device("cpu")
    try:
        yield
    finally:
        _current = mode


def set_mode_cpu() -> None:
    """Compute on the CPU (the default, as in Caffe)."""
    global _current
    _current = torch.device("cpu")


def set_mode_gpu() -> None:
    """Compute on the CUDA device chosen by `set_device` (number 0 at first)."""
    global _current
    if not torch.cuda.is_available():
        raise CaffeError("GPU mode asked for, but torch finds no CUDA device; use CPU mode (leave out --gpu)")
    torch.cuda.set_device(_ordinal)
    _current = torch.device("cuda", _ordinal)
    precision.apply()


def set_device(ordinal: int) -> None:
    """Choose CUDA device number `ordinal`; takes effect at once when in GPU mode."""
    global _ordinal
    count = torch.cuda.device_count()
    if not 0 <= ordinal < count:
        raise CaffeError(f"no GPU {ordinal}: torch sees {count} CUDA device(s)")
    _ordinal = ordinal
    torch.cuda.set_device(ordinal)
    if _current.type == "cuda":
        set_mode_gpu()
