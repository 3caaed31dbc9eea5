"""tools/identify.py by its command line; with weights that are drawn, not learned, people are told by their width."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval import cli
from eval.features import Features, write_cache
from layers.digest import sha256
from tools import identify as tool
from tools.one_run import only_writer

pytestmark = pytest.mark.medium
ROOT = Path(__file__).resolve().parents[2]
FRAMES = 12


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Folders of frames a1, a2 (one person), b1, b2 (another), the video b2.avi, and a walk that is too short."""
    folder = tmp_path_factory.mktemp("walks")
    for person, width in (("a", 4), ("b", 12)):
        for walk in (1, 2):
            write_walk(folder / f"{person}{walk}", width, FRAMES, shift=walk)
    write_walk(folder / "short", 8, 10, shift=0)
    names = sorted((folder / "b2").iterdir())
    video = cv2.VideoWriter(str(folder / "b2.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for name in names:
        video.write(cv2.imread(str(name)))
    video.release()
    return folder


def write_walk(folder, width, frames, shift):
    folder.mkdir()
    for k in range(frames):
        image = np.full((64, 64, 3), 40, np.uint8)
        cv2.ellipse(image, (32, 32), (width + (k + shift) % 3, 28), 0, 0, 360, (200, 190, 180), -1)
        cv2.imwrite(str(folder / f"{k:02d}.png"), image)


def identify(weights, *arguments):
    words = [sys.executable, ROOT / "tools/identify.py", *arguments, "--weights", weights]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300)


def validation_file(path, weights, enrolled, scale, **told):
    """Features of six people, `scale` apart, around those enrolled; a twentieth of that within a person."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 4)
    vectors = enrolled.mean(axis=0) + scale * rng.normal(size=(6, 256))[labels] / np.sqrt(512)
    vectors += 0.05 * scale * rng.normal(size=vectors.shape) / np.sqrt(512)
    roles = np.tile(["gallery", "probe"], 12)
    empty = np.full(24, "")
    features = Features(vectors.astype(np.float32), labels, np.zeros(24, int), roles, empty, empty)
    write_cache(path, features, {"weights_sha256": sha256(weights), "part": "test", "dataset": "walkers"} | told, {})


@pytest.fixture(scope="module")
def people(walks, weights, tmp_path_factory):
    """A file of two people, one view each, calibrated so that a and b are strangers to each other."""
    folder = tmp_path_factory.mktemp("people")
    file = folder / "people.npz"
    done = identify(weights, "enroll", file, f"anna={walks / 'a1'}", f"bert={walks / 'b1'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{file}: 2 walks of 2 people"
    with np.load(file) as stored:
        enrolled = stored["vectors"]
    validation_file(folder / "features.npz", weights, enrolled, np.linalg.norm(enrolled[0] - enrolled[1]))
    done = identify(weights, "calibrate", file, "--features", folder / "features.npz")
    assert done.returncode == 0 and "calibrated on" in done.stdout, done.stderr
    return file


def test_query(people, walks, weights):
    done = identify(weights, "query", people, walks / "a2", walks / "b2", walks / "b2.avi", "--json")
    assert done.returncode == 0, done.stderr
    a2, b2, video = json.loads(done.stdout)
    assert [a2["answer"], b2["answer"], video["answer"]] == ["anna", "bert", "bert"]
    for result in (a2, b2):
        first, second = result["ranking"]
        assert first["distance"] < result["threshold"] < second["distance"]
        assert first["score"] > 0.9 and second["score"] < 0.1
    assert video["frames"] == FRAMES


def test_a_stranger_is_unknown(people, walks, weights, tmp_path):
    rng = np.random.default_rng(0)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for k in range(FRAMES):
        cv2.imwrite(str(stranger / f"{k:02d}.png"), rng.integers(0, 256, (64, 64, 3), np.uint8))
    done = identify(weights, "query", people, stranger)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"{stranger} ({FRAMES} frames): unknown"
    assert done.stdout.count("beyond the threshold") == 2


def test_full_frames_of_a_still_camera(people, walks, weights, tmp_path):
    """A person who crosses a textured room is cut out, and is as near to their cropped walk as need be."""
    room = np.random.default_rng(3).integers(30, 50, (120, 240, 3)).astype(np.uint8)
    folder = tmp_path / "room"
    folder.mkdir()
    for k in range(20):
        image = room.copy()
        cv2.ellipse(image, (20 + 10 * k, 60), (13, 28), 0, 0, 360, (200, 190, 180), -1)
        cv2.imwrite(str(folder / f"{k:02d}.png"), image)
    (result,) = json.loads(identify(weights, "query", people, folder, "--crop", "--json", "--top", 1).stdout)
    assert len(result["ranking"]) == 1
    assert 15 <= result["frames"] <= 20 and result["ranking"][0]["name"] == "bert"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["query", "{tmp}/nobody.npz", "{walks}/a1"], "nobody.npz"),
        (["query", "{people}", "{walks}/short"], "short: 10 frames; wanted 11 or more"),
        (["query", "{people}", "{walks}/nowhere"], "nowhere: cannot be listed"),
        (["query", "{people}", "{people}"], "people.npz: is not a video that OpenCV can read"),
        (["enroll", "{people}", "{walks}/a1"], "a1: wanted NAME=WALK, such as"),
        (["calibrate", "{people}", "--features", "{people}"], "people.npz: not a feature file of this project"),
    ],
)
def test_bad_input_gives_one_line(people, walks, weights, tmp_path, arguments, message):
    before = people.read_bytes()
    done = identify(weights, *(word.format(people=people, walks=walks, tmp=tmp_path) for word in arguments))
    errors = [line for line in done.stderr.splitlines() if not line.startswith("[")]  # OpenCV's own remarks
    assert done.returncode == 1 and len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]
    assert people.read_bytes() == before


def test_frames_that_fill_the_memory(walks, monkeypatch):
    """A folder's as a video's: 200 kB may be an image of 200 MB."""
    monkeypatch.setattr(tool, "MOST_BYTES", 5 * 64 * 64 * 3)
    for walk in (walks / "a1", walks / "b2.avi"):
        with pytest.raises(ValueError, match=f"{walk}: more than 61440 bytes of frames; cut the walk out of it"):
            tool.whole_walk(walk)
    monkeypatch.setattr(tool, "MOST_BYTES", FRAMES * 64 * 64 * 3)
    assert len(tool.whole_walk(walks / "a1")) == len(tool.whole_walk(walks / "b2.avi")) == FRAMES


def test_who_enrols_beside_another_is_refused(people, walks, weights):
    """Else one of the two would write over what the other enrolled."""
    before = people.read_bytes()
    with only_writer(people, f"{people}.lock"):
        for words in (
            ["enroll", people, f"carl={walks / 'a2'}"],
            ["calibrate", people, "--features", people.parent / "features.npz"],
        ):
            done = identify(weights, *words)
            assert done.returncode == 1
            told = f"another run (process {os.getpid()}) is writing there; wait for that one"
            assert done.stderr == f"error: {people}: {told}\n"
    assert people.read_bytes() == before and not Path(f"{people}.lock").exists()


def test_other_weights_are_refused(people, walks, weights, tmp_path):
    other = tmp_path / "other.caffemodel"
    other.write_bytes(weights.read_bytes() + b"\x9a\x3e\x00")
    done = identify(other, "query", people, walks / "a1")
    assert done.returncode == 1 and "made with other weights" in done.stderr


def test_not_calibrated(walks, weights, tmp_path):
    identify(weights, "enroll", tmp_path / "new.npz", f"anna={walks / 'a1'}")
    done = identify(weights, "query", tmp_path / "new.npz", walks / "a2")
    assert done.returncode == 1 and "not calibrated" in done.stderr


def test_usage(weights):
    assert identify(weights).returncode == 2
    assert identify(weights, "calibrate", "x", "--features", "y", "--false-alarms", "2").returncode == 2
    words = [sys.executable, str(ROOT / "tools/identify.py"), "query", "--help"]
    helped = subprocess.run(words, capture_output=True, text=True)
    assert helped.returncode == 0 and "example: python tools/identify.py query" in helped.stdout


def test_crop_of_what_is_cropped_already_is_a_sentence(weights, tmp_path):
    for k in range(FRAMES):
        (tmp_path / "sizes").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"sizes/{k:02d}.png"), np.full((60 + k, 60, 3), 40, np.uint8))
        (tmp_path / "same").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"same/{k:02d}.png"), np.full((64, 64, 3), 40, np.uint8))
    sentences = {
        "sizes": "frames are of different sizes, as cropped ones are; leave --crop out",
        "same": "found in 0 (--crop is for full frames of a still camera; leave it out",
    }
    for folder, told in sentences.items():
        done = identify(weights, "enroll", tmp_path / "people.npz", f"a={tmp_path / folder}", "--crop")
        assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")


def test_weights_of_another_data_set(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(cli, "default_weights", lambda name: asked.append(name) or tmp_path / "gone.caffemodel")
    for words in (["--dataset", "casiab"], []):
        assert tool.main(["query", str(tmp_path / "p.npz"), str(tmp_path), *words]) == 1
    assert asked == ["casiab", "walkers"] and "gone.caffemodel" in capsys.readouterr().err


def test_people_whom_training_has_seen_do_not_calibrate(weights, tmp_path, capsys):
    file, told = tmp_path / "features.npz", "LEAKED: 1 of 6 test people were trained on (061)"
    validation_file(file, weights, np.zeros((2, 256), np.float32), 1.0, training="leaked", training_told=told)
    words = ["calibrate", tmp_path / "people.npz", "--features", file, "--weights", weights]
    assert tool.main(list(map(str, words))) == 1 and not (tmp_path / "people.npz").exists()
    assert capsys.readouterr().err == f"error: {file}: {told}; wanted people whom training has not seen\n"
