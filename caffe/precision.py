"""How exact matrix products and convolutions are on a GPU: float32 (the default), tf32 or bf16.

    float32   operands and sums in single precision, as in Caffe
    tf32      operands rounded to 10 bits of mantissa, sums in float32
    bf16      operands rounded to bfloat16 (7 bits) and so is the result of a layer; sums inside it in float32

Blobs, parameters, gradients and history are float32 in all three. The CPU computes in float32 only.
"""

import contextlib
from collections.abc import Callable

import torch

from caffe.errors import CaffeError

PRECISIONS = ("float32", "tf32", "bf16")

_chosen = "float32"
products: Callable = contextlib.nullcontext  # of x: context in which a layer multiplies x by its weights


def choose(name, where) -> None:
    """Let all nets compute with precision `name` from now on; `where` is the torch.device on which they do."""
    global _chosen, products
    if name not in PRECISIONS:
        raise CaffeError(f"unknown precision '{name}' (known: {', '.join(PRECISIONS)})")
    if where.type == "cpu" and name != "float32":
        raise CaffeError(
            f"precision {name} is for GPUs, and this run computes on the CPU; choose a GPU with --gpu, or "
            "leave out --precision"
        )
    _chosen, products = name, _in_bfloat16 if name == "bf16" else contextlib.nullcontext
    apply()


def apply() -> None:
    """Tell torch, which would round convolutions to TF32 when left alone."""
    exactness = "tf32" if _chosen == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = exactness
    torch.backends.cudnn.conv.fp32_precision = exactness  # type: ignore[attr-defined]  # torch's types lack it


def _in_bfloat16(x):
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, torch.bfloat16)
