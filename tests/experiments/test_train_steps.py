"""experiments/*/train_net.sh, with a stand-in for the caffe command that writes what Caffe would."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CAFFE = """#!/bin/sh
echo "caffe $*" >>calls
echo "PYTHONPATH=$PYTHONPATH"
step=$(echo "$2" | sed 's/--solver=solver-\\(.*\\).prototxt/\\1/')
last=$(sed -n 's/^max_iter: //p' "solver-$step.prototxt")
[ "$step" != "${FAIL_AT:-none}" ] || { echo "Check failed: it broke"; exit 134; }
[ "$step" != "${STOP_AT:-none}" ] || last=7
touch "gaitnet-${step}_iter_$last.caffemodel" "gaitnet-${step}_iter_$last.solverstate"
"""


@pytest.fixture(params=["walkers", "casiab"])
def experiment(request, tmp_path):
    """A copy of experiments/, and a folder that CAFFE_ROOT can name."""
    shutil.copytree(
        ROOT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("*_iter_*", "*.log", "before-*")
    )
    caffe = tmp_path / "caffe/build/tools/caffe"
    caffe.parent.mkdir(parents=True)
    caffe.write_text(CAFFE)
    caffe.chmod(0o755)
    return tmp_path / "experiments" / request.param


def run(experiment, *steps, **env):
    env = {**os.environ, "CAFFE_ROOT": str(experiment.parent.parent / "caffe"), **env}
    command = ["sh", str(experiment / "train_net.sh"), *steps]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=60)


def calls(experiment):
    lines = (experiment / "calls").read_text().splitlines()
    return [line.removeprefix("caffe train --solver=solver-") for line in lines]


def last(experiment, step):
    text = (experiment / f"solver-{step}.prototxt").read_text()
    return int(text.split("max_iter: ")[1].split()[0])


def weights(experiment, step):
    return f"gaitnet-{step}_iter_{last(experiment, step)}.caffemodel"


def test_four_steps_each_from_the_one_before(experiment):
    done = run(experiment)
    assert done.returncode == 0, done.stderr
    assert calls(experiment) == [
        "seg.prototxt",
        f"rec.prototxt --weights={weights(experiment, 'seg')}",
        f"joint.prototxt --weights={weights(experiment, 'rec')}",
        f"sia.prototxt --weights={weights(experiment, 'joint')}",
    ]
    assert (experiment / weights(experiment, "sia")).exists()
    caffe = experiment.parent.parent / "caffe"
    for step in ("seg", "rec", "joint", "sia"):
        (log,) = experiment.glob(f"gaitnet-{step}-*.log")
        command, folder, *said = log.read_text().splitlines()
        assert command.startswith(f"command: {caffe}/build/tools/caffe train --solver=solver-{step}.prototxt")
        assert folder == f"folder: {experiment}"
        assert said == [f"PYTHONPATH={caffe}/python:{experiment.parent.parent}"]  # no commit: this is no clone
    assert done.stdout.count("PYTHONPATH=") == 4  # shown as well as logged


def test_run_again_it_says_what_is_done(experiment):
    run(experiment)
    again = run(experiment)
    assert again.returncode == 0
    assert again.stdout.count("already done") == 4
    assert len(calls(experiment)) == 4


def test_resumes_from_the_newest_snapshot(experiment):
    run(experiment, "seg")
    for n in (90, 100, 200):
        (experiment / f"gaitnet-rec_iter_{n}.solverstate").touch()
        if n != 200:  # killed before the weights of the last one were written
            (experiment / f"gaitnet-rec_iter_{n}.caffemodel").touch()
    assert run(experiment, "rec").returncode == 0
    assert calls(experiment)[1] == "rec.prototxt --snapshot=gaitnet-rec_iter_100.solverstate"


def test_a_failure_stops_with_the_status_of_caffe(experiment):
    failed = run(experiment, FAIL_AT="rec")
    assert failed.returncode == 134
    assert "error: step rec: caffe ended with exit status 134; see " in failed.stderr
    (log,) = experiment.glob("gaitnet-rec-*.log")
    assert "it broke" in log.read_text() and str(log) in failed.stderr
    assert len(calls(experiment)) == 2  # joint and sia were not tried


def test_stopped_early_it_does_not_go_on_with_the_next_step(experiment):
    stopped = run(experiment, STOP_AT="seg")
    assert stopped.returncode == 130 and "run the same command again" in stopped.stderr
    assert len(calls(experiment)) == 1
    assert run(experiment, "seg").returncode == 0
    assert calls(experiment)[1] == "seg.prototxt --snapshot=gaitnet-seg_iter_7.solverstate"


def test_a_step_without_its_start_names_what_is_missing(experiment):
    missing = run(experiment, "joint")
    assert missing.returncode == 1
    assert f"error: step joint starts from {weights(experiment, 'rec')}, which is not there" in missing.stderr


def test_an_edited_max_iter_is_followed(experiment):
    solver = experiment / "solver-seg.prototxt"
    solver.write_text(solver.read_text().replace(f"max_iter: {last(experiment, 'seg')}", "max_iter: 123"))
    assert run(experiment, "seg").returncode == 0
    assert (experiment / "gaitnet-seg_iter_123.caffemodel").exists()


def test_old_snapshots_go_from_walkers_only(experiment):
    (experiment / "gaitnet-seg_iter_5.caffemodel").touch()
    (experiment / "gaitnet-seg_iter_5.solverstate").touch()
    run(experiment, "seg")
    kept = sorted(path.name for path in experiment.glob("gaitnet-seg_iter_*"))
    final = weights(experiment, "seg")
    if experiment.name == "walkers":
        assert kept == [final]
    else:
        assert len(kept) == 4 and final in kept


def test_wrong_words_and_paths(experiment):
    unknown = run(experiment, "seq")
    assert unknown.returncode == 2 and "no step 'seq' (known: seg rec joint sia)" in unknown.stderr
    nowhere = run(experiment, CAFFE_ROOT="/nowhere")
    assert nowhere.returncode == 1 and "error: /nowhere/build/tools/caffe not found" in nowhere.stderr
    assert "wanted an absolute path" in run(experiment, CAFFE_ROOT="caffe").stderr
