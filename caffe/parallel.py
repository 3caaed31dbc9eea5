"""Several processes train one net: every rank its own batch, gradients averaged (Caffe: parallel.cpp).

`caffe train --gpu=0,1` starts a process for each GPU; `torchrun ... -m caffe train` does the same across machines, and
without GPUs (gloo). Rank 0 alone tests, logs and writes snapshots; Python layers read `caffe.solver_rank()` and
`caffe.solver_count()` to draw different data.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

from caffe import glog as log
from caffe import ranks
from caffe.errors import CaffeError

# Not `-m caffe`: that looks for modules in the current folder first, and would run a stranger's caffe.py.
START = """import sys; sys.path[:] = filter(None, sys.path)
from caffe import cli, parallel; parallel.follow({}); sys.exit(cli.main())"""


def launch(ordinals, arguments) -> int:
    """Run `caffe <arguments>` once for each GPU in `ordinals`; the exit status of the first that fails, else 0.

    When one ends with an error the others are stopped; SIGINT, SIGHUP and SIGTERM are passed on to all."""
    port, children = free_port(), []
    for rank in range(len(ordinals)):
        environment = dict(
            os.environ,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(len(ordinals)),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        command = [sys.executable, "-c", START.format(os.getpid()), *arguments]
        children.append(subprocess.Popen(command, env=environment, start_new_session=True))

    def pass_on(number, _):
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        if number := getattr(signal, name, None):  # Windows has no SIGHUP
            signal.signal(number, pass_on)
    while True:
        states = [c.poll() for c in children]
        failed = next((rank for rank, s in enumerate(states) if s), None)
        if failed is not None:
            for child in children:
                if child.poll() is None:
                    child.terminate()
            for child in children:
                child.wait()
            log.error(
                log.here(),
                f"rank {failed} (GPU {ordinals[failed]}) ended with status {states[failed]}; "
                "the others were stopped. Continue from the last snapshot.",
            )
            return abs(states[failed] or 0)
        if all(s == 0 for s in states):
            return 0
        time.sleep(0.1)


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def follow(launcher):
    """End with the process of that number: killed outright, it cannot stop those that it started."""

    def watch():
        while os.getppid() == launcher:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def join(address=None) -> None:
    """Become one of the processes that RANK and WORLD_SIZE in the environment (set by `launch` or torchrun) tell of;
    with an `address`, tcp://host:port, one of those that `set_solver_rank` and `set_solver_count` told of."""
    rank, count = ranks.solver_rank(), ranks.solver_count()
    if address is None:
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return
    import torch.distributed as dist

    from caffe import device  # these bring torch, which `launch` does without
    from caffe.random import next_seed, set_random_seed

    seed = [next_seed()]
    try:
        dist.init_process_group(
            "nccl" if device.current.type == "cuda" else "gloo",
            init_method=address or "env://",
            rank=rank,
            world_size=count,
            timeout=timedelta(minutes=10),
        )
        dist.broadcast_object_list(seed)
    except (RuntimeError, ValueError) as e:
        raise CaffeError(f"cannot join the {count} processes at {address or os.environ.get('MASTER_ADDR')}: {e}") from e
    atexit.register(dist.destroy_process_group)  # else gloo's threads, still running, abort a process that ends
    ranks.set_solver_rank(dist.get_rank())
    ranks.set_solver_count(dist.get_world_size())
    set_random_seed(seed[0])  # where the solver has none of its own, all draw the same one
    if ranks.solver_rank():
        log.init_log(log.ERROR)


class Averaging:
    """Keeps the ranks of one solver together: equal parameters at the start, averaged gradients in each iteration."""

    def __init__(self, solver):
        import torch.distributed as dist

        self.dist = dist
        self.blobs = [b for b, lr in zip(solver.net.learnable_params, solver.net.params_lr) if lr]
        patient = timedelta(days=7)  # the others wait while rank 0 tests; a dead one is told of by its connection
        self._guard(lambda: self._make_groups(patient))
        started: list = [None] * ranks.solver_count()
        self._guard(lambda: dist.all_gather_object(started, solver.iter, group=self.control))
        if len(set(started)) > 1:
            raise CaffeError(
                f"the processes start from different iterations, rank by rank {started}: some fell back "
                "to an older snapshot; give all of them the same one"
            )
        self._guard(lambda: [dist.broadcast(b.memory.tensor(), 0) for b in solver.net.learnable_params])
        for blob in solver.net.learnable_params:
            blob.memory.written()
        solver.add_callback(lambda: None, self.average)
        own_request = solver.action_function
        solver.set_action_function(lambda: self.agree(own_request()))

    def _make_groups(self, patient):
        self.gradients = self.dist.new_group(timeout=patient)
        self.control = self.dist.new_group(backend="gloo", timeout=patient)  # small messages of the host

    def average(self):
        """Replace every gradient by its mean over the ranks, in one message."""
        import torch

        grads = [b.grad.tensor() for b in self.blobs]
        flat = torch.cat([g.reshape(-1) for g in grads])
        self._guard(lambda: self.dist.all_reduce(flat, group=self.gradients))
        flat.div_(ranks.solver_count())
        for g, mean in zip(grads, flat.split([g.numel() for g in grads])):
            g.copy_(mean.view_as(g))

    def agree(self, request) -> int:
        """All ranks take the largest request (stop or snapshot) of any."""
        import torch

        value = torch.tensor(request)
        self._guard(lambda: self.dist.all_reduce(value, self.dist.ReduceOp.MAX, group=self.control))
        return int(value)

    def _guard(self, talk):
        try:
            talk()
        except RuntimeError as e:  # gloo and NCCL tell of a vanished peer this way
            raise CaffeError(
                f"rank {ranks.solver_rank()} lost contact with another process of this job "
                f"({str(e).splitlines()[0]}); continue from the last snapshot"
            ) from e
