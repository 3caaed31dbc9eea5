"""Who trained a net travels with its weights, along the steps, and counts for these weights alone."""

import json

import pytest

from layers import people
from layers.people import People


@pytest.fixture
def weights(tmp_path):
    def make(name, content=b"weights"):
        path = tmp_path / name
        path.write_bytes(content + name.encode())
        return path

    return make


def test_the_record_follows_the_chain_of_steps(weights):
    seg, rec, sia = (weights(f"gaitnet-{step}_iter_9.caffemodel") for step in ("seg", "rec", "sia"))
    people.write(seg, {"casiab": ["001", "002"]})
    people.write(rec, {"casiab": ["003"]}, [seg])
    people.write(sia, {"outdoor": ["7"]}, [rec])
    assert people.read(sia) == People({"outdoor": ["7"]}, {"casiab": ["001", "002", "003"], "outdoor": ["7"]})
    assert people.read(sia).seen("casiab", ["002", "009"]) == ["002"]
    assert people.record_path(sia).name == "gaitnet-sia_iter_9.people.json"


def test_an_unknown_start_stays_unknown(weights):
    found, rec, sia = weights("found.caffemodel"), weights("rec.caffemodel.h5"), weights("sia.caffemodel")
    people.write(rec, {"casiab": ["003"]}, [found])
    people.write(sia, {"casiab": ["003"]}, [rec])
    assert people.read(sia).unknown == ("found.caffemodel",)


def test_the_record_of_other_weights_counts_for_nothing(weights):
    path = weights("a.caffemodel")
    people.write(path, {"casiab": ["003"]})
    path.write_bytes(b"trained again by hand")
    assert people.read(path) is None
    other = weights("b.caffemodel")
    people.write(other, {"casiab": ["001"]}, [path])
    assert people.read(other).unknown == ("a.caffemodel",)


def test_two_data_layers_add_up(weights):
    path = weights("a.caffemodel")
    people.write(path, {"casiab": ["003"]})
    people.write(path, {"szu": ["1"]})
    assert people.read(path).all == {"casiab": ["003"], "szu": ["1"]}


DAMAGED = [
    "",
    "{",
    "[]",
    "{}",
    '{"weights_sha256": "", "here": [], "all": 1, "unknown": []}',
    '{"weights_sha256": "", "here": {}, "all": {"a": [1]}, "unknown": []}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_one_sentence(weights, content):
    path = weights("a.caffemodel")
    people.record_path(path).write_text(content)
    with pytest.raises(ValueError, match=r"a\.people\.json: not a record of who trained a\.caffemodel") as found:
        people.read(path)
    assert "\n" not in str(found.value)
    people.write(path, {"casiab": ["003"]})
    assert json.loads(people.record_path(path).read_text())["all"] == {"casiab": ["003"]}
