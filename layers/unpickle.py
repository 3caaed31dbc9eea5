"""Reading a pickle of NumPy arrays without running anything that it says.

The original release keeps features in Python pickles, OpenGait keeps walks in them, and a pickle is a program. Here the
program may name four things only, and gets classes of this file for them: nothing of NumPy, and nothing of Python, is
ever called by it.
"""

import io
import math
import os
import pickle
import pickletools
from typing import Any

import numpy as np

from layers.bundled import regular

NUMERIC_KINDS = "biuf"
MOST_AXES, LONGEST_AXIS = 32, 2**31
MOST_BYTES = 2**31  # of a file with one array
SKIPPED = 2**17  # bytes: longer contents, which no frame of a pickle holds, are passed over where the shape is wanted


class UnsafePickleError(ValueError):
    """The file is no pickle, is damaged, or asks for something other than plain numeric arrays."""


def load_arrays(path):
    """Read a pickled dict of numeric arrays, `{name: array}`, written by Python 2 or 3.

    Raises UnsafePickleError, which names the file, for anything else, and OSError if it cannot be read.
    """
    with regular.open_file(path, MOST_BYTES) as file:
        content = file.read()
    try:
        check_memo(content)
        value = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(value, dict):
            raise UnsafePickleError(f"it holds a {type(value).__name__}, not a dict of arrays")
        return {str(name): as_array(name, item) for name, item in value.items()}
    except Exception as e:  # a damaged pickle raises nearly any exception
        raise UnsafePickleError(f"{path}: not a feature file that may be read: {_reason(e)}") from e


def load_array(path):
    """The one array that a pickle holds.

    Raises UnsafePickleError, which names the file, for anything else, and OSError if it cannot be read."""
    return _one_array(path, File)


def array_like(path):
    """As `load_array`, but its shape and type alone count: the numbers are not read where that can be avoided."""
    return _one_array(path, Skimmed)


def _one_array(path, opened):
    with regular.open_file(path, MOST_BYTES) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            return as_array("", ArrayUnpickler(opened(file, size), encoding="latin1").load(), "it")
        except Exception as e:  # a damaged pickle raises nearly any exception
            raise UnsafePickleError(f"{path}: not a pickle of one array of numbers: {_reason(e)}") from e


def _reason(error):
    if isinstance(error, KeyError) and isinstance(error.args[0], int):  # pickle's table of what a byte means
        return f"byte {error.args[0]:#04x} begins nothing in a pickle; is it compressed, or something else?"
    return " ".join(str(error).split())[:300]


class File:
    """What the unpickler reads from: never more than there is, so that a length that lies reserves no memory."""

    def __init__(self, file, size):
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, n):
        if n > self.size - self.file.tell():
            raise UnsafePickleError("it has been cut off")
        return self.file.read(n)


class Skimmed(File):
    """Passes over long contents."""

    def read(self, n):
        if not SKIPPED < n <= self.size - self.file.tell():
            return super().read(n)
        self.file.seek(n, os.SEEK_CUR)
        return Passed(n)


class Passed:
    """Bytes that were passed over; text, of which Python 2 and protocols 0 to 2 make them, may have another length."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


def check_memo(content):
    """Refuse memo numbers that would make the unpickler reserve gigabytes."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and argument is not None and int(argument) > len(content):
            raise UnsafePickleError(f"memo number {argument} in a file of {len(content)} bytes")


def as_array(name, item, what="entry '{}'"):
    if isinstance(item, list) and item and len({type(x) for x in item}) == 1 and type(item[0]) in (str, int):
        return np.array(item)  # labels, as OpenGait has them
    if not isinstance(item, PickledArray) or item.value is None:
        raise UnsafePickleError(f"{what.format(name)} is a {type(item).__name__}, not an array")
    return item.value


Unpickler: Any = vars(pickle)["_Unpickler"]  # the one written in Python, whose opcodes can be replaced


class ArrayUnpickler(Unpickler):
    """Knows no sets, and takes text alone as keys: a tuple of tuples of a few bytes may take years to hash."""

    def load_setitem(self):
        *_, key, _ = self.stack
        require_text([key])
        super().load_setitem()

    def load_setitems(self):
        require_text(self.stack[::2])  # what lies above the mark
        super().load_setitems()

    def load_dict(self):
        require_text(self.stack[::2])
        super().load_dict()

    def load_build(self):
        if not isinstance(self.stack[-2], (PickledType, PickledArray)):
            raise UnsafePickleError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        super().load_build()

    def load_binunicode(self):
        self.append(text_of(self.read(int.from_bytes(self.read(4), "little"))))

    def load_bytearray8(self):
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_set(self):
        raise UnsafePickleError("it asks for a set")

    dispatch = {
        **Unpickler.dispatch,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_set,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BUILD[0]: load_build,
        pickle.BINUNICODE[0]: load_binunicode,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def find_class(self, module, name):
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise UnsafePickleError(f"it asks for {module}.{name}; only NumPy arrays are admitted") from None


def text_of(content):
    return content if isinstance(content, Passed) else str(content, "utf-8", "surrogatepass")


def require_text(keys):
    for key in keys:
        if not isinstance(key, (str, bytes)):
            raise UnsafePickleError(f"a dict with a {type(key).__name__} for a key")


class PickledType:
    """Stands in for numpy.dtype: arguments as numpy.dtype pickles them, state (version, byte order, ...)."""

    def __init__(self, code, *_flags):
        if not isinstance(code, str):
            raise UnsafePickleError(f"an array whose type is a {type(code).__name__}")
        self.value = np.dtype(code[:8])
        if self.value.kind not in NUMERIC_KINDS:
            raise UnsafePickleError(f"array of type {self.value}; only numbers are admitted")

    def __setstate__(self, state):
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class PickledArray:
    """Stands in for numpy.ndarray and its `_reconstruct`; the state is (version, shape, type, fortran, bytes)."""

    def __init__(self, *_arguments):
        self.value = None

    def __setstate__(self, state):
        _version, shape, pickled_type, fortran, content = state
        self.value = build(content, pickled_type, shape, "F" if fortran else "C")


class PickledBuffer(PickledArray):
    """Stands in for NumPy's `_frombuffer`, which pickles of protocol 5 use."""

    def __init__(self, content, pickled_type, shape, order):
        self.value = build(content, pickled_type, shape, order)


class PickledBytes(bytes):
    """Stands in for `_codecs.encode(text, 'latin1')` and `bytes()`: so Python 3 puts bytes into an old pickle."""

    def __new__(cls, text="", _encoding="latin1"):
        if isinstance(text, Passed):
            return Passed(None)
        return super().__new__(cls, text.encode("latin1"))


def build(content, pickled_type, shape, order):
    if isinstance(content, str):  # Python 2 strings arrive as latin1 text
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray, Passed)) or not isinstance(pickled_type, PickledType):
        raise UnsafePickleError("an array that is not plain bytes")
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES:
        raise UnsafePickleError(f"an array of more than {MOST_AXES} axes")
    if not all(type(n) is int and 0 <= n < LONGEST_AXIS for n in shape):
        raise UnsafePickleError("an array whose shape is no row of sizes")
    wanted = math.prod(shape) * pickled_type.value.itemsize
    if isinstance(content, Passed) and content.length is None:  # it was text, which has another length
        content = Passed(wanted)
    if len(content) != wanted:
        raise UnsafePickleError(f"an array of shape {shape} takes {wanted} bytes, the file has {len(content)}")
    if isinstance(content, Passed):
        return np.broadcast_to(np.zeros((), pickled_type.value), shape)
    return np.frombuffer(content, pickled_type.value).reshape(shape, order="F" if order == "F" else "C")


ADMITTED = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
    ("_codecs", "encode"): PickledBytes,
    ("__builtin__", "bytes"): PickledBytes,
}
for core in ("numpy.core", "numpy._core"):
    ADMITTED[core + ".multiarray", "_reconstruct"] = PickledArray
    ADMITTED[core + ".numeric", "_frombuffer"] = PickledBuffer
