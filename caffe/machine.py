"""What decides the last digits of a run beside its inputs: processor, threads, processes and versions.

Sums are rounded in the order in which they are added up, and that order follows the number of threads and the width of
the processor's vectors. `fix` leaves one order: one thread, and instructions that every x86-64 processor has.
"""

import os
import platform
import sys

from caffe import ranks
from caffe.errors import CaffeError

# For torch and MKL, which read them when they are first used; and for glibc, which does at the start of a process.
ENVIRONMENT = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
GLIBC_TUNABLES = "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4"


def fix_environment() -> None:
    """The part of `fix` that comes before torch is imported."""
    os.environ.update(ENVIRONMENT)


def fix(where) -> None:
    """Compute in one order from now on; `where` is the torch.device on which nets do."""
    import torch

    if where.type != "cpu":
        raise CaffeError(
            "--deterministic is for the CPU, and this run computes on a GPU; leave out one of them (a GPU of one kind "
            "repeats a run within rounding)"
        )
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # whose blocks follow the processor's caches


def told(where) -> str:
    """What computes on the torch.device `where`, in words that are equal where the digits are."""
    import torch

    if where.type != "cpu":
        by = torch.cuda.get_device_name(where)
    elif not torch.backends.mkldnn.enabled and os.environ.get("MKL_CBWR") == ENVIRONMENT["MKL_CBWR"]:
        by = f"any {platform.machine()} CPU (--deterministic)"
    else:
        threads = torch.get_num_threads()
        capability = torch.backends.cpu.get_cpu_capability()
        by = f"{platform.machine()} CPU with {capability}, {threads} thread{'s' * (threads > 1)}"
    processes = f", {ranks.solver_count()} processes" if ranks.solver_count() > 1 else ""
    return f"{by}{processes}, torch {torch.__version__.partition('+')[0]}, {sys.platform}"
