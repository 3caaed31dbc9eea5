"""CUDA graphs of a training iteration: its kernels are recorded once and then started together, without Python.

What is captured works on tensors at fixed places. The net's blobs keep pointing to them, so `data` and `diff` read
right after a replay, and what the user writes is brought to its place before the next one. Where a tensor that the work
reads has been replaced (another shape, a restored snapshot), the graph is dropped and captured anew.

Two graphs make an iteration, forward with backward and the update. Between them is the place of callbacks (the exchange
of gradients among ranks), of clipping and of the log.
"""

import gc

import torch

from caffe import device
from caffe import glog as log
from caffe.cuda.feed import Feed
from caffe.cuda.wire import Wire
from caffe.errors import CaffeError
from caffe.iteration import Iteration

WARM_UP = 3  # plain iterations first: history, generators and libraries' workspaces come into being in them


class GraphIteration(Iteration):
    """An iteration that `engine` captures where it can, and replays."""

    def __init__(self, net, update, passes, engine):
        super().__init__(net, update, passes)
        self.engine = engine
        self.feed = Feed(net.wiring, engine)
        self.rates = {mult: torch.zeros((), device=device.current) for mult in set(net.params_lr)}  # they stay
        self.refused = why_not(net)  # None, or why nothing is captured
        if self.refused:
            log.info(log.here(), f"No CUDA graph: {self.refused}")
        self._pass: Captured | None = None
        self._update: Captured | None = None
        self._plain, self._replayed = 0, False  # plain iterations since the last graph; whether this one was replayed
        self._left: list = []  # the parameters' tensors after the last plain pass

    def forward_backward(self):
        if self.passes > 1 or self.executor.watched:  # several passes over data, or somebody who watches the layers
            return super().forward_backward()
        seeds, index = self.executor.seeds, self.executor.seeds.pass_index
        seeds.pass_index = index + 1  # what data layers draw is of this pass
        same = self.feed.send()
        seeds.pass_index = index
        if self._pass and not (same and self._pass.ready()):
            self._drop()
        if not self._pass and not self.refused and self._plain >= WARM_UP and self._settled():
            generators = self._begin(index + 1)
            seeds.pass_index = index
            blobs = [*self.wiring.blobs, *(b for node in self.wiring.nodes for b in node.layer.blobs)]
            self._pass = self._captured(self._work, blobs, generators)
            seeds.pass_index = index
        if not self._pass:
            self._plain += 1
            loss = self._work()
            self._left = self._parameters()
            return loss
        self._begin(index + 1)
        self._replayed = True
        loss = self._pass.replay()
        return loss.clone() if torch.is_tensor(loss) else loss

    def apply_update(self, rates):
        for mult, rate in rates.items():
            self.rates[mult].fill_(rate)
        if not self._replayed:
            return self.update.apply(self.rates)
        self._replayed = False
        if self._update and not self._update.ready():
            self._update = None
            return self.update.apply(self.rates)
        if not self._update:
            blobs = [*(learned.blob for learned in self.wiring.learned), *self.update.history]
            self._update = self._captured(lambda: self.update.apply(self.rates), blobs)
            if not self._update:
                return self.update.apply(self.rates)
        self._update.replay()

    def _parameters(self):
        return [learned.blob.memory.tensor() for learned in self.wiring.learned]

    def _settled(self):
        """Whether the parameters are as a pass leaves them; new ones, a layer may still bring into another layout."""
        return all(now is left for now, left in zip(self._parameters(), self._left))

    def _drop(self):
        self._pass = self._update = None
        self._plain, self._replayed = 0, False

    def _begin(self, index):
        """Seed for pass number `index`; the generators of the layers."""
        self.executor.seeds.pass_index = index
        return [g for node in self.wiring.nodes for g in node.stream.reseed()]

    def _work(self):
        self.wiring.clear_param_diffs()
        self.feed.receive()
        loss = self.executor.forward(without=self.feed.sources)
        self.executor.backward(at_once=True)
        return loss

    def _captured(self, work, blobs, generators=()):
        layers = [node.layer for node in self.wiring.nodes if node.index not in self.feed.sources]
        try:
            captured = Captured(self.engine, blobs, layers, generators, work)
        except (RuntimeError, CaffeError) as e:  # what has another reason will come up again without a graph
            self.refused = str(e).splitlines()[0]
            log.warning(log.here(), f"No CUDA graph: {self.refused}")
            return None
        log.info(log.here(), "Captured a CUDA graph of a part of the iteration")
        return captured


class Captured:
    """`work` on data and diffs of `blobs`, recorded by `engine`."""

    def __init__(self, engine, blobs, layers, generators, work):
        memories, before = list({id(m): m for blob in blobs for m in (blob.memory, blob.grad)}.values()), []
        for m in memories:
            if not m.is_zero:
                m.tensor()  # brings what the user wrote, which a graph cannot
            before.append(m.placed)
        try:
            self._replay, self._result = engine.capture(work, generators)
        except Exception:
            for m, tensor in zip(memories, before):
                m.place(tensor)
            raise
        self._after = [(m, m.placed) for m in memories]
        self._kept = [(m, tensor) for m, tensor in zip(memories, before) if tensor is not None and m.placed is tensor]
        self._layers = [(vars(layer), dict(vars(layer))) for layer in layers]  # what their backward needs, for one

    def ready(self) -> bool:
        """Whether the tensors that the work reads are where they were."""
        return all(m.tensor() is tensor for m, tensor in self._kept)

    def replay(self):
        """Repeat the work; its result, which the next replay overwrites."""
        self._replay()
        for m, tensor in self._after:
            m.place(tensor)
        for now, captured in self._layers:
            now.update(captured)
        return self._result


def why_not(net):
    """What keeps the passes of `net` from being captured; None where nothing does."""
    for node in net.nodes:
        if node.bottoms and not node.builtin.capturable:
            return f"layer '{node.name}' ({node.type}) computes on the host, or its shapes depend on data"
        if not node.bottoms and node.type == "Python" and node.duty.backward:
            return f"layer '{node.name}' (Python) has a backward of its own"
    return None


class CudaEngine:
    """Captures and copies with CUDA."""

    device = "cuda"

    def __init__(self):
        # Each solver has its own: cuBLAS has a workspace for each stream, which lies in the memory of a graph.
        self._stream = torch.cuda.Stream()

    def capture(self, work, generators):
        """(function that repeats the kernels of `work`, what `work` gave); `generators` are those it draws from."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        for generator in generators:
            if generator.device.type == "cuda":
                graph.register_generator_state(generator)
        gc.collect()  # graphs and tensors of solvers that are gone are freed now, and not while capturing
        collecting = gc.isenabled()
        gc.disable()
        try:
            # Other threads may go on: NCCL's looks at events all the time.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                result = work()
        except Exception as e:
            torch.cuda.set_stream(stream)  # torch leaves its own stream current
            # What went wrong inside has only been noticed at the end of the capture, which says no more than that.
            raise (e.__context__ if isinstance(e, RuntimeError) and e.__context__ else e) from None
        finally:
            if collecting:
                gc.enable()
        return graph.replay, result

    def wire(self):
        return Wire()
