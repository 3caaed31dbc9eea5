"""After a power cut at any time the same command goes on: a few disks of each command here, all in the slow run.

What is tried, and how: tests/crash/disk.py and scenarios.py. `python -m tests.crash.run NAME` tries any number."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import disk, trace
from tests.crash.disk import Inode, Op, Recording
from tests.crash.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
STATES = int(os.environ.get("GAITNET_CUTS", 100000))  # of the slow run: all there are
needs_strace = pytest.mark.skipif(not trace.can_record(), reason="strace records what a command does to the disk")


def tried(name, states):
    """(states, tried, wrong) of a run, and what it printed."""
    command = [sys.executable, "-m", "tests.crash.run", name, "--states", str(states)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    counts = re.search(rf"^{name}: (\d+) states, (\d+) tried, (\d+) wrong$", done.stdout, re.MULTILINE)
    assert counts, done.stdout + done.stderr
    return *map(int, counts.groups()), done.stdout


@needs_strace
@pytest.mark.medium
@pytest.mark.parametrize("name", ["train", "pack", "evaluate", "enroll", "walkers"])
def test_after_a_power_cut_the_same_command_goes_on(name):
    states = 5 if name == "evaluate" else 20
    every, number, wrong, told = tried(name, states)
    assert number == states < every and wrong == 0, told


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"careless"}))
def test_after_every_power_cut_the_same_command_goes_on(name):
    *_, wrong, told = tried(name, STATES)
    assert wrong == 0, told


@needs_strace
@pytest.mark.medium
def test_the_search_finds_what_a_careless_writer_loses():
    *_, wrong, told = tried("careless", 60)
    assert wrong > 5 and "not a file of enrolled people" in told and "who was told to be enrolled is lost" in told


def recording(*ops):
    """Of a folder with the file "a", inode 1, that holds "old"."""
    made = Recording()
    made.names[0]["a"] = made.add(Inode(False, b"old"))
    made.add(Inode(False))
    made.ops = list(ops)
    return made


def contents(made):
    return {state.files for state in disk.states(made, 0)}


REPLACE = (Op("name", 2, 0, "a.tmp"), Op("write", 2, data=b"new"), Op("rename", 2, 0, "a", before=(0, "a.tmp")))


def test_a_renamed_file_may_be_empty_or_zero_unless_it_was_synced():
    assert {(("a", b""),), (("a", b"\0\0\0"),), (("a", b"old"),), (("a", b"new"),)} <= contents(recording(*REPLACE))
    synced = contents(recording(*REPLACE[:2], Op("sync", 2), REPLACE[2]))
    assert {dict(files)["a"] for files in synced} == {b"old", b"new"}


def test_what_was_renamed_is_there_for_good_once_its_folder_was_synced():
    safe = recording(*REPLACE[:2], Op("sync", 2), REPLACE[2], Op("sync", 0), Op("say", text="done\n"))
    after = {state.files for state in disk.states(safe, 0) if state.said}
    assert after == {(("a", b"new"),)}
    unsafe = recording(*REPLACE[:2], Op("sync", 2), REPLACE[2], Op("say", text="done\n"))
    assert (("a", b"old"),) in {tuple(f for f in s.files if f[0] == "a") for s in disk.states(unsafe, 0) if s.said}


def test_writes_are_torn_between_sectors_alone():
    made = recording(Op("write", 1, data=b"n" * 1200), Op("say", text="x"))
    sizes = {len(dict(files)["a"].rstrip(b"\0")) for files in contents(made)}
    assert sizes <= {3, 512, 1024, 1200} and {3, 1200} < sizes


@needs_strace
@pytest.mark.medium
def test_a_recording_is_what_happened(tmp_path):
    """Every way in which Python, NumPy and LMDB write; a shared map, which strace does not see, is refused."""
    script = """
import os, lmdb, numpy as np
os.makedirs("f/g"); open("f/g/x,y (1)", "w").write("é" * 3000)
with open("a", "r+b") as f: f.seek(2); f.write(b"middle"); f.truncate(20); f.flush(); os.fsync(f.fileno())
np.save("n.npy", np.arange(3000)); np.arange(9).tofile("t")
os.pwrite(os.open("p", os.O_RDWR | os.O_CREAT), b"far", 5000)
os.writev(os.open("v", os.O_WRONLY | os.O_CREAT), [b"one", b"two"])
with lmdb.open("l", map_size=2**20, lock=False) as e, e.begin(write=True) as t: t.put(b"k", b"v" * 9000)
os.rename("f/g", "h"); os.unlink("t"); os.rmdir("f"); print("said")
"""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").write_text("before")
    made = trace.record([sys.executable, "-c", script], tmp_path / "root", tmp_path / "trace")
    files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    found = {str(path.relative_to(tmp_path / "root")): path.read_bytes() for path in files}
    assert dict(disk.end(made).files) == found and len(found) == 6
    shutil.rmtree(tmp_path / "root")
    (tmp_path / "root").mkdir()
    mapped = "import numpy as np; np.memmap('m', 'u1', 'w+', shape=9)[:] = 1"
    with pytest.raises(trace.Unmodelled, match="writing through a map"):
        trace.record([sys.executable, "-c", mapped], tmp_path / "root", tmp_path / "second")
