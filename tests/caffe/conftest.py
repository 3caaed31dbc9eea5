"""Fixtures of the runtime's tests."""

import contextlib

import pytest

from tests.caffe.apart import memory_apart


@pytest.fixture(params=["shared", "apart"])
def either_memory(request):
    """The test twice: with memory as on the CPU, and as on a GPU."""
    with memory_apart() if request.param == "apart" else contextlib.nullcontext():
        yield
