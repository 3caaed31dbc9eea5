"""Reading frames and masks; every kind of broken file is named."""

import os

import cv2
import numpy as np
import pytest

from layers.datasets import SIZE
from layers.frames import DataError, Tree, fill_image_blob, fill_mask_blob, image_names
from layers.sources import open_frames
from tests.layers.trees import write_sequence

SEQ = "001/nm-01/000"


@pytest.fixture
def tree(tmp_path):
    write_sequence(tmp_path, SEQ, 12, np.random.default_rng(1))
    return Tree(str(tmp_path / "crop-im"), str(tmp_path / "crop-seg"))


def frame_file(tree, number=3):
    return os.path.join(tree.im_path, SEQ, f"{number:03d}.png")


def mask_file(tree, number=3):
    return os.path.join(tree.gt_path, SEQ, f"{number:03d}.png")


def test_clip_is_what_opencv_reads_and_resizes(tree):
    frames, masks = tree.clip(SEQ, 2, 3)
    for i, (frame, mask) in enumerate(zip(frames, masks)):
        expected = cv2.resize(cv2.imread(frame_file(tree, 3 + i)), (SIZE, SIZE))
        assert np.array_equal(frame, expected)
        grey = cv2.imread(mask_file(tree, 3 + i), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(mask, cv2.resize(grey, (SIZE, SIZE)))


def test_blobs():
    planes = np.arange(2 * 4 * SIZE * SIZE).astype(np.uint8).reshape(2, 4, SIZE, SIZE)
    image, mask = np.empty((2, 3, SIZE, SIZE), np.float32), np.empty((2, 1, SIZE, SIZE), np.float32)
    fill_image_blob(planes, image)
    fill_mask_blob(planes, mask)
    assert np.array_equal(image, planes[:, :3].astype(np.float64) - 127.5)
    assert np.array_equal(mask, (planes[:, 3:] / 255).astype(np.float32))  # double division, rounded, is the same


def test_many_clips_at_once(tree):
    planes = np.empty((3, 2, 4, SIZE, SIZE), np.uint8)
    tree.read_clips([SEQ] * 3, [0, 5, 10], planes)
    assert np.array_equal(planes[1], tree.read(SEQ, 5, np.empty_like(planes[1])))


def test_lengths(tree, tmp_path):
    assert (tree.length(SEQ), tree.num_masks(SEQ)) == (12, 12)
    os.remove(mask_file(tree))
    assert tree.num_masks(SEQ) == 11
    (tmp_path / "crop-im" / "002").mkdir()
    assert (tree.length("002"), tree.num_masks("002")) == (0, 0)


def test_missing_mask_counts_as_zero(tree):
    os.remove(mask_file(tree))
    _, masks = tree.clip(SEQ, 1, 3)
    assert not masks[1].any() and masks[0].any() and masks[2].any()


def test_without_masks(tmp_path, tree):
    frames, masks = Tree(tree.im_path).clip(SEQ, 0, 2)
    assert np.array_equal(frames, tree.clip(SEQ, 0, 2)[0]) and not masks.any()


def test_hidden_files_are_passed_over_strangers_are_not(tree):
    folder = os.path.dirname(frame_file(tree))
    for name in (".DS_Store", "Thumbs.db"):
        open(os.path.join(folder, name), "w").close()
    assert len(image_names(folder)) == 12
    open(os.path.join(folder, "notes.txt"), "w").close()
    with pytest.raises(DataError, match="notes.txt: is not an image"):
        tree.clip(SEQ, 0, 6)


def truncate(path, n):
    os.truncate(path, n)


def replace_by_folder(path, _):
    os.remove(path)
    os.mkdir(path)


def resize(path, n):
    cv2.imwrite(path, np.zeros((n, n), np.uint8))


@pytest.mark.parametrize(
    "file, spoil, n, message",
    [
        (frame_file, truncate, 200, "003.png: is not a whole image .200 bytes."),
        (frame_file, truncate, 0, "003.png: is not a whole image .0 bytes."),
        (mask_file, truncate, 0, "003.png: is not a whole image .0 bytes."),
        (mask_file, truncate, 90, "003.png: is not a whole image .90 bytes."),
        (frame_file, replace_by_folder, 0, "003.png: cannot be read .Is a directory."),
        (mask_file, resize, 32, "003.png: the mask is 32x32, its frame 13x20"),
    ],
)
def test_broken_file_is_named(tree, file, spoil, n, message):
    spoil(file(tree), n)
    with pytest.raises(DataError, match=message):
        tree.clip(SEQ, 0, 6)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_every_cut_of_a_file_is_found(tmp_path, suffix):
    """Some versions of OpenCV decode the upper part of a cut file and say nothing."""
    write_sequence(tmp_path, SEQ, 1, np.random.default_rng(1))
    tree = Tree(str(tmp_path / "crop-im"))
    os.remove(frame_file(tree, 1))
    path = frame_file(tree, 1).replace(".png", suffix)
    cv2.imwrite(path, np.random.default_rng(2).integers(0, 256, (30, 30, 3), np.uint8))
    assert tree.clip(SEQ, 0, 1)[0].any()
    whole = open(path, "rb").read()
    for cut in (len(whole) - 1, len(whole) // 2, 40):
        with open(path, "wb") as out:
            out.write(whole[:cut])
        with pytest.raises(DataError, match="is not a whole image"):
            tree.clip(SEQ, 0, 1)


def test_permission_denied_is_named(tree, monkeypatch):
    def denied(path, *args):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(np, "fromfile", denied)  # the tests may run as root, who is never denied
    with pytest.raises(DataError, match="001.png: cannot be read .Permission denied."):
        tree.clip(SEQ, 0, 6)


def test_vanished_folders_are_named(tree):
    masks = os.path.dirname(mask_file(tree))
    os.rename(masks, masks + ".away")
    with pytest.raises(DataError, match="the folder of masks is gone"):
        tree.clip(SEQ, 0, 6)
    os.rename(os.path.dirname(frame_file(tree)), masks + ".im")
    with pytest.raises(DataError, match="cannot be listed .No such file or directory."):
        tree.clip(SEQ, 0, 6)


def test_frames_that_went_since_the_start_are_noticed(tree):
    for number in range(6, 13):
        os.remove(frame_file(tree, number))
    with pytest.raises(DataError, match="holds 5 frames, wanted 2..7"):
        tree.clip(SEQ, 2, 6)


def test_open_frames(tree, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TREES", str(tmp_path))
    assert open_frames("crop-im", "$TREES/crop-seg").length(SEQ) == 12
    with pytest.raises(DataError, match="gt_path nowhere: no such folder"):
        open_frames("crop-im", "nowhere")


@pytest.mark.parametrize("colour", [0, 255])
def test_a_person_in_the_transparency_of_a_mask_is_told_of(tree, colour):
    mask = np.full((20, 13, 4), colour, np.uint8)
    mask[..., 3] = 0
    mask[5:15, 4:9, 3] = 255
    cv2.imwrite(mask_file(tree), mask)
    with pytest.raises(DataError, match=r"003\.png: the person is in the transparency \(alpha\) of this mask"):
        tree.clip(SEQ, 2, 1)
    mask[..., :3] = mask[..., 3:]  # with a person in the colours, too, transparency says nothing new
    cv2.imwrite(mask_file(tree), mask)
    _, (read,) = tree.clip(SEQ, 2, 1)
    assert np.array_equal(read, cv2.resize(mask[..., 0], (SIZE, SIZE)))
