"""Parts of people who are taken for whole ones, in one frame and in all; and whole people in any view."""

import numpy as np
import pytest

from layers.shape import (
    HEADLESS,
    STRANGE,
    parts_of_people,
    read_shape,
    shape_of,
    shape_of_walk,
    strange_frames,
    write_shape,
)
from tools.walkers.sequence import render_sequence

TREE = ("subject", "condition", "view")
LEGS, KNEES, UPPER = (0.5, 1), (0.62, 1), (0, 0.45)  # shares of the height that are left
SEED = 33  # of other people than those whom the limits were chosen by


def rows_of(mask):
    return mask[np.flatnonzero(mask.any(axis=1))[0] : np.flatnonzero(mask.any(axis=1))[-1] + 1]


def cut(person, part):
    return rows_of(person[int(part[0] * len(person)) : int(part[1] * len(person))])


@pytest.fixture(scope="module")
def walks():
    """{path: whole people bool (h, w), one a frame} of two views, normal, with bags and in coats."""
    return {
        f"{number:03d}/{kind}-01/{view:03d}": [
            rows_of(m > 127) for m in render_sequence(SEED, number, f"{kind}-01", kind, view, 6).masks
        ]
        for number in (1, 2)
        for kind in ("nm", "bg", "cl")
        for view in (0, 90)
    }


def shapes(walks, spoilt=None, part=None):
    return {
        path: shape_of_walk([shape_of(cut(person, part) if path == spoilt else person) for person in people])
        for path, people in walks.items()
    }


def test_whole_people_are_not_suspected(walks):
    assert parts_of_people(shapes(walks), TREE) == {}
    assert not any(strange_frames([shape_of(person) for person in people]).any() for people in walks.values())


@pytest.mark.parametrize("part", [LEGS, KNEES])
def test_legs_in_every_frame(walks, part):
    for path in walks:
        assert parts_of_people(shapes(walks, path, part), TREE) == {path: HEADLESS}
        assert parts_of_people({path: shapes(walks, path, part)[path]}, TREE) == {
            path: HEADLESS
        }  # with none to compare


def test_who_has_no_legs_is_unlike_the_cameras_other_walks(walks):
    told = {path: parts_of_people(shapes(walks, path, UPPER), TREE) for path in walks}
    assert all(found.keys() == {path} for path, found in told.items())
    path = next(path for path, found in told.items() if found[path] == STRANGE)  # others have too wide a head besides
    assert parts_of_people(shapes(walks, path, UPPER), ("subject", "condition")) == {}  # whose cameras nobody knows


@pytest.mark.parametrize("part", [LEGS, KNEES, UPPER])
def test_a_part_in_one_frame(walks, part):
    for people in walks.values():
        one = [shape_of(cut(person, part) if i == 2 else person) for i, person in enumerate(people)]
        assert strange_frames(one).tolist() == [False, False, True, False, False, False]


def test_shapes_of_tiny_and_of_no_people():
    assert shape_of(np.ones((15, 3), bool)) is None and shape_of_walk([None, None]) is None
    assert shape_of(np.ones((16, 4), bool)).tolist() == [0.25] * 16
    assert parts_of_people({"001/nm-01/000": None}, TREE) == {}
    assert strange_frames([None, shape_of(np.ones((16, 2), bool))]).tolist() == [False, False]


@pytest.mark.parametrize("text", ["", "null", "[1, 2]", '{"a": 1}', "[" * 5000, '["x"]'])
def test_a_shape_on_disk(tmp_path, text):
    shape = shape_of(np.ones((20, 3), bool))
    write_shape(tmp_path / "a.json", shape)
    np.testing.assert_allclose(read_shape(tmp_path / "a.json"), shape, atol=1e-4)  # which is how it is rounded
    (tmp_path / "b.json").write_text(text)
    assert read_shape(tmp_path / "b.json") is None and read_shape(tmp_path / "c.json") is None
