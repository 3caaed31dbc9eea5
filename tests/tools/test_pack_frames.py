"""Packing: equal to the trees bit by bit, resumable, never served half written, cut off or stale."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

from caffe.locks import hold
from layers import pack
from layers.datasets import DATASETS
from layers.frames import DataError, Tree
from layers.hygiene import copies
from layers.sources import open_frames
from tests.layers.packs import index_of, write_index
from tests.layers.trees import write_sequence, write_walkers

pytestmark = pytest.mark.medium  # each runs the tool
TOOL = Path(__file__).resolve().parents[2] / "tools" / "pack_frames.py"


def command(root, *args):
    return [
        sys.executable,
        str(TOOL),
        "walkers",
        "--im-path",
        str(root / "crop-im"),
        "--gt-path",
        str(root / "crop-seg"),
        *args,
    ]


def run(root, *args):
    return subprocess.run(command(root, *args), capture_output=True, text=True)


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory):
    root = write_walkers(tmp_path_factory.mktemp("data") / "Walkers", subjects=3)
    os.remove(root / "crop-seg/002/nm-01/000/004.png")
    done = run(root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def root(packed_once, tmp_path):
    """A copy of the trees and their pack, times included, that a test may spoil."""
    return shutil.copytree(packed_once, tmp_path / "Walkers")


def trees(root):
    return Tree(str(root / "crop-im"), str(root / "crop-seg"))


def assert_equal(root):
    tree, packed = trees(root), open_frames(root / "pack")
    assert list(packed.sequences) == DATASETS["walkers"].paths(root / "crop-im")
    for path in packed.sequences:
        n = tree.length(path)
        assert np.array_equal(packed.clip(path, 0, n)[0], tree.clip(path, 0, n)[0])


def test_pack_equals_trees(root):
    tree, packed = trees(root), open_frames(root / "pack")
    paths = DATASETS["walkers"].paths(root / "crop-im")
    assert len(paths) == 18
    for path in paths:
        n = tree.length(path)
        assert (packed.length(path), packed.num_masks(path)) == (n, tree.num_masks(path))
        for one, other in zip(packed.clip(path, 0, n), tree.clip(path, 0, n)):
            assert one.dtype == np.uint8 and np.array_equal(one, other)
    assert packed.num_masks("002/nm-01/000") == packed.length("002/nm-01/000") - 1


def test_a_dataset_reads_a_pack_like_a_tree(root):
    walkers = DATASETS["walkers"]
    assert walkers.subjects(open_frames(root / "pack")) == ["001", "002", "003"]
    sequences = walkers.sequences(open_frames(root / "pack"), ["002"])
    assert sequences == walkers.sequences(root / "crop-im", ["002"])


def test_pack_beside_the_trees_is_read_in_their_place(root, tmp_path):
    assert isinstance(open_frames(root / "crop-im", root / "crop-seg"), pack.Pack)
    other = shutil.copytree(root / "crop-seg", tmp_path / "other-seg")
    assert isinstance(open_frames(root / "crop-im", other), Tree)


def test_pack_with_other_masks_is_refused(root):
    assert open_frames(root / "pack", root / "crop-seg") is open_frames(root / "pack")
    with pytest.raises(DataError, match="holds other masks"):
        open_frames(root / "pack", root / "crop-im")


def test_clip_beyond_the_end_and_unknown_sequence(root):
    packed = open_frames(root / "pack")
    with pytest.raises(DataError, match="001/nm-01/000: holds 1[123] frames, wanted 9..14"):
        packed.clip("001/nm-01/000", 9, 6)
    with pytest.raises(DataError, match="holds no sequence 009/nm-01/000"):
        packed.clip("009/nm-01/000", 0, 6)


@pytest.mark.parametrize("replace", [True, False])
def test_pack_replaced_or_removed_while_in_use(root, replace):
    expected = trees(root).clip("002/nm-01/000", 0, 6)[0]
    packed = open_frames(root / "pack")
    if replace:
        remove_subject(root, "001")
        assert run(root).returncode == 0
    else:
        shutil.rmtree(root / "pack")
    assert np.array_equal(packed.clip("002/nm-01/000", 0, 6)[0], expected)
    assert packed.clip("001/nm-01/000", 0, 6)[0].any()  # no longer in the new pack


def test_second_run_does_nothing(root):
    before = os.stat(root / "pack/data.mdb").st_mtime_ns
    done = run(root)
    assert (done.returncode, done.stdout) == (0, f"{root}/pack: up to date\n")
    assert os.stat(root / "pack/data.mdb").st_mtime_ns == before
    assert os.listdir(root / "pack") == ["data.mdb"]


def add_frame(root):
    shutil.copy(root / "crop-im/001/nm-01/000/001.png", root / "crop-im/001/nm-01/000/099.png")


def remove_mask(root):
    os.remove(root / "crop-seg/003/bg-01/090/002.png")


def replace_frame(root):
    shutil.copy(root / "crop-im/001/nm-01/000/001.png", root / "crop-im/001/nm-01/000/new")
    os.replace(root / "crop-im/001/nm-01/000/new", root / "crop-im/001/nm-01/000/005.png")


def add_sequence(root):
    write_sequence(root, "001/nm-03/000", 11, np.random.default_rng(0))


def remove_subject(root, subject="003"):
    shutil.rmtree(root / "crop-im" / subject)


@pytest.mark.parametrize("change", [add_frame, remove_mask, replace_frame, add_sequence, remove_subject])
def test_stale_pack_is_refused_then_brought_up_to_date(root, change, caplog):
    time.sleep(0.01)  # the clock of the file system ticks every few milliseconds
    change(root)
    with pytest.raises(DataError, match="is stale, 00./..-0./0.0 of its source has changed"):
        open_frames(root / "pack")
    assert isinstance(open_frames(root / "crop-im", root / "crop-seg"), Tree)
    assert "is stale" in caplog.text and "reading the trees instead" in caplog.text
    done = run(root)
    assert done.returncode == 0, done.stderr
    assert "sequences are there already" in done.stderr  # decodes only what is new
    assert_equal(root)


def test_pack_without_its_trees_is_served(root):
    for tree in ("crop-im", "crop-seg"):
        os.rename(root / tree, root / f"away-{tree}")
    assert open_frames(root / "pack").clip("001/nm-01/000", 0, 6)[0].any()


@pytest.mark.parametrize("left", [-1, -4096, 100, 0])
def test_cut_off_pack_is_refused_then_mended(root, left):
    file = root / "pack/data.mdb"
    os.truncate(file, left if left >= 0 else os.path.getsize(file) + left)
    with pytest.raises(DataError, match=r"ends without an index \(half written, or cut off\); run python tools/pack_"):
        open_frames(root / "pack")
    assert run(root).returncode == 0
    assert_equal(root)


def test_pack_of_another_format_is_refused(root):
    with open(root / "pack/data.mdb", "r+b") as file:
        write_index(file, index_of(file) | {"format": 1})
    with pytest.raises(DataError, match="is of format 1, wanted 3"):
        open_frames(root / "pack")


def test_pack_with_a_damaged_index_is_refused(root):
    with open(root / "pack/data.mdb", "r+b") as file:
        file.seek(-pack.END.size - 20, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(DataError, match="its index is damaged"):
        open_frames(root / "pack")


def test_the_body_of_a_pack_is_an_lmdb(root):
    with lmdb.open(str(root / "pack/data.mdb"), subdir=False, readonly=True, lock=False) as env, env.begin() as txn:
        for path, entry in open_frames(root / "pack").sequences.items():
            assert json.loads(txn.get(f"entry/{path}".encode())).items() <= entry.items()
            planes = np.frombuffer(txn.get(f"planes/{path}".encode()), np.uint8).reshape(-1, 4, 64, 64)
            assert np.array_equal(planes[2:8], open_frames(root / "pack").read(path, 2, np.empty_like(planes[2:8])))


def test_pack_that_another_program_rewrote_is_refused_then_mended(root):
    file = root / "pack/data.mdb"
    with open(file, "r+b") as opened:
        index = index_of(opened)
    with lmdb.open(str(file), subdir=False, lock=False, map_size=1 << 28) as env, env.begin(write=True) as txn:
        txn.delete(b"entry/001/nm-01/000")
    with open(file, "r+b") as opened:  # also where that program leaves the end of the file alone
        write_index(opened, index)
    with pytest.raises(DataError, match="was rewritten by another program"):
        open_frames(root / "pack")
    assert run(root).returncode == 0
    assert_equal(root)


def test_frames_damaged_in_a_stale_pack_are_decoded_anew(root):
    at = open_frames(root / "pack").sequences["001/nm-01/000"]["offset"]
    with open(root / "pack/data.mdb", "r+b") as file:
        file.seek(at + 5000)
        file.write(b"damaged")
    remove_subject(root)
    assert run(root).returncode == 0
    assert_equal(root)


def test_pack_cut_off_while_it_is_read(root):
    packed = open_frames(root / "pack")
    os.truncate(root / "pack/data.mdb", 4096)
    with pytest.raises(DataError, match="cut off while it was read"):
        packed.clip("001/nm-01/000", 0, 6)


def test_verify(root):
    assert run(root, "--verify").returncode == 0
    # Overwritten in place: no time of a folder tells of it.
    image = (root / "crop-im/001/nm-01/000/002.png").read_bytes()
    (root / "crop-im/001/nm-01/000/001.png").write_bytes(image)
    done = run(root, "--verify")
    assert done.returncode == 1 and "001/nm-01/000 differs from its files" in done.stderr


def test_unreadable_file_is_named_and_nothing_is_served(root):
    shutil.rmtree(root / "pack")
    os.truncate(root / "crop-im/002/nm-02/000/007.png", 50)
    done = run(root)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "002/nm-02/000/007.png: is not a whole image" in done.stderr
    assert "error: 1 of 18 sequences cannot be packed" in done.stderr
    assert not pack.is_pack(root / "pack")
    for tree in ("crop-im", "crop-seg"):
        os.remove(root / tree / "002/nm-02/000/007.png")
    done = run(root)
    assert done.returncode == 0 and "17 of 18 sequences are there already" in done.stderr
    assert_equal(root)


@pytest.mark.medium
def test_killed_run_goes_on(tmp_path):
    # 16 sequences of 700 frames, 11 MB each in the pack: three chunks of 64 MB to be killed in.
    root = tmp_path / "Walkers"
    write_sequence(root, "001/nm-01/000", 700, np.random.default_rng(0))
    for n in range(1, 16):
        for tree in ("crop-im", "crop-seg"):
            folder = root / tree / f"001/nm-01/{n:03d}"
            folder.mkdir()
            for file in (root / tree / "001/nm-01/000").iterdir():
                os.link(file, folder / file.name)
    process = subprocess.Popen(command(root, "--jobs", "1"), stderr=subprocess.PIPE)
    partial = root / "pack/data.mdb.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 70 << 20):  # a first chunk is there
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not pack.is_pack(root / "pack")
    done = run(root)
    assert done.returncode == 0, done.stderr
    kept = int(done.stderr.split("data.mdb.partial: ")[1].split(" of 16 ")[0])
    assert 5 <= kept < 16
    tree, packed = trees(root), open_frames(root / "pack")
    assert np.array_equal(packed.clip("001/nm-01/014", 690, 10)[0], tree.clip("001/nm-01/000", 690, 10)[0])


@pytest.mark.parametrize(
    "args, message",
    [
        (["--im-path", "/nowhere"], "error: /nowhere: no such folder. Walkers: rendered on this machine"),
        (["--im-path", "{empty}"], "holds no sequence; Walkers has <subject>/<condition>/<view>/<frames>"),
    ],
)
def test_bad_arguments(root, tmp_path, args, message):
    (tmp_path / "empty").mkdir()
    done = run(root, *(arg.format(empty=tmp_path / "empty") for arg in args))
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_walks_without_frames_are_packed_as_such(tmp_path):
    """Folders that somebody left empty, after every walk, so that one lies first in a page of LMDB's."""
    root = write_walkers(tmp_path / "Walkers", subjects=3)
    for subject in ("001", "002", "003"):
        for condition in ("nm-01", "zz"):
            (root / "crop-im" / subject / condition / "180").mkdir(parents=True)
    done = run(root)
    assert done.returncode == 0, done.stderr
    packed = open_frames(root / "pack")
    assert packed.length("003/zz/180") == 0 and packed.length("003/nm-01/090") > 0
    assert packed.sequences["003/zz/180"]["offset"] == 0
    assert_equal(root)


def test_walks_with_the_same_pictures_are_known_from_the_pack(root):
    for tree in ("crop-im", "crop-seg"):
        shutil.rmtree(root / tree / "002/nm-02/090")
        shutil.copytree(root / tree / "002/nm-01/000", root / tree / "002/nm-02/090")
    assert run(root).returncode == 0
    paths = ["001/nm-01/000", "002/nm-01/000", "002/nm-02/090"]
    assert copies(open_frames(root / "pack"), paths) == ["002/nm-01/000 = 002/nm-02/090"]
    assert copies(trees(root), paths) == []  # nobody has read it


def test_two_at_once_are_refused(root):
    os.remove(root / "pack/data.mdb")
    with hold(root / "pack/data.mdb.partial.lock"):
        done = run(root)
    assert done.returncode == 1
    assert f"data.mdb.partial: another run (process {os.getpid()}) is writing there; wait for that one" in done.stderr
