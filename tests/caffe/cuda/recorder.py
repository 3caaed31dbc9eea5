"""An engine for caffe.cuda.graph on the CPU: it records the operations of a work, as CUDA does, and repeats them.

As on a GPU: recording has no effect on what was there before; repeating runs no Python of the work and writes to the
same tensors; to read a value on the host while recording is an error."""

import torch
import torch._dynamo  # which a dispatch mode imports when it is first used; its import holds the frames around it
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS = {"aten::_local_scalar_dense", "aten::nonzero"}


class Recorder:
    """`sync`: reads on the host are let through, where a layer reads on the CPU and not on a GPU."""

    device = "cpu"

    def __init__(self, sync=False):
        self.sync, self.captures, self.replays = sync, 0, 0

    def capture(self, work, generators):
        self.captures += 1
        tape = Tape(self.sync)
        states = [g.get_state() for g in generators]
        try:
            with tape:
                result = work()
        finally:
            tape.undo()
            for generator, state in zip(generators, states):
                generator.set_state(state)

        def replay():
            self.replays += 1
            tape.replay()

        return replay, result

    def wire(self):
        return Wire()


class Tape(TorchDispatchMode):
    """Every operation with its arguments and results."""

    def __init__(self, sync):
        super().__init__()
        self.sync, self.steps, self.made, self.before = sync, [], set(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._schema.name in READS and not self.sync:
            raise RuntimeError("operation not permitted when stream is capturing")
        inputs = list(tree_leaves((args, kwargs)))
        inputs = [t for t in inputs if torch.is_tensor(t)]
        written = [
            t
            for argument, value in self._arguments(func, args, kwargs)
            if argument.alias_info is not None and argument.alias_info.is_write
            for t in tree_leaves(value)
            if torch.is_tensor(t)
        ]
        for t in written:
            key = t.untyped_storage().data_ptr()
            if key not in self.made and key not in self.before:
                self.before[key] = (t.untyped_storage(), t.untyped_storage().clone())
        result = func(*args, **kwargs)
        outputs = [t for t in tree_leaves(result) if torch.is_tensor(t)]
        old = {t.untyped_storage().data_ptr() for t in inputs}
        fresh = [t for t in outputs if t.untyped_storage().data_ptr() not in old]
        self.made.update(t.untyped_storage().data_ptr() for t in fresh)
        if written or fresh:  # the rest are views, which stay what they are
            self.steps.append((func, args, kwargs, outputs, bool(written)))
        return result

    def undo(self):
        for storage, values in self.before.values():
            storage.copy_(values)

    def replay(self):
        with torch.no_grad():
            for func, args, kwargs, outputs, writes in self.steps:
                if func._schema.name in ("aten::empty", "aten::empty_like", "aten::new_empty"):
                    continue
                args, kwargs = tree_map(_unseen, (args, kwargs))
                again = tree_leaves(func(*args, **kwargs))
                if not writes:
                    for kept, value in zip(outputs, (t for t in again if torch.is_tensor(t))):
                        kept.data.copy_(value)

    @staticmethod
    def _arguments(func, args, kwargs):
        yield from zip(func._schema.arguments, args)
        for argument in func._schema.arguments:
            if argument.name in kwargs:
                yield argument, kwargs[argument.name]


def _unseen(value):
    """A tensor that may be written without autograd's notice: replays pass it by."""
    return value.data if torch.is_tensor(value) else value


class Wire:
    """Arrays into tensors that stay."""

    def __init__(self):
        self.tensors = []

    def send(self, arrays):
        if [(t.shape, t.dtype) for t in self.tensors] != [(a.shape, torch.from_numpy(a).dtype) for a in arrays]:
            self.tensors = [torch.empty_like(torch.from_numpy(a)) for a in arrays]
        for tensor, array in zip(self.tensors, arrays):
            tensor.data.copy_(torch.from_numpy(array))
        return self.tensors
