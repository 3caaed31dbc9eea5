"""Where the nets compute: the mode (CPU or GPU) and device number, global as in Caffe."""

import contextlib
import functools
import os

import torch

from caffe import glog, precision
from caffe.errors import CaffeError

current = torch.device("cpu")  # on which every net computes now
shares_host = True  # whether its tensors lie in the host's memory, where an array can be the tensor itself
_ordinal = 0
_told = False  # that there is no GPU

# A forked process has none of the threads that its parent computed with, and OpenMP waits for them for ever. With one
# thread it asks for none: workers of a multiprocessing.Pool can run nets that their parent ran before.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


@contextlib.contextmanager
def host():
    """Context in which blobs are on the host, whatever the mode."""
    global current, shares_host
    mode = current, shares_host
    set_mode_cpu()
    try:
        yield
    finally:
        current, shares_host = mode


def set_mode_cpu() -> None:
    """Compute on the CPU (the default, as in Caffe)."""
    global current, shares_host
    current, shares_host = torch.device("cpu"), True


def set_mode_gpu() -> None:
    """Compute on the CUDA device chosen by `set_device` (number 0 at first); on the CPU where there is none.

    That is told once. With CAFFE_REQUIRE_GPU=1 in the environment it is a CaffeError."""
    global current, shares_host
    if not _has_gpu():
        return
    torch.cuda.set_device(_ordinal)
    current, shares_host = torch.device("cuda", _ordinal), False
    precision.apply()


def set_device(ordinal: int) -> None:
    """Choose CUDA device number `ordinal`; at once when in GPU mode. Where there is none: see `set_mode_gpu`.

    Raises CaffeError where there are others, and not this one."""
    global _ordinal
    if not _has_gpu():
        return
    count = torch.cuda.device_count()
    if not 0 <= ordinal < count:
        raise CaffeError(f"no GPU {ordinal}: torch sees {count} CUDA device(s)")
    _ordinal = ordinal
    torch.cuda.set_device(ordinal)
    if current.type == "cuda":
        set_mode_gpu()


def _has_gpu():
    """False, and a warning the first time, where torch finds no GPU: scripts that ask for one run without it, too."""
    global _told
    if torch.cuda.is_available():
        return True
    if os.environ.get("CAFFE_REQUIRE_GPU", "0") not in ("", "0"):
        raise CaffeError("a GPU is asked for, and torch finds none; unset CAFFE_REQUIRE_GPU to compute on the CPU")
    if not _told:
        _told = True
        glog.warning(
            glog.here(),
            "a GPU is asked for and torch finds none: computing on the CPU (CAFFE_REQUIRE_GPU=1 makes this an error)",
        )
    return False
