"""The command `caffe train|test|time|device_query`, with the flags, log lines and exit codes of Caffe's tool."""

import contextlib
import os
import shlex
import signal
import sys
import textwrap
import time
import traceback
from collections.abc import Callable

from caffe import glog as log
from caffe.errors import CaffeError, PythonLayerError
from caffe.python_layer import allow_python_modules
from caffe.user_layer import load_layers

FATAL_EXIT = 134  # Caffe aborts; a shell shows that as 128 + SIGABRT
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # environment: transparent huge pages, from glibc 2.35 on

USAGE = """caffe: command line brew
usage: caffe <command> <args>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time

  Flags from tools/caffe.cpp:
"""

# name: (default, help); the default's type is the flag's
FLAGS = {
    "gpu": ("", "Optional; run in GPU mode on given device IDs separated by ','.Use '-gpu all' to run on all "
                "available GPUs. The effective training batch size is multiplied by the number of devices."),
    "iterations": (50, "The number of iterations to run."),
    "layers": ("", "Optional; Python modules that declare layer types (@caffe.layer), separated by ','."),
    "level": (0, "Optional; network level."),
    "model": ("", "The model definition protocol buffer text file."),
    "phase": ("", "Optional; network phase (TRAIN or TEST). Only used for 'time'."),
    "precision": ("float32", "Optional; how exact a GPU multiplies: float32, tf32 or bf16."),
    "python_modules": ("", "Optional; the Python modules whose layers a prototxt may use, separated by ',', or none. "
                           "Without it a prototxt may name any, and loading it runs the module's code."),
    "sighup_effect": ("snapshot", "Optional; action to take when a SIGHUP signal is received: snapshot, stop or none."),
    "sigint_effect": ("stop", "Optional; action to take when a SIGINT signal is received: snapshot, stop or none."),
    "snapshot": ("", "Optional; the snapshot solver state to resume training."),
    "solver": ("", "The solver definition protocol buffer text file."),
    "stage": ("", "Optional; network stages (not to be confused with phase), separated by ','."),
    "tensorboard": ("", "Optional; folder to write TensorBoard event files of the training to. Only used for 'train'."),
    "weights": ("", "Optional; the pretrained weights to initialize finetuning, separated by ','. Cannot be set "
                    "simultaneously with snapshot."),
}  # fmt: skip


def main(argv=None) -> int:
    """Run one command; the exit status: 0, 1 (wrong flags, or an exception in a Python layer), 134 (Caffe's abort)."""
    if argv is None:
        on_large_pages()
        argv = sys.argv[1:]
    try:
        flags, words = _parse(argv)
    except ValueError as e:
        print(f"ERROR: {e}", file=sys.stderr)
        return 1
    if len(words) != 1 or flags.pop("help"):
        print(_usage(), end="")
        return 0
    log.init_log()
    command = COMMANDS.get(words[0])
    try:
        if command is None:
            log.error("caffe.cpp:78", "Available caffe actions:")
            for name in sorted(COMMANDS):
                log.error("caffe.cpp:81", f"\t{name}")
            raise CaffeError(f"Unknown action: {words[0]}")
        if modules := flags.pop("python_modules"):
            allow_python_modules([] if modules == "none" else modules.split(","))
        if modules := flags.pop("layers"):
            load_layers(modules.split(","))
        return command(**flags, typed=shlex.join(["caffe", *argv]))
    except PythonLayerError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except CaffeError as e:
        log.fatal("caffe.cpp:83", str(e))
        return FATAL_EXIT
    except KeyboardInterrupt:
        return 130  # as a shell shows an interrupted command; `train` has its own way (--sigint_effect)
    except Exception as e:  # out of a Python layer
        return _report(e)


# ---- the commands


def train(
    solver, snapshot, weights, gpu, precision, level, stage, sigint_effect, sighup_effect, tensorboard, typed, **_
) -> int:
    """Train or finetune a model."""
    if not solver:
        raise CaffeError("Need a solver definition to train.")
    if snapshot and weights:
        raise CaffeError("Give a snapshot to resume training or weights to finetune but not both.")
    actions = _Signals(sigint_effect, sighup_effect)

    from caffe import parallel
    from caffe.files import only_run
    from caffe.progress import progress_line
    from caffe.provenance import log_header
    from caffe.read import read_solver_file
    from caffe.snapshot import restore_newest_good
    from caffe.solver import get_solver
    from caffe.tensorboard import TensorBoard

    gpus = _gpus(gpu)
    if len(gpus) > 1 and "WORLD_SIZE" not in os.environ:
        return parallel.launch(gpus, sys.argv[1:])
    param = read_solver_file(solver)
    param.train_state.level = level
    param.train_state.stage.extend(stage.split(","))
    if weights:
        param.weights.append(weights)
    _choose_device(gpus, precision, param, "caffe.cpp:197")
    parallel.join()
    first = parallel.solver_rank() == 0
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
        if parallel.solver_count() > 1:
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


def test(model, weights, gpu, precision, iterations, level, stage, typed, **_) -> int:
    """Score a model: mean of the outputs over `iterations` batches."""
    if not model:
        raise CaffeError("Need a model definition to score.")
    if not weights:
        raise CaffeError("Need model weights to score.")

    from caffe.layer import TEST
    from caffe.net import Net
    from caffe.provenance import log_header
    from caffe.solver import outputs, weighted

    _choose_device(_gpus(gpu), precision, None, "caffe.cpp:275")
    log_header(typed)
    net = Net(model, TEST, level=level, stages=stage.split(","))
    for path in weights.split(","):
        net.copy_from(path)
    net.frugal(backward=False)
    log.info("caffe.cpp:281", f"Running for {iterations} iterations.")
    sums: list[float] = []
    total = 0.0
    for i in range(iterations):
        total += float(net.run_forward())
        values = [(name, weight, v) for name, weight, blob in outputs(net) for v in blob]
        for name, _, v in values:
            log.info("caffe.cpp:304", f"Batch {i}, {name} = {log.number(v)}")
        sums = [v for *_, v in values] if not sums else [a + v for a, (*_, v) in zip(sums, values)]
    log.info("caffe.cpp:309", f"Loss: {log.number(total / max(iterations, 1))}")
    for (name, weight, _), value in zip(values if iterations > 0 else [], sums):
        mean = value / iterations
        log.info("caffe.cpp:321", f"{name} = {log.number(mean)}{weighted(weight, mean)}")
    return 0


def time_net(model, gpu, precision, iterations, level, stage, phase, typed, **_) -> int:
    """Time every layer, forward and backward."""
    if not model:
        raise CaffeError("Need a model definition to time.")
    if phase not in ("", "TRAIN", "TEST"):
        raise CaffeError('phase must be "TRAIN" or "TEST"')

    from caffe.layer import TEST, TRAIN
    from caffe.net import Net
    from caffe.provenance import log_header

    _choose_device(_gpus(gpu), precision, None, "caffe.cpp:343")
    log_header(typed)
    net = Net(model, TEST if phase == "TEST" else TRAIN, level=level, stages=stage.split(","))
    log.info("caffe.cpp:351", "Performing Forward")
    log.info("caffe.cpp:356", f"Initial loss: {log.number(net._forward(0, len(net.layers) - 1))}")
    log.info("caffe.cpp:357", "Performing Backward")
    net._backward()
    log.info("caffe.cpp:365", "*** Benchmark begins ***")
    log.info("caffe.cpp:366", f"Testing for {iterations} iterations.")
    clock = _LayerClock(net)
    begin = time.perf_counter()
    for i in range(iterations):
        start = time.perf_counter()
        net.run_forward()
        net._backward()
        clock.synchronize()
        log.info("caffe.cpp:394", f"Iteration: {i + 1} forward-backward time: "
                                  f"{log.number(1e3 * (time.perf_counter() - start))} ms.")  # fmt: skip
    total = 1e3 * (time.perf_counter() - begin)
    each = max(iterations, 1)
    log.info("caffe.cpp:397", "Average time per layer: ")
    for i, name in enumerate(net.layer_names):
        log.info("caffe.cpp:400", f"{name:>10}\tforward: {log.number(clock.forward[i] / each)} ms.")
        log.info("caffe.cpp:403", f"{name:>10}\tbackward: {log.number(clock.backward[i] / each)} ms.")
    log.info("caffe.cpp:408", f"Average Forward pass: {log.number(sum(clock.forward) / each)} ms.")
    log.info("caffe.cpp:410", f"Average Backward pass: {log.number(sum(clock.backward) / each)} ms.")
    log.info("caffe.cpp:412", f"Average Forward-Backward: {log.number(total / each)} ms.")
    log.info("caffe.cpp:414", f"Total Time: {log.number(total)} ms.")
    log.info("caffe.cpp:415", "*** Benchmark ends ***")
    return 0


def device_query(gpu, **_) -> int:
    """Show the CUDA devices."""
    import torch

    count = torch.cuda.device_count()
    log.info("caffe.cpp:138", f"Querying GPUs {gpu or 'all'}")
    chosen = _gpus(gpu) or range(count)
    if not count:
        raise CaffeError("torch finds no CUDA device")
    for i in chosen:
        if not 0 <= i < count:
            raise CaffeError(f"no GPU {i}: torch sees {count} CUDA device(s)")
        p = torch.cuda.get_device_properties(i)
        for what, value in (
            ("Device id", i), ("Major revision number", p.major), ("Minor revision number", p.minor), ("Name", p.name),
            ("Total global memory", p.total_memory), ("Number of multiprocessors", p.multi_processor_count),
        ):  # fmt: skip
            log.info("common.cpp:172", f"{what + ':':<32}{value}")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"train": train, "test": test, "time": time_net, "device_query": device_query}


# ---- helpers in call order


# glog's, which old scripts give, and whether they stand alone. They change nothing: the log goes to stderr.
GLOG_FLAGS = {"logtostderr": True, "alsologtostderr": True, "colorlogtostderr": True, "log_dir": False, "v": False,
              "minloglevel": False, "stderrthreshold": False, "vmodule": False}  # fmt: skip


def _parse(argv):
    """gflags' ways: -flag value, --flag value, -flag=value, --flag=value; the rest are words."""
    flags, words, rest = {name: default for name, (default, _) in FLAGS.items()}, [], list(argv)
    flags["help"] = False
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in ("help", "h"):
            flags["help"] = True
            continue
        if name in GLOG_FLAGS or name.removeprefix("no") in GLOG_FLAGS:
            if not equals and name in GLOG_FLAGS and not GLOG_FLAGS[name]:
                rest[:1] = []
            continue
        if name not in FLAGS:
            raise ValueError(f"unknown command line flag '{name}' (known: {', '.join(sorted(FLAGS))})")
        if not equals:
            if not rest:
                raise ValueError(f"flag '--{name}' is missing its argument")
            value = rest.pop(0)
        if isinstance(FLAGS[name][0], int):
            try:
                value = int(value)
            except ValueError:
                raise ValueError(f"illegal value '{value}' specified for int32 flag '{name}'") from None
        flags[name] = value
    return flags, words


def _usage():
    """The text that gflags prints: one entry a flag, wrapped at 79 columns, `type: T` and `default: D` unbroken."""
    text = USAGE
    for name, (default, told) in FLAGS.items():
        kind, value = ("int32", default) if isinstance(default, int) else ("string", f'"{default}"')
        entry = f"-{name} ({told}) type:\0{kind} default:\0{value}"
        text += textwrap.fill(entry, 79, initial_indent=" " * 4, subsequent_indent=" " * 6, break_on_hyphens=False)
        text += "\n"
    return text.replace("\0", " ")


def _report(error):
    """Tell of an exception in a Python layer. A class of its own says that the text is meant for the user; a built-in
    one is most likely a mistake in the layer's code, so show where."""
    text = str(error)
    if type(error).__module__ == "builtins":
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text}"
    print("error:", text, *getattr(error, "__notes__", []), file=sys.stderr)
    return 1


def _gpus(flag):
    """Device numbers that --gpu names: "0", "0,1", "all"; none for an empty flag."""
    if flag == "all":
        import torch

        if not torch.cuda.device_count():
            raise CaffeError("--gpu=all, but torch finds no CUDA device; leave out --gpu to compute on the CPU")
        return list(range(torch.cuda.device_count()))
    try:
        return [int(g) for g in flag.split(",") if flag]
    except ValueError:
        raise CaffeError(f"--gpu wants device numbers separated by commas or 'all', not '{flag}'") from None


def _choose_device(gpus, exactness, solver_param, source):
    from caffe import device, precision

    rank = int(os.environ.get("LOCAL_RANK", 0))
    if gpus and rank >= len(gpus):
        raise CaffeError(
            f"process {rank} of this machine has no GPU in --gpu={','.join(map(str, gpus))}; "
            f"name one for each process, or start {len(gpus)} of them"
        )
    if not gpus and solver_param is not None and solver_param.solver_mode == solver_param.GPU:
        import torch

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
    precision.choose(exactness, device.current())


def on_large_pages():
    """Start this command anew, with glibc asking for memory in pages of 2 MB: it takes that at its start alone. A
    training step is 5 % faster. Where GLIBC_TUNABLES says something already, it stands."""
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **LARGE_PAGES})


def tune_allocator():
    """Keep freed memory in the process: a training step frees and takes back the same large arrays every iteration,
    and glibc would otherwise return them to the system and fault their pages in again. Only the largest, from 32 MB on
    (the most glibc lets one choose), still go back: kept, they would leave holes that cost a fifth more memory."""
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return  # not glibc: nothing to tune
    mmap_threshold, trim_threshold = -3, -1
    libc.mallopt(mmap_threshold, 32 << 20)
    libc.mallopt(trim_threshold, -1)


@contextlib.contextmanager
def denormals_flushed():
    """Context in which numbers below 1e-38 become 0.

    Where a gradient stays 0 (a unit that ReLU has switched off) Adam's mean gradient falls by a tenth each iteration,
    gets there after some 700 of them, and the processor handles such numbers a hundred times more slowly. To be entered
    before the first computation: the threads of torch's pool take it over."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _Signals:
    """What SIGINT and SIGHUP ask of the solver, told when it asks after an iteration."""

    EFFECTS = {"none": 0, "stop": 1, "snapshot": 2}  # the numbers are caffe.solver's NONE, STOP, SNAPSHOT

    def __init__(self, sigint_effect, sighup_effect):
        self.got: set[int] = set()
        self.effects = {}
        for number, effect in ((signal.SIGINT, sigint_effect), (signal.SIGHUP, sighup_effect)):
            if effect not in self.EFFECTS:
                raise CaffeError(f'Invalid signal effect "{effect}" was specified (known: none, snapshot, stop)')
            self.effects[number] = self.EFFECTS[effect]
            signal.signal(number, lambda n, _: self.got.add(n))

    def __call__(self):
        for number in (signal.SIGINT, signal.SIGHUP):
            if number in self.got:
                self.got.discard(number)
                return self.effects[number]
        return self.EFFECTS["none"]


class _LayerClock:
    """Milliseconds spent in every layer, through the net's callbacks."""

    def __init__(self, net):
        self.forward, self.backward = [0.0] * len(net.layers), [0.0] * len(net.layers)
        net.before_forward(self._start)
        net.after_forward(lambda i: self._stop(self.forward, i))
        net.before_backward(self._start)
        net.after_backward(lambda i: self._stop(self.backward, i))

    def synchronize(self):
        from caffe import device

        if device.current().type == "cuda":
            import torch

            torch.cuda.synchronize()

    def _start(self, _):
        self.synchronize()
        self._begin = time.perf_counter()

    def _stop(self, table, i):
        self.synchronize()
        table[i] += 1e3 * (time.perf_counter() - self._begin)
