"""Memory as on a GPU, on the CPU: the host's arrays lie apart from the tensors that are computed with."""

from unittest import mock

from caffe import device


def memory_apart():
    """Context in which `blob.data` is a copy of the blob's tensor, brought back when the tensor is asked for."""
    return mock.patch.object(device, "shares_host", False)
