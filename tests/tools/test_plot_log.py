"""plot_log reads what Caffe printed: BVLC Caffe's own log, whose numbers its log parser wrote to CSV files."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "tests" / "golden" / "log"
sys.path.insert(0, str(ROOT / "tools"))

import plot_log  # noqa: E402


def run(*args, cwd):
    command = [sys.executable, str(ROOT / "tools" / "plot_log.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("name", ["train", "resume"])
@pytest.mark.parametrize("phase", ["train", "test"])
def test_the_numbers_of_caffes_own_log_parser(name, phase):
    curves = plot_log.read(str(LOGS / f"{name}.log"))
    with open(LOGS / f"{name}.log.{phase}") as f:
        rows = list(csv.DictReader(f))
    outputs = set(rows[0]) - {"NumIters", "Seconds", "LearningRate"}
    assert {quantity for quantity, p in curves if p == phase} - {"loss (mean)", "lr"} == outputs
    for output in outputs:
        assert curves[output, phase] == {int(float(r["NumIters"])): float(r[output]) for r in rows}


def test_rates_and_the_joined_run():
    first, second = (plot_log.read(str(LOGS / f"{name}.log")) for name in ("train", "resume"))
    assert first["lr", "train"][0] == 0.02 and first["lr", "train"][90] == 0.005
    both = plot_log.read(f"{LOGS}/train.log+{LOGS}/resume.log")
    assert both["loss", "train"] == first["loss", "train"] | second["loss", "train"]


def test_what_a_log_may_hold_besides(tmp_path):
    (tmp_path / "a.log").write_bytes(
        b"\xff\xfe not UTF-8\nTrain net output #0: stray = 1\n"
        b"I1122 10:00:00.0 1 solver.cpp:239] Iteration 20 (1.5e-05 iter/s, 3s/20 iters), loss = nan\n"
        b"I1122 10:00:00.0 1 solver.cpp:347] Iteration 20, Testing net (#1)\n"
        b"I1122 10:00:00.0 1 solver.cpp:414]     Test net output #0: acc = 1e-05\n"
    )
    curves = plot_log.read(str(tmp_path / "a.log"))
    assert curves["acc (#1)", "test"] == {20: 1e-5}
    assert str(curves["loss (mean)", "train"]) == "{20: nan}"
    assert len(curves) == 2


@pytest.mark.medium
def test_the_picture(tmp_path):
    made = run(LOGS / "train.log", LOGS / "resume.log", "--output", "p.png", cwd=tmp_path)
    assert (made.returncode, made.stdout, made.stderr) == (0, "p.png\n", "")
    picture = cv2.imread(str(tmp_path / "p.png"))
    height, width = picture.shape[:2]
    assert width > height > 300  # five panels: two rows of three
    for color in ((0xB4, 0x77, 0x1F), (0x0E, 0x7F, 0xFF)):  # matplotlib's first two, in BGR: one a run
        assert (picture == color).all(2).sum() > 500


@pytest.mark.medium
def test_mistakes(tmp_path):
    (tmp_path / "empty.log").write_text("nothing here\n")
    for args, told in (
        (["absent.log"], "error: absent.log: No such file or directory"),
        (["empty.log"], "warning: empty.log: left out, no line of it tells of an iteration\nerror: no log tells of"),
        ([LOGS / "train.log", "--output", "p.xyz"], "error: p.xyz: cannot draw .xyz"),
    ):
        made = run(*args, cwd=tmp_path)
        assert made.returncode == 1 and made.stderr.startswith(told) and "Traceback" not in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.log"]


def test_a_log_that_ended_early_is_left_out(tmp_path):
    (tmp_path / "early.log").write_text("nothing here\n")
    made = run("early.log", LOGS / "train.log", "--output", "p.png", cwd=tmp_path)
    assert made.returncode == 0 and "early.log: left out" in made.stderr and (tmp_path / "p.png").exists()
