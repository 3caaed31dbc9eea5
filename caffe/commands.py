"""What the command does: train, test, time, device_query, with the log lines of Caffe's tool."""

import contextlib
import os
import sys
import time
from collections.abc import Callable

from caffe import glog as log
from caffe import machine
from caffe.errors import CaffeError
from caffe.flags import gpu_numbers
from caffe.process import denormals_flushed, tune_allocator
from caffe.signals import Signals
from caffe.timer import synchronize


def train(
    solver,
    snapshot,
    weights,
    gpu,
    precision,
    deterministic,
    level,
    stage,
    sigint_effect,
    sighup_effect,
    tensorboard,
    typed,
    **_,
) -> int:
    """Train or finetune a model."""
    if not solver:
        raise CaffeError("Need a solver definition to train.")
    if snapshot and weights:
        raise CaffeError("Give a snapshot to resume training or weights to finetune but not both.")
    actions = Signals(sigint_effect, sighup_effect)

    from caffe import parallel, ranks
    from caffe.files import only_run
    from caffe.progress import progress_line
    from caffe.provenance import log_header
    from caffe.read import read_solver_file
    from caffe.snapshot import restore_newest_good
    from caffe.solver import get_solver
    from caffe.tensorboard import TensorBoard

    gpus = gpu_numbers(gpu)
    if len(gpus) > 1 and "WORLD_SIZE" not in os.environ:
        return parallel.launch(gpus, sys.argv[1:])
    param = read_solver_file(solver)
    param.train_state.level = level
    param.train_state.stage.extend(stage.split(","))
    if weights:
        param.weights.append(weights)
    _choose_device(gpus, precision, deterministic, param, "caffe.cpp:197")
    parallel.join()
    first = ranks.solver_rank() == 0
    given = param.random_seed if param.random_seed >= 0 else None
    if first:
        log_header(typed, given)
    tune_allocator()
    with contextlib.ExitStack() as around:
        around.enter_context(denormals_flushed())
        made = get_solver(param)
        made.frugal()
        made.set_action_function(actions)
        if snapshot:
            log.info("caffe.cpp:235", f"Resuming from {snapshot}")
            restore_newest_good(made, snapshot)
        if ranks.solver_count() > 1:
            parallel.Averaging(made)
        if first and given is None:
            seed = f"seed: {made.seed}, drawn; the same as random_seed of the solver repeats this run"
            log.info("provenance.py:1", seed)
        log.info("caffe.cpp:239", "Starting Optimization")
        if first and (param.snapshot or param.snapshot_after_train):
            around.enter_context(only_run(param.snapshot_prefix))
        if first and tensorboard:
            board = around.enter_context(contextlib.closing(TensorBoard(made, tensorboard)))
            made.add_observer(board)
        if first:
            around.enter_context(progress_line(made))
        made.solve()
    log.info("caffe.cpp:250", "Optimization Done.")
    return 0


def test(model, weights, gpu, precision, deterministic, iterations, level, stage, typed, **_) -> int:
    """Score a model: mean of the outputs over `iterations` batches."""
    if not model:
        raise CaffeError("Need a model definition to score.")
    if not weights:
        raise CaffeError("Need model weights to score.")

    from caffe.files import listed
    from caffe.layer import TEST
    from caffe.net import Net
    from caffe.provenance import log_header
    from caffe.solver import Means, weighted

    _choose_device(gpu_numbers(gpu), precision, deterministic, None, "caffe.cpp:275")
    log_header(typed)
    net = Net(model, TEST, level=level, stages=stage.split(","))
    for path in listed(weights):
        net.copy_from(path)
    net.frugal(backward=False)
    log.info("caffe.cpp:281", f"Running for {iterations} iterations.")
    measured, total = Means(), 0.0
    for i in range(iterations):
        total += float(net.executor.forward())
        for name, value in measured.add(net):
            log.info("caffe.cpp:304", f"Batch {i}, {name} = {log.number(value)}")
    log.info("caffe.cpp:309", f"Loss: {log.number(total / max(iterations, 1))}")
    for name, weight, mean in measured.means():
        log.info("caffe.cpp:321", f"{name} = {log.number(mean)}{weighted(weight, mean)}")
    return 0


def time_net(model, gpu, precision, deterministic, iterations, level, stage, phase, typed, **_) -> int:
    """Time every layer, forward and backward."""
    if not model:
        raise CaffeError("Need a model definition to time.")
    chosen = _phase(phase)

    from caffe.layer import TRAIN
    from caffe.net import Net
    from caffe.provenance import log_header

    _choose_device(gpu_numbers(gpu), precision, deterministic, None, "caffe.cpp:343")
    log_header(typed)
    net = Net(model, TRAIN if chosen is None else chosen, level=level, stages=stage.split(","))
    log.info("caffe.cpp:351", "Performing Forward")
    log.info("caffe.cpp:356", f"Initial loss: {log.number(float(net.executor.forward()))}")
    log.info("caffe.cpp:357", "Performing Backward")
    net.executor.backward()
    log.info("caffe.cpp:365", "*** Benchmark begins ***")
    log.info("caffe.cpp:366", f"Testing for {iterations} iterations.")
    clock = _LayerClock(net)
    begin = time.perf_counter()
    for i in range(iterations):
        start = time.perf_counter()
        net.executor.forward()
        net.executor.backward(at_once=True)
        synchronize()
        log.info(
            "caffe.cpp:394",
            f"Iteration: {i + 1} forward-backward time: {log.number(1e3 * (time.perf_counter() - start))} ms.",
        )
    total = 1e3 * (time.perf_counter() - begin)
    each = max(iterations, 1)
    log.info("caffe.cpp:397", "Average time per layer: ")
    for i, name in enumerate(net._layer_names):
        log.info("caffe.cpp:400", f"{name:>10}\tforward: {log.number(clock.forward[i] / each)} ms.")
        log.info("caffe.cpp:403", f"{name:>10}\tbackward: {log.number(clock.backward[i] / each)} ms.")
    log.info("caffe.cpp:408", f"Average Forward pass: {log.number(sum(clock.forward) / each)} ms.")
    log.info("caffe.cpp:410", f"Average Backward pass: {log.number(sum(clock.backward) / each)} ms.")
    log.info("caffe.cpp:412", f"Average Forward-Backward: {log.number(total / each)} ms.")
    log.info("caffe.cpp:414", f"Total Time: {log.number(total)} ms.")
    log.info("caffe.cpp:415", "*** Benchmark ends ***")
    for line in clock.rates(net.nodes, each):
        log.info("costs.py:1", line)
    return 0


def device_query(gpu, **_) -> int:
    """Show the CUDA devices."""
    import torch

    count = torch.cuda.device_count()
    log.info("caffe.cpp:138", f"Querying GPUs {gpu or 'all'}")
    chosen = gpu_numbers(gpu) or range(count)
    if not count:
        raise CaffeError("torch finds no CUDA device")
    for i in chosen:
        if not 0 <= i < count:
            raise CaffeError(f"no GPU {i}: torch sees {count} CUDA device(s)")
        p = torch.cuda.get_device_properties(i)
        for what, value in (
            ("Device id", i),
            ("Major revision number", p.major),
            ("Minor revision number", p.minor),
            ("Name", p.name),
            ("Total global memory", p.total_memory),
            ("Number of multiprocessors", p.multi_processor_count),
        ):
            log.info("common.cpp:172", f"{what + ':':<32}{value}")
    return 0


def check(model, files, level, stage, phase, **_) -> int:
    """Tell all that keeps nets from being built; the exit status is 1 where something does."""
    files = [*files, *filter(None, [model])]
    if not files:
        raise CaffeError("Need a net to check: caffe check NET.prototxt")
    chosen = _phase(phase)

    from caffe import net_check

    found = {path: net_check.check(path, chosen, level, stage.split(",")) for path in files}
    for path, findings in found.items():
        print(net_check.report(path, findings))
    return 1 if any(not finding.taken for findings in found.values() for finding in findings) else 0


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "test": test,
    "time": time_net,
    "device_query": device_query,
    "check": check,
}


# ---- helpers in call order


def _phase(flag):
    """The phase that --phase names; None for an empty flag."""
    phases = {"": None, "TRAIN": 0, "TEST": 1}
    if flag not in phases:
        raise CaffeError('phase must be "TRAIN" or "TEST"')
    return phases[flag]


def _choose_device(gpus, exactness, deterministic, solver_param, source):
    import torch

    from caffe import device, precision

    rank = int(os.environ.get("LOCAL_RANK", 0))
    if gpus and rank >= len(gpus):
        raise CaffeError(
            f"process {rank} of this machine has no GPU in --gpu={','.join(map(str, gpus))}; "
            f"name one for each process, or start {len(gpus)} of them"
        )
    if gpus and not torch.cuda.is_available():
        raise CaffeError(
            f"--gpu={','.join(map(str, gpus))}, but torch finds no CUDA device; leave out --gpu to compute on the CPU"
        )
    if not gpus and solver_param is not None and solver_param.solver_mode == solver_param.GPU:
        if torch.cuda.is_available():
            gpus = [solver_param.device_id + n for n in range(rank + 1)]
        else:
            log.warning(source, "the solver asks for the GPU and torch finds none: computing on the CPU")
    if not gpus:
        log.info(source, "Use CPU.")
        device.set_mode_cpu()
    else:
        device.set_device(gpus[rank])
        device.set_mode_gpu()
        log.info(source, f"Using GPUs {', '.join(map(str, gpus))}")
    precision.choose(exactness, device.current)
    if deterministic:
        machine.fix(device.current)


class _LayerClock:
    """Milliseconds spent in every layer, through the net's callbacks."""

    def __init__(self, net):
        self.forward, self.backward = [0.0] * len(net.layers), [0.0] * len(net.layers)
        net.before_forward(self._start)
        net.after_forward(lambda i: self._stop(self.forward, i))
        net.before_backward(self._start)
        net.after_backward(lambda i: self._stop(self.backward, i))

    def rates(self, nodes, iterations):
        """For every layer and pass that computes: a line of its arithmetic and traffic, and how fast they went."""
        from caffe import costs

        yield "Arithmetic (products with weights) and traffic (bottoms, parameters, tops) per layer:"
        for node in nodes:
            for way, count, table in (
                ("forward", costs.forward, self.forward),
                ("backward", costs.backward, self.backward),
            ):
                cost, seconds = count(node), table[node.index] / iterations / 1e3
                if cost.bytes and seconds:
                    flop = (
                        f"{cost.flop / 1e9:.3g} GFLOP at {cost.flop / seconds / 1e9:.3g} GFLOP/s, " if cost.flop else ""
                    )
                    traffic = f"{cost.bytes / 1e6:.3g} MB at {cost.bytes / seconds / 1e9:.3g} GB/s"
                    yield f"{node.name:>10}\t{way}: {flop}{traffic}"

    def _start(self, _):
        synchronize()
        self._begin = time.perf_counter()

    def _stop(self, table, i):
        synchronize()
        table[i] += 1e3 * (time.perf_counter() - self._begin)
