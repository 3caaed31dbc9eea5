"""Cropping: boxes of known people, both kinds of source, what is left out and why, going on after a kill."""

import csv
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from layers.datasets import DATASETS
from layers.frames import DataError, Tree
from tests.tools.people import CROP, HEIGHT, WIDTH, crop, crop_command, figure, person, picture
from tools import check_data
from tools.crop import main
from tools.raw import find_walks
from tools.walkers.sequence import render_sequence


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
    return crop(dataset, frames=root / frames, masks=root / "masks", out=root / "out", words=args)


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
    make = [sys.executable, str(CROP.with_name("make_walkers.py")), "--tree", dataset, "--uncropped", "--out", str(raw)]
    subprocess.run(
        [*make, "--subjects", "1", "--frames", "12", "--jobs", "1", *choice], check=True, capture_output=True
    )
    frames, masks = (DATASETS[dataset].im_dir, DATASETS[dataset].gt_dir)
    folders = ("videos", "silhouettes") if dataset == "casiab" else (frames, masks)
    crop(dataset, frames=raw / folders[0], masks=raw / folders[1], out=out).check_returncode()
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
    command = crop_command("szu", tmp_path / "frames", tmp_path / "masks", tmp_path / "out", "--jobs", "2")
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


@pytest.mark.medium
def test_masks_of_other_names_are_a_failure_and_are_done_again(tmp_path):
    write_video(tmp_path, "001-nm-01-090")
    folder = tmp_path / "masks/001/nm-01/090"
    for file in list(folder.iterdir()):
        file.rename(folder / f"mask_{file.stem[-3:]}.png")
    done = run("casiab", tmp_path, "videos")
    assert done.returncode == 1 and "0 of 1 sequences are cropped" in done.stdout
    assert "none of its 30 frames has a mask: frames are named as 001-nm-01-090-001, masks" in done.stderr
    assert "as mask_001; rename the masks" in done.stderr
    assert not list((tmp_path / "out").glob("crop-*/*"))  # no empty folder stays
    for file in list(folder.iterdir()):
        file.rename(folder / f"001-nm-01-090-{file.stem[-3:]}.png")
    (tmp_path / "out/crop-im/001/nm-01/090").mkdir(parents=True)  # as an earlier version left it
    (tmp_path / "out/crop-im/001/nm-01/090/.left-out.csv").touch()
    done = run("casiab", tmp_path, "videos")
    assert done.returncode == 0 and "there already" not in done.stderr
    assert len(list((tmp_path / "out/crop-im/001/nm-01/090").glob("*.png"))) == len(KEPT)


@pytest.mark.medium
def test_masks_of_0_and_1(tmp_path):
    write_folders(tmp_path, "017/1")
    for file in (tmp_path / "masks/017/1").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) // 255)
    done = run("szu", tmp_path)
    assert done.returncode == 1 and "masks say 1 where the person is, wanted 255; say --mask-max 1" in done.stderr
    done = run("szu", tmp_path, "frames", "--mask-max", "1")
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "out/crop-seg/017/1/007.png"), cv2.IMREAD_GRAYSCALE)
    assert sorted(np.unique(mask)) == [0, 255]


@pytest.mark.medium
def test_inverted_masks(tmp_path):
    write_folders(tmp_path, "017/1")
    for file in (tmp_path / "masks/017/1").iterdir():
        cv2.imwrite(str(file), 255 - cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    done = run("szu", tmp_path)
    assert done.returncode == 1 and "masks/017/1: its masks are white around the person" in done.stderr


@pytest.mark.medium
def test_masks_numbered_from_0(tmp_path):
    """Taken as they are, each would lie on the frame before its own."""
    write_video(tmp_path, "001-nm-01-090")
    folder = tmp_path / "masks/001/nm-01/090"
    for file in sorted(folder.iterdir()):
        file.rename(folder / f"001-nm-01-090-{int(file.stem[-3:]) - 1:03d}.png")
    done = run("casiab", tmp_path, "videos")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert "1 walks have a mask of number 0 (001/nm-01/090)" in done.stderr
    assert "say --numbered-from 0" in done.stderr
    done = run("casiab", tmp_path, "videos", "--numbered-from", "0")
    assert done.returncode == 0, done.stderr
    names = sorted(file.stem for file in (tmp_path / "out/crop-im/001/nm-01/090").glob("*.png"))
    assert names == [f"001-nm-01-090-{n - 1:03d}" for n in KEPT]


@pytest.mark.medium
def test_numbers_that_differ_both_ways_are_named(tmp_path):
    for n, surplus in ((1, range(31, 37)), (2, ())):
        write_folders(tmp_path, f"017/{n}")
        for i in surplus:
            cv2.imwrite(str(tmp_path / f"masks/017/{n}/{i:03d}.png"), person(50, 30, 12, 64))
    for i in range(14, 31):  # the second walk was cut off in the middle
        os.remove(tmp_path / f"frames/017/2/{i:03d}.png")
    done = run("szu", tmp_path)
    assert done.returncode == 0
    assert "2 sequences have masks without a frame" in done.stderr
    assert "017/1 (30 frames, 35 masks), 017/2 (13 frames, 29 masks)" in done.stderr
    assert "have fewer than 11 usable frames, and will not count: 017/2 (9 of 13)" in done.stderr
    rows = left_out(tmp_path)
    assert ["017/1", "033", "mask without a frame"] in rows and ["017/2", "020", "mask without a frame"] in rows


@pytest.mark.medium
def test_two_archives_make_one_record(tmp_path):
    """As the owners hand CASIA-B out; together, or one after the other."""
    for archive, stem in (("1", "001-nm-01-090"), ("2", "063-nm-01-090")):
        write_video(tmp_path / archive, stem)
    videos, masks = ([tmp_path / n / tree for n in "12"] for tree in ("videos", "masks"))
    together = dict(masks=masks, out=tmp_path / "together/out", words=["--jobs", "1"])
    crop("casiab", frames=videos, **together).check_returncode()
    for part in zip(videos, masks):
        one = crop("casiab", frames=part[0], masks=part[1], out=tmp_path / "turns/out", words=["--jobs", "1"])
        one.check_returncode()
    assert left_out(tmp_path / "together") == left_out(tmp_path / "turns")
    assert {row[0] for row in left_out(tmp_path / "turns")} == {"001/nm-01/090", "063/nm-01/090"}
    twice = crop("casiab", frames=[videos[0], videos[0]], **together)
    assert twice.returncode == 1 and "001/nm-01/090 is there twice" in twice.stderr


@pytest.mark.medium
def test_names_of_other_systems(tmp_path):
    write_video(tmp_path, "010-nm-01-090")
    videos = tmp_path / "videos"
    (videos / "010-nm-01-090.avi").rename(videos / "010-NM-01-090.AVI")
    (videos / "._001-nm-01-090.avi").write_bytes(b"\0\5\x16\7")
    (videos / "010-bkgrd-090.avi").write_bytes(b"")
    (videos / "010-nm-02-090 (1).avi").write_bytes(b"")
    (videos / "010_nm_03_090.avi").write_bytes(b"")
    for name in ("thumbs.db", ".DS_Store", "desktop.ini"):
        (videos / name).touch()
        (tmp_path / "masks/010/nm-01/090" / name).touch()
    for place in ("masks", "masks/010", "masks/010/nm-01/090"):
        (tmp_path / place / "@eaDir").mkdir()
        (tmp_path / place / "__MACOSX").mkdir()
    done = run("casiab", tmp_path, "videos")
    assert done.returncode == 0 and "1 of 1 sequences are cropped" in done.stdout, done.stderr
    assert "2 videos are no walks by their names: 010-nm-02-090 (1).avi, 010_nm_03_090.avi" in done.stderr
    assert len(list((tmp_path / "out/crop-im/010/nm-01/090").glob("*.png"))) == len(KEPT)


@pytest.mark.medium
def test_numbers_of_a_video_without_zeros(tmp_path):
    """One person is not to become two, 1 and 001."""
    write_video(tmp_path, "001-nm-01-090")
    (tmp_path / "videos/001-nm-01-090.avi").rename(tmp_path / "videos/1-nm-1-90 .avi")
    done = run("casiab", tmp_path, "videos")
    assert done.returncode == 0 and (tmp_path / "out/crop-im/001/nm-01/090").is_dir(), done.stderr


@pytest.mark.medium
def test_silhouettes_alone(tmp_path):
    write_folders(tmp_path, "001/nm-01/090")
    done = crop("casiab", masks=tmp_path / "masks", out=tmp_path / "out", words=["--jobs", "1"])
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["crop-seg", "left-out.csv"]
    names = sorted(file.stem for file in (tmp_path / "out/crop-seg/001/nm-01/090").glob("*.png"))
    assert names == [f"{i:03d}" for i in KEPT]
    mask = cv2.imread(str(tmp_path / "out/crop-seg/001/nm-01/090/010.png"), cv2.IMREAD_GRAYSCALE)
    assert mask.shape == (72, 72) and mask.any(axis=1).sum() == 64


@pytest.mark.medium
def test_a_mask_of_another_size_is_told_wherever_it_is(tmp_path):
    """The box of such a mask would jump off the walk's course, which is no reason to leave the frame out."""
    write_folders(tmp_path, "017/1")
    for name in ("009", "019"):
        file = str(tmp_path / f"masks/017/1/{name}.png")
        cv2.imwrite(file, cv2.resize(cv2.imread(file, cv2.IMREAD_GRAYSCALE), (WIDTH // 2, HEIGHT // 2)))
    done = run("szu", tmp_path)
    assert done.returncode == 1
    assert f"017/1/009.png: the mask is {HEIGHT // 2, WIDTH // 2}, its frame {HEIGHT, WIDTH}, wanted" in done.stderr
    done = crop("szu", masks=tmp_path / "masks", out=tmp_path / "out", words=["--jobs", "1"])
    assert f"009.png: the mask is {HEIGHT // 2, WIDTH // 2}, the first of the walk {HEIGHT, WIDTH}" in done.stderr


@pytest.mark.medium
def test_walks_that_fail_take_no_folder_from_those_that_do_not(tmp_path):
    """Several processes work on the walks of one person, half of whom have no mask at all."""
    for number in range(1, 9):
        write_folders(tmp_path, f"017/{number}")
    for number in (1, 2, 3, 5, 6, 7):
        for file in (tmp_path / f"masks/017/{number}").iterdir():
            file.unlink()
    done = run("szu", tmp_path, "frames", "--jobs", "4")
    assert done.returncode == 1 and "2 of 8 sequences are cropped" in done.stdout, done.stderr
    assert sorted(os.listdir(tmp_path / "out/crop-im/017")) == ["4", "8"]


def test_a_full_disk_is_told_with_the_folder(tmp_path, monkeypatch, capsys):
    def full(file, image):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_folders(tmp_path, "017/1")
    monkeypatch.setattr("tools.crop._write_image", full)
    words = ["szu", "--frames", "frames", "--masks", "masks", "--out", "out", "--jobs", "1"]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert "cannot write into out/crop-im/017/1: [Errno 28] No space left" in capsys.readouterr().err
    assert not (tmp_path / "out/crop-im/017").exists()


@pytest.fixture
def owned(tmp_path):
    """Names alone of what owners hand out: videos of two walks, masks of one of them."""
    for name in ("video/001-nm-01-090.avi", "video/002-nm-01-090.avi", "sil/001/nm-01/090/001-nm-01-090-001.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_videos_that_are_not_read_are_told(owned, capsys):
    (owned / "video/more").mkdir()
    (owned / "video/more/003-nm-01-090.AVI").touch()
    (owned / "video/004-nm-01-090.avi").symlink_to("nowhere.avi")
    walks = find_walks(DATASETS["casiab"], [owned / "video"], [owned / "sil"])
    assert [walk.path for walk in walks] == ["001/nm-01/090", "002/nm-01/090"]
    told = capsys.readouterr().err
    assert "1 videos are links to what is not there: 004-nm-01-090.avi" in told
    assert "1 videos lie in folders below and are not read: more/003-nm-01-090.AVI" in told


@pytest.mark.parametrize(
    "frames, masks, message",
    [
        (".", "sil", r"its 2 videos lie in folders below \(video/001-nm-01-090.avi, .*\); name these instead"),
        ("video", ".", r"holds masks of none of the 2 walks, such as 001/nm-01/090/; it holds sil, video"),
        ("sil", "sil", "is named both as frames and as masks; silhouettes alone: leave --frames out"),
    ],
)
def test_folders_that_are_not_those_that_are_meant(owned, frames, masks, message):
    with pytest.raises(DataError, match=message):
        find_walks(DATASETS["casiab"], [owned / frames], [owned / masks])


def write_figures(root, path, legs_alone=False):
    """20 frames of a figure who walks from left to right, 80 pixels high; of the masks perhaps the legs alone."""
    for tree in ("frames", "masks"):
        (root / tree / path).mkdir(parents=True)
    for i in range(20):
        mask = figure(left=20 + 3 * i, top=20, stride=4 + 6 * (i % 2))
        cv2.imwrite(str(root / "frames" / path / f"{i + 1:03d}.png"), picture(mask))
        if legs_alone:
            mask[:58] = 0
        cv2.imwrite(str(root / "masks" / path / f"{i + 1:03d}.png"), mask)


@pytest.mark.medium
def test_legs_alone_in_every_frame_are_told_of(tmp_path, capsys):
    """They jump nowhere: a walk is judged as a whole, here and in check_data, with pictures and without."""
    for subject in ("001", "002"):
        write_figures(tmp_path, f"{subject}/nm-01/090", legs_alone=subject == "002")
    done = run("casiab", tmp_path)
    assert done.returncode == 0 and "2 of 2 sequences are cropped" in done.stdout
    told = "no head in any frame: legs alone?"
    assert (
        f"warning: 1 sequences may show no whole person in any frame; look at them, and leave them out by "
        f"--excluded: 002/nm-01/090 ({told})" in done.stderr
    )
    assert left_out(tmp_path) == [["002/nm-01/090", "", told]]
    again = run("casiab", tmp_path)  # the walks are there already, and so is the doubt
    assert left_out(tmp_path) == [["002/nm-01/090", "", told]] and "002/nm-01/090" in again.stderr
    out = tmp_path / "out"
    for words in (["--im-path", out / "crop-im"], ["--im-path", out / "crop-im", "--quick"], ["--silhouettes"]):
        check_data.main(["casiab", "--train-num", "2", "--gt-path", str(out / "crop-seg"), *map(str, words)])
        doubt = "no whole person in any frame; look at them, and leave them out by --excluded"
        assert f"{doubt}: 002/nm-01/090 ({told})" in capsys.readouterr().out
