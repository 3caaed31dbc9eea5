"""Finding the person in masks: the box of a known one, what is no whole person, and who is followed."""

import numpy as np
import pytest

from tests.tools.people import HEIGHT, WIDTH, person, picture
from tools.person import OFF_COURSE, cut_pair, follow, numbers_of


def only_part(mask):
    ((part, reason),) = follow([mask])
    assert reason is None
    return part


def test_box_of_a_known_person():
    left, top, side = only_part(person(left=50, top=20, width=20, height=80)).box()
    assert side == 90  # 1.125 x 80
    # The middle of the person is in the middle of the box: columns 50..69, rows 20..99.
    assert left + (side - 1) / 2 == pytest.approx(59.5, abs=0.5)
    assert top + (side - 1) / 2 == pytest.approx(59.5, abs=0.5)


def test_box_is_as_wide_as_a_wide_person():
    _, _, side = only_part(person(left=30, top=50, width=64, height=32)).box()
    assert side == 72


def test_centre_is_the_median_column_not_the_outstretched_arm():
    mask = person(left=50, top=20, width=20, height=80)
    mask[30:34, 70:110] = 255
    left, _, side = only_part(mask).box()
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
    assert follow([mask]) == [(None, reason)]


def test_clean_keeps_a_head_that_hangs_off_and_drops_specks():
    body, head = person(50, 40, 20, 60), person(56, 28, 8, 9)  # three empty rows between
    speck = person(120, 30, 5, 5)
    grey = (body | head) // 255 * 200 + speck // 255 * 255 + person(0, 0, 160, 5) // 255 * 100
    assert np.array_equal(only_part(grey.astype(np.uint8)).mask(), body | head)


def test_box_beyond_the_picture_repeats_the_border():
    mask = person(left=8, top=10, width=20, height=100)
    frame = picture(mask)
    frame[:, 0] = (1, 2, 3)
    cropped, cropped_mask = cut_pair(frame, only_part(mask))
    assert cropped.shape == (112, 112, 3) and cropped_mask.shape == (112, 112)
    assert (cropped[50, :30] == (1, 2, 3)).all() and not cropped_mask[:, :30].any()
    assert np.array_equal(cropped_mask > 0, (cropped == (40, 200, 60)).all(axis=2))
    assert cropped_mask.any(axis=1).sum() == 100


def walk(frames=30, height=64, left=6, step=3):
    """Masks of one who walks from left to right."""
    return [person(left=left + step * i, top=30, width=12, height=height) for i in range(frames)]


def reasons(masks, numbers=None):
    return {i: reason for i, (_, reason) in enumerate(follow(masks, numbers)) if reason}


def test_a_larger_person_who_comes_and_goes_is_not_followed():
    masks = walk()
    for i in range(10, 20):
        masks[i] = masks[i] | person(left=110 - 2 * (i - 10), top=8, width=24, height=100)
    found = follow(masks)
    assert [part.height for part, _ in found] == [64] * 30
    assert [part.left for part, _ in found] == [6 + 3 * i for i in range(30)]


def test_clutter_that_stands_still_is_not_the_person():
    masks = [mask | person(left=100, top=4, width=9, height=18) for mask in walk()]
    assert {part.height for part, _ in follow(masks) if part} == {64}


@pytest.mark.parametrize("where", [range(3, 6), range(4), range(22, 30), range(8, 19)])
def test_legs_alone_are_no_whole_person(where):
    masks = walk()
    for i in where:
        masks[i][:66] = 0  # the upper 36 of 64 rows
    assert reasons(masks) == dict.fromkeys(where, OFF_COURSE)


def test_a_centre_that_jumps_is_off_course():
    masks = walk()
    masks[12] = person(left=42, top=48, width=12, height=64)
    masks[20] = person(left=140, top=30, width=12, height=64)
    assert reasons(masks) == {12: OFF_COURSE, 20: OFF_COURSE}


def test_who_comes_nearer_stays_on_course():
    heights = np.round(36 * 1.025 ** np.arange(40)).astype(int)
    masks = [person(left=60, top=110 - h, width=h // 3, height=h) for h in heights]
    assert reasons(masks) == {}


def test_a_gap_in_the_numbers_is_time_to_walk_on():
    masks = walk()
    kept = [*range(8), *range(22, 30)]
    assert reasons([masks[i] for i in kept], kept) == {}
    assert reasons([masks[i] for i in kept])  # as neighbours, the second half would be a jump


@pytest.mark.parametrize(
    "names, numbers",
    [
        (["001-nm-01-090-007", "001-nm-01-090-019"], [7, 19]),
        (["a", "b", "c"], [0, 1, 2]),
        (["x2", "x10", "x1"], [0, 1, 2]),
    ],
)
def test_numbers_of_names(names, numbers):
    assert numbers_of(names) == numbers
