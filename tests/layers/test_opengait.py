"""OpenGait's pickles and silhouettes alone: what is read, and what is refused."""

import gzip
import os
import pickle

import cv2
import numpy as np
import pytest

from layers.frames import DataError
from layers.opengait import Pickles
from layers.sources import open_frames
from tests.layers.trees import write_walkers

SEQ = "001/nm-01/090"


class Call:
    def __reduce__(self):
        return os.mkdir, ("/tmp/made-by-a-pickle",)


def write(root, name, array, protocol=4):
    folder = root / SEQ
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(array, protocol))


def numbers(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["CHW", "HWC", "fortran"])
def test_frames_are_blue_first(tmp_path, order, protocol):
    red_first, masks = numbers(12, 20, 20, 3), numbers(12, 20, 20)
    stored = {
        "CHW": np.ascontiguousarray(red_first.transpose(0, 3, 1, 2)),
        "HWC": red_first,
        "fortran": np.asfortranarray(red_first),
    }[order]
    write(tmp_path, "090-rgbs.pkl", stored, protocol)
    write(tmp_path, "090-sils.pkl", masks, protocol)
    write(tmp_path, "090-ratios.pkl", np.ones(12), protocol)
    frames = open_frames(tmp_path)
    assert isinstance(frames, Pickles) and (frames.length(SEQ), frames.num_masks(SEQ)) == (12, 12)
    images, found = frames.clip(SEQ, 3, 2)
    assert np.array_equal(images[1], cv2.resize(np.ascontiguousarray(red_first[4, ..., ::-1]), (64, 64)))
    assert np.array_equal(found[1], cv2.resize(masks[4], (64, 64)))


def test_silhouettes_alone_are_black_frames(tmp_path):
    masks = numbers(11, 64, 64)
    write(tmp_path, "090.pkl", masks)
    frames = open_frames(None, tmp_path)
    assert not frames.has_frames and frames.length(SEQ) == frames.num_masks(SEQ) == 11
    images, found = frames.clip(SEQ, 0, 11)
    assert not images.any() and np.array_equal(found, masks)


def test_narrow_silhouettes_keep_their_proportions(tmp_path):
    masks = numbers(11, 64, 44)
    write(tmp_path, "090-aligned-sils.pkl", masks)
    _, found = open_frames(None, tmp_path).clip(SEQ, 0, 11)
    assert np.array_equal(found[:, :, 10:54], masks) and not found[:, :, :10].any() and not found[:, :, 54:].any()


def test_frames_and_masks_may_differ_in_number(tmp_path):
    write(tmp_path, "090-rgbs.pkl", numbers(14, 3, 16, 16))
    write(tmp_path, "090-sils.pkl", numbers(12, 16, 16))
    frames = open_frames(tmp_path)
    assert (frames.length(SEQ), frames.num_masks(SEQ), frames.num_without_mask(SEQ)) == (14, 12, 2)
    assert not frames.clip(SEQ, 12, 2)[1].any()


@pytest.mark.parametrize(
    "array, told",
    [
        (numbers(12, 5, 8, 8), r"holds uint8 \(12, 5, 8, 8\), wanted uint8 \(F, 3, H, W\)"),
        (np.zeros((12, 3, 8, 8), np.float32), "holds float32"),
        ([numbers(3, 8, 8)], "it is a list, not an array"),
        (Call(), "it asks for posix.mkdir"),
    ],
)
def test_other_pickles_are_refused(tmp_path, array, told):
    write(tmp_path, "090-rgbs.pkl", array)
    with pytest.raises(DataError, match=told):
        open_frames(tmp_path).length(SEQ)
    assert not os.path.exists("/tmp/made-by-a-pickle")


def test_cut_off_and_strangers(tmp_path):
    write(tmp_path, "090.pkl", numbers(12, 64, 64))
    os.truncate(tmp_path / SEQ / "090.pkl", 3000)
    with pytest.raises(DataError, match="090.pkl: not a pickle of one array"):
        open_frames(None, tmp_path).length(SEQ)
    write(tmp_path, "other.pkl", numbers(12, 64, 64))
    with pytest.raises(DataError, match="other.pkl: is a second pickle of the kind"):
        open_frames(None, tmp_path).length(SEQ)


def test_a_walk_of_no_frames_is_short_and_no_error(tmp_path):
    write(tmp_path, "090.pkl", numbers(0, 64, 44))
    frames = open_frames(None, tmp_path)
    assert frames.length(SEQ) == frames.num_masks(SEQ) == 0 and frames.arrays(SEQ)[1].shape == (0, 64, 44)


def test_a_compressed_pickle_is_told(tmp_path):
    write(tmp_path, "090.pkl", numbers(12, 64, 64))
    file = tmp_path / SEQ / "090.pkl"
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(DataError, match="byte 0x1f begins nothing in a pickle; is it compressed"):
        open_frames(None, tmp_path).length(SEQ)


def test_lengths_do_not_read_the_numbers(tmp_path):
    """At a training start the lengths of thousands of walks of megabytes are asked for."""
    write(tmp_path, "090-rgbs.pkl", numbers(30, 3, 64, 64))
    frames = Pickles(tmp_path)
    with open(tmp_path / SEQ / "090-rgbs.pkl", "r+b") as file:  # a hole in the middle of the numbers
        file.seek(5000)
        file.write(b"\0" * 1000)
    assert frames.length(SEQ) == 30


def test_folders_named_with_underscores(tmp_path):
    """crop_im and crop_seg, as CASIA-B* is handed around."""
    root = write_walkers(tmp_path, subjects=1)
    for name in ("im", "seg"):
        (root / f"crop-{name}").rename(root / f"crop_{name}")
    frames = open_frames(root / "crop-im", root / "crop-seg")
    assert frames.im_path.endswith("crop_im") and frames.num_masks("001/nm-01/000") == 11
