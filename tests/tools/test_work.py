"""Threads that keep order and do not run ahead; progress lines in a log."""

import importlib
import os
import threading
import time

import pytest

from tools import work


def test_in_order_and_few_ahead():
    started = []

    def slow_first(n):
        started.append(n)
        time.sleep(0.05 if n == 0 else 0)
        return n * n

    results = work.in_order(slow_first, range(50), jobs=3)
    assert next(results) == 0
    assert len(started) <= 2 * 3 + 1  # items are taken up only as results are
    assert list(results) == [n * n for n in range(1, 50)]


def test_in_order_raises_what_an_item_raised():
    def fail_at_two(n):
        if n == 2:
            raise OSError("two")
        return threading.get_ident()

    with pytest.raises(OSError, match="two"):
        list(work.in_order(fail_at_two, range(5), jobs=2))


def test_lines_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(work, "LINE_EVERY", 0)
    with work.Progress(3, "frames", "packing") as progress:
        progress.update(2)
        progress.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        "packing: 2 of 3 frames", "packing: 3 of 3 frames", "packing: 3 of 3 frames",
    ]  # fmt: skip


def test_one_run_in_a_folder(tmp_path):
    folder = tmp_path / "new"
    with work.only_run(folder):
        with pytest.raises(OSError, match=rf"new: another run \(process {os.getpid()}\) is writing there; wait"):
            with work.only_run(folder):
                pass
    with work.only_run(folder):  # free again
        pass
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", [
    ["make_walkers.py", "--subjects", "1", "--out"],
    ["crop.py", "szu", "--frames", "{in}", "--masks", "{in}", "--out"],
])  # fmt: skip
def test_tools_that_write_a_tree_are_refused_beside_another(tmp_path, command):
    (tmp_path / "in" / "001" / "1").mkdir(parents=True)
    tool, *words = [word.replace("{in}", str(tmp_path / "in")) for word in command]
    main = importlib.import_module(f"tools.{tool.removesuffix('.py')}").main
    with work.only_run(tmp_path / "out"):
        before = sorted(tmp_path.rglob("*"))
        assert main([*words, str(tmp_path / "out")]) == 1
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("tool", ["check_data", "crop", "pack_frames", "make_walkers"])
def test_no_workers_is_wrong_usage(tool, capsys, monkeypatch):
    words = {"make_walkers": [], "crop": ["casiab", "--frames", "x", "--masks", "y"]}.get(tool, ["casiab"])
    monkeypatch.setattr("sys.argv", [tool, *words, "--jobs", "0"])
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"tools.{tool}").main()
    assert left.value.code == 2 and "argument --jobs" in capsys.readouterr().err
