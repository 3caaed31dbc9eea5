"""What the tests of evaluation share: feature files of the original release, a small dataset, weights."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def python2_pickle(arrays):
    """The bytes that Python 2's cPickle writes for a dict of arrays (opcodes as in the released files)."""
    out = [b"\x80\x02}("]
    for name, array in arrays.items():
        kind = array.dtype.str[1:].encode()
        content = array.tobytes()
        out += [
            text(name.encode()),
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n",
            integer(0),
            b"\x85",
            text(b"b"),
            b"\x87R(",
            integer(1),
            b"(",
            *(integer(n) for n in array.shape),
            b"t",
            b"cnumpy\ndtype\n",
            text(kind),
            integer(0),
            integer(1),
            b"\x87R(",
            integer(3),
            text(b"<"),
            b"NNN",
            integer(-1),
            integer(-1),
            integer(0),
            b"tb",
            b"\x89",
            text(content),
            b"tb",
        ]
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


SUBJECTS, VIEWS = 6, ("000", "090")
CONDITIONS = ("nm-01", "nm-02", "nm-03", "nm-04", "nm-05", "nm-06", "bg-01", "cl-02")


@pytest.fixture(scope="session")
def small_casiab(tmp_path_factory):
    """A tree of 6 subjects, 8 conditions, 2 views, 12 or 13 frames a walk; one walk is too short to count."""
    root = tmp_path_factory.mktemp("data") / "CASIA-B"
    for subject in range(SUBJECTS):
        for condition in CONDITIONS:
            for view in VIEWS:
                path = f"{subject + 1:03d}/{condition}/{view}"
                write_walk(root, path, 12 + subject % 2, subject, zlib.crc32(path.encode()))
    for tree in ("crop-im", "crop-seg"):
        for name in ("00.png", "01.png", "02.png"):
            (root / tree / "006/nm-06/090" / name).unlink()
    return root


def write_walk(root, path, frames, subject, seed):
    """Frames and masks of a figure of one body and two legs; its width and stride tell the subject."""
    rng = np.random.default_rng(seed)
    colour, floor = rng.integers(60, 255, 3).tolist(), int(rng.integers(0, 60))
    phase = rng.random() * 6
    for tree in ("crop-im", "crop-seg"):
        (root / tree / path).mkdir(parents=True)
    for k in range(frames):
        mask = np.zeros((64, 64), np.uint8)
        swing = int((4 + 2 * subject) * np.sin(phase + 0.8 * k))
        cv2.ellipse(mask, (32, 24), (5 + subject, 18), 0, 0, 360, 255, -1)
        for side in (-1, 1):
            cv2.line(mask, (32, 38), (32 + side * swing, 62), 255, 3)
        image = np.full((64, 64, 3), floor, np.uint8)
        image[mask > 0] = colour
        cv2.imwrite(str(root / "crop-im" / path / f"{k:02d}.png"), image)
        cv2.imwrite(str(root / "crop-seg" / path / f"{k:02d}.png"), mask)
