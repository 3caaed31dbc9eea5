"""tools/study.py: every arm on a few people, killed in the middle and gone on with; folders of other studies."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import study
from tools.ablation import folder, unit
from tools.ablation.plan import ARMS, QUICK

ROOT = Path(__file__).resolve().parents[2]

STUDY = Path(__file__).resolve().parents[2] / "tools" / "study.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(where, *args):
    return [sys.executable, str(STUDY), "--folder", str(where), "--quick", "--seeds", "1", *args]


def run(where, *args):
    return subprocess.run(command(where, *args), capture_output=True, text=True, env=ENVIRONMENT)


def figures(results):
    """All that must not depend on how often a study was killed."""
    return {
        arm: {seed: {k: v for k, v in one.items() if k != "seconds"} for seed, one in seeds.items()}
        for arm, seeds in results.items()
    }


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study of every arm that was killed while step rec trained, after its first snapshot, and gone on with."""
    where = tmp_path_factory.mktemp("killed") / "study"
    first = subprocess.Popen(command(where), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rec, deadline = where / "seed-1" / "rec", time.monotonic() + 300
    while not list(rec.glob("rec_iter_1.solverstate")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    time.sleep(1)  # the process that trained ends with it
    assert (where / "seed-1/seg/result.json").exists() and not (rec / "result.json").exists()
    told = run(where, "--status")
    assert "Seed 1 so far: seg." in told.stdout and "Seed 1, rec: begun" in told.stdout
    done = run(where)
    assert done.returncode == 0, done.stderr
    assert "Resuming from rec_iter_1.solverstate" in (rec / "log.txt").read_text()
    return where, done


@pytest.mark.medium
def test_every_arm_is_compared(killed):
    where, done = killed
    assert "9 results, 1 of them there" in done.stderr
    results = folder.results(where)
    assert set(results) == set(ARMS) and "Seeds with all 9 arms finished: 1." in done.stdout
    assert (where / "study.png").read_bytes().startswith(b"\x89PNG")
    assert (where / "table.md").read_text() in done.stdout
    for line in (
        "joint - rec-more",
        "sia - joint-more",
        "joint - one-step",
        "true-more - rec-more",
        "GEI, true masks",
        "sia: swapping looks costs",
    ):
        assert line in done.stdout
    for arm, seeds in results.items():
        one = seeds[1]
        assert one["tflop"]["training"] > 0 and set(one["seconds"]) == {"data", "training", "scoring"}
        assert (one["iou"] is None) == arm.startswith("true")
        for found in one["figures"].values():
            assert set(found["rank1"]) == {"NM", "BG", "CL"}
            assert all(len(shares) == QUICK.people for kind in found["rank1"].values() for shares in kind.values())
    assert results["rec"][1]["iou"] == results["rec-more"][1]["iou"] == results["seg"][1]["iou"]  # frozen
    assert results["joint"][1]["iou"] != results["rec"][1]["iou"]
    assert not list(where.rglob("*.solverstate")) and not list(where.rglob("masks.npy"))


@pytest.mark.medium
def test_killed_and_gone_on_with_is_as_never_killed(killed, tmp_path):
    where = tmp_path / "study"
    assert run(where, "--arms", "rec").returncode == 0
    there = figures(folder.results(where))
    assert set(there) == {"seg", "rec"}
    assert there == {arm: figures(folder.results(killed[0]))[arm] for arm in there}


@pytest.mark.medium
def test_other_studies_are_refused_by_name(killed, tmp_path, capsys):
    where = tmp_path / "study"
    where.mkdir()
    made = json.loads((killed[0] / folder.MANIFEST).read_text())
    for name, value, told in (
        ("commit", "0123abc", "a study of commit 0123abc, this is"),
        ("recipe", "0123", "recipe 0123 there"),
        ("size", made["size"] | {"people": 7}, "people 7 there, 2 wanted"),
        ("people", "validation", "people validation there, reported wanted"),
    ):
        (where / folder.MANIFEST).write_text(json.dumps(made | {name: value}))
        assert study.main(["--folder", str(where), "--quick"]) == 1
        said = capsys.readouterr().err
        assert told in said and str(where) in said and len(said.splitlines()) == 1
    (where / folder.MANIFEST).write_text("[")
    assert study.main(["--folder", str(where), "--quick"]) == 1
    assert "not the record of a study" in capsys.readouterr().err
    (where / folder.MANIFEST).unlink()
    shutil.copytree(killed[0] / "seed-1/true-more", where / "seed-1/true-more")
    assert study.main(["--folder", str(where), "--quick"]) == 1
    assert "holds results but no study.json" in capsys.readouterr().err
    assert study.main(["--folder", str(tmp_path / "none"), "--status"]) == 1
    assert "holds no study" in capsys.readouterr().err


@pytest.mark.medium
def test_published_in_the_page(killed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    page = tmp_path / "docs" / "STUDY.md"
    (tmp_path / "docs/img").mkdir(parents=True)
    shutil.copy(STUDY.parents[1] / "docs" / "STUDY.md", page)
    before, _, rest = page.read_text().partition(study.BEGIN)
    for _ in range(2):  # what was there is replaced
        assert study.main(["--folder", str(killed[0]), "--publish"]) == 0
        text = page.read_text()
        assert text.startswith(before) and text.endswith(rest.partition(study.END)[2])
        assert text.count((killed[0] / study.TABLE).read_text()) == 1
    assert (tmp_path / "docs/img/study.png").exists()
    page.write_text("nothing")
    assert study.main(["--folder", str(killed[0]), "--publish"]) == 1
    assert "between which the table belongs" in capsys.readouterr().err and page.read_text() == "nothing"


def test_a_damaged_result_is_named(tmp_path):
    file = tmp_path / "seed-1" / "rec" / unit.RESULT
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(ValueError, match="rec/result.json: not a result"):
        folder.results(tmp_path)


@pytest.mark.parametrize("args", [("--arms", "jont"), ("--people", "1"), ("--seeds", "0")])
def test_usage(args, capsys):
    with pytest.raises(SystemExit) as stopped:
        study.main(list(args))
    assert stopped.value.code == 2 and f"argument {args[0]}" in capsys.readouterr().err


def test_arms_bring_what_they_need():
    assert study.with_parents(["rec-more"]) == ["seg", "rec", "rec-more"]
    assert study.with_parents(["true-more"]) == ["true-rec", "true-more"]
    assert study.with_parents(["one-step"]) == ["one-step"]


SERVER = """
import multiprocessing.forkserver, os, sys
sys.path.insert(0, {root!r})
from tools import study
study.unit.run = os._exit
study.start(0).join()
print(open(f"/proc/{{multiprocessing.forkserver._forkserver._forkserver_pid}}/status").read())
"""


@pytest.mark.medium
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells which signals a process hears")
def test_the_server_of_processes_does_not_hear_ctrl_c():
    """While it imports what they need it would end with a traceback."""
    words = [sys.executable, "-c", SERVER.format(root=str(ROOT))]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert int(re.search(r"SigBlk:\s*(\w+)", told)[1], 16) & 1 << signal.SIGINT - 1
