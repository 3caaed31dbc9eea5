"""NCCL: pycaffe's way to train with several processes (Caffe: parallel.cpp), over torch.distributed.

uid = caffe.NCCL.new_uid()                     # in the parent, told to every child
caffe.set_solver_count(2); caffe.set_solver_rank(rank); caffe.set_multiprocess(True)
solver = caffe.SGDSolver("solver.prototxt")
nccl = caffe.NCCL(solver, uid)
nccl.bcast()                                   # rank 0's parameters to all; from here on gradients are averaged
solver.add_callback(nccl)
solver.step(100)
"""

import torch

from caffe import parallel, ranks


def has_nccl() -> bool:
    """Whether `NCCL` can be used here: wherever torch has its distributed part, with a GPU or without."""
    return torch.distributed.is_available()


class NCCL:
    """Joins the processes that were given the same `uid`; on the CPU they talk through gloo."""

    @staticmethod
    def new_uid() -> bytes:
        """Where the processes of one job on this machine meet; bytes, as pycaffe has it on Python 3."""
        return f"tcp://127.0.0.1:{parallel.free_port()}".encode()

    def __init__(self, solver, uid):
        parallel.join(uid.decode() if isinstance(uid, bytes) else uid)
        self._solver = solver

    def bcast(self) -> None:
        """Give all ranks the parameters of rank 0, and average the gradients in every iteration from now on."""
        if ranks.solver_count() > 1:
            parallel.Averaging(self._solver)

    # `solver.add_callback(nccl)` and `solver.net.after_backward(nccl)` are in Caffe's recipe; `bcast` has done both.

    def on_start(self) -> None:
        pass

    def on_gradients_ready(self) -> None:
        pass

    def __call__(self, layer) -> None:
        pass
