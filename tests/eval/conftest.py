"""Feature files as the original release wrote them: protocol-2 pickles made by Python 2."""

import struct

import numpy as np
import pytest


def python2_pickle(arrays):
    """The bytes that Python 2's cPickle writes for a dict of arrays (opcodes as in the released files)."""
    out = [b"\x80\x02}("]
    for name, array in arrays.items():
        kind = array.dtype.str[1:].encode()
        content = array.tobytes()
        out += [text(name.encode()),
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n", integer(0), b"\x85", text(b"b"), b"\x87R(",
                integer(1), b"(", *(integer(n) for n in array.shape), b"t",
                b"cnumpy\ndtype\n", text(kind), integer(0), integer(1), b"\x87R(",
                integer(3), text(b"<"), b"NNN", integer(-1), integer(-1), integer(0), b"tb",
                b"\x89", text(content), b"tb"]
    return b"".join([*out, b"u."])


def text(content):
    return b"T" + struct.pack("<i", len(content)) + content


def integer(n):
    return b"J" + struct.pack("<i", n)


@pytest.fixture
def original_arrays():
    """Makes the six arrays of a feature file: T rows of at most G sequences, the first `filled` rows filled."""

    def make(rows, filled, subjects=5, walks=2, dim=16, seed=0):
        rng = np.random.default_rng(seed)
        persons = rng.random((subjects, dim))
        arrays = {}
        for role in ("gallery", "probe"):
            vectors = np.zeros((rows, subjects * walks, dim), np.float32)
            labels = np.zeros((rows, subjects * walks), np.int64)
            for row in range(filled):
                labels[row] = np.repeat(np.arange(subjects) + 60, walks)
                vectors[row] = 40 * persons[labels[row] - 60] + 50 * rng.random((subjects * walks, dim)) + row
            valid = np.array([subjects * walks - (role == "probe")] * filled + [0] * (rows - filled))
            arrays |= {f"{role}_features": vectors, f"{role}_labels": labels, f"{role}_valid": valid}
        return arrays

    return make


@pytest.fixture
def python2_file(tmp_path):
    def write(arrays, name="features"):
        path = tmp_path / name
        path.write_bytes(python2_pickle(arrays))
        return path

    return write
