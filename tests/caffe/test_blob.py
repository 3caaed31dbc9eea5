"""Blob: shapes, writable views that stay valid, and what a reshape keeps."""

import numpy as np
import pytest
import torch

from caffe import Blob, CaffeError
from caffe.blob import lacks_memory, new_tensor
from tests.caffe.apart import memory_apart


def test_data_and_diff_are_zero_writable_float32():
    blob = Blob((2, 3))
    for array in (blob.data, blob.diff):
        assert array.dtype == np.float32 and array.shape == (2, 3) and not array.any()
        assert array.flags.writeable and array.flags.c_contiguous
    blob.data[...] = 5
    assert (blob.data == 5).all() and not blob.diff.any()


def test_a_view_stays_the_blobs_memory():
    """Arrays and tensors show each other's changes; a result assigned later arrives in the array taken before."""
    blob = Blob((2, 2))
    view = blob.data
    blob.tensor()[0, 0] = 3
    assert view[0, 0] == 3
    blob.memory.assign(torch.full((2, 2), 4.0))
    assert (view == 4).all()
    view[1, 1] = 9
    assert blob.tensor()[1, 1] == 9
    blob.memory.zero()
    assert not view.any()


def test_what_nobody_looks_at_is_not_copied():
    blob, result = Blob((3,)), torch.ones(3)
    blob.memory.assign(result)
    assert blob.tensor().data_ptr() == result.data_ptr()
    assert blob.data.ctypes.data == result.data_ptr()


def test_a_view_into_another_tensor_is_copied_before_it_is_shown():
    """A top may be a slice of another blob's tensor; writing to its array must not reach that blob."""
    whole, blob = torch.zeros(4, 3), Blob((2, 3))
    blob.memory.assign(whole[:2])
    blob.data[...] = 1
    assert not whole.any()


def test_reshape():
    blob = Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    blob.reshape(2)
    assert blob.data.tolist() == [0, 1]
    blob.reshape(2, 5)
    assert blob.data.shape == blob.diff.shape == (2, 5)
    blob.reshape()
    assert blob.data.shape == () and blob.count == 1
    blob.reshape(0, 4)
    assert blob.data.shape == (0, 4) and blob.count == 0


def test_legacy_accessors():
    assert [getattr(Blob((5, 6)), a) for a in ("num", "channels", "height", "width", "count")] == [5, 6, 1, 1, 30]
    with pytest.raises(CaffeError, match="Cannot use legacy accessors on Blobs with > 4 axes"):
        _ = Blob((1, 2, 3, 4, 5)).num


@pytest.mark.parametrize(
    "shape, words",
    [
        ((2, -1), "negative dimension"),
        ((2**16, 2**15), "blob size exceeds INT_MAX"),
        ((1,) * 33, "at most 32 axes"),
    ],
)
def test_shapes_that_cannot_be(shape, words):
    with pytest.raises(CaffeError, match=words):
        Blob(shape)
    with pytest.raises(CaffeError, match=words):
        Blob().reshape(*shape)


def test_share():
    a, b = Blob((2, 3)), Blob((6,))
    b.share(a)
    b.data[4], b.diff[5] = 7, 8
    assert a.data[1, 1] == 7 and a.diff[1, 2] == 8
    with pytest.raises(CaffeError, match=r"\(2, 3\).*\(5,\)"):
        Blob((5,)).share(a)


def test_gradients_add_up_in_grad():
    blob = Blob((2,))
    view = blob.diff
    for _ in range(2):
        blob.grad.add(torch.ones(2))
    assert view.tolist() == [2, 2]


def test_placed_nowhere_is_zero(either_memory):
    """Also where the user holds an array with other values."""
    blob = Blob((2,))
    blob.data[...] = 5
    blob.memory.place(None)
    assert not blob.data.any() and not blob.tensor().any()


def test_memory_apart():
    """As on a GPU: what is written into an array counts from the next use on, or is overtaken."""
    with memory_apart():
        blob = Blob((3,))
        place, array = blob.tensor(), blob.data
        array[...] = 5
        assert blob.tensor() is place and place.tolist() == [5, 5, 5]
        place.fill_(6)
        assert array.tolist() == [5, 5, 5] and blob.data.tolist() == [6, 6, 6]
        array[...] = 7
        place.fill_(8)
        blob.memory.overtaken()
        assert blob.data.tolist() == [8, 8, 8]
        blob.memory.assign(torch.ones(1).expand(3))
        blob.data[0] = 2
        assert blob.tensor().tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    "words, lacks",
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", True),
        ("DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_what_is_called_too_little_memory(words, lacks):
    """Not every error of a GPU that speaks of memory."""
    assert lacks_memory(RuntimeError(words)) == lacks

    def fill(*_, **__):
        raise RuntimeError(words)

    with pytest.raises(CaffeError if lacks else RuntimeError, match="not enough memory" if lacks else "illegal"):
        new_tensor((3,), torch.device("cpu"), fill)
