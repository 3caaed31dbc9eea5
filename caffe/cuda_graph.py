"""CUDA graphs of a training iteration: its kernels are recorded once and then started together, without Python.

What is captured works on tensors at fixed places. The net's blobs keep pointing to them, so `data` and `diff` read
right after a replay, and what the user writes is brought to its place before the next one. Where a tensor that the work
reads has been replaced (another shape, a restored snapshot), the graph is dropped and captured anew.

Two graphs make an iteration, forward with backward and the update. Between them is the place of callbacks (the exchange
of gradients among ranks), of clipping and of the log.
"""

from __future__ import annotations

import gc
import weakref

import torch

from caffe import device
from caffe import glog as log
from caffe.errors import CaffeError
from caffe.feed import Feed

WARM_UP = 3  # plain iterations first: history, generators and libraries' workspaces come into being in them


class StepGraph:
    """The iterations of `solver`, captured where they can be."""

    def __init__(self, solver, engine):
        self.solver = weakref.proxy(solver)  # which owns this: a solver that goes takes its graphs along at once
        self.engine = engine
        self.feed = Feed(solver.net, engine)
        self.refused = why_not(solver.net)  # None, or why nothing is captured
        if self.refused:
            log.info(log.here(), f"No CUDA graph: {self.refused}")
        self._pass: Captured | None = None
        self._update: Captured | None = None
        self._plain, self._replayed = 0, False  # plain iterations since the last graph; whether this one was replayed
        self._left: list = []  # the parameters' tensors after the last plain pass

    def usable(self) -> bool:
        """Whether this iteration can take this way at all: one pass over data, and nobody who watches its layers."""
        net = self.solver.net
        return self.solver.graphs and self.solver.param.iter_size == 1 and not (net.watched or net.debug_info)

    def forward_backward(self):
        """One forward and backward pass; the loss as a tensor."""
        net, index = self.solver.net, self.solver.net.pass_index
        net.pass_index = index + 1  # what data layers draw is of this pass
        same = self.feed.send()
        net.pass_index = index
        if self._pass and not (same and self._pass.ready()):
            self._drop()
        if not self._pass and not self.refused and self._plain >= WARM_UP and self._settled():
            generators = self._begin(index + 1)
            net.pass_index = index
            blobs = [*net.blob_list, *(b for layer in net.layers for b in layer.blobs)]
            self._pass = self._captured(self._work, blobs, generators)
            net.pass_index = index
        if not self._pass:
            self._plain += 1
            loss = self._work()
            self._left = self._parameters()
            return loss
        self._begin(index + 1)
        self._replayed = True
        loss = self._pass.replay()
        return loss.clone() if torch.is_tensor(loss) else loss

    def update(self) -> bool:
        """The update of the parameters; False: it is left to the caller."""
        if not self._replayed:
            return False
        self._replayed = False
        if self._update and not self._update.ready():
            self._update = None
            return False
        if not self._update:
            blobs = [*self.solver.net.learnable_params, *self.solver.history]
            self._update = self._captured(self.solver.update_params, blobs)
            if not self._update:
                return False
        self._update.replay()
        return True

    def _parameters(self):
        return [b.memory.tensor() for b in self.solver.net.learnable_params]

    def _settled(self):
        """Whether the parameters are as a pass leaves them; new ones, a layer may still bring into another layout."""
        return all(now is left for now, left in zip(self._parameters(), self._left))

    def _drop(self):
        self._pass = self._update = None
        self._plain, self._replayed = 0, False

    def _begin(self, index):
        """Seed for pass number `index`; the generators of the layers."""
        self.solver.net.pass_index = index
        return [g for layer in self.solver.net.layers if layer.random for g in layer.random.reseed()]

    def _work(self):
        net = self.solver.net
        net.clear_param_diffs()
        self.feed.receive()
        loss = net.run_forward(without=self.feed.layers)
        net._backward()
        return loss

    def _captured(self, work, blobs, generators=()):
        layers = [layer for i, layer in enumerate(self.solver.net.layers) if i not in self.feed.layers]
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
    for i, layer in enumerate(net.layers):
        if net.bottom_ids[i] and not layer.capturable:
            return f"layer '{layer.name}' ({layer.type}) computes on the host, or its shapes depend on data"
        if not net.bottom_ids[i] and layer.type == "Python" and net.layer_need_backward[i]:
            return f"layer '{layer.name}' (Python) has a backward of its own"
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


class Wire:
    """Takes arrays to the device from pinned memory on a stream of its own, while the device computes on the batch
    before. Two pinned copies take turns, so the host waits only when it is two batches ahead."""

    def __init__(self):
        self._shapes: list[tuple] = []
        self._stream = torch.cuda.Stream()
        self._turn = 0  # which of the pinned copies is filled next

    def send(self, arrays):
        """Tensors on the device that hold `arrays`; with every batch the same ones, as long as shapes stay."""
        shapes = [(a.shape, a.dtype) for a in arrays]
        if shapes != self._shapes:
            self._prepare(arrays)
            self._shapes = shapes
        self._turn = 1 - self._turn
        pinned, sent, main = self._pinned[self._turn], self._on_way[self._turn], torch.cuda.current_stream()
        sent.synchronize()
        for buffer, array in zip(pinned, arrays):
            buffer.copy_(torch.from_numpy(array))
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._taken)
            for buffer, arrival in zip(pinned, self._arrivals):
                arrival.copy_(buffer, non_blocking=True)
            sent.record(self._stream)
        main.wait_event(sent)
        for tensor, arrival in zip(self._tensors, self._arrivals):
            tensor.data.copy_(arrival)  # `data`: autograd does not mind, as it does not mind replays
        self._taken.record(main)
        return self._tensors

    def _prepare(self, arrays):
        torch.cuda.synchronize()  # nothing is on its way to tensors that go
        host = [torch.from_numpy(a) for a in arrays]
        where = device.current()
        self._pinned = [[torch.empty_like(t, pin_memory=True) for t in host] for _ in range(2)]
        self._arrivals, self._tensors = ([torch.empty_like(t, device=where) for t in host] for _ in range(2))
        self._on_way, self._taken = [torch.cuda.Event(), torch.cuda.Event()], torch.cuda.Event()
