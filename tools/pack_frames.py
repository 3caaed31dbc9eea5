"""Pack a dataset: decode every frame and mask once, resize to 64x64, and keep them in one LMDB that training reads.

    python tools/pack_frames.py casiab                  data/CASIA-B/{crop-im,crop-seg} -> data/CASIA-B/pack
    python tools/pack_frames.py casiab --verify         compare the pack with the files, bit by bit
    python tools/pack_frames.py casiab --silhouettes    masks alone -> data/CASIA-B/pack-silhouettes
    python tools/pack_frames.py casiab --mask-max 1     masks of 0 and 1 in place of 0 and 255

Killed at any time, it goes on where it was. Run again after the trees have changed, it decodes only what is new.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import ctypes
import json
import shutil
import zlib

import lmdb
import numpy as np

from caffe.errors import CaffeError
from caffe.lmdb_file import LmdbFile
from eval.ending import exit_status
from eval.progress import Progress
from layers import hygiene, pack
from layers.bundled import whole
from layers.datasets import DATASETS
from layers.frames import PLANES, DataError
from layers.sources import open_trees
from tools.one_run import only_writer
from tools.trees import add_trees, trees_of
from tools.workers import in_order, workers

COMMIT = 64 << 20  # bytes that a kill can cost
FRAME_BYTES = int(np.prod(PLANES))
ENTRY, VALUE = b"entry/", b"planes/"
PAGE = 4096
PAGE_HEADER = 16  # bytes before a large value in LMDB's file; they begin with the number of its first page
SHOWN = 20  # failures
LONGEST_PATH = 500  # bytes: LMDB allows 511 a key


def main(argv=None):
    return exit_status(make_pack, parse_args(argv), errors=(lmdb.Error,))


def make_pack(args):
    dataset = DATASETS[args.dataset]
    im_path, gt_path = (path and os.path.realpath(path) for path in trees_of(dataset, args))
    out = args.out or pack.default_folder(im_path or gt_path, args.silhouettes)
    old = readable(out)
    tree = open_trees(im_path, gt_path, args.mask_max or (old.mask_max if old else 255))
    if args.verify:
        verify(pack.open_pack(out), tree, args.jobs)
    elif is_fresh(out, tree):
        print(f"{out}: up to date")
    else:
        Packer(dataset, tree, out, args.jobs).run()


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    add_trees(parser)
    parser.add_argument("--out", help="folder of the pack (default: pack, beside the tree of frames)")
    parser.add_argument(
        "--jobs", type=workers, default=os.cpu_count(), help="threads that decode (default: one a core)"
    )
    parser.add_argument("--verify", action="store_true", help="compare the pack with the trees; change nothing")
    return parser.parse_args(argv)


def is_fresh(out, tree):
    """Is there a whole pack of just these trees in `out`?"""
    if not pack.is_pack(out):
        return False
    try:
        packed = pack.open_pack(out)
    except DataError as e:
        print(e, file=sys.stderr)
        return False
    there = packed.im_path, packed.gt_path, packed.has_frames, packed.mask_max
    return there == (tree.root, tree.gt_path, tree.has_frames, tree.mask_max)


class Packer:
    """Writes the pack of `tree` in the folder `out`: beside what is there, which it replaces when all is verified."""

    def __init__(self, dataset, tree, out, jobs):
        self.dataset, self.tree, self.jobs = dataset, tree, jobs
        self.file = os.path.join(out, pack.FILE)
        self.partial = self.file + ".partial"
        whole.make_folder(out)
        self.stale = readable(out)  # most of it may still be right

    def run(self):
        with only_writer(self.partial, self.partial + ".lock"):
            lengths = self._lengths()
            with self._open(lengths) as env:
                self._write(env, lengths)
                entries = self._check(env)
                size = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
                env.sync(True)
            self._finish(entries, size)
            whole.put(self.partial, self.file)
        print(f"{self.file}: {len(lengths)} sequences, {sum(lengths.values())} frames")

    def _lengths(self):
        """{path of a sequence: number of frames}"""
        paths = self.dataset.paths(self.tree)
        if not paths:
            wanted = "/".join(f"<{level}>" for level in self.dataset.tree)
            raise DataError(f"{self.tree.root}: holds no sequence; {self.dataset.title} has {wanted}/<frames>")
        longest = max(paths, key=len)
        for path in paths:
            if not path.isprintable():
                raise DataError(f"{self.tree.root}/{path!r}: wanted names of readable characters, in UTF-8; rename it")
        if len(longest.encode()) > LONGEST_PATH:
            raise DataError(f"{self.tree.root}/{longest}: the path of a sequence is longer than {LONGEST_PATH} bytes")
        lengths = {path: self.tree.length(path) for path in paths}
        hygiene.require_masks(self.tree, [path for path in paths if lengths[path]], self.tree.root)
        return lengths

    def _open(self, lengths):
        """The unfinished pack, new or of a run that was killed."""
        self._drop_damaged()
        done = os.stat(self.partial).st_size if os.path.exists(self.partial) else 0
        size = sum(frames * FRAME_BYTES + 3 * PAGE for frames in lengths.values()) * 21 // 20 + COMMIT
        free = shutil.disk_usage(os.path.dirname(self.partial)).free
        if size - done > free:
            need = f"needs {(size - done) / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free"
            raise DataError(f"{self.partial}: {need}; make room or choose another --out")
        env = lmdb.open(os.fsencode(self.partial), subdir=False, map_size=size + done, lock=False)
        whole.sync_folder(os.path.dirname(self.partial))  # its name, before frames that a power cut is not to cost
        return env

    def _drop_damaged(self):
        """Remove an unfinished pack that a power cut or the disk has damaged: LMDB would believe whatever it says."""
        try:
            if os.path.exists(self.partial):
                LmdbFile(self.partial).check()
        except CaffeError as e:
            print(f"{e}; beginning anew", file=sys.stderr)
            os.unlink(self.partial)

    def _write(self, env, lengths):
        """Bring the unfinished pack up to date with the trees, going on from what it holds."""
        with env.begin() as txn:
            entries = read_entries(txn)
        kept = {path for path in lengths if self._holds(entries, path)}
        with env.begin(write=True) as txn:
            for path in entries.keys() - kept:
                txn.delete(ENTRY + path.encode())
                txn.delete(VALUE + path.encode())
        todo = [path for path in lengths if path not in kept]
        there = len(kept) + sum(self._is_in_stale(path) for path in todo)
        if there:
            print(f"{self.partial}: {there} of {len(lengths)} sequences are there already", file=sys.stderr)
        failures = []
        with Progress(sum(lengths[path] for path in todo), "frames", "packing") as progress:
            for chunk in _chunks(todo, lengths):
                with env.begin(write=True) as txn:  # a kill loses no more than this chunk
                    for path, packed in zip(chunk, in_order(self._encode, chunk, self.jobs)):
                        if isinstance(packed, DataError):
                            failures.append(packed)
                            continue
                        entry, planes = packed
                        txn.put(VALUE + path.encode(), planes)
                        txn.put(ENTRY + path.encode(), json.dumps(entry).encode())
                        progress.update(lengths[path])
        if failures:
            for failure in failures[:SHOWN]:
                print(failure, file=sys.stderr)
            raise DataError(
                f"{len(failures)} of {len(todo)} sequences cannot be packed; mend or remove them and run this again"
            )

    def _encode(self, path):
        """(entry, planes) of a sequence, or the DataError that stands in the way."""
        try:
            return (self._is_in_stale(path) and self._from_stale(path)) or self._from_tree(path)
        except DataError as e:
            return e

    def _from_tree(self, path):
        fingerprint = self._fingerprint(path)  # before reading: a change from now on shows
        planes = self.tree.read(path, 0, np.empty((self.tree.length(path), *PLANES), np.uint8))
        if fault := hygiene.mask_fault(planes[:, 3]):
            raise DataError(f"{os.path.join(self.tree.gt_path, path)}: {fault}")
        about = {"frames": len(planes), "masks": self.tree.num_masks(path), "crc32": zlib.crc32(planes)}
        about |= {"without_mask": self.tree.num_without_mask(path), "brightest": int(planes[:, 3].max(initial=0))}
        return {**about, "mask_max": self.tree.mask_max, **fingerprint}, planes

    def _from_stale(self, path):
        entry = {key: value for key, value in self.stale.sequences[path].items() if key != "offset"}
        planes = self.stale.read(path, 0, np.empty((entry["frames"], *PLANES), np.uint8))
        return (entry, planes) if zlib.crc32(planes) == entry.get("crc32") else None

    def _is_in_stale(self, path):
        return self.stale is not None and self._holds(self.stale.sequences, path)

    def _holds(self, entries, path):
        """Is `path` among the entries as it is in the trees now?"""
        entry = entries.get(path, {})
        same = entry.get("mask_max", 255) == self.tree.mask_max
        return bool(entry) and same and self._fingerprint(path).items() <= entry.items()

    def _fingerprint(self, path):
        return pack.fingerprint(self.tree.root, self.tree.gt_path, path)

    def _check(self, env):
        """{path: its entry}, complete. Reads everything back, as training will, and compares the checksums."""
        with env.begin(buffers=True) as txn, open(self.partial, "rb") as file:
            entries = read_entries(txn)
            with Progress(len(entries), "sequences", "checking") as progress:
                for path, entry in entries.items():
                    value = txn.get(VALUE + path.encode())
                    # LMDB keeps what is empty among the keys, where no number of a page stands before it.
                    entry["offset"] = offset_in_file(value, env.stat()["psize"]) if entry["frames"] else 0
                    planes = np.empty((entry["frames"], *PLANES), np.uint8)
                    pack.read_planes(file.fileno(), entry, planes, 0, self.partial)
                    if zlib.crc32(planes.data) != entry["crc32"]:
                        raise DataError(
                            f"{self.partial}: {path} was not written as it was read; delete it, check the disk"
                        )
                    progress.update()
        return entries

    def _finish(self, entries, size):
        source = {
            key: os.path.relpath(path, os.path.dirname(os.path.realpath(self.file)))
            for key, path in (("im_path", self.tree.root), ("gt_path", self.tree.gt_path))
        }
        about = {"dataset": self.dataset.name, **source, "mask_max": self.tree.mask_max}
        about |= {} if self.tree.has_frames else {"silhouettes": True}
        with open(self.partial, "r+b") as file:
            pack.write_index(file, {**about, "sequences": entries}, size)


def readable(out):
    """The pack in `out`, stale or not; None where there is none that can be read."""
    try:
        return pack.Pack(out)
    except (DataError, FileNotFoundError):
        return None


def read_entries(txn):
    """{path of a sequence: its entry} of the unfinished pack that transaction `txn` reads."""
    entries = {}
    with txn.cursor() as cursor:
        more = cursor.set_range(ENTRY)
        while more and bytes(cursor.key()).startswith(ENTRY):
            entries[bytes(cursor.key())[len(ENTRY) :].decode()] = json.loads(bytes(cursor.value()))
            more = cursor.next()
    return entries


def offset_in_file(value, page_size):
    """Where in LMDB's file a large value begins that a transaction with buffers=True gave."""
    address = np.frombuffer(value, np.uint8).ctypes.data
    return ctypes.c_size_t.from_address(address - PAGE_HEADER).value * page_size + PAGE_HEADER


def verify(packed, tree, jobs):
    """Decode every file again and compare it with the pack. Raises DataError where they differ."""

    def same(path):
        planes = np.empty((packed.length(path), *PLANES), np.uint8)
        return np.array_equal(packed.read(path, 0, planes), tree.read(path, 0, np.empty_like(planes)))

    with Progress(len(packed.sequences), "sequences", "verifying") as progress:
        for path, equal in zip(packed.sequences, in_order(same, packed.sequences, jobs)):
            if not equal:
                raise DataError(f"{packed.folder}: {path} differs from its files; delete the pack and make it again")
            progress.update()
    print(f"{packed.folder}: {len(packed.sequences)} sequences, all equal to their files")


def _chunks(paths, lengths):
    """Stretches of `paths` of about COMMIT bytes each."""
    chunk, size = [], 0
    for path in paths:
        chunk.append(path)
        size += lengths[path] * FRAME_BYTES
        if size >= COMMIT:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


if __name__ == "__main__":
    sys.exit(program.run(main))
