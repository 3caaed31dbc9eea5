"""Wire: takes arrays to the GPU while it computes."""

import torch

from caffe import device


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
        where = device.current
        self._pinned = [[torch.empty_like(t, pin_memory=True) for t in host] for _ in range(2)]
        self._arrivals, self._tensors = ([torch.empty_like(t, device=where) for t in host] for _ in range(2))
        self._on_way, self._taken = [torch.cuda.Event(), torch.cuda.Event()], torch.cuda.Event()
