"""Packs: a dataset decoded once into one LMDB of 64x64 frames, and read from there.

A pack is a folder with `data.mdb` in it, written by tools/pack_frames.py: an LMDB file, whose keys are

    planes/<sequence>   uint8 (F, 4, 64, 64), the planes of all its frames, so that a clip is one stretch of bytes
    entry/<sequence>    JSON {"frames": 83, "masks": 83, "crc32": of the planes, "im_mtime_ns": .., "gt_mtime_ns": ..}

where an entry has more: "without_mask", the number of frames that have none of their name, and "brightest", what the
masks say where the person is. Then comes an index, which LMDB does not see:

    JSON    {"format": 3, "dataset": "casiab", "im_path": "../crop-im", "gt_path": "../crop-seg", "size": of the LMDB,
            "silhouettes": true where there are no frames, "mask_max": what the masks said where the person is,
            "head_crc32": of its first HEAD bytes, "sequences": {<sequence>: its entry and the "offset" of its planes}}
    END     length and crc32 of that JSON, and MAGIC

The index is written when everything else has been verified: a pack without it is half written. Readers need no LMDB:
frames are read from the file at their offset. Through LMDB's map a clip takes several times as long, in page faults,
every page touched counts as resident memory, and LMDB believes whatever a damaged file says.
"""

import json
import logging
import os
import reprlib
import struct
import threading
import weakref
import zlib

import numpy as np

from layers.datasets import DATASETS
from layers.frames import PLANES, DataError, Frames, require_length

FORMAT = 3
FOLDER, FILE = "pack", "data.mdb"  # the folder lies beside the trees that it was made from
SILHOUETTES = "pack-silhouettes"  # the same for masks alone
MAGIC = b"GaitPack"
END = struct.Struct("<QI8s")
HEAD = 1 << 17  # bytes: any page size's first two pages, which change with every transaction
LONGEST = 1 << 26  # bytes of JSON: half a million sequences
LONGEST_PATH = 500  # characters

_open: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
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
            pack = Pack(folder)
            try:
                pack.require_fresh()
            except (OSError, ValueError) as e:  # ValueError: a zero byte in a path
                raise DataError(f"{folder}: its source cannot be compared with it ({e}); {pack._remedy()}") from e
            _open[folder] = pack
    return pack


def beside(im_path, gt_path):
    """The pack that was made from these trees and lies beside them, or None.

    The log names one that must not be served."""
    main = im_path or gt_path
    folder = default_folder(main, silhouettes=not im_path)
    if not is_pack(folder):
        return None
    try:
        pack = open_pack(folder)
    except DataError as e:
        logging.getLogger("layers").warning("%s; reading the trees instead", e)
        return None
    same = pack.im_path == os.path.realpath(main) and (not gt_path or pack.gt_path == os.path.realpath(gt_path))
    return pack if same and pack.has_frames == bool(im_path) else None


def default_folder(root, silhouettes=False):
    """Where the pack of the tree `root` lies: beside it."""
    return os.path.join(os.path.dirname(os.path.realpath(root)), SILHOUETTES if silhouettes else FOLDER)


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
        self.folder = folder
        self._fd = os.open(os.path.join(folder, FILE), os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)
        try:
            self._load()
        except (LookupError, OSError, TypeError, ValueError, RecursionError) as e:
            raise DataError(f"{self.folder}: is not a whole pack ({e}); {self._remedy()}") from e

    def _load(self):
        index, size = self._index()
        if index["format"] != FORMAT:
            raise DataError(
                f"{self.folder}: is of format {reprlib.repr(index['format'])}, wanted {FORMAT}; {self._remedy()}"
            )
        if index["size"] != size or index["head_crc32"] != head_crc32(self._fd, size):
            raise DataError(
                f"{self.folder}: was rewritten by another program, so that frames lie elsewhere; {self._remedy()}"
            )
        if not (type(index["sequences"]) is dict and index["sequences"]):
            raise ValueError(f"its sequences are {reprlib.repr(index['sequences'])}")
        self.sequences = dict(sorted(index["sequences"].items()))
        self.dataset = index["dataset"]
        if self.dataset not in DATASETS:
            raise DataError(
                f"{self.folder}: holds dataset {reprlib.repr(self.dataset)}, which layers/datasets.py does not know "
                f"({', '.join(DATASETS)})"
            )
        levels = len(DATASETS[self.dataset].tree)
        for path, entry in self.sequences.items():
            if len(path) > LONGEST_PATH or len(path.split("/")) != levels:
                wanted = f"wanted {levels} names, {LONGEST_PATH} characters at most"
                raise ValueError(f"the path of a sequence is {reprlib.repr(path)}, {wanted}")
            numbers = [entry[key] for key in ("frames", "masks", "offset")]
            if not all(type(n) is int and n >= 0 for n in numbers) or (
                entry["offset"] + entry["frames"] * int(np.prod(PLANES)) > size
            ):
                raise ValueError(f"the entry of {path} is {reprlib.repr(entry)}")
        self.im_path, self.gt_path = (
            os.path.realpath(os.path.join(self.folder, index[key])) for key in ("im_path", "gt_path")
        )
        self.has_frames = not index.get("silhouettes", False)
        self.mask_max = index.get("mask_max", 255)
        self.root = self.im_path
        self._folders = _tree_of(self.sequences)

    def _index(self):
        """The index, and the bytes before it."""
        size = os.fstat(self._fd).st_size - END.size
        end = os.pread(self._fd, END.size, max(size, 0))
        if size < 0 or not end.endswith(MAGIC):
            raise DataError(f"{self.folder}: ends without an index (half written, or cut off); {self._remedy()}")
        length, crc32, _ = END.unpack(end)
        if length > min(size, LONGEST):
            raise ValueError(f"an index of {length} bytes, where at most {min(size, LONGEST)} belong")
        text = os.pread(self._fd, length, size - length)
        if zlib.crc32(text) != crc32:
            raise ValueError("its index is damaged")
        return json.loads(text), size - length

    def length(self, seq_path):
        """Number of frames."""
        return self._entry(seq_path)["frames"]

    def num_masks(self, seq_path):
        """Number of mask files that the folder of masks held."""
        return self._entry(seq_path)["masks"]

    def num_without_mask(self, seq_path):
        """Number of frames that had no mask of their name; 0 in a pack that does not tell."""
        return self._entry(seq_path).get("without_mask", 0)

    def folders(self, path=""):
        """Sorted names of what lies below `path`: ids, conditions of an id, views of a condition."""
        return sorted(self._folders[path])

    def read(self, seq_path, start, planes):
        """Fill `planes` (n, 4, 64, 64) with n frames from `start` on, and return it."""
        require_length(f"{self.folder}: {seq_path}", self.length(seq_path), start, len(planes))
        read_planes(self._fd, self._entry(seq_path), planes, start, self.folder)
        return planes

    def require_fresh(self):
        """Raise DataError where the trees that the pack was made from are there and differ from what was packed."""
        if not (os.path.isdir(self.im_path) and os.path.isdir(self.gt_path)):
            return  # a pack can be moved to another machine without its trees
        found = set(DATASETS[self.dataset].paths(self.im_path))
        changed = found.symmetric_difference(self.sequences) or {
            path
            for path, entry in self.sequences.items()
            if any(entry.get(key) != time for key, time in fingerprint(self.im_path, self.gt_path, path).items())
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


def write_index(file, index, size):
    """Append `index` to the LMDB of `size` bytes in `file`, open for reading and writing."""
    index = {"format": FORMAT, **index, "size": size, "head_crc32": head_crc32(file.fileno(), size)}
    text = json.dumps(index).encode()
    file.truncate(size)
    file.seek(size)
    file.write(text + END.pack(len(text), zlib.crc32(text), MAGIC))
    file.flush()


def head_crc32(fd, size):
    """Of the first bytes of an LMDB of `size` bytes; another one after every transaction."""
    return zlib.crc32(os.pread(fd, min(HEAD, size), 0))


def read_planes(fd, entry, planes, start, name):
    """Fill `planes` (n, 4, 64, 64) with frames from `start` on of the sequence that `entry` is about."""
    try:
        found = os.preadv(fd, [planes], entry["offset"] + start * planes[:1].nbytes)
    except OSError as e:
        raise DataError(f"{name}: cannot be read ({e.strerror})") from e
    if found < planes.nbytes:
        raise DataError(f"{name}: has been cut off while it was read; run this again")


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
