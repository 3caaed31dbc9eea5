import os
import pickle
import struct

import numpy as np
import pytest

from layers.unpickle import UnsafePickleError, load_arrays

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([3, -1]), "c": np.zeros((0, 4))}


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_reads_arrays_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "arrays"
    path.write_bytes(pickle.dumps(ARRAYS, protocol))
    found = load_arrays(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_reads_fortran_order_and_big_endian(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    path = tmp_path / "arrays"
    path.write_bytes(pickle.dumps({"a": array}, 2))
    np.testing.assert_array_equal(load_arrays(path)["a"], array)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile(mark):
    """Pickles that, read by pickle.load, create the file `mark` or do other harm."""
    command = f"touch {mark}"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I%d\nt%sI00\nS'xx'\ntb"
    dtype = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR"
    return {
        "os.system": pickle.dumps(Call(os.system, command), 2),
        "in the dict": pickle.dumps({"gallery_features": Call(os.system, command)}, 2),
        "builtins.eval": pickle.dumps(Call(eval, f"open({str(mark)!r}, 'w')"), 4),
        "builtins.exec by name": b"c__builtin__\nexec\n(S'open(%r, \"w\")'\ntR." % str(mark),
        "getattr": pickle.dumps({"a": Call(getattr, "text", "upper")}, 2),
        "np.save": pickle.dumps(Call(np.save, str(mark), 3), 2),
        "np.load": b"cnumpy\nload\n(S'x'\nNI01\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0flib.npyio.fopen\x93.",
        "object array": pickle.dumps({"a": np.array([Call(os.system, command)], dtype=object)}, 2),
        "object dtype": b"(S'a'\n" + array % (2, dtype % b"O8") + b"d.",
        "void dtype": b"(S'a'\n" + array % (2, dtype % b"V8") + b"d.",
        "no dtype": b"(S'a'\n" + array % (2, b"N") + b"d.",
        "huge shape": b"(S'a'\n" + array % (10**15, dtype % b"f4") + b"d.",
        "negative shape": b"(S'a'\n" + array % (-2, dtype % b"i1") + b"d.",
        "array without state": b"(S'a'\ncnumpy.core.multiarray\n_reconstruct\n"
        + b"(cnumpy\nndarray\n(I100000000000\ntS'f8'\ntRd.",
        "huge memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "huge bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pname\n.",
        "set state of a class": b"cnumpy\nndarray\n(dS'value'\nI1\nsb.",
        "a list": pickle.dumps([1, 2], 2),
        "strings": pickle.dumps({"a": "b"}, 2),
        "cut short": pickle.dumps(ARRAYS, 2)[:-40],
        "text": b"hello, world\n",
        "empty": b"",
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_hostile_pickle_does_nothing_but_fail(tmp_path, name):
    mark = tmp_path / "mark"
    path = tmp_path / "hostile"
    path.write_bytes(hostile(mark)[name])
    with pytest.raises(UnsafePickleError, match="hostile: not a feature file") as error:
        load_arrays(path)
    assert not mark.exists()
    assert "\n" not in str(error.value)


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01%scnumpy\ndtype\nX\x02\0\0\0f4\x85R\x89X\0\0\0\0tb"
NESTED = b")" + b"2\x86" * 24  # pairs of pairs: 70 bytes that hold 2^24 tuples


@pytest.mark.parametrize(
    "content, message",
    [
        (b"}" + NESTED + b"K\x01s.", "a dict with a tuple for a key"),
        (b"}(" + NESTED + b"K\x01u.", "a dict with a tuple for a key"),
        (b"(" + NESTED + b"K\x01d.", "a dict with a tuple for a key"),
        (b"\x8f(" + NESTED + b"\x90.", "it asks for a set"),
        (b"(" + NESTED + b"\x91.", "it asks for a set"),
        (b"cnumpy\ndtype\n" + NESTED + b"\x85R.", "an array whose type is a tuple"),
        (ARRAY % b"(J\xff\xff\0\0K\0\x85t" + b".", "whose shape is no row of sizes"),  # 65535 times (0,)
        (ARRAY % (b"(" + b"K\x01" * 33 + b"t") + b".", "of more than 32 axes"),
        (b"c__builtin__\nbytes\n(N}X\1\0\0\0aK\1stb.", "it sets the state of a type"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_pickles_that_take_long(tmp_path, content, message):
    (tmp_path / "hostile").write_bytes(b"\x80\x04" + content)
    with pytest.raises(UnsafePickleError, match=message):
        load_arrays(tmp_path / "hostile")


def test_an_error_is_short(tmp_path):
    (tmp_path / "hostile").write_bytes(b"c" + b"x" * 10**6 + b"\ny\n.")
    with pytest.raises(UnsafePickleError, match="it asks for xxx") as e:
        load_arrays(tmp_path / "hostile")
    assert len(str(e.value)) < 1000


def test_the_hostile_pickles_are_hostile(tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(hostile(mark)["os.system"])
    assert mark.exists()
