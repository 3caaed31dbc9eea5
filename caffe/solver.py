"""Solver: trains a net, tests it at intervals, takes snapshots (Caffe: solver.cpp, sgd_solver.cpp)."""

import math
import os
import time

import torch

from caffe import device, snapshot
from caffe import glog as log
from caffe.cuda.graph import CudaEngine, GraphIteration
from caffe.errors import CaffeError, NotPickled
from caffe.files import listed
from caffe.forks.evaluation import MeanPrecision
from caffe.iteration import Iteration
from caffe.lr_policy import learning_rate
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.random import mix, next_seed
from caffe.ranks import solver_count, solver_rank
from caffe.read import read_net_file, read_solver_file
from caffe.text import message_to_text
from caffe.updates import RULES, Update

# What the function given to `set_action_function` may ask for after an iteration.
NONE, STOP, SNAPSHOT = range(3)


class Solver(NotPickled):
    """Trains `net` as SolverParameter `param` says; the rule comes from `param.type`.

    Solver(solver_file) or Solver(SolverParameter). `net`, `test_nets`, `iter`, `step`, `solve`, `snapshot`, `restore`
    are those of pycaffe.
    """

    instead = "solver.snapshot() writes its state, and solver.restore(file) brings another solver to it"
    type = ""  # a subclass of one rule refuses a file that asks for another

    def __init__(self, solver_file):
        if isinstance(solver_file, caffe_pb2.SolverParameter):
            param = solver_file
        else:
            param = read_solver_file(str(solver_file))
        self.param = param
        log.info("solver.cpp:45", f"Initializing solver from parameters: \n{message_to_text(param)}".rstrip("\n"))
        self._check()
        self.iter = 0
        self.current_step = 0
        self.seed = param.random_seed if param.random_seed >= 0 else next_seed()
        self._net = _train_net(param, mix(self.seed, "train"))
        self._test_nets = _test_nets(param, self.seed)
        log.info("solver.cpp:57", "Solver scaffolding done.")
        self.update = Update(param, self.net, self.type)
        self.iteration = Iteration(self.net, self.update, param.iter_size)
        self.graphs = True  # False: on a GPU, too, every kernel is launched by itself
        self.requested_early_exit = False
        self.action_function = lambda: NONE
        self._callbacks = []
        self._observers = []
        self._losses = []
        self.smoothed_loss = 0.0
        self._clock, self._clock_iter = time.monotonic(), 0

    net = property(lambda self: self._net)
    test_nets = property(lambda self: self._test_nets)

    # ---- training

    def solve(self, resume_file=None):
        """Train up to max_iter, from the snapshot `resume_file` when given."""
        log.info("solver.cpp:289", f"Solving {self.net.name}")
        log.info("solver.cpp:290", f"Learning Rate Policy: {self.param.lr_policy}")
        self.requested_early_exit = False
        if resume_file:
            log.info("solver.cpp:295", f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        self.step(self.param.max_iter - self.iter)
        param = self.param
        if param.snapshot_after_train and (not param.snapshot or self.iter % param.snapshot):
            self.snapshot()
        if self.requested_early_exit:
            log.info("solver.cpp:311", "Optimization stopped early.")
            return
        if param.display and self.iter % param.display == 0:
            self._smooth(self.net.executor.forward(), self.iter)
            log.info("solver.cpp:327", f"Iteration {self.iter}, loss = {log.number(float(self.smoothed_loss))}")
        if param.test_interval and self.iter % param.test_interval == 0 and solver_rank() == 0:
            self.test_all()
        log.info("solver.cpp:332", "Optimization Done.")

    def step(self, iterations):
        """Train for this many iterations, with tests, display and snapshots where they are due."""
        start, param = self.iter, self.param
        self._losses, self.smoothed_loss = [], 0.0
        self._clock = time.monotonic()
        self._choose_iteration()
        while self.iter < start + iterations:
            self.net.wiring.clear_param_diffs()
            if (
                param.test_interval
                and self.iter % param.test_interval == 0
                and solver_rank() == 0
                and (self.iter > 0 or param.test_initialization)
            ):
                self.test_all()
                if self.requested_early_exit:
                    break
            for callback in self._callbacks:
                callback.on_start()
            display = bool(param.display and self.iter % param.display == 0)
            self.net.executor.debug_info = bool(display and param.debug_info)
            self.net.executor.seeds.pass_index = self.iter * param.iter_size
            loss = self.iteration.forward_backward()
            if display or device.current.type == "cpu":  # a GPU is not waited for in every iteration
                self._check_finite(loss)
            self._smooth(loss, start)
            if display:
                self._display()
            for callback in self._callbacks:
                callback.on_gradients_ready()
            self.apply_update()
            request = self.action_function()
            if (param.snapshot and self.iter % param.snapshot == 0) or request == SNAPSHOT:
                self.snapshot()
            if request == STOP:
                self.requested_early_exit = True
                break

    def capture_with(self, engine):
        """Run what can be captured as graphs of `engine` (caffe.cuda.graph) from now on."""
        self.iteration = GraphIteration(self.net, self.update, self.param.iter_size, engine)

    def _choose_iteration(self):
        """As graphs where the device is one for them; the mode may have been changed meanwhile."""
        where = device.current.type
        if isinstance(self.iteration, GraphIteration):
            if not self.graphs or self.iteration.engine.device != where:
                self.iteration = Iteration(self.net, self.update, self.param.iter_size)
        elif where == "cuda" and self.graphs:
            self.capture_with(CudaEngine())

    def _check_finite(self, loss):
        """Stop at a loss that is not a number: say where it came from, and save the weights that led to it."""
        if math.isfinite(float(loss)):
            return
        terms = ", ".join(f"{name} = {log.number(v)}" for name, w, values in outputs(self.net) for v in values if w)
        saved = "Rank 0 alone saves weights"
        if not solver_rank():
            try:
                self.snapshot()
                saved = f"The weights before this iteration are saved as {self.param.snapshot_prefix}_iter_{self.iter}"
            except CaffeError as e:
                saved = str(e)
        raise CaffeError(
            f"Iteration {self.iter}: the loss is {log.number(float(loss))} ({terms}); "
            f"{self.net.executor.first_not_finite()}. {saved}; check data and base_lr"
        )

    def _smooth(self, loss, start):
        """Running mean of the last `average_loss` losses, updated as Caffe does (in single precision).

        Of one it is that loss itself: updates leave rounding errors, and a resumed run would print other digits."""
        size = self.param.average_loss
        loss = torch.as_tensor(loss, dtype=torch.float32)
        if size == 1:
            self.smoothed_loss = loss
        elif len(self._losses) < size:
            self._losses.append(loss)
            count = len(self._losses)
            self.smoothed_loss = (self.smoothed_loss * (count - 1) + loss) / count
        else:
            slot = (self.iter - start) % size
            self.smoothed_loss = self.smoothed_loss + (loss - self._losses[slot]) / size
            self._losses[slot] = loss

    def _display(self):
        lapse = time.monotonic() - self._clock
        rate, loss = (self.iter - self._clock_iter) / (lapse or 1), float(self.smoothed_loss)
        log.info(
            "solver.cpp:239",
            f"Iteration {self.iter} ({log.number(rate)} iter/s, {log.number(lapse)}s/"
            f"{self.param.display} iters), loss = {log.number(loss)}",
        )
        self._clock, self._clock_iter = time.monotonic(), self.iter
        index, shown = 0, list(outputs(self.net))
        for observer in self._observers:
            observer.on_display(self, shown)
        for name, weight, values in shown:
            for value in values:
                log.info(
                    "solver.cpp:258",
                    f"    Train net output #{index}: {name} = {log.number(value)}{weighted(weight, value)}",
                )
                index += 1

    # ---- one update

    @property
    def lr(self):
        """The learning rate of this iteration."""
        rate, self.current_step = learning_rate(self.param, self.iter, self.current_step)
        return rate

    @torch.no_grad()
    def apply_update(self):
        """Update the parameters from their diffs; afterwards a diff holds what was subtracted. Counts `iter` up."""
        rate, param = self.lr, self.param
        if not math.isfinite(rate):
            raise CaffeError(
                f"Iteration {self.iter}: the learning rate of lr_policy {param.lr_policy} is {rate:g}; check base_lr, "
                "gamma and power, and max_iter, above which poly has none"
            )
        if param.display and self.iter % param.display == 0:
            for observer in self._observers:
                observer.on_rate(self, rate)
            log.info("sgd_solver.cpp:112", f"Iteration {self.iter}, lr = {log.number(rate)}")
        self.update.clip()
        self.iteration.apply_update(self.update.rates(rate, self.iter + 1))
        self.iter += 1

    @property
    def history(self):
        """The blobs that the update rule keeps for the parameters."""
        return self.update.history

    # ---- testing

    def test_all(self):
        """Run all test nets for their test_iter batches and log the mean outputs."""
        for i in range(len(self.test_nets)):
            if self.requested_early_exit:
                return
            self._test(i)

    def _test(self, index):
        log.info("solver.cpp:347", f"Iteration {self.iter}, Testing net (#{index})")
        net, passes = self.test_nets[index], self.param.test_iter[index]
        net.share_with(self.net)
        net.executor.seeds.pass_index = self._tests_before(self.iter) * passes
        loss, measured = 0.0, MeanPrecision(self.param) if self.param.eval_type == "detection" else Means()
        for _ in range(passes):
            request = self.action_function() if solver_count() == 1 else NONE  # ranks agree after iterations only
            if request == SNAPSHOT:
                self.snapshot()
            elif request == STOP:
                self.requested_early_exit = True
                log.info("solver.cpp:377", "Test interrupted.")
                return
            loss += float(net.executor.forward())
            measured.add(net)
        net.executor.forget()  # training changes the parameters before the next test
        if self.param.test_compute_loss:
            log.info("solver.cpp:396", f"Test loss: {log.number(loss / passes if passes else math.nan)}")
        means = measured.means()
        for observer in self._observers:
            observer.on_test(self, index, [(name, mean) for name, _, mean in means])
        for i, (name, weight, mean) in enumerate(means):
            log.info("solver.cpp:414", f"    Test net output #{i}: {name} = {log.number(mean)}{weighted(weight, mean)}")

    def _tests_before(self, iteration):
        """How many test passes an unbroken run has made before the one due at `iteration`."""
        interval = self.param.test_interval
        if not interval:
            return 0
        due = -(-iteration // interval)  # at 0, interval, 2 interval, ... below `iteration`
        return due - (0 if self.param.test_initialization or due == 0 else 1)

    # ---- snapshots

    def snapshot(self):
        """Write <prefix>_iter_<n>.caffemodel and .solverstate (or .h5, as snapshot_format says); rank 0 alone does."""
        if solver_rank() == 0:
            snapshot.save(self)

    def restore(self, path):
        """Continue from a .solverstate (or .solverstate.h5) and the weights it names."""
        snapshot.restore(self, str(path))

    def seek(self, iteration):
        """Bring random numbers and data layers to where an unbroken run has them at `iteration`."""
        self.net.seek(iteration * self.param.iter_size, mix(self.seed, "train"))
        for i, net in enumerate(self.test_nets):
            net.seek(self._tests_before(iteration) * self.param.test_iter[i], mix(self.seed, "test", i))

    # ---- the rest of pycaffe's surface

    def share_weights(self, net):
        """Let `net` use the parameters of this solver's net."""
        net.share_with(self.net)

    def add_callback(self, on_start, on_gradients_ready=None):
        """Call `on_start()` before and `on_gradients_ready()` after the gradients of every iteration.

        One object with these two methods (caffe.NCCL) will do, too."""
        own = on_gradients_ready is None
        self._callbacks.append(on_start if own else _Callback(on_start, on_gradients_ready))

    def add_observer(self, observer):
        """Tell `observer` what the log is told: `on_display(solver, outputs)`, `on_rate(solver, lr)` and
        `on_test(solver, index, means)`; caffe.tensorboard has one."""
        self._observers.append(observer)

    def set_action_function(self, action):
        """`action()` is asked after every iteration: NONE, STOP or SNAPSHOT."""
        self.action_function = action

    def frugal(self):
        """Keep in memory only what training needs: intermediate blobs read as zero afterwards."""
        self.net.frugal()
        for net in self.test_nets:
            net.frugal(backward=False)

    def _check(self):
        param = self.param
        if not self.type:
            if param.type not in RULES:
                raise CaffeError(f"Unknown solver type: {param.type} (known types: {', '.join(sorted(RULES))})")
            self.type = param.type
        RULES[self.type].check(param)
        if param.eval_type not in ("classification", "detection"):
            raise CaffeError(f"eval_type is '{param.eval_type}'; wanted classification or detection")
        if param.eval_type == "detection":
            MeanPrecision(param)
        if param.average_loss < 1:
            raise CaffeError("average_loss should be non-negative.")
        if param.iter_size < 1:
            raise CaffeError(f"iter_size must be at least 1, not {param.iter_size}")
        if any(passes < 0 for passes in param.test_iter):
            raise CaffeError(f"test_iter must not be negative, as {min(param.test_iter)} is")
        prefix = param.snapshot_prefix
        if (param.snapshot or param.snapshot_after_train) and not os.access(os.path.dirname(prefix) or ".", os.W_OK):
            raise CaffeError(
                f"Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists and is writable."
            )


class Means:
    """The means of a net's outputs, element by element, over the passes of a test."""

    def __init__(self):
        self.named, self.sums, self.count = [], [], 0

    def add(self, net):
        """Count the pass that the net has made; [(name, value)] of it."""
        now = [(name, weight, value) for name, weight, values in outputs(net) for value in values]
        self.named, values = [(name, weight) for name, weight, _ in now], [value for *_, value in now]
        self.sums = [a + b for a, b in zip(self.sums, values)] if self.count else values
        self.count += 1
        return [(name, value) for name, _, value in now]

    def means(self):
        """[(name, loss weight, mean)] of all elements."""
        return [(name, weight, total / self.count) for (name, weight), total in zip(self.named, self.sums)]


class _Callback:
    def __init__(self, on_start, on_gradients_ready):
        self.on_start, self.on_gradients_ready = on_start, on_gradients_ready


SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver = (
    type(f"{rule}Solver", (Solver,), {"type": rule, "__module__": __name__, "__doc__": f"A solver of the rule {rule}."})
    for rule in RULES
)


def get_solver(solver_file) -> Solver:
    """The solver that the file's `type` names."""
    return Solver(solver_file)


# ---- the nets that a SolverParameter names


def train_source(param):
    """(field, its value) of the SolverParameter `param` for the train net: a file, or a NetParameter."""
    given = [f for f in ("net", "net_param", "train_net", "train_net_param") if param.HasField(f)]
    if len(given) != 1:
        found = f"{', '.join(given)} are set" if given else "none is set"
        raise CaffeError(
            "SolverParameter must specify exactly one train net, using one of these fields: "
            f"net, net_param, train_net, train_net_param ({found})"
        )
    return given[0], getattr(param, given[0])


def _train_net(param, seed):
    field, value = train_source(param)
    told = {
        "net": "from net file: ",
        "train_net": "from train_net file: ",
        "net_param": "specified in net_param.",
        "train_net_param": "specified in train_net_param.",
    }[field]
    log.info("solver.cpp:102", f"Creating training net {told}{value if isinstance(value, str) else ''}")
    return _made(value, caffe_pb2.TRAIN, param.train_state, param, seed)


def test_sources(param):
    """[(field, a file or a NetParameter, its NetState)] of the SolverParameter `param` for the test nets, in order."""
    named = [*param.test_net_param, *param.test_net]
    generic = [getattr(param, f) for f in ("net_param", "net") if param.HasField(f)]
    given = len(param.test_iter)
    if given < len(named) or (not generic and given > len(named)):  # `net` may serve as further test nets
        raise CaffeError(f"test_iter must be specified for each test network ({given} values, {len(named)} test nets)")
    sources = named + [generic[0]] * (given - len(named)) if generic else named
    if param.test_state and len(param.test_state) != len(sources):
        raise CaffeError(
            "test_state must be unspecified or specified once per test net "
            f"({len(param.test_state)} values, {len(sources)} test nets)"
        )
    if sources and param.test_interval <= 0:
        raise CaffeError(f"test_interval must be positive where there are test nets, not {param.test_interval}")
    fields = ["test_net"] * len(named) + ["net"] * (len(sources) - len(named))
    return list(zip(fields, sources, param.test_state or [caffe_pb2.NetState()] * len(sources)))


def _test_nets(param, seed):
    nets = []
    for i, (field, source, state) in enumerate(test_sources(param)):
        told = f"{field} file: {source}" if isinstance(source, str) else f"{field}_param"
        log.info("solver.cpp:190", f"Creating test net (#{i}) specified by {told}")
        nets.append(_made(source, caffe_pb2.TEST, state, param, mix(seed, "test", i)))
        nets[-1].executor.debug_info = param.debug_info
    return nets


def _made(source, phase, state, param, seed):
    """The net of a file or of a NetParameter in this phase, with what SolverParameter `param` finetunes from."""
    net_param = caffe_pb2.NetParameter()
    net_param.CopyFrom(read_net_file(source) if isinstance(source, str) else source)
    net_param.state.MergeFrom(state)
    net_param.state.phase = phase
    net = Net.from_proto(net_param, seed)
    for path in (path for paths in param.weights for path in listed(paths)):
        log.info("solver.cpp:72", f"Finetuning from {path}")
        net.copy_from(path)
    return net


def outputs(net):
    """(name, loss weight, values) of every output of the net."""
    weights = net.blob_loss_weights
    for name in net.outputs:
        yield name, weights[name], net._blob(name).tensor().reshape(-1).tolist()


def weighted(weight, value):
    return f" (* {log.number(weight)} = {log.number(weight * value)} loss)" if weight else ""
