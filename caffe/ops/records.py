"""The records of a database, LMDB or LevelDB, by number."""

import importlib
import os
import weakref
from collections.abc import Iterator
from typing import Any

from caffe.errors import CaffeError
from caffe.lmdb_file import LmdbFile

_open: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # real path -> store: both kinds open once a process


class Records:
    """Key and value of record k, in the order of the keys, again and again.

    path     folder of the database (of an LMDB, also its file)
    backend  "LMDB" or "LEVELDB"; the latter needs the package plyvel"""

    def __init__(self, path, backend):
        where = os.path.realpath(path)
        self._store: Any = _open.get(where)  # nets of both phases may read the same one
        if self._store is None:
            self._store = _open[where] = STORES[backend](where)
        self._count = self._store.count
        self._rows: Iterator[tuple[bytes, bytes]] = iter(())
        self._at = -1  # number of the record `_row`
        self._row: Any = None
        self[0]

    def __getitem__(self, k):
        """(key, value) of record k, counted on and on."""
        if self._count:
            k %= self._count
        if self._row is None or k < self._at:
            self._rows, self._at = self._store.rows(), -1
        while self._at < k:
            self._row = None  # damage in the next one ends the iterator: then begin anew, and come upon it again
            self._row = next(self._rows, None)
            if self._row is None:
                if self._at < 0:
                    raise CaffeError("it is empty")
                self._count = self._at + 1
                return self[k]
            self._at += 1
        return _read(self._row)

    def once(self):
        """(key, value) of all records, from the first to the last."""
        return map(_read, self._store.rows())


def _read(row):
    key, value = row
    return key.decode(errors="replace"), value


class _LevelDb:
    count = None  # known at the end of the first round

    def __init__(self, path):
        try:
            plyvel = importlib.import_module("plyvel")
        except ImportError as e:
            raise CaffeError(
                "LEVELDB, which is the default backend, needs the package plyvel: `pip install plyvel`; "
                "or write the records anew as LMDB and set `backend: LMDB`"
            ) from e
        if not os.path.exists(os.path.join(path, "CURRENT")):  # plyvel would make a folder
            raise CaffeError("there is no LevelDB")
        try:
            self._database = plyvel.DB(path)
        except (plyvel.Error, OSError) as e:
            raise CaffeError(str(e)) from e

    def rows(self):
        return self._database.iterator(fill_cache=False)


STORES = {"LMDB": LmdbFile, "LEVELDB": _LevelDb}
