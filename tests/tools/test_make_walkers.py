"""Walkers: known by shape and gait but not by colour, the same however they are made, never half there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import binom

from layers.datasets import DATASETS
from layers.sources import open_frames
from tests.tools import people
from tools.walkers.sequence import render_sequence
from tools.walkers.trees import TREES

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SUBJECTS = 10


def command(out, *args):
    return [sys.executable, str(TOOLS / "make_walkers.py"), "--out", str(out), *map(str, args)]


def run(out, *args):
    return subprocess.run(command(out, *args), capture_output=True, text=True)


def make(out, *args):
    done = run(out, *args)
    assert done.returncode == 0, done.stderr
    return out


def files(root):
    """Every file below `root`, hidden ones too: relative name -> its bytes."""
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


SMALL = ("--subjects", 2, "--conditions", "nm-01", "bg-02", "--views", "018", "090", "--frames", 11, "--size", 32)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("small") / "Walkers", *SMALL, "--jobs", 1)


def walks(view):
    """Subject -> nm-01..nm-06 as rendered."""
    return {
        number: [render_sequence(1, number, f"nm-{n:02d}", "nm", view, 12, 32) for n in range(1, 7)]
        for number in range(1, SUBJECTS + 1)
    }


def hits(feature, seen):
    """How many of nm-05, nm-06 have their subject's as nearest among nm-01..nm-04, and of how many."""
    features = {(number, n): feature(walk) for number, of_one in seen.items() for n, walk in enumerate(of_one)}
    gallery = [key for key in features if key[1] < 4]
    probes = [key for key in features if key[1] >= 4]
    nearest = [min(gallery, key=lambda g: np.linalg.norm(features[g] - features[p])) for p in probes]
    return sum(g[0] == p[0] for g, p in zip(nearest, probes)), len(probes)


def person_colour(walk):
    inside = walk.masks > 127
    return walk.frames[inside].mean(axis=0)


def energy_image(walk):
    return walk.masks.mean(axis=0)


def room_colour(walk):
    return walk.frames[walk.masks < 1].mean(axis=0)


@pytest.mark.medium
def test_colour_does_not_tell_who_it_is_but_shape_does():
    seen = [walks(view) for view in (0, 126)]
    by_clothes, by_room, by_shape = (
        np.sum([hits(f, s) for s in seen], axis=0) for f in (person_colour, room_colour, energy_image)
    )
    # Guessing gets at most this many of the 40 probes in 999 of 1000 draws: 11, chance being 4.
    bound = binom.ppf(0.999, by_clothes[1], 1 / SUBJECTS)
    assert by_clothes[0] <= bound
    assert by_room[0] <= bound
    assert by_shape[0] > bound


@pytest.mark.parametrize("kind", ["nm", "bg", "cl"])
def test_crops_are_what_the_boxes_cut_from_full_frames(kind):
    crops = render_sequence(3, 7, f"{kind}-01", kind, 72, 5, 64)
    full = render_sequence(3, 7, f"{kind}-01", kind, 72, 5, uncropped=True)
    assert crops.frames.shape == (5, 64, 64, 3) and full.frames.shape == (5, 240, 320, 3)
    assert np.array_equal(crops.boxes, full.boxes)
    for crop, mask, (left, top, side) in zip(crops.masks, full.masks, full.boxes):
        rows, columns = np.nonzero(mask > 127)
        # a person fills the box's height but for the margin, 0.0625 of their height; a pixel is 0.005 of it
        assert np.ptp(rows) + 1 == pytest.approx(side / 1.125, abs=2.5)
        assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(top + side / 2, abs=2)
        scale = 64 / side
        middle = (scale - 1) / 2  # a pixel's centre, not its corner, is the whole number
        to_crop = np.array([[scale, 0, middle - left * scale], [0, scale, middle - top * scale]])
        cut = cv2.warpAffine(mask, to_crop, (64, 64), flags=cv2.INTER_LINEAR) > 127
        both, either = np.sum(cut & (crop > 127)), np.sum(cut | (crop > 127))
        assert both / either > 0.85  # edges of a person 20 pixels wide move by half a pixel


def test_mask_has_the_outline_of_who_is_in_the_frame():
    walk = render_sequence(1, 5, "nm-01", "nm", 90, 24, 64)
    assert set(np.unique(walk.masks)) >= {0, 255}
    share = (walk.masks > 127).mean(axis=(1, 2))
    assert np.all((0.08 < share) & (share < 0.4))
    moving = np.abs(np.diff(walk.masks.astype(int), axis=0)).mean(axis=(1, 2))
    assert moving.min() > 0.5  # grey levels: somebody walks in every frame
    # contrast between the two sides of the outline, against that of the same outline put somewhere else
    grey = cv2.GaussianBlur(walk.frames.mean(axis=-1).transpose(1, 2, 0), (3, 3), 0).transpose(2, 0, 1)
    steepness = np.hypot(*np.gradient(grey, axis=(1, 2)))
    edge = np.hypot(*np.gradient((walk.masks > 127).astype(float), axis=(1, 2))) > 0
    assert steepness[edge].mean() > 1.5 * steepness[np.roll(edge, 12, axis=2)].mean()


@pytest.mark.medium
def test_as_many_processes_as_one_likes(small, tmp_path):
    assert files(make(tmp_path / "two", *SMALL, "--jobs", 2)) == files(small)


@pytest.mark.medium
def test_a_part_is_the_same_as_in_the_whole(small, tmp_path):
    part = files(make(tmp_path / "part", *SMALL, "--subjects", 1, "--conditions", "bg-02"))
    part.pop("README.md")  # the card, which tells how many there are
    whole = files(small)
    assert part.items() <= whole.items()
    assert len(part) == 2 * 2 * 11 + 1


@pytest.mark.medium
def test_pixels_on_disk_are_the_rendered_ones(small):
    clip = open_frames(small / "crop-im", small / "crop-seg")
    assert clip.length("002/bg-02/018") == 11
    file = sorted((small / "crop-im/002/bg-02/018").iterdir())[10]
    mask = small / "crop-seg/002/bg-02/018" / file.name
    walk = render_sequence(1, 2, "bg-02", "bg", 18, 11, 32)
    assert np.array_equal(cv2.imread(str(file)), walk.frames[10])
    assert np.array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), walk.masks[10])


@pytest.mark.medium
def test_killed_run_leaves_whole_sequences_and_is_continued(small, tmp_path):
    out = tmp_path / "Walkers"
    many = subprocess.Popen(command(out, *SMALL, "--subjects", 900, "--jobs", 2), stderr=subprocess.DEVNULL)
    there = lambda: sorted(out.glob("crop-im/*/*/*"))  # noqa: E731
    deadline = time.monotonic() + 60
    while len(there()) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    many.send_signal(signal.SIGKILL)
    many.wait()
    assert many.returncode == -signal.SIGKILL
    _wait_until_still(there)
    done = there()
    assert len(done) >= 5
    for folder in done:
        assert len(list(folder.iterdir())) == 11
        assert len(list((out / "crop-seg" / folder.relative_to(out / "crop-im")).iterdir())) == 11
    times = {folder: os.stat(folder).st_mtime_ns for folder in done}
    again = run(out, *SMALL)
    assert again.returncode == 0, again.stderr
    assert "sequences are there already" in again.stderr
    assert {folder: os.stat(folder).st_mtime_ns for folder in done} == times
    got = files(out)
    assert files(small).items() <= got.items()
    assert not [name for name in got if "/." in f"/{name}"]


def _wait_until_still(listing):
    """Workers end with their parent; until they have, what they were at may still appear."""
    before, deadline = None, time.monotonic() + 30
    while before != (now := listing()) and time.monotonic() < deadline:
        before = now
        time.sleep(0.5)
    assert before == listing(), "the workers of the killed run are still at work"


@pytest.mark.parametrize("name, count", [("outdoor", 36), ("szu", 8)])
@pytest.mark.medium
def test_trees_of_the_other_datasets(name, count, tmp_path):
    dataset = DATASETS[name]
    out = make(tmp_path / name, "--tree", name, "--subjects", 2, "--frames", 1, "--size", 16)
    found = dataset.sequences(out / dataset.im_dir, ["001", "002"])
    assert len(found) == 2 * count
    assert dataset.paths(out / dataset.gt_dir) == [seq.path for seq in found]
    roles = [dataset.protocol.role(seq) for seq in found]
    assert roles.count("gallery") == roles.count("probe") == count
    assert {dataset.protocol.group(seq) for seq in found} == set(dataset.protocol.groups)


@pytest.mark.medium
def test_full_frames_are_what_crop_reads(tmp_path):
    raw = make(
        tmp_path / "raw", "--uncropped", "--subjects", 1, "--conditions", "nm-01", "--views", "090", "--frames", 12
    )
    cut = people.crop("casiab", frames=raw / "videos", masks=raw / "silhouettes", out=tmp_path / "cut")
    assert cut.returncode == 0, cut.stdout + cut.stderr
    assert len(list((tmp_path / "cut/crop-im/001/nm-01/090").glob("*.png"))) == 12
    boxes = json.loads((raw / "boxes/001-nm-01-090.json").read_text())
    for name, (left, top, width, height) in boxes.items():
        mask = cv2.imread(str(raw / f"silhouettes/001/nm-01/090/{name}.png"), cv2.IMREAD_GRAYSCALE)
        inside = mask[top : top + height, left : left + width]
        assert inside.sum() == mask.sum() > 0
        assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_who_trains_walks_normally_and_who_tests_in_bags_and_coats_too():
    dataset, tree = DATASETS["walkers"], TREES["walkers"]
    walks = tree.walks(dataset.num_subjects)
    assert dataset.num_subjects - dataset.train_num >= 30
    training = [walk for walk in walks if walk.subject <= dataset.train_num]
    testing = [walk for walk in walks if walk.subject > dataset.train_num]
    assert {walk.kind for walk in training} == {"nm"}
    assert all(re.fullmatch(dataset.training, walk.path) for walk in training)
    covariates = dataset.protocol.covariates
    probes = Counter(name for walk in testing for name, pattern in covariates if re.fullmatch(pattern, walk.path))
    assert 0 < probes["BG"] == probes["CL"] < probes["NM"]
    galleries = {walk.subject for walk in testing if re.fullmatch(dataset.protocol.gallery, walk.path)}
    assert galleries == {walk.subject for walk in testing}


def test_conditions_and_views_given_are_everybodys():
    tree, people = TREES["walkers"], DATASETS["walkers"].num_subjects
    assert len(tree.walks(people, ["nm-06", "cl-02"], ["018"])) == 2 * people
    assert {walk.view for walk in tree.walks(people, views=["018"])} == {"018"}
    assert len(TREES["casiab"].walks(2)) == 2 * 66


@pytest.mark.medium
def test_contact_sheet(small, tmp_path):
    sheet = tmp_path / "sheet.png"
    make(small, *SMALL, "--contact-sheet", sheet)
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.std() > 20


@pytest.mark.medium
def test_other_options_are_refused(small):
    before = files(small)
    done = run(small, *SMALL, "--seed", 2)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert "seed 1" in done.stderr and "--out" in done.stderr
    assert files(small) == before


@pytest.mark.medium
def test_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "crop-im/001").mkdir(parents=True)
    done = run(tmp_path, *SMALL)
    assert done.returncode == 1 and "no walkers.json" in done.stderr
    (tmp_path / "walkers.json").write_text("{")
    done = run(tmp_path, *SMALL)
    assert done.returncode == 1 and "walkers.json: not the record" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "args, said",
    [
        (("--views", "091"), "'091'"),
        (("--conditions", "xx-01"), "'xx-01'"),
        (("--frames", "0"), "'0'"),
        (("--frames", "26"), "26 is more than 25"),
        (("--tree", "szu", "--views", "018"), "szu has no '018'"),
    ],
)
@pytest.mark.medium
def test_usage(args, said, tmp_path):
    done = run(tmp_path / "Walkers", *args)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "Walkers").exists()
