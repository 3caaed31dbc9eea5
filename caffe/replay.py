"""Replay: the forward pass of a net that only computes, as a flat list of calls.

Between two passes over bottoms of the same shapes nothing changes but values, so what the executor and the layers ask
of shapes, parameters and duties has the same answers. MobileNet spends a seventh of its time on it."""

import torch

from caffe import device
from caffe.blob import Blob
from caffe.errors import note_layer
from caffe.layer import TEST
from caffe.prepared import stamps_of, stand
from caffe.torch_layer import several

LARGE = 32 << 20  # bytes of an array from which on glibc gives it back to the system, to be faulted in again
PIECE = 4 << 20  # bytes of a piece of one


def record(executor, chained):
    """The Replay of the pass that has just ended, over all layers of a net that does not train; None where the next one
    may have to do otherwise. `chained`: the nodes that a convolution has done the work of, by its number; none by
    theirs."""
    nodes = executor.wiring.nodes
    if not device.shares_host or any(_varies(node) for node in nodes):
        return None
    stamps = stamps_of([blob for node in nodes for blob in node.layer.blobs])
    if stamps is None:
        return None
    steps: list[tuple] = []
    for node in nodes:
        if node.bottoms and node.index not in chained:
            steps.append(_step(node, node.layer.again(), node.tops))
        elif node.bottoms and (followers := chained[node.index]):
            if not (again := node.layer.again()):
                return None
            steps.append(_step(node, again, followers[-1].tops))
        if steps and not executor.keep:
            steps[-1][-1].extend(node.last_reads)
    return Replay(executor, steps, stamps)


def _step(node, again, tops):
    """How the layer runs: also how many items of a large top at a time, 0 for all; and the blobs to release then."""
    size = 4 * tops[0].count if tops else 0
    pieces = size > LARGE and again is not None and node.builtin.by_item and len(node.bottoms) == 1
    return node, again, tops, max(1, PIECE * tops[0].shape[0] // size) if pieces else 0, []


def _varies(node):
    """Whether the layer may do otherwise in another pass, or adds to a loss."""
    if not node.builtin.capturable:
        return node.type != "Input"
    return node.layer.phase != TEST or any(node.loss_weights)


class Replay:
    """Repeats a pass for as long as it `stands`."""

    def __init__(self, executor, steps, stamps):
        self._steps, self._stamps = steps, stamps
        self._marks = executor.chains, executor.keep, Blob.reshapes

    def stands(self, executor) -> bool:
        """Whether shapes and parameters are surely those of the pass."""
        chains, keep, reshapes = self._marks
        if executor.chains is not chains or executor.keep is not keep or Blob.reshapes != reshapes:
            return False
        return device.shares_host and stand(self._stamps)

    def run(self):
        """Compute all blobs, from those of the net's inputs."""
        with torch.no_grad():
            for node, again, tops, items, released in self._steps:
                try:
                    _compute(node, again, tops, items)
                except Exception as e:
                    note_layer(e, node)
                    raise
                for blob in released:
                    blob.memory.release()


def _compute(node, again, tops, items):
    """Run the layer of `node`, by `again` where there is that."""
    bottoms = [blob.tensor() for blob in node.bottoms]
    if items and _in_pieces(again, bottoms[0], tops[0], items):
        return
    for blob in tops:  # the new values then take the memory of the old
        if not any(blob.memory is bottom.memory for bottom in node.bottoms):
            blob.memory.release()
    if again is None:
        node.layer.forward(node.bottoms, node.tops)
    else:
        for blob, value in zip(tops, several(again(*bottoms))):
            blob.memory.assign(value)


def _in_pieces(again, x, blob, items):
    """Compute a top, some items at a time, into the array that it has from the pass before; False: not done. A copy
    from the processor's cache costs less than new pages."""
    top = blob.memory.placed
    if top is None or blob.memory.exposed or top.shape != blob.shape:
        return False
    for part, found in zip(x.split(items), top.split(items)):
        found.copy_(again(part))
    blob.memory.assign(top)
    return True
