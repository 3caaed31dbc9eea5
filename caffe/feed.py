"""Feed: the layers that bring data run on the host, and what they bring travels while the device computes."""

import numpy as np

from caffe import device
from caffe.blob import Blob
from caffe.layer import Layer


class Feed:
    """Does the work of the data layers of `net`: all layers without bottoms that have a `forward`.

    They fill blobs on the host; a wire of `engine` takes the arrays to the device. A Python layer may have its tops
    travel in a smaller form: `pack()`, called in place of `forward`, gives a list of arrays, and `unpack(*arrays)`
    makes the tops' values of them, in order, with arithmetic that arrays and tensors share."""

    def __init__(self, net, engine):
        self.net = net
        sources = [i for i, bottoms in enumerate(net.bottom_ids) if not bottoms]
        self.layers = [i for i in sources if type(net.layers[i]).forward is not Layer.forward]
        self._twins = {i: [_on_host(blob) for blob in net.tops[i]] for i in self.layers}
        self._wires = {i: engine.wire() for i in self.layers}
        self._sent: dict[int, list] = {i: [] for i in self.layers}  # tensors on the device

    def send(self) -> bool:
        """Let the layers give the next batch, and start it on its way; whether it comes to where the last one was."""
        same = True
        for i in self.layers:
            layer, tops, twins = self.net.layers[i], self.net.tops[i], self._twins[i]
            with device.host():
                layer.reshape([], twins)
                if hasattr(layer, "pack"):
                    arrays = layer.pack()
                else:
                    layer.forward([], twins)
                    arrays = [twin.data for twin in twins]
            for top, twin in zip(tops, twins):
                top.reshape(*twin.shape)
                top.memory.overtaken()
            last, self._sent[i] = self._sent[i], self._wires[i].send([np.ascontiguousarray(a) for a in arrays])
            same = same and len(last) == len(self._sent[i]) and all(a is b for a, b in zip(last, self._sent[i]))
        return same

    def receive(self):
        """Put what was sent into the net's blobs."""
        for i in self.layers:
            layer, values = self.net.layers[i], self._sent[i]
            if hasattr(layer, "pack"):
                values = layer.unpack(*values)
            for top, value in zip(self.net.tops[i], values):
                top.memory.assign(value)


def _on_host(blob):
    """A blob of the same shape and values on the host; a layer may write some values once and for all."""
    values = blob.data
    with device.host():
        twin = Blob(blob.shape)
        twin.data[...] = values
    return twin
