"""Feed: the layers that bring data run on the host, and what they bring travels while the device computes."""

import numpy as np

from caffe import device
from caffe.blob import Blob
from caffe.builtin_layer import BuiltinLayer


class Feed:
    """Does the work of the data layers: all layers without bottoms that have a `forward`.

    They fill blobs on the host; a wire of `engine` takes the arrays to the device. A user's layer may have its tops
    travel in a smaller form (`__caffe_pack__`, see caffe.layer)."""

    def __init__(self, wiring, engine):
        self.nodes = wiring.nodes
        sources = [node for node in self.nodes if not node.bottoms]
        self.sources = [node.index for node in sources if _brings_data(node.layer)]
        self._twins = {i: [_on_host(blob) for blob in self.nodes[i].tops] for i in self.sources}
        self._wires = {i: engine.wire() for i in self.sources}
        self._sent: dict[int, list] = {i: [] for i in self.sources}  # tensors on the device

    def send(self) -> bool:
        """Let the layers give the next batch, and start it on its way; whether it comes to where the last one was."""
        same = True
        for i in self.sources:
            node, twins = self.nodes[i], self._twins[i]
            with device.host():
                node.layer.reshape([], twins)
                if _packs(node):
                    arrays = node.layer.__caffe_pack__()
                else:
                    node.layer.forward([], twins)
                    arrays = [twin.data for twin in twins]
            for top, twin in zip(node.tops, twins):
                top.reshape(*twin.shape)
                top.memory.overtaken()
            last, self._sent[i] = self._sent[i], self._wires[i].send([np.ascontiguousarray(a) for a in arrays])
            same = same and len(last) == len(self._sent[i]) and all(a is b for a, b in zip(last, self._sent[i]))
        return same

    def receive(self):
        """Put what was sent into the net's blobs."""
        for i in self.sources:
            node, values = self.nodes[i], self._sent[i]
            if _packs(node):
                values = node.layer.__caffe_unpack__(*values)
            for top, value in zip(node.tops, values):
                top.memory.assign(value)


def _brings_data(layer):
    return not isinstance(layer, BuiltinLayer) or type(layer).forward is not BuiltinLayer.forward


def _packs(node):
    return not isinstance(node.layer, BuiltinLayer) and hasattr(node.layer, "__caffe_pack__")


def _on_host(blob):
    """A blob of the same shape and values on the host; a layer may write some values once and for all."""
    values = blob.data
    with device.host():
        twin = Blob(blob.shape)
        twin.data[...] = values
    return twin
