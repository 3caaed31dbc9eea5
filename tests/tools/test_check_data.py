"""The report on a dataset, and the exit status that says whether training can start."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from layers.datasets import DATASETS
from tests.layers.trees import write_sequence, write_walkers

pytestmark = pytest.mark.medium  # each runs the tool
TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_data.py"
PUBLISHED = DATASETS["walkers"].num_subjects


@pytest.fixture
def root(tmp_path):
    return write_walkers(tmp_path / "Walkers", subjects=3)


def run(root, *args, train_num=2, dataset="walkers"):
    """(exit status, report, text)"""
    report = root.parent / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            str(TOOL),
            dataset,
            "--im-path",
            str(root / "crop-im"),
            "--gt-path",
            str(root / "crop-seg"),
            "--train-num",
            str(train_num),
            "--json",
            str(report),
            *args,
        ],
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(report.read_text()) if report.exists() else None, done.stdout + done.stderr


def test_good_data(root):
    status, report, text = run(root, "--jobs", "2")
    assert status == 0 and report["can_train"] and not report["stops"]
    assert report["subjects"] == {
        "found": 3,
        "published": PUBLISHED,
        "training": 2,
        "missing": [f"{n:03d}" for n in range(4, PUBLISHED + 1)],
    }
    assert report["sequences"]["per_subject"] == {"001": 6, "002": 6, "003": 6}
    assert report["sequences"]["usable_training"] == report["sequences"]["training"] == 8
    assert report["frames"]["sizes"] == {"13x20": report["frames"]["found"]} and report["frames"]["found"] == 216
    assert "training can start" in text and "sizes 13x20 (216)" in text


def test_what_only_warns(root):
    for name in ("011.png", "012.png"):  # of 12: too short now
        for tree in ("crop-im", "crop-seg"):
            os.remove(root / tree / "001/bg-01/000" / name)
    os.remove(root / "crop-seg/001/nm-01/000/003.png")
    os.rename(root / "crop-seg/002/nm-01/000/003.png", root / "crop-seg/002/nm-01/000/903.png")
    cv2.imwrite(str(root / "crop-seg/003/nm-01/000/001.png"), np.zeros((20, 13), np.uint8))
    cv2.imwrite(str(root / "crop-seg/003/nm-01/000/002.png"), np.full((20, 13), 255, np.uint8))
    os.truncate(root / "crop-im/003/nm-02/000/001.png", 30)  # 003 is a test subject
    status, report, text = run(root)
    assert status == 0
    assert report["sequences"]["short"] == {"001/bg-01/000": 10}
    assert report["sequences"]["mismatched"] == {"001/nm-01/000": [11, 10]}
    assert report["frames"]["without_mask"] == ["001/nm-01/000/003.png", "002/nm-01/000/003.png"]
    assert report["masks"]["empty"] == 1 and report["masks"]["full"] >= 1
    (broken,) = report["frames"]["broken"]
    assert "003/nm-02/000/001.png: is not a whole image (30 bytes)" in broken and broken in text
    assert "001/bg-01/000: 10 frames" in text and "warning: 1 sequences are shorter than 11 frames" in text


def break_frame(root):
    os.truncate(root / "crop-im/001/nm-01/000/001.png", 30)
    return "1 files that training reads are broken, first .*001/nm-01/000/001.png"


def stray_file(root):
    (root / "crop-im/001/nm-01/000/notes.txt").touch()
    return "first .*notes.txt: is not an image"


def mask_of_another_size(root):
    cv2.imwrite(str(root / "crop-seg/001/nm-01/000/002.png"), np.ones((5, 5), np.uint8))
    return "002.png: the mask has not the size of its frame"


def only_one_subject_left(root):
    shutil.rmtree(root / "crop-seg/002")
    return "1 training subjects have a usable sequence, two are needed"


def missing_id(root):
    for tree in ("crop-im", "crop-seg"):
        shutil.rmtree(root / tree / "001")
    return "the largest label of a training subject is 2, fc_id has room for 0..1"


def too_few_ids(root):
    for tree in ("crop-im", "crop-seg"):
        shutil.rmtree(root / tree / "001")
        shutil.rmtree(root / tree / "002")
    return "train_num is 2, but 1 subjects were found"


def stray_folder(root):
    (root / "crop-im" / "old").mkdir()
    return "the folder 'old' should be the number of a subject"


def masks_of_other_names(root):
    for mask in list((root / "crop-seg").rglob("*.png")):
        mask.rename(mask.with_suffix(".bmp"))
    return "masks, but none of a frame's name, first 001/nm-01/000, frame .*png: a mask must be named as its frame is"


def inverted_masks(root):
    for file in (root / "crop-seg/001/nm-02/090").iterdir():
        mask = np.full((20, 13), 255, np.uint8)
        mask[2:-2, 4:-4] = 0
        cv2.imwrite(str(file), mask)
    return "1 training sequences have inverted masks, first 001/nm-02/090: its masks are white around the person"


def empty_masks(root):
    for file in (root / "crop-seg").rglob("*.png"):
        cv2.imwrite(str(file), np.zeros((20, 13), np.uint8))
    return "the masks of all 8 training sequences are empty"


def one_id_twice(root):
    for tree in ("crop-im", "crop-seg"):
        (root / tree / "003").rename(root / tree / "2")
    return "ids 002 and 2: are they one person?"


@pytest.mark.parametrize(
    "spoil",
    [
        masks_of_other_names,
        break_frame,
        stray_file,
        mask_of_another_size,
        only_one_subject_left,
        missing_id,
        too_few_ids,
        stray_folder,
        inverted_masks,
        empty_masks,
        one_id_twice,
    ],
)
def test_what_stops_training(root, spoil):
    message = spoil(root)
    status, report, text = run(root)
    assert status == 1 and not report["can_train"]
    assert any(re.search(message, stop) for stop in report["stops"]), report["stops"]
    assert re.search(f"stop: .*{message}", text)


def test_copies_and_what_stands_still_are_told(root):
    for tree in ("crop-im", "crop-seg"):
        copy_onto(root / tree / "003/nm-01/000", root / tree / "003/nm-02/000")
        still = sorted((root / tree / "002/nm-01/090").iterdir())
        for file in still[1:]:
            shutil.copy(still[0], file)
    status, report, text = run(root)
    assert status == 0 and report["sequences"]["copies"] == [["003/nm-01/000", "003/nm-02/000"]]
    assert "1 sequences have the same pictures as others" in text and "003/nm-01/000 = 003/nm-02/000" in text
    assert "1 sequences show the same picture in every frame: 002/nm-01/090" in text


def copy_onto(source, target):
    shutil.rmtree(target)
    shutil.copytree(source, target)


def test_masks_of_test_people_are_looked_at_too(root):
    """They are no input of training, and the input of evaluation on silhouettes alone."""
    for path, change in (("003/nm-01/000", 255), ("003/nm-01/090", 0), ("003/nm-02/000", 1)):
        for file in (root / "crop-seg" / path).iterdir():
            cv2.imwrite(str(file), np.full((20, 13), change, np.uint8))
    status, report, text = run(root)
    assert status == 0, text
    assert "1 further sequences have inverted masks: 003/nm-01/000" in text
    assert "masks are empty, all of 003/nm-01/090" in text
    assert "1 further sequences have dim masks: 003/nm-02/000" in text


def test_quick_opens_no_file(root):
    break_frame(root)
    status, report, text = run(root, "--quick")
    assert status == 0 and not report["decoded"] and report["frames"]["broken"] == []
    assert "216, not decoded" in text


def test_other_trees(tmp_path):
    rng = np.random.default_rng(0)
    for subject in ("05", "17"):
        for n in range(1, 9):
            write_sequence(tmp_path / "SZU-Gait", f"{subject}/{n}", 11, rng)
    status, report, _ = run(tmp_path / "SZU-Gait", dataset="szu")
    assert status == 0 and report["sequences"]["usable_training"] == 16 and report["subjects"]["missing"] == []


def test_missing_dataset_says_where_to_get_it(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL), "casiab"],
        capture_output=True,
        text=True,
        env={**os.environ, "GAITNET_DATA": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/CASIA-B/crop-im: no such folder. CASIA-B: by application to")
