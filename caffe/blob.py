"""Blob: an N-d array with a gradient of the same shape (Caffe's Blob over its SyncedMemory).

The layers compute with torch tensors (`Memory.tensor`), users read and write NumPy arrays (`Blob.data`, `Blob.diff`).
On the CPU both are the same memory. An array once shown to the user keeps its place: later results are copied into it,
so a view taken before `net.forward()` shows the new values afterwards. What nobody looks at is never copied.
"""

import math
import operator
import weakref
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from caffe import device
from caffe.errors import CaffeError, NotPickled

MAX_AXES = 32
INT_MAX = 2**31 - 1


class Memory:
    """The values of a blob: a tensor on the computing device and, once asked for, an array on the host."""

    __slots__ = ("_shape", "_tensor", "_host", "_host_is_newer", "_released", "_array", "_writes", "_escaped", "_why")

    def __init__(self, shape):
        self._shape = tuple(shape)
        self._tensor: Any = None  # None without a host array means: all zero, not yet allocated
        self._host: Any = None
        self._host_is_newer = self._released = False
        self._array: Any = None  # a weak reference to the array that the user has been shown
        self._writes = 0  # how often somebody may have written that torch does not know of
        self._escaped = False  # an array is out there that cannot be followed
        self._why: str | None = None  # there are no values, not even zeros: what to tell

    @property
    def is_zero(self) -> bool:
        """True while nothing was ever written (or since `zero`) and nobody holds the array."""
        return self._tensor is None and self._host is None

    @property
    def exposed(self) -> bool:
        """True once the user has seen the array."""
        return self._host is not None

    @property
    def storage(self):
        """What is the same for memories that are views of one another."""
        return None if self._tensor is None else self._tensor.untyped_storage().data_ptr()

    def mark(self):
        """A mark of now, for `touched`; None where somebody holds the array and may write at any time."""
        return None if self.held else self._writes

    def touched(self, mark) -> bool:
        """Whether the user may have written into the array since then."""
        return self.exposed and (mark is None or mark != self.mark())

    def tensor(self) -> torch.Tensor:
        """The values for computing, on the current device."""
        where = device.current
        if self._host is None and self._tensor is not None and self._tensor.device == where:
            return self._tensor
        if self._tensor is None and self._host is None:
            if self._why is not None:
                raise CaffeError(self._why)
            self._tensor = new_tensor(self._shape, where)
        elif device.shares_host:
            if self._host is not None and self._tensor is not self._host:
                if not self._host_is_newer:
                    self._host.copy_(self._tensor)
                self._tensor = self._host
                self._host_is_newer = False
            elif self._tensor.device != where:
                self._tensor = self._tensor.to(where)
        else:
            if self._tensor is None or self._tensor.device != where:
                self._tensor = (self._host if self._host is not None else self._tensor).to(where, copy=True)
            elif self._host_is_newer:
                self._tensor.data.copy_(self._host)  # `data`: a backward pass may follow, as in Caffe
            self._host_is_newer = False
        return self._tensor

    def array(self) -> np.ndarray:
        """The values as a writable, C-contiguous float32 array; on the CPU without a copy."""
        tensor = self.tensor()
        if device.shares_host:
            if self._host is None:
                whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
                self._host = self._tensor = tensor.contiguous() if whole else tensor.contiguous().clone()
        else:
            if 0 in tensor.stride():
                self._tensor = tensor.contiguous()  # a value for each place, as the caller may write one
            if self._host is None:
                self._host = tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
            else:
                self._host.copy_(tensor)
            self._host_is_newer = True  # the caller may write into it at any time
        self._writes += 1
        array = self._array() if self._array is not None else None
        if array is None:  # every view of it keeps the array itself alive
            array = self._host.numpy()
            self._array = weakref.ref(array)
        return array

    @property
    def held(self) -> bool:
        """True while somebody has the array, or a view of it, and may write at any time."""
        return self._escaped or (self._array is not None and self._array() is not None)

    def stamp(self):
        """What `stands` takes; None where nobody can tell when the values change."""
        tensor = self.tensor()
        return None if self.held or tensor.is_inference() else (weakref.ref(tensor), tensor._version, self._writes)

    def stands(self, stamp) -> bool:
        """Whether the values are surely those at the time of `stamp`."""
        tensor, (then, version, writes) = self.tensor(), stamp
        return then() is tensor and tensor._version == version and self._writes == writes and not self.held

    def written(self) -> None:
        """Somebody has written through an alias that torch does not know to be one."""
        self._writes += 1

    def assign(self, value: torch.Tensor) -> None:
        """Take `value` as the new contents; copied only where the user holds the array. A parameter shared as
        PERMISSIVE may come in another shape, and is taken in flat order."""
        if value.shape != self._shape:
            value = value.reshape(self._shape)
        if self._host is not None and device.shares_host:
            if self._host is not value:
                self._host.copy_(value)
            self._tensor = self._host
        else:
            self._tensor = value
        self._host_is_newer = self._released = False
        self._why = None

    def vanish(self, why) -> None:
        """Hold nothing until `assign`; who asks for the values is told `why`."""
        if self._host is None:
            self._tensor, self._why = None, why

    def zero(self) -> None:
        if self._host is None:
            self._tensor, self._released, self._why = None, False, None
        elif device.shares_host:
            self._host.zero_()
            self._host_is_newer = True
        else:  # not on the host, which would have to be waited for
            self.place(new_tensor(self._shape, device.current))

    def release(self) -> None:
        """Give the values up, where no user has seen them."""
        if self._host is None:
            self._tensor, self._released = None, True

    @property
    def missed(self) -> bool:
        """True where somebody has asked for the values after they were released."""
        return self._released and not self.is_zero

    @property
    def placed(self):
        """The tensor that holds the values, as it is; None: all zero, or on the host only."""
        return self._tensor

    def place(self, tensor) -> None:
        """The values are in `tensor` from now on, without a copy; None: they are zero."""
        if tensor is None:
            self.zero()
        else:
            self._tensor = tensor
            self._host_is_newer = self._released = False

    def overtaken(self) -> None:
        """What the user wrote into the array counts no more: the tensor has been given other values since."""
        self._host_is_newer = False

    def add(self, value: torch.Tensor) -> None:
        """Accumulate; `value` must not be changed by its owner afterwards. Another shape (of a parameter shared as
        PERMISSIVE) is taken in flat order."""
        if value.shape != self._shape:
            value = value.reshape(self._shape)
        if self.is_zero:
            self._tensor = value
        else:
            self.tensor().add_(value)

    def reshape(self, shape) -> None:
        """Change the shape; values stay in their flat order as far as they reach (as in Caffe)."""
        shape = tuple(shape)
        count = math.prod(shape)
        old, exposed = self.tensor() if not self.is_zero else None, self.exposed
        self._escaped = self.held
        self._shape, self._tensor, self._host, self._array = shape, None, None, None
        if old is None:
            return
        flat = old.contiguous().view(-1)
        if count > flat.numel():
            return
        value = flat[:count].view(shape)
        if exposed and device.shares_host:
            self._host = self._tensor = value
        else:
            self._tensor = value


class Blob(NotPickled):
    """An N-d float32 array `data` with its gradient `diff` (Caffe: blob.hpp).

    Blob()             no axes chosen yet (count 0)
    Blob((2, 3, 4))    zeros
    """

    __slots__ = ("_shape", "memory", "grad", "__weakref__")
    instead = "save its values, as in np.save(file, blob.data)"
    reshapes = 0  # how often a blob has got another shape

    def __init__(self, shape=(0,)):
        self._shape = _checked(shape)
        self.memory = Memory(self._shape)
        self.grad = Memory(self._shape)

    @property
    def data(self) -> np.ndarray:
        return self.memory.array().reshape(self._shape)

    @data.setter
    def data(self, value):
        raise AttributeError("a blob's data stays the array that it is; write into it: blob.data[...] = values")

    @property
    def diff(self) -> np.ndarray:
        return self.grad.array().reshape(self._shape)

    @diff.setter
    def diff(self, value):
        raise AttributeError("a blob's diff stays the array that it is; write into it: blob.diff[...] = values")

    shape = property(attrgetter("_shape"))

    def tensor(self) -> torch.Tensor:
        """`data` for computing, on the current device."""
        tensor = self.memory.tensor()
        return tensor if tensor.shape == self._shape else tensor.reshape(self._shape)

    @property
    def count(self) -> int:
        return math.prod(self._shape)

    def reshape(self, *dims) -> None:
        """Set the shape: `blob.reshape(2, 3)`; growing drops the values, shrinking keeps the first ones."""
        shape = _checked(dims)
        if shape != self._shape:
            Blob.reshapes += 1
            self._shape = shape
            self.memory.reshape(shape)
            self.grad.reshape(shape)

    def share(self, other: "Blob") -> None:
        """Use the data and diff of `other` (the same memory, seen in this blob's shape)."""
        if other.count != self.count:
            raise CaffeError(f"cannot share a blob of shape {other.shape} with one of shape {self.shape}")
        self.memory, self.grad = other.memory, other.grad

    def __deepcopy__(self, memo):
        """Another blob of this shape with these values, as a copied `caffe.to_torch` module has them."""
        copy = Blob(self._shape)
        for own, other in ((copy.memory, self.memory), (copy.grad, self.grad)):
            if not other.is_zero:
                own.assign(other.tensor().detach().clone())
        return copy

    def _legacy(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise CaffeError(f"Cannot use legacy accessors on Blobs with > 4 axes (shape {self._shape}).")
        return self._shape[axis] if axis < len(self._shape) else 1

    num = property(lambda self: self._legacy(0), doc="axis 0, or 1 where there is none (legacy)")
    channels = property(lambda self: self._legacy(1), doc="axis 1, or 1 where there is none (legacy)")
    height = property(lambda self: self._legacy(2), doc="axis 2, or 1 where there is none (legacy)")
    width = property(lambda self: self._legacy(3), doc="axis 3, or 1 where there is none (legacy)")

    def __repr__(self):
        return f"<caffe.Blob {self._shape}>"


def new_tensor(shape, where, fill=torch.zeros) -> torch.Tensor:
    """A float32 tensor, or a CaffeError where this machine cannot hold it."""
    if where.type == "cpu":
        require_memory(shape)
    try:
        return fill(shape, device=where)
    except RuntimeError as e:
        if not lacks_memory(e):
            raise
        raise _no_room(shape, 4 * math.prod(shape)) from e


def require_memory(shape, copies=1) -> None:
    """CaffeError where the host has no room for so many float32 arrays of `shape`: Linux would promise the memory at
    first and kill the process later."""
    size = 4 * copies * math.prod(shape)
    if size >= 2**28 and size > (free := _free_memory()):
        raise _no_room(shape, size, f"; {free / 2**30:.1f} GiB are free")


def _no_room(shape, size, told=""):
    return CaffeError(f"not enough memory for a blob of shape {tuple(shape)}: it takes {size / 2**30:.1f} GiB{told}")


def lacks_memory(error) -> bool:
    """Whether an error of torch says that its allocators got no memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in ("alloc", "out of memory"))


def _free_memory():
    try:
        with open("/proc/meminfo") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return math.inf  # not Linux


def _whole(size) -> int:
    """64 / 2 is 32.0 in Python 3, and meant as 32."""
    try:
        number = math.nan if isinstance(size, str) else float(size)
    except (TypeError, ValueError):
        number = math.nan
    if not number.is_integer():
        raise TypeError(f"a blob's size is {size!r}; wanted whole numbers (in Python 3, // divides to such)")
    return int(number)


def _checked(shape) -> tuple:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list, np.ndarray)):
        raise TypeError(f"a blob's sizes are given one by one: blob.reshape(*{shape[0]})")
    try:
        shape = tuple(map(operator.index, shape))
    except TypeError:
        shape = tuple(map(_whole, shape))
    if len(shape) > MAX_AXES:
        raise CaffeError(f"a blob has at most {MAX_AXES} axes, not {len(shape)}")
    if any(d < 0 for d in shape):
        raise CaffeError(f"blob shape {shape} has a negative dimension")
    if math.prod(max(d, 1) for d in shape) > INT_MAX:  # NumPy refuses such a shape even where a dimension is 0
        raise CaffeError(f"blob size exceeds INT_MAX: shape {shape} has {math.prod(shape)} elements")
    return shape
