"""Packs: a dataset decoded once into one LMDB of 64x64 frames, and read from there.

A pack is a folder with `data.mdb` in it, written by tools/pack_frames.py. Its keys:

    planes/<sequence>   uint8 (F, 4, 64, 64), the planes of all its frames, so that a clip is one stretch of bytes
    entry/<sequence>    JSON {"frames": 83, "masks": 83, "crc32": of the planes, "offset": of the planes in data.mdb,
                        "im_mtime_ns": .., "gt_mtime_ns": ..}
    pack                JSON {"format": 2, "dataset": "casiab", "im_path": "../crop-im", "gt_path": "../crop-seg",
                        "transaction": number of the one that wrote this}

The last is written when all the others have been verified: a pack without it is half written.

LMDB finds the entries; frames are then read from the file at their offset. Through LMDB's map a clip takes several
times as long, in page faults, and every page touched counts as resident memory.
"""

import ctypes
import json
import logging
import os
import reprlib
import threading
import weakref

import lmdb
import numpy as np

from layers.datasets import DATASETS
from layers.frames import PLANES, DataError, Frames

FORMAT = 2
FOLDER, FILE = "pack", "data.mdb"  # the folder lies beside the trees that it was made from
HEAD, ENTRY, VALUE = b"pack", b"entry/", b"planes/"
LONGEST = 4096  # bytes of JSON
PAGE_HEADER = 16  # bytes before a large value in LMDB's file; they begin with the number of its first page

_open: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # LMDB must not open a file twice in one process
_open_lock = threading.Lock()


def is_pack(folder):
    """Is there a pack, whole or not, in `folder`?"""
    return os.path.isfile(os.path.join(folder, FILE))


def open_pack(folder):
    """The pack in `folder`; one object for all who read it. DataError: it is half written, cut off or stale."""
    folder = os.path.realpath(folder)
    with _open_lock:
        pack = _open.get(folder)
        if pack is None:
            pack = _open[folder] = Pack(folder)
    return pack


def beside(im_path, gt_path):
    """The pack that was made from these trees and lies beside them, or None.

    The log names one that must not be served."""
    folder = os.path.join(os.path.dirname(os.path.realpath(im_path)), FOLDER)
    if not is_pack(folder):
        return None
    try:
        pack = open_pack(folder)
    except DataError as e:
        logging.getLogger("layers").warning("%s; reading the trees instead", e)
        return None
    same = pack.im_path == os.path.realpath(im_path) and (not gt_path or pack.gt_path == os.path.realpath(gt_path))
    return pack if same else None


def fingerprint(im_path, gt_path, seq_path):
    """Times at which the two folders of a sequence last changed.

    Files added, removed, renamed, or replaced by renaming show here. A file overwritten in place does not;
    `tools/pack_frames.py --verify` finds that."""
    return {
        "im_mtime_ns": _mtime_ns(os.path.join(im_path, seq_path)),
        "gt_mtime_ns": _mtime_ns(os.path.join(gt_path, seq_path)),
    }


class Pack(Frames):
    """Reader of the pack in `folder`. Threads may share it. A pack replaced or removed since is read to the end."""

    dataset = "DATASET"  # until it is read

    def __init__(self, folder):
        self.folder, self.file = folder, os.path.join(folder, FILE)
        self._fd = os.open(self.file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)
        try:
            with lmdb.open(self.file, subdir=False, readonly=True, lock=False, create=False) as env:
                self._load(env)
        except (lmdb.Error, LookupError, TypeError, ValueError, RecursionError) as e:
            raise DataError(f"{self.folder}: is not a whole pack ({e}); {self._remedy()}") from e
        if not os.path.samestat(os.fstat(self._fd), os.stat(self.file)):
            raise DataError(f"{self.folder}: has been replaced this very moment; start again")

    def _load(self, env):
        # Reading a map beyond the end of its file would end the process.
        wanted, found = (env.info()["last_pgno"] + 1) * env.stat()["psize"], os.path.getsize(self.file)
        if found < wanted:
            raise DataError(f"{self.folder}: is cut off ({found} of {wanted} bytes); {self._remedy()}")
        with env.begin(buffers=True) as txn:
            head = self._read_head(txn)
            self.sequences = read_entries(txn)
        if head["transaction"] != env.info()["last_txnid"]:
            raise DataError(
                f"{self.folder}: was rewritten by another program, so that frames lie elsewhere; {self._remedy()}"
            )
        for path, entry in self.sequences.items():
            numbers = [entry[key] for key in ("frames", "masks", "offset")]
            if not all(type(n) is int and n >= 0 for n in numbers) or (
                entry["offset"] + entry["frames"] * int(np.prod(PLANES)) > found
            ):
                raise ValueError(f"the entry of {path} is {reprlib.repr(entry)}")
        self.dataset = head["dataset"]
        if self.dataset not in DATASETS:
            raise DataError(
                f"{self.folder}: holds dataset {self.dataset!r}, which layers/datasets.py does not know "
                f"({', '.join(DATASETS)})"
            )
        self.im_path, self.gt_path = (
            os.path.realpath(os.path.join(self.folder, head[key])) for key in ("im_path", "gt_path")
        )
        self._folders = _tree_of(self.sequences)
        self._require_fresh()

    def length(self, seq_path):
        """Number of frames."""
        return self._entry(seq_path)["frames"]

    def num_masks(self, seq_path):
        """Number of mask files that the folder of masks held."""
        return self._entry(seq_path)["masks"]

    def folders(self, path=""):
        """Sorted names of what lies below `path`: ids, conditions of an id, views of a condition."""
        return sorted(self._folders[path])

    def read(self, seq_path, start, planes):
        """Fill `planes` (n, 4, 64, 64) with n frames from `start` on, and return it."""
        if start + len(planes) > self.length(seq_path):
            raise DataError(
                f"{self.folder}: {seq_path} holds {self.length(seq_path)} frames, "
                f"wanted {start}..{start + len(planes) - 1}"
            )
        read_planes(self._fd, self._entry(seq_path), planes, start, self.folder)
        return planes

    def _read_head(self, txn):
        value = txn.get(HEAD)
        if value is None:
            raise DataError(f"{self.folder}: is half written; {self._remedy()}")
        head = _json(value)
        if head["format"] != FORMAT:
            raise DataError(f"{self.folder}: is of format {head['format']}, wanted {FORMAT}; {self._remedy()}")
        return head

    def _require_fresh(self):
        """Raise DataError where the trees that the pack was made from are there and differ from what was packed."""
        if not (os.path.isdir(self.im_path) and os.path.isdir(self.gt_path)):
            return  # a pack can be moved to another machine without its trees
        found = set(DATASETS[self.dataset].paths(self.im_path))
        changed = found.symmetric_difference(self.sequences) or {
            path
            for path, entry in self.sequences.items()
            if any(entry[key] != time for key, time in fingerprint(self.im_path, self.gt_path, path).items())
        }
        if changed:
            raise DataError(
                f"{self.folder}: is stale, {min(changed)} of its source has changed since; {self._remedy()}"
            )

    def _entry(self, seq_path):
        try:
            return self.sequences[seq_path]
        except KeyError:
            raise DataError(f"{self.folder}: holds no sequence {seq_path}") from None

    def _remedy(self):
        return f"run python tools/pack_frames.py {self.dataset}"


def read_entries(txn):
    """{path of a sequence: its entry} of the pack that transaction `txn` reads, sorted."""
    entries = {}
    with txn.cursor() as cursor:
        more = cursor.set_range(ENTRY)
        while more and bytes(cursor.key()).startswith(ENTRY):
            entries[bytes(cursor.key())[len(ENTRY) :].decode()] = _json(cursor.value())
            more = cursor.next()
    return entries


def _json(value):
    # The length that a damaged file claims may lead beyond its end, where reading would end the process.
    if len(value) > LONGEST:
        raise ValueError(f"{len(value)} bytes where at most {LONGEST} belong")
    return json.loads(bytes(value))


def read_planes(fd, entry, planes, start, name):
    """Fill `planes` (n, 4, 64, 64) with frames from `start` on of the sequence that `entry` is about."""
    try:
        found = os.preadv(fd, [planes], entry["offset"] + start * planes[:1].nbytes)
    except OSError as e:
        raise DataError(f"{name}: cannot be read ({e.strerror})") from e
    if found < planes.nbytes:
        raise DataError(f"{name}: has been cut off while it was read; run this again")


def offset_in_file(value, page_size):
    """Where in LMDB's file a large value begins that a transaction with buffers=True gave."""
    address = np.frombuffer(value, np.uint8).ctypes.data
    return ctypes.c_size_t.from_address(address - PAGE_HEADER).value * page_size + PAGE_HEADER


def _mtime_ns(folder):
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0


def _tree_of(paths):
    """{"": {"001"}, "001": {"nm-01"}, "001/nm-01": {"000"}}"""
    tree: dict[str, set[str]] = {}
    for path in paths:
        parts = path.split("/")
        for i, name in enumerate(parts):
            tree.setdefault("/".join(parts[:i]), set()).add(name)
    return tree
