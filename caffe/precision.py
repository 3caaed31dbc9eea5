"""How exact matrix products and convolutions are on a GPU: float32 (the default), tf32 or bf16.

    float32   operands and sums in single precision, as in Caffe
    tf32      operands rounded to 10 bits of mantissa, sums in float32
    bf16      operands rounded to bfloat16 (7 bits) and so is the result of a layer; sums inside it in float32

Blobs, parameters, gradients and history are float32 in all three. The CPU computes in float32 only.
"""

import contextlib

import torch

from caffe.errors import CaffeError

PRECISIONS = ("float32", "tf32", "bf16")

_chosen = "float32"


def choose(name, where) -> None:
    """Let all nets compute with precision `name` from now on; `where` is the torch.device on which they do."""
    global _chosen
    if name not in PRECISIONS:
        raise CaffeError(f"unknown precision '{name}' (known: {', '.join(PRECISIONS)})")
    if where.type == "cpu" and name != "float32":
        raise CaffeError(
            f"precision {name} is for GPUs, and this run computes on the CPU; choose a GPU with --gpu, or "
            "leave out --precision"
        )
    _chosen = name
    apply()


def apply() -> None:
    """Tell torch, which would round convolutions to TF32 when left alone."""
    products = "tf32" if _chosen == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]  # torch's types lack it


def products(x):
    """Context in which a layer multiplies `x` by its weights."""
    if _chosen == "bf16" and not x.is_meta:
        return torch.autocast(x.device.type, torch.bfloat16)
    return contextlib.nullcontext()
