"""Batches as a function of seed and number, and the quirks of the original."""

import numpy as np
import pytest

from layers.datasets import NUM_FRAMES
from layers.sampling import ClipSampler, PairSampler, ScatteredSampler

LENGTHS = [11, 12, 40, 13, 25, 19, 11]
SUBJECTS = ["a", "a", "b", "b", "b", "c", "c"]


def test_same_seed_same_batches_in_any_order():
    one, other = ClipSampler(LENGTHS, 5, (3, 0)), ClipSampler(LENGTHS, 5, (3, 0))
    expected = [one.batch(n) for n in range(6)]
    for n in (4, 0, 5, 2):
        assert np.array_equal(other.batch(n), expected[n])


@pytest.mark.parametrize("seed", [(4, 0), (3, 1)])
def test_seed_and_phase_matter(seed):
    one, other = ClipSampler(LENGTHS, 50, (3, 0)), ClipSampler(LENGTHS, 50, seed)
    assert not np.array_equal(one.batch(0), other.batch(0))


def test_shuffled_once_then_in_that_order_for_ever():
    sampler = ClipSampler(LENGTHS, 5, (0, 0))
    order = np.concatenate([sampler.batch(n)[0] for n in range(14)])  # 70 clips, ten rounds of 7 sequences
    rounds = order.reshape(10, 7)
    assert sorted(rounds[0]) == list(range(7)) and list(rounds[0]) != list(range(7))
    assert (rounds == rounds[0]).all()


def test_last_window_is_never_drawn():
    sampler = ClipSampler([11], 4000, (1, 0))
    _, start = sampler.batch(0)
    assert set(start) == set(range(11 - NUM_FRAMES))  # 0..4; 5 would be the last window


@pytest.mark.parametrize("num, mined", [(64, 20), (5, 2), (1, 1)])
def test_pairs(num, mined):
    sampler = PairSampler(LENGTHS, SUBJECTS, num, (5, 0))
    subjects = np.array(SUBJECTS)
    following = []
    for n in range(8):
        index, start = sampler.batch(n)
        first, second = index[:num], index[num:]
        assert len(second) == num
        assert (subjects[first[:mined]] == subjects[second[:mined]]).all()
        assert (start < np.array(LENGTHS)[index] - NUM_FRAMES).all()
        following += [*first, *second[mined:]]
    expected = np.resize(sampler.order, len(following))  # all that is not mined follows the one order
    assert np.array_equal(following, expected)


def test_mined_halves_are_drawn_from_all_sequences_of_the_subject():
    sampler = PairSampler(LENGTHS, SUBJECTS, 1, (5, 0))  # the only pair is mined
    drawn = {}
    for n in range(300):
        first, second = sampler.batch(n)[0]
        drawn.setdefault(SUBJECTS[first], set()).add(int(second))
    assert drawn == {"a": {0, 1}, "b": {2, 3, 4}, "c": {5, 6}}


def test_scattered_frames_come_from_six_sequences():
    sampler = ScatteredSampler(LENGTHS, 2, (0, 0))
    drawn = [sampler.batch(n) for n in range(700)]
    assert all(len(index) == len(start) == 2 * NUM_FRAMES for index, start in drawn)
    assert np.array_equal(np.concatenate([index for index, _ in drawn]), np.resize(sampler.order, 700 * 12))
    frames = {(i, f) for index, start in drawn for i, f in zip(index.tolist(), start.tolist())}
    assert frames == {(i, f) for i, length in enumerate(LENGTHS) for f in range(length)}  # every frame, the last too
