import random
from dataclasses import replace

import numpy as np
import pytest

from eval.features import FeatureFileError, Features
from eval.people import Calibration, People, calibrate, logistic_fit, nearest_walks


def walks(rng, people, groups, role, spread=0.6):
    """One walk of each person in each group, vectors (N, 4) around the person's own."""
    labels, views = np.repeat(np.arange(people), groups), np.tile(np.arange(groups), people)
    centres = np.random.default_rng(99).normal(size=(people, 4))
    vectors = (centres[labels] + spread * rng.normal(size=(len(labels), 4))).astype(np.float32)
    empty = np.full(len(labels), "")
    return Features(vectors, labels, views, np.full(len(labels), role), empty, empty)


@pytest.fixture
def sides():
    rng = np.random.default_rng(0)
    return walks(rng, 12, 3, "gallery"), walks(rng, 12, 3, "probe")


def test_nearest_walks():
    people, apart = nearest_walks(np.array([[5, 2, 3.0], [1, 9, 0]]), np.array(["b", "a", "b"]))
    assert people.tolist() == ["a", "b"]
    np.testing.assert_array_equal(apart, [[2, 3], [9, 0]])


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_threshold_keeps_the_rate_of_false_alarms(sides, rate):
    gallery, probe = sides
    found = calibrate(gallery, probe, rate)
    alarms, recognised, trials = 0, 0, 0
    for view in range(3):
        for vector, label in zip(probe.vectors, probe.labels):
            enrolled = gallery.take(gallery.groups == view)
            apart = np.linalg.norm(enrolled.vectors - vector.astype(float), axis=1)
            trials += 1
            alarms += apart[enrolled.labels != label].min() <= found.threshold
            recognised += enrolled.labels[apart.argmin()] == label and apart.min() <= found.threshold
    assert trials == found.trials == 108
    assert alarms == int(rate * trials)  # as many as allowed, and not one more
    assert recognised / trials == pytest.approx(found.detection_rate)


def test_scores_are_probabilities():
    rng = np.random.default_rng(1)
    slope, offset = logistic_fit(rng.normal(2, 1, 4000), rng.normal(4, 1, 8000))
    calibration = Calibration(slope, offset, 1.0, 0.05, 0.5, 2, 2)
    fresh = np.concatenate([rng.normal(2, 1, 20000), rng.normal(4, 1, 20000)])
    same = np.repeat([True, False], 20000)
    scores = calibration.score(fresh)
    for low in np.arange(0.05, 0.95, 0.1):
        chosen = (scores >= low) & (scores < low + 0.1)
        # some 1000 trials a bin: 3 standard errors of a share are 0.05
        assert same[chosen].mean() == pytest.approx(scores[chosen].mean(), abs=0.05)
    # two normal distributions of one width: the log odds are linear, 2 per unit here, and even at 3
    assert slope == pytest.approx(2, rel=0.1) and offset / slope == pytest.approx(3, rel=0.02)


def test_separable_distances_have_a_finite_fit():
    slope, offset = logistic_fit(np.array([1, 2.0]), np.array([8, 9.0]))
    assert np.isfinite([slope, offset]).all()
    assert Calibration(slope, offset, 5, 0.05, 1, 2, 2).score(np.array([1, 9.0])) == pytest.approx([1, 0], abs=0.02)


def test_answers_and_the_file(tmp_path, sides):
    gallery, probe = sides
    calibration = calibrate(gallery, probe, 0.05)
    people = People(np.empty(0, str), np.empty((0, 4), np.float32), np.empty(0, str), "abc", calibration)
    for name, vector in (("anna", [0, 0, 0, 0]), ("bert", [3, 0, 0, 0]), ("anna", [0, 9, 0, 0])):
        people = people.enrolled(name, np.array(vector, np.float32), f"walks/{name}")
    people.write(tmp_path / "people.npz")
    again = People.read(tmp_path / "people.npz")
    assert again.calibration == people.calibration and again.weights_sha256 == "abc"
    (first, near, high), (second, far, low) = again.answer(np.array([0, 8, 0, 0], np.float32))
    assert (first, second) == ("anna", "bert")
    assert near == pytest.approx(1) and far == pytest.approx(np.sqrt(73)) and high > low


def test_one_person_cannot_calibrate(sides):
    one = [side.take(side.labels == 4) for side in sides]
    with pytest.raises(ValueError, match="two or more people"):
        calibrate(*one, 0.05)


@pytest.fixture
def enrolled():
    calibration = Calibration(1, 2, 3, 0.05, 0.9, 2, 4)
    return People(np.array(["a", "b"]), np.ones((2, 4), "f4"), np.array(["w", "x"]), "0" * 64, calibration)


def test_damaged_files_are_refused_or_read(tmp_path, enrolled):
    """400 files: a bit flipped, or cut off."""
    file, rng, taken = tmp_path / "people.npz", random.Random(0), 0
    enrolled.write(file)
    whole = file.read_bytes()
    for n in range(400):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data[: rng.randrange(len(data))] if n % 2 else data)
        try:
            taken += len(People.read(file).names) == 2
        except FeatureFileError as e:
            assert len(str(e)) < 1000
    assert 0 < taken < 200


def test_a_file_that_unpacks_to_much(tmp_path, enrolled, monkeypatch):
    replace(enrolled, vectors=np.zeros((2, 1000), "f4")).write(tmp_path / "people.npz")
    monkeypatch.setattr("eval.features.MOST_BYTES", 2**12)
    with pytest.raises(FeatureFileError, match="not a file of enrolled people .*it unpacks to"):
        People.read(tmp_path / "people.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"names": np.array(["a"])},
        {"names": np.zeros(2)},
        {"vectors": np.ones(2)},
        {"vectors": np.full((2, 4), np.nan)},
        {"walks": np.array("w")},
        {"calibration": Calibration(1, np.inf, 3, 0.05, 0.9, 2, 4)},
        {"calibration": Calibration(1, "2", 3, 0.05, 0.9, 2, 4)},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_people_that_do_not_fit_together(tmp_path, enrolled, change):
    replace(enrolled, **change).write(tmp_path / "people.npz")
    with pytest.raises(FeatureFileError, match="people.npz: not a file of enrolled people"):
        People.read(tmp_path / "people.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02cos\nsystem\n(S'touch hacked'\ntR."])
def test_a_file_that_is_none(tmp_path, content):
    (tmp_path / "people.npz").write_bytes(content)
    with pytest.raises(FeatureFileError, match="people.npz: not a file of enrolled people"):
        People.read(tmp_path / "people.npz")
