"""What is written whole: in which order it reaches the disk, and that the project has one way of doing it."""

import errno
import os
import re
from pathlib import Path

import pytest

from caffe import whole

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def done(monkeypatch):
    """What was synced and renamed, by name, in order."""
    calls = []
    sync, replace = os.fsync, os.replace

    def fsync(number):
        calls.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{number}'))}")
        sync(number)

    def rename(draft, path):
        calls.append(f"rename {os.path.basename(path)}")
        replace(draft, path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    return calls


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="/proc tells which file is synced")


@linux
def test_contents_come_before_the_name_and_the_name_before_the_end(tmp_path, done):
    whole.write(tmp_path / "a", "é\n")
    assert done == [f"sync a.tmp{os.getpid()}", "rename a", f"sync {tmp_path.name}"]
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"


@linux
def test_a_folder_takes_its_name_with_all_that_is_in_it(tmp_path, done):
    (tmp_path / "draft/below").mkdir(parents=True)
    (tmp_path / "draft/below/x").write_text("x")
    os.symlink("below/x", tmp_path / "draft/link")
    whole.put(tmp_path / "draft", tmp_path / "walk")
    assert sorted(done[:3]) == ["sync below", "sync draft", "sync x"]
    assert done[3:] == ["rename walk", f"sync {tmp_path.name}"]


@linux
def test_a_new_folder_is_known_to_those_above(tmp_path, done):
    whole.make_folder(tmp_path / "a/b")
    whole.make_folder(tmp_path / "a/b")
    assert done == [f"sync {tmp_path.name}", "sync a"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        whole.make_folder(tmp_path / "file")


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    whole.write(tmp_path / "a", b"old")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        whole.write(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    """Root would make a file of /dev/null; of a pipe, whoever waits for it would never hear."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    os.symlink("/dev/null", tmp_path / "null")
    os.symlink("/proc/self/fd/1", tmp_path / "stdout")  # as /dev/stdout is
    before = {path.name: path.lstat() for path in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(OSError, match="it is no regular file" if name != "folder" else "Is a directory"):
            whole.write(tmp_path / name, b"new")
    assert {path.name: path.lstat() for path in tmp_path.iterdir()} == before


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"old")
    os.symlink("elsewhere", tmp_path / "a")
    whole.write(tmp_path / "a", b"new")
    assert not (tmp_path / "a").is_symlink() and (tmp_path / "elsewhere").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "with 'quotes\"\nand a line"])
def test_names_as_long_as_can_be(tmp_path, name):
    whole.write(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


def test_nothing_else_in_the_project_renames_what_it_wrote():
    rooms = [ROOT / room for room in ("caffe", "layers", "models", "eval", "tools")]
    found = [
        path
        for room in rooms
        for path in room.rglob("*.py")
        if re.search(r"os\.replace\(|\.replace\(path\)", path.read_text())
    ]
    assert found == [ROOT / "caffe/whole.py"]
