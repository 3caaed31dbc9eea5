"""What training refuses or leaves out, and what it says."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.walks import Source, choose
from layers.data_layers import training_sequences
from layers.datasets import DATASETS
from layers.frames import DataError, image_names
from layers.hygiene import NO_WHOLE_PERSON, absent
from layers.names import folders, is_noise
from layers.params import parse
from layers.shape import FILE, HEADLESS, shape_of, write_shape
from layers.sources import open_frames
from tests.layers.trees import write_walkers


@pytest.fixture
def root(tmp_path):
    return write_walkers(tmp_path / "Walkers", subjects=2)


def training(root):
    settings = {
        "dataset": "walkers",
        "batch_size": 2,
        "train_num": 2,
        "im_path": str(root / "crop-im"),
        "gt_path": str(root / "crop-seg"),
    }
    params = parse(str(settings), "GaitNet")
    return training_sequences(params, open_frames(params.im_path, params.gt_path))


def test_masks_of_0_and_1_train_nothing(root):
    for file in (root / "crop-seg").rglob("*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) // 128)
    with pytest.raises(DataError, match="its masks say 1 where the person is, wanted 255; .*--mask-max 1"):
        training(root)


def rewrite_masks(root, change):
    for file in (root / "crop-seg").rglob("*.png"):
        cv2.imwrite(str(file), change(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)))


def with_person(mask):
    """A person in the middle."""
    mask[:] = 0
    mask[2:-2, 4:-4] = 255
    return mask


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda mask: 255 - with_person(mask),
            "(8 of 8|6 of 6) masks looked at are wrong, first .*white around the person",
        ),
        (lambda mask: mask | 255, "white around the person"),
        (lambda mask: (with_person(mask) // 255).astype(np.uint16), "all [68] masks looked at are empty, .*in 8 bits"),
    ],
    ids=["inverted", "white all over", "16 bits"],
)
def test_masks_that_are_none_train_and_test_nothing(root, change, message):
    rewrite_masks(root, change)
    with pytest.raises(DataError, match=message):
        training(root)
    frames = open_frames(root / "crop-im", root / "crop-seg")
    with pytest.raises(DataError, match=message):
        choose(Source(DATASETS["walkers"], 1, root / "crop-im", root / "crop-seg", Path(), Path()), frames, "test")


def test_persons_in_the_masks_are_no_fault(root):
    rewrite_masks(root, with_person)
    assert len(training(root)[0]) == 8


def test_frames_go_by_their_numbers(tmp_path):
    for n in range(1, 12):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.zeros((2, 2), np.uint8))
    assert image_names(tmp_path) == [f"{n}.png" for n in range(1, 12)]


def test_an_id_written_in_two_ways_is_no_two_people(root):
    (root / "crop-im/002").rename(root / "crop-im/1")
    with pytest.raises(DataError, match="ids 001 and 1: are they one person?"):
        training(root)


def test_masks_of_other_names_train_nothing(root):
    for file in list((root / "crop-seg").rglob("*.png")):
        file.rename(file.with_name(f"mask_{file.name}"))
    with pytest.raises(DataError, match="none of a frame's name, first 001/nm-01/000; a mask must be named"):
        training(root)


def test_both_kinds_of_difference_are_named(root, caplog):
    (root / "crop-im/001/nm-01/000/001.png").unlink()  # of 11
    (root / "crop-seg/001/nm-01/090/001.png").unlink()  # of 12
    (root / "crop-im/001/nm-02/000/001.png").unlink()  # of 13
    assert len(training(root)[0]) == 5
    assert "1 of 8 sequences are left out, shorter than 11 frames: 001/nm-01/000 (10 frames, 11 masks)" in caplog.text
    unequal = "001/nm-01/090 (12 frames, 11 masks), 001/nm-02/000 (12 frames, 13 masks)"
    assert f"2 of 8 sequences are left out, not as many masks as frames: {unequal}" in caplog.text


def test_walks_that_show_legs_alone_are_named(root, caplog, capsys):
    """By what tools/crop.py keeps of their shapes: in training and in evaluation, where it is the test people's."""
    for path, width in (("001/nm-02/090", 8), ("002/nm-01/000", 8), ("001/nm-01/000", 2)):
        write_shape(root / "crop-im" / path / FILE, shape_of(np.ones((20, width), bool)))
    training(root)
    told = f"2 sequences {NO_WHOLE_PERSON}: 001/nm-02/090 ({HEADLESS}), 002/nm-01/000 ({HEADLESS})"
    assert told in caplog.text
    source = Source(DATASETS["walkers"], 1, root / "crop-im", None, Path(), Path())
    with pytest.raises(ValueError, match="no probe walk among them"):  # which was looked at afterwards
        choose(source, open_frames(root / "crop-im"), "test")
    assert f"1 walks {NO_WHOLE_PERSON}: 002/nm-01/000" in capsys.readouterr().err


def test_people_who_are_missing_are_told_of(root, tmp_path, capsys):
    frames = open_frames(root / "crop-im")
    partition = tmp_path / "partition.json"
    partition.write_text('{"TRAIN_SET": ["001", "005"], "TEST_SET": ["002", "007"]}', encoding="utf-8")
    for named, told in (
        ("", "1 people are tested, where Walkers has 99 beside the 1 who train"),
        (str(partition), "2 ids of the partition are not there: 005, 007"),
    ):
        source = Source(DATASETS["walkers"], 1, root / "crop-im", None, Path(), Path(), partition=named)
        with pytest.raises(ValueError, match="no probe walk"):
            choose(source, frames, "test")
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", ["thumbs.db", "Thumbs.db", ".DS_Store", "@eaDir", "__MACOSX", "Desktop.ini", "._001"])
def test_noise_is_no_subject(root, name):
    (root / "crop-im" / name).mkdir()
    assert is_noise(name) and folders(root / "crop-im") == ["001", "002"]


def test_what_the_protocol_wants_is_named():
    casiab, outdoor = DATASETS["casiab"], DATASETS["outdoor"]
    paths = [f"076/{walk}" for walk in casiab.wanted if not walk.startswith("cl-02") and walk != "bg-01/018"]
    assert absent(casiab, paths, ["076"]) == ["076/bg-01/018", "076/cl-02, 11 views"]
    written = [
        f"017/017_{scene}_{cloth}_L_090_0{n}"
        for scene in (1, 2, 3)
        for cloth in ("nm", "cl", "bg")
        for n in (1, 2, 3, 4)
    ]
    assert absent(outdoor, written[1:], ["017"]) == ["017/017_scene1_nm_L_090_1"]


def test_walkers_lack_nothing_that_nobody_rendered():
    assert absent(DATASETS["walkers"], ["061/nm-01/090"], ["061"]) == []
