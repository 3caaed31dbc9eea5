"""Cropping: boxes of known people, both kinds of source, what is left out and why, going on after a kill."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from layers.datasets import DATASETS
from layers.frames import Tree
from tools.crop import clean, crop, find_box
from tools.walkers.sequence import render_sequence

TOOL = Path(__file__).resolve().parents[2] / "tools" / "crop.py"
HEIGHT, WIDTH = 120, 160


def person(left, top, width, height, shape=(HEIGHT, WIDTH)):
    mask = np.zeros(shape, np.uint8)
    mask[max(top, 0) : top + height, max(left, 0) : left + width] = 255
    return mask


def picture(mask):
    """Green people on grey."""
    frame = np.full((*mask.shape, 3), 90, np.uint8)
    frame[mask > 0] = (40, 200, 60)
    return frame


def test_box_of_a_known_person():
    (left, top, side), reason = find_box(person(left=50, top=20, width=20, height=80))
    assert reason is None and side == 90  # 1.125 x 80
    # The middle of the person is in the middle of the box: columns 50..69, rows 20..99.
    assert left + (side - 1) / 2 == pytest.approx(59.5, abs=0.5)
    assert top + (side - 1) / 2 == pytest.approx(59.5, abs=0.5)


def test_box_is_as_wide_as_a_wide_person():
    (_, _, side), _ = find_box(person(left=30, top=50, width=64, height=32))
    assert side == 72


def test_centre_is_the_median_column_not_the_outstretched_arm():
    mask = person(left=50, top=20, width=20, height=80)
    mask[30:34, 70:110] = 255
    (left, _, side), _ = find_box(mask)
    assert left + (side - 1) / 2 == pytest.approx(60, abs=2)


@pytest.mark.parametrize(
    "mask, reason",
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "no person"),
        (person(50, 50, 8, 15), "no person"),
        (person(-5, 20, 20, 80), "cut off by the border"),
        (person(145, 20, 20, 80), "cut off by the border"),
        (person(50, 0, 20, 80), "cut off by the border"),
        (person(50, 45, 20, 80), "cut off by the border"),
    ],
)
def test_no_box(mask, reason):
    assert crop(picture(mask), mask) == (None, reason)


def test_clean_keeps_a_head_that_hangs_off_and_drops_specks():
    body, head = person(50, 40, 20, 60), person(56, 28, 8, 9)  # three empty rows between
    speck = person(120, 30, 5, 5)
    grey = (body | head) // 255 * 200 + speck // 255 * 255 + person(0, 0, 160, 5) // 255 * 100
    assert np.array_equal(clean(grey.astype(np.uint8)), body | head)


def test_box_beyond_the_picture_repeats_the_border():
    mask = person(left=8, top=10, width=20, height=100)
    frame = picture(mask)
    frame[:, 0] = (1, 2, 3)
    (cropped, cropped_mask), _ = crop(frame, mask)
    assert cropped.shape == (112, 112, 3) and cropped_mask.shape == (112, 112)
    assert (cropped[50, :30] == (1, 2, 3)).all() and not cropped_mask[:, :30].any()
    assert np.array_equal(cropped_mask > 0, (cropped == (40, 200, 60)).all(axis=2))
    assert cropped_mask.any(axis=1).sum() == 100


def write_folders(root, path, suffix=".png"):
    """30 frames of a person who walks in from the left and out to the right; frame 12 has no mask."""
    for tree in ("frames", "masks"):
        (root / tree / path).mkdir(parents=True)
    for i in range(30):
        mask = person(left=-14 + 6 * i, top=30, width=12, height=64)
        cv2.imwrite(str(root / "frames" / path / f"{i + 1:03d}{suffix}"), picture(mask))
        if i + 1 != 12:
            cv2.imwrite(str(root / "masks" / path / f"{i + 1:03d}.png"), mask)


def write_video(root, stem):
    """The same walk as a video, with silhouettes named as CASIA-B does."""
    (root / "videos").mkdir(parents=True, exist_ok=True)
    folder = root / "masks" / stem[:3] / stem[4:9] / stem[10:]
    folder.mkdir(parents=True)
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    video = cv2.VideoWriter(str(root / "videos" / f"{stem}.avi"), codec, 25, (WIDTH, HEIGHT))
    for i in range(30):
        mask = person(left=-14 + 6 * i, top=30, width=12, height=64)
        video.write(picture(mask))
        if i + 1 != 12:
            cv2.imwrite(str(folder / f"{stem}-{i + 1:03d}.png"), mask)
    video.release()


def run(dataset, root, frames="frames", *args):
    done = subprocess.run(
        [sys.executable, str(TOOL), dataset, "--frames", str(root / frames), "--masks", str(root / "masks"),
         "--out", str(root / "out"), *args],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def left_out(root):
    with open(root / "out/left-out.csv", newline="") as rows:
        header, *rest = csv.reader(rows)
    assert header == ["sequence", "frame", "reason"]
    return rest


# The person's left column is -14 + 6 (i - 1): frames 1..3, 28 and 29 touch a border, 30 is empty, 12 has no mask.
KEPT = [i for i in range(1, 31) if i not in (1, 2, 3, 12, 28, 29, 30)]


@pytest.mark.parametrize(
    "dataset, path, im_dir, gt_dir",
    [("outdoor", "004/004_scene1_nm_L_090_1", "im", "seg"), ("szu", "017/3", "crop-im", "crop-seg")],
)
@pytest.mark.medium
def test_folders(tmp_path, dataset, path, im_dir, gt_dir):
    write_folders(tmp_path, path)
    done = run(dataset, tmp_path)
    assert done.returncode == 0, done.stderr
    names = [f"{i:03d}.png" for i in KEPT]
    for tree in (im_dir, gt_dir):
        found = sorted(name for name in os.listdir(tmp_path / "out" / tree / path) if not name.startswith("."))
        assert found == names
    for name in names:
        frame = cv2.imread(str(tmp_path / "out" / im_dir / path / name))
        mask = cv2.imread(str(tmp_path / "out" / gt_dir / path / name), cv2.IMREAD_GRAYSCALE)
        assert frame.shape == (72, 72, 3)  # 1.125 x 64
        assert np.array_equal(mask > 0, (frame == (40, 200, 60)).all(axis=2))
        rows, columns = np.nonzero(mask)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 67, 30, 41)
    rows = left_out(tmp_path)
    assert [row[:2] for row in rows] == [[path, f"{i:03d}"] for i in (1, 2, 3, 12, 28, 29, 30)]
    cut_off = "cut off by the border"
    assert [row[2] for row in rows] == [cut_off, cut_off, cut_off, "no mask", cut_off, cut_off, "no person"]
    assert f"5 frames left out: {cut_off}" in done.stdout and "1 frames left out: no mask" in done.stdout


@pytest.mark.medium
def test_frames_and_masks_match_by_name_not_by_suffix(tmp_path):
    write_folders(tmp_path, "017/3", suffix=".jpg")
    assert run("szu", tmp_path).returncode == 0
    assert Tree(str(tmp_path / "out/crop-im"), str(tmp_path / "out/crop-seg")).num_masks("017/3") == len(KEPT)


@pytest.mark.medium
def test_videos(tmp_path):
    write_video(tmp_path, "001-nm-01-090")
    write_video(tmp_path, "002-bg-02-018")
    write_video(tmp_path, "001-bkgrd-090")
    done = run("casiab", tmp_path, "videos")
    assert done.returncode == 0 and "2 of 2 sequences are cropped" in done.stdout
    tree = Tree(str(tmp_path / "out/crop-im"), str(tmp_path / "out/crop-seg"))
    assert tree.length("002/bg-02/018") == tree.num_masks("002/bg-02/018") == len(KEPT)
    frames, masks = tree.clip("001/nm-01/090", 0, 6)
    inside = masks > 250
    # MJPG is lossy: within 30 of the person's green, and far from the background's 90.
    assert abs(frames[inside].mean(axis=0) - (40, 200, 60)).max() < 30


@pytest.mark.medium
def test_goes_on_and_keeps_the_record(tmp_path):
    write_folders(tmp_path, "017/1")
    assert run("szu", tmp_path).returncode == 0
    times = os.stat(tmp_path / "out/crop-im/017/1/005.png").st_mtime_ns
    write_folders(tmp_path, "017/2")
    # What a killed run leaves: masks in place, frames unfinished.
    for folder in ("crop-seg/017/2", "crop-im/017/.2.partial"):
        (tmp_path / "out" / folder).mkdir(parents=True)
        (tmp_path / "out" / folder / "001.png").touch()
    done = run("szu", tmp_path)
    assert done.returncode == 0 and "1 of 2 sequences are there already" in done.stderr
    assert os.stat(tmp_path / "out/crop-im/017/1/005.png").st_mtime_ns == times
    for tree in ("crop-im", "crop-seg"):
        assert sorted(os.listdir(tmp_path / "out" / tree / "017")) == ["1", "2"]
    assert not (tmp_path / "out/crop-seg/017/2/001.png").exists()
    assert len(left_out(tmp_path)) == 14


@pytest.mark.medium
def test_what_cannot_be_cropped_is_named_and_the_rest_is_done(tmp_path):
    write_folders(tmp_path, "017/1")
    write_folders(tmp_path, "017/2")
    os.truncate(tmp_path / "frames/017/2/008.png", 20)
    done = run("szu", tmp_path)
    assert done.returncode == 1 and "1 of 2 sequences are cropped" in done.stdout
    assert "error: " in done.stderr and "017/2/008.png: is not a whole image" in done.stderr
    assert os.listdir(tmp_path / "out/crop-im/017") == ["1"]


@pytest.mark.parametrize("frames, message", [("nowhere", "nowhere: no such folder"), ("empty", "holds neither videos")])
@pytest.mark.medium
def test_bad_source(tmp_path, frames, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "masks").mkdir()
    done = run("casiab", tmp_path, frames)
    assert done.returncode == 1 and message in done.stderr


@pytest.mark.medium
def test_walkers_as_casiab_hands_them_out(tmp_path):
    """A rendered walker of known place, as a video with silhouettes."""
    rendered = render_sequence(seed=1, number=2, name="nm-01", kind="nm", view=54, frames=12, uncropped=True)
    stem, path = "002-nm-01-054", "002/nm-01/054"
    silhouettes = tmp_path / "masks" / path
    silhouettes.mkdir(parents=True)
    (tmp_path / "videos").mkdir()
    height, width = rendered.masks.shape[1:]
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    video = cv2.VideoWriter(str(tmp_path / "videos" / f"{stem}.avi"), codec, 25, (width, height))
    for i, (frame, mask) in enumerate(zip(rendered.frames, rendered.masks)):
        video.write(frame)
        cv2.imwrite(str(silhouettes / f"{stem}-{i + 1:03d}.png"), mask)
    video.release()
    assert run("casiab", tmp_path, "videos").returncode == 0
    assert left_out(tmp_path) == []
    for i, (frame, mask) in enumerate(zip(rendered.frames, rendered.masks)):
        name = f"{stem}-{i + 1:03d}.png"
        cropped_mask = cv2.imread(str(tmp_path / "out/crop-seg" / path / name), cv2.IMREAD_GRAYSCALE)
        left, top, person_width, person_height = cv2.boundingRect((mask > 127).astype(np.uint8))
        side = cropped_mask.shape[0]
        assert cropped_mask.shape == (side, side) and side == round(1.125 * max(person_width, person_height))
        inner_left, inner_top, *inner_size = cv2.boundingRect(cropped_mask)
        assert inner_size == [person_width, person_height]  # nothing scaled, nobody cut
        assert abs(inner_top + person_height / 2 - side / 2) <= 1  # centred in height
        # One box for both: the picture around the person is the one that the mask was cut from.
        cropped = cv2.imread(str(tmp_path / "out/crop-im" / path / name))
        y, x = top - inner_top, left - inner_left
        difference = np.abs(cropped.astype(int) - frame[y : y + side, x : x + side]).mean()
        shifted = np.abs(cropped.astype(int) - frame[y : y + side, x + 2 : x + 2 + side]).mean()
        assert difference < 0.8 * shifted  # the video is lossy, so not zero


@pytest.mark.medium
@pytest.mark.parametrize(
    "dataset, choice, paths",
    [
        ("casiab", ["--conditions", "nm-01", "cl-02", "--views", "072"], ["001/nm-01/072", "001/cl-02/072"]),
        ("outdoor", ["--conditions", "scene1_nm_L_090_1"], ["001/001_scene1_nm_L_090_1"]),
        ("szu", ["--conditions", "1", "2"], ["001/1", "001/2"]),
    ],
)
def test_walkers_as_the_owners_hand_them_out(tmp_path, dataset, choice, paths):
    """Videos or full frames from make_walkers.py, which writes down each person's box."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    make = [sys.executable, str(TOOL.with_name("make_walkers.py")), "--tree", dataset, "--uncropped", "--out", str(raw)]
    subprocess.run(
        [*make, "--subjects", "1", "--frames", "12", "--jobs", "1", *choice], check=True, capture_output=True
    )
    frames, masks = (DATASETS[dataset].im_dir, DATASETS[dataset].gt_dir)
    folders = ("videos", "silhouettes") if dataset == "casiab" else (frames, masks)
    subprocess.run(
        [sys.executable, str(TOOL), dataset, "--frames", str(raw / folders[0]), "--masks", str(raw / folders[1]),
         "--out", str(out)],
        check=True, capture_output=True,
    )  # fmt: skip
    for path in paths:
        stem = path.replace("/", "-")
        boxes = json.loads((raw / f"boxes/{stem}.json").read_text())
        pictures = full_frames(raw / folders[0], path)
        assert len(boxes) == len(pictures) == 12
        for (name, (left, top, width, height)), full in zip(boxes.items(), pictures):
            frame = cv2.imread(str(out / frames / path / f"{name}.png"))
            mask = cv2.imread(str(out / masks / path / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
            inner_left, inner_top, *inner_size = cv2.boundingRect(mask)
            assert inner_size == [width, height] and len(mask) == round(1.125 * max(width, height))
            y, x = top - inner_top, left - inner_left
            assert np.array_equal(frame, full[y : y + len(mask), x : x + len(mask)])


def full_frames(root, path):
    """The frames before cropping, of a video or of a folder."""
    if not (root / path).is_dir():
        video = cv2.VideoCapture(str(root / f"{path.replace('/', '-')}.avi"))
        return list(itertools.takewhile(lambda frame: frame is not None, (video.read()[1] for _ in itertools.count())))
    return [cv2.imread(str(file)) for file in sorted((root / path).iterdir())]


@pytest.mark.medium
def test_killed_run_takes_its_workers_along_and_goes_on(tmp_path):
    write_folders(tmp_path, "017/001")
    for n in range(2, 61):
        for tree in ("frames", "masks"):
            shutil.copytree(tmp_path / tree / "017/001", tmp_path / tree / f"017/{n:03d}", copy_function=os.link)
    command = [sys.executable, str(TOOL), "szu", "--frames", str(tmp_path / "frames"),
               "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out"), "--jobs", "2"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/crop-im/017/00?")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=20)  # the pipe ends when the last worker has ended
    done = {folder: os.stat(folder).st_mtime_ns for folder in tmp_path.glob("out/crop-im/017/[!.]*")}
    assert 0 < len(done) < 60
    assert all(len(list(folder.glob("[!.]*"))) == len(KEPT) for folder in done)
    again = run("szu", tmp_path)
    assert again.returncode == 0 and f"{len(done)} of 60 sequences are there already" in again.stderr
    assert {folder: os.stat(folder).st_mtime_ns for folder in done} == done
    for tree in ("crop-im", "crop-seg"):
        folders = list((tmp_path / "out" / tree / "017").iterdir())
        assert len(folders) == 60 and all(len(list(folder.glob("[!.]*"))) == len(KEPT) for folder in folders)
    assert len(left_out(tmp_path)) == 60 * 7
