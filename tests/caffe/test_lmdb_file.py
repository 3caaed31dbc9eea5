"""Reading an LMDB without LMDB: the same records, and no file that ends the process."""

import random
import struct
from pathlib import Path

import lmdb
import pytest

from caffe.errors import CaffeError
from caffe.lmdb_file import LmdbFile, _Ahead


def write(path, records, remove=(), **options):
    with lmdb.open(str(path), map_size=2**25, **options) as env:
        with env.begin(write=True) as txn:
            for key, value in records.items():
                txn.put(key, value)
        with env.begin(write=True) as txn:  # pages become free
            for key in remove:
                txn.delete(key)
    return path


def mixed(count, seed=3):
    """Records with values of no byte, of some, and of several pages."""
    rng = random.Random(seed)
    sizes = (0, 1, 100, 1500, 2100, 5000, 20000)
    return {f"{rng.random():.9f}-{i}".encode(): rng.randbytes(rng.choice(sizes)) for i in range(count)}


@pytest.mark.parametrize("count, removed", [(0, 0), (1, 0), (1, 1), (9, 2), (400, 150)])
def test_records_are_those_that_lmdb_reads(tmp_path, count, removed):
    records = mixed(count)
    gone = list(records)[:removed]
    found = LmdbFile(write(tmp_path / "db", records, gone))
    wanted = sorted((key, value) for key, value in records.items() if key not in gone)
    assert list(found.rows()) == wanted and found.count == len(wanted)
    found.check()


def test_a_tree_of_three_levels_and_a_path_of_the_file(tmp_path):
    records = {f"{i:0200d}".encode(): b"%d" % i for i in range(3000)}
    found = LmdbFile(str(write(tmp_path / "db", records, subdir=False)))
    assert found._trees[1][1] == 3  # its depth
    assert list(found.rows()) == sorted(records.items())


def test_what_is_no_lmdb(tmp_path):
    (tmp_path / "text").write_bytes(b"Caffe" * 1000)
    (tmp_path / "nothing").touch()
    for name, told in (("text", "it is no LMDB"), ("nothing", "it is no LMDB"), ("none", "No such file")):
        with pytest.raises(CaffeError, match=f"{name}: {told}"):
            LmdbFile(tmp_path / name)
    with pytest.raises(CaffeError, match="data.mdb: No such file"):
        LmdbFile(tmp_path)


def test_a_key_of_several_values_is_refused(tmp_path):
    """This package writes none into the main database: the flag of a node is set by hand."""
    file = write(tmp_path / "db", {b"a": b"1"}) / "data.mdb"
    node, several = (struct.pack("<HHHH", 1, 0, flags, 1) + b"a1" for flags in (0, 4))
    assert node in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(node, several))
    with pytest.raises(CaffeError, match="its key b'a' has several values, which"):
        list(LmdbFile(tmp_path / "db").rows())


def test_a_newer_version_of_the_format_is_told(tmp_path):
    file = write(tmp_path / "db", mixed(3)) / "data.mdb"
    whole = bytearray(file.read_bytes())
    whole[20:24] = struct.pack("<I", 2)
    file.write_bytes(whole)
    with pytest.raises(CaffeError, match="it is of format 2, wanted 1"):
        LmdbFile(tmp_path / "db")


def read_all(path):
    found = LmdbFile(path)
    found.check()
    return list(found.rows())


def test_damage_is_a_sentence_or_harmless(tmp_path):
    """Bytes changed in the pages that describe records, and cuts at any place: a CaffeError, or records after all."""
    records, rng, refused = mixed(60), random.Random(5), 0
    file = write(tmp_path / "db", records, list(records)[::9]) / "data.mdb"
    whole = file.read_bytes()
    pages = [
        at
        for at in range(0, len(whole), 4096)
        if whole[at + 10] & 11 and whole[at : at + 8] == struct.pack("<Q", at // 4096)
    ]
    assert len(pages) > 8
    for n in range(400):
        data = bytearray(whole)
        if n % 5 == 0:
            data = data[: rng.randrange(len(data))]
        else:
            at = rng.choice(pages) + min(int(rng.expovariate(1 / 120)), 4095)  # most often in the head and its list
            data[at : at + rng.choice((1, 2, 8))] = rng.choice((b"\xff" * 8, bytes(8), rng.randbytes(8)))[
                : rng.choice((1, 2, 8))
            ]
        file.write_bytes(data)
        try:
            read_all(tmp_path / "db")
        except CaffeError as e:
            assert str(e).startswith(f"{file}: ") and str(e).count("\n") == 0
            refused += 1
    assert 130 < refused < 400


def test_a_hundred_ways_to_every_page_are_not_all_taken(tmp_path):
    """Each of 29 pages points to the next one a hundred times over: 100^29 ways down."""
    size, deep = 4096, 30
    pages = [bytearray(size) for _ in range(deep + 2)]
    for number, page in enumerate(pages):
        struct.pack_into("<QHH", page, 0, number, 0, 8 if number < 2 else 1)
    for meta in pages[:2]:
        struct.pack_into("<II", meta, 16, 0xBEEFC0DE, 1)
        struct.pack_into("<IHHQQQQQ", meta, 40, size, 0, 0, 0, 0, 0, 0, 2**64 - 1)
        struct.pack_into("<IHHQQQQQ", meta, 88, 0, 0, deep, 2**60, 2**60, 0, 2**60, 2)
        struct.pack_into("<QQ", meta, 136, deep + 1, 7)
    for number in range(2, deep + 1):
        struct.pack_into("<H", pages[number], 12, 16 + 2 * 100)
        for i in range(100):
            struct.pack_into("<H", pages[number], 16 + 2 * i, 3000)
        struct.pack_into("<HHHH", pages[number], 3000, number + 1, 0, 0, 0)
    struct.pack_into("<HHH", pages[-1], 8, 0, 2, 16)  # a leaf of no record
    Path(tmp_path / "ways").write_bytes(b"".join(pages))
    with pytest.raises(CaffeError, match="its tree has more pages than"):
        read_all(tmp_path / "ways")


def test_reading_ahead_reads_each_part_once_in_order_and_no_more_than_it_must_otherwise(tmp_path):
    asked = []

    def read(at, size, at_most=0):
        asked.append((at, max(size, at_most)))
        return bytes(range(256)) * (max(size, at_most) // 256)

    ahead = _Ahead(read)
    for at in range(0, 2**20, 4096):
        assert ahead.read(at, 4096) == bytes(range(256)) * 16
    assert len(asked) < 10 and sum(size for _, size in asked) < 2**20 + 2 * ahead.MOST
    asked.clear()
    for at in range(2**30, 0, -(2**22)):
        ahead.read(at, 4096)
    assert {size for _, size in asked} == {ahead.LEAST}
    asked.clear()
    ahead.read(5, 2**20)
    assert asked == [(5, 2**20)]
