"""How much CPU time the records of an LMDB take by caffe/lmdb_file.py, which trusts no number, and by the package lmdb.

tools/bench.py tells of it. Both in turns in one process; databases lie in $TMPDIR."""

import tempfile
import time
from pathlib import Path
from unittest import mock

import lmdb
import numpy as np

import caffe
from caffe.lmdb_file import LmdbFile
from caffe.ops import records
from caffe.proto import caffe_pb2

BATCH = 100
NET = 'layer {{ name: "d" type: "Data" top: "d" data_param {{ source: "{}" backend: LMDB batch_size: {} }} }}'


class Package:
    """The records of an LMDB as the package gives them."""

    def __init__(self, path):
        self._env = lmdb.open(path, readonly=True, lock=False)
        self.count = self._env.stat()["entries"]

    def rows(self):
        with self._env.begin() as txn:
            yield from txn.cursor()


WAYS = {"ours": LmdbFile, "lmdb": Package}


def measure(side, count, turns):
    """{"rows" or "layer": {"ours" or "lmdb": seconds of CPU}} for `count` images of 3 x side x side, each read once."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder, side, count)
        return {what: in_turns(way, folder, count, turns) for what, way in (("rows", rows), ("layer", layer))}


def write(folder, side, count):
    rng = np.random.default_rng(0)
    with lmdb.open(folder, map_size=2**20 + 2 * count * (3 * side * side + 2**12), sync=False) as env:
        with env.begin(write=True) as txn:
            for i in range(count):
                image = caffe_pb2.Datum(channels=3, height=side, width=side, data=rng.bytes(3 * side * side))
                txn.put(b"%08d" % i, image.SerializeToString())


def in_turns(way, folder, count, turns):
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(turns):
        for name, reader in WAYS.items():
            times[name].append(way(folder, count, reader))
    return {name: min(found) for name, found in times.items()}


def rows(folder, count, reader):
    begin = time.process_time()
    assert sum(1 for _ in reader(folder).rows()) == count
    return time.process_time() - begin


def layer(folder, count, reader):
    """By forward passes of a Data layer."""
    net_file = Path(folder, "net.prototxt")
    net_file.write_text(NET.format(folder, min(BATCH, count)))
    with mock.patch.dict(records.STORES, LMDB=reader):
        net = caffe.Net(str(net_file), caffe.TEST)
    begin = time.process_time()
    for _ in range(count // min(BATCH, count)):
        net.forward()
    return time.process_time() - begin
