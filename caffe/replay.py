"""Replay: the forward pass of a net that only computes, as a flat list of calls.

Between two passes over bottoms of the same shapes nothing changes but values, so what the executor and the layers ask
of shapes, parameters and duties has the same answers. MobileNet spends a seventh of its time on it."""

import torch

from caffe import device
from caffe.blob import Blob
from caffe.errors import note_layer
from caffe.layer import TEST
from caffe.prepared import stamps_of, stand
from caffe.process import tune_allocator
from caffe.torch_layer import several

# Bytes: an array that glibc gives back to the system unless told, and one that it should.
LARGE, LARGEST = 32 << 20, 1 << 30


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
            steps.append((node, node.layer.again(), node.tops, []))
        elif node.bottoms and (followers := chained[node.index]):
            if not (again := node.layer.again()):
                return None
            steps.append((node, again, followers[-1].tops, []))
        if steps and not executor.keep:
            steps[-1][-1].extend(node.last_reads)
    if any(4 * blob.count > LARGE for _, _, tops, _ in steps for blob in tops):
        tune_allocator(LARGEST, LARGEST)
    return Replay(executor, steps, stamps)


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
            for node, again, tops, released in self._steps:
                try:
                    bottoms = [blob.tensor() for blob in node.bottoms]
                    for blob in tops:  # the new values then take the memory of the old
                        if not any(blob.memory is bottom.memory for bottom in node.bottoms):
                            blob.memory.release()
                    if again is None:
                        node.layer.forward(node.bottoms, node.tops)
                    else:
                        for blob, value in zip(tops, several(again(*bottoms))):
                            blob.memory.assign(value)
                except Exception as e:
                    note_layer(e, node)
                    raise
                for blob in released:
                    blob.memory.release()
