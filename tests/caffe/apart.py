"""Memory as on a GPU, on the CPU: the host's arrays lie apart from the tensors that are computed with."""

import contextlib
from unittest import mock

from caffe import device


@contextlib.contextmanager
def memory_apart():
    """Context in which `blob.data` is a copy of the blob's tensor, brought back when the tensor is asked for."""
    on_host, real = [0], device.host

    @contextlib.contextmanager
    def host():
        on_host[0] += 1
        try:
            with real():
                yield
        finally:
            on_host[0] -= 1

    with mock.patch.object(device, "host", host), mock.patch.object(device, "shares_host", lambda: on_host[0] > 0):
        yield
