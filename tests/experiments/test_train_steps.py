"""experiments/*/train_net.sh, with a stand-in for the caffe command that writes what Caffe would."""

import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.test_ctrl_c import of_pythons_own

ROOT = Path(__file__).resolve().parent.parent.parent
CAFFE = """#!/bin/sh
echo "caffe $*" >>calls
echo "PYTHONPATH=$PYTHONPATH"
step=$(echo "$2" | sed 's/--solver=solver-\\(.*\\).prototxt/\\1/')
last=$(sed -n 's/^max_iter: //p' "solver-$step.prototxt")
[ "$step" != "${FAIL_AT:-none}" ] || { echo "Check failed: ${FAILURE:-it broke}"; exit 134; }
[ "$step" != "${STOP_AT:-none}" ] || last=7
h5=$(sed -n 's/^snapshot_format: HDF5/.h5/p' "solver-$step.prototxt")
touch "gaitnet-${step}_iter_$last.caffemodel$h5" "gaitnet-${step}_iter_$last.solverstate$h5"
"""


@pytest.fixture(params=["walkers", "casiab"])
def experiment(request, tmp_path):
    """A copy of experiments/, and a folder that CAFFE_ROOT can name."""
    shutil.copytree(
        ROOT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("*_iter_*", "*.log", "before-*")
    )
    for name in ("tools/solver_facts.py", "caffe/proto/caffe_pb2.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    caffe = tmp_path / "caffe/build/tools/caffe"
    caffe.parent.mkdir(parents=True)
    caffe.write_text(CAFFE)
    caffe.chmod(0o755)
    return tmp_path / "experiments" / request.param


def run(experiment, *steps, **env):
    env = {**os.environ, "CAFFE_ROOT": str(experiment.parent.parent / "caffe"), "CAFFE_PYTHON": sys.executable, **env}
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
        assert re.fullmatch(rf"gaitnet-{step}-\d{{8}}-\d{{6}}[+-]\d{{4}}\.log", log.name)
        when, command, folder, *said = log.read_text().splitlines()
        assert re.fullmatch(r"time: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", when)
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
    assert "base_lr" not in failed.stderr  # advice for another trouble
    (log,) = experiment.glob("gaitnet-rec-*.log")
    assert "it broke" in log.read_text() and str(log) in failed.stderr
    assert len(calls(experiment)) == 2  # joint and sia were not tried


@pytest.mark.parametrize(
    "said",
    [
        "Iteration 7: the loss is nan (loss_gait = nan)",
        "Iteration 7, loss = -nan",
        "layer 'conv9_0' holds weights that are not finite",
    ],
)
def test_a_loss_that_diverged_gets_advice(experiment, said):
    failed = run(experiment, FAIL_AT="rec", FAILURE=said)
    assert failed.stderr.endswith(
        "; the loss diverged: lower base_lr, or delete the newest gaitnet-rec_iter_<n>.* before you run it again\n"
    )


def test_options_go_on_to_caffe(experiment):
    assert run(experiment, "--gpu", "0,1", "rec", "-precision=tf32", "--tensorboard=a b *", "seg").returncode == 1
    assert run(experiment, "seg", "rec", "--gpu", "0,1", "--tensorboard=a b *").returncode == 0
    options = "--gpu=0,1 --tensorboard=a b *"
    assert calls(experiment) == [
        f"seg.prototxt {options}",
        f"rec.prototxt --weights={weights(experiment, 'seg')} {options}",
    ]
    for words, told in ((["--gpu"], "--gpu wants a value"), (["--weights=x"], "--weights=x: a step chooses its own")):
        refused = run(experiment, *words)
        assert refused.returncode == 2 and told in refused.stderr


def test_a_caffe_for_cpus_alone_is_told_what_to_do(experiment):
    """It aborts where a solver asks for a GPU; and nothing is said of a loss that diverged."""
    caffe = experiment.parent.parent / "caffe/build/tools/caffe"
    says = 'echo "F0101 00:00:00.0 1 common.cpp:66] Cannot use GPU in CPU-only Caffe: check mode."; exit 134\n'
    caffe.write_text("#!/bin/sh\ngrep -q 'solver_mode: GPU' \"${2#--solver=}\" && { " + says + "}\n" + CAFFE[10:])
    failed = run(experiment, "seg")
    assert failed.returncode == 134 and "diverged" not in failed.stderr
    command = failed.stderr.split("the solvers ask for a GPU: ")[1].splitlines()[0]
    subprocess.run(command, shell=True, check=True)
    assert run(experiment).returncode == 0


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


def snapshot(experiment, step, n, ending=""):
    """Write the two files of a snapshot; gives their names."""
    names = {f"gaitnet-{step}_iter_{n}.{kind}{ending}" for kind in ("caffemodel", "solverstate")}
    for name in names:
        (experiment / name).touch()
    return names


def files(experiment, step):
    return {path.name for path in experiment.glob(f"gaitnet-{step}_iter_*")}


def set_max_iter(experiment, step, value):
    solver = experiment / f"solver-{step}.prototxt"
    solver.write_text(solver.read_text().replace(f"max_iter: {last(experiment, step)}", f"max_iter: {value}"))


def test_old_snapshots_go_from_walkers_only(experiment):
    old = snapshot(experiment, "seg", 5)
    run(experiment, "seg")
    new = snapshot(experiment, "seg", last(experiment, "seg"))
    assert files(experiment, "seg") == (new if experiment.name == "walkers" else old | new)


@pytest.mark.parametrize("experiment", ["walkers"], indirect=True)
def test_pruning_spares_what_is_no_older_snapshot(experiment):
    n = last(experiment, "seg")
    mine = {f"gaitnet-seg_iter_{n}.caffemodel.keep", "gaitnet-seg_iter_5.keep.solverstate", "gaitnet-seg_iter_7.txt"}
    for name in mine:
        (experiment / name).touch()
    longer = snapshot(experiment, "seg", n + 1)
    snapshot(experiment, "seg", 5)
    run(experiment, "seg")
    final = {f"gaitnet-seg_iter_{n}.caffemodel", f"gaitnet-seg_iter_{n}.solverstate"}
    assert files(experiment, "seg") == mine | longer | final
    for name in longer:
        (experiment / name).unlink()
    set_max_iter(experiment, "seg", n + 2)
    assert run(experiment, "seg").returncode == 0
    assert calls(experiment)[1] == f"seg.prototxt --snapshot=gaitnet-seg_iter_{n}.solverstate"


@pytest.mark.parametrize("experiment", ["walkers"], indirect=True)
def test_killed_before_it_pruned_it_prunes_the_next_time(experiment):
    snapshot(experiment, "seg", 5)
    newest = snapshot(experiment, "seg", 10)
    final = weights(experiment, "seg")  # killed before its state was written: a raised max_iter goes on from the 10th
    (experiment / final).touch()
    assert run(experiment, "seg").returncode == 0
    assert files(experiment, "seg") == newest | {final}


def test_a_lowered_max_iter_leaves_out_later_snapshots(experiment):
    for n in (10, 20, 30):
        snapshot(experiment, "seg", n)
    set_max_iter(experiment, "seg", 25)
    assert run(experiment, "seg").returncode == 0
    assert calls(experiment) == ["seg.prototxt --snapshot=gaitnet-seg_iter_20.solverstate"]
    assert "gaitnet-seg_iter_30.solverstate" in files(experiment, "seg")


def test_a_max_iter_that_cannot_be_read_is_told(experiment):
    solver = experiment / "solver-seg.prototxt"
    for text, problem in (("base_lr: 0.1", "has no max_iter"), ("max_iter: -3", "below 1"), ("max_iter: x", "1:11")):
        solver.write_text(f"{text}\n")
        told = run(experiment, "seg")
        assert told.returncode == 1 and told.stderr.count("\n") == 1
        assert told.stderr.startswith(f"error: {solver}: ") and problem in told.stderr


@pytest.mark.parametrize(
    "text", ["\tmax_iter : 20 # as protobuf allows", "max_iter: 024", "base_lr: 1 max_iter: 20", "\ufeffmax_iter: 0x14"]
)
def test_a_max_iter_is_read_as_caffe_reads_it(experiment, text):
    """In one line with others, octal, hexadecimal, after a byte order mark."""
    (experiment / "solver-seg.prototxt").write_text(text)
    snapshot(experiment, "seg", 20)
    assert "seg: already done, gaitnet-seg_iter_20.caffemodel" in run(experiment, "seg").stdout


def test_messages_of_the_other_caffe_do_where_ours_do_not(experiment):
    """As in a Python with an old protobuf."""
    root = experiment.parent.parent
    theirs = root / "caffe/python/caffe/proto"
    theirs.mkdir(parents=True)
    (root / "caffe/proto/caffe_pb2.py").rename(theirs / "caffe_pb2.py")
    (theirs.parent / "__init__.py").write_text("raise ImportError('not built')")
    snapshot(experiment, "seg", last(experiment, "seg"))
    assert "seg: already done" in run(experiment, "seg").stdout
    (theirs / "caffe_pb2.py").unlink()
    failed = run(experiment, "seg")
    assert failed.returncode == 1 and "name a Python that has protobuf: CAFFE_PYTHON=" in failed.stderr


def test_snapshots_in_hdf5(experiment):
    with open(experiment / "solver-seg.prototxt", "a") as f:
        f.write("snapshot_format: HDF5\n")
    snapshot(experiment, "seg", 9, ".h5")
    (experiment / "gaitnet-seg_iter_11.solverstate.h5").touch()  # without weights
    assert run(experiment, "seg", "rec").returncode == 0
    assert calls(experiment) == [
        "seg.prototxt --snapshot=gaitnet-seg_iter_9.solverstate.h5",
        f"rec.prototxt --weights={weights(experiment, 'seg')}.h5",
    ]
    assert run(experiment, "seg").stdout == f"seg: already done, {weights(experiment, 'seg')}.h5\n"
    if experiment.name == "walkers":
        assert "gaitnet-seg_iter_9.caffemodel.h5" not in files(experiment, "seg")


def test_other_weights_than_a_step_started_from_are_told(experiment):
    """By their checksum: neither copies nor clocks make a difference."""
    assert run(experiment, "seg", "rec").stderr == ""
    seg, rec = weights(experiment, "seg"), weights(experiment, "rec")
    for name, when in ((seg, 2000), (rec, 1000)):
        os.utime(experiment / name, (when, when))
    assert run(experiment, "seg", "rec").stderr == ""
    (experiment / seg).write_text("trained anew")
    again = run(experiment, "seg", "rec", "joint")
    warning = f"warning: step rec was trained from other weights than those now in {seg}; to train it anew, delete "
    assert again.stderr.startswith(warning + "gaitnet-rec_iter_<n>.*") and again.stderr.count("\n") == 1
    for path in experiment.glob("gaitnet-rec_iter_*"):
        path.unlink()
    snapshot(experiment, "rec", 10)
    assert run(experiment, "rec").stderr.startswith(warning)  # which goes on
    for path in experiment.glob("gaitnet-rec_iter_*"):
        path.unlink()
    assert run(experiment, "rec").stderr == "" == run(experiment, "rec").stderr  # which begins anew


def test_snapshots_of_another_caffe_are_recorded_by_name(experiment):
    """Those that the step has written, by their checksums, and no older ones."""
    root = experiment.parent.parent
    (root / "tools/experiment.py").write_text("import sys; open('told', 'a').write(' '.join(sys.argv[1:]) + '\\n')")
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (experiment / "gaitnet-rec_iter_5.caffemodel").touch()
    run(experiment, "seg", "rec")
    seg, rec = weights(experiment, "seg"), weights(experiment, "rec")
    assert (experiment / "told").read_text().splitlines() == [
        "check . seg rec",
        f"record . seg --new {seg}",
        f"record . rec --new {rec} --started-from {seg}",
    ]


def test_the_set_up_is_looked_at_every_time(experiment):
    """One that was killed leaves a .venv/bin/caffe that may not run."""
    root = experiment.parent.parent
    (root / "tools/setup.sh").write_text('cp "$0.caffe" "$(dirname "$0")/../.venv/bin/caffe"\n')
    shutil.copy(root / "caffe/build/tools/caffe", root / "tools/setup.sh.caffe")
    half = root / ".venv/bin/caffe"
    half.parent.mkdir(parents=True)
    half.write_text("#!/bin/sh\nexit 1\n")
    half.chmod(0o755)
    assert run(experiment, "seg", CAFFE_ROOT="").returncode == 0
    assert calls(experiment) == ["seg.prototxt"]


# Goes on when the terminal has gone, as Caffe does: a snapshot on SIGHUP, further iterations.
LASTING = """#!/bin/sh
trap 'touch gaitnet-seg_iter_7.caffemodel gaitnet-seg_iter_7.solverstate; echo "Snapshotting"' HUP
echo "Iteration 0"
until [ -f gone ]; do sleep 0.05; done
for i in 1 2 3; do echo "Iteration $i"; sleep 0.05; done
echo "Optimization Done."
"""


@pytest.mark.parametrize("experiment", ["walkers"], indirect=True)
@pytest.mark.parametrize("what", ["terminal", "pipe"])
def test_the_log_outlives_the_terminal(experiment, what):
    (experiment.parent.parent / "caffe/build/tools/caffe").write_text(LASTING)
    ours, theirs = pty.openpty() if what == "terminal" else os.pipe()
    env = {**os.environ, "CAFFE_ROOT": str(experiment.parent.parent / "caffe"), "CAFFE_PYTHON": sys.executable}
    command = ["sh", str(experiment / "train_net.sh"), "seg"]
    running = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    shown = b""
    while b"Iteration 0" not in shown:
        shown += os.read(ours, 1000)
    os.close(ours)
    if what == "terminal":
        os.killpg(running.pid, signal.SIGHUP)
    (experiment / "gone").touch()
    running.wait(20)
    (log,) = experiment.glob("gaitnet-seg-*.log")
    for _ in range(200):  # caffe may end after the shell, which SIGHUP ends
        if "Optimization Done." in log.read_text():
            break
        time.sleep(0.05)
    said = ["Iteration 0", "Snapshotting", "Iteration 1", "Iteration 2", "Iteration 3", "Optimization Done."]
    assert [line for line in log.read_text().splitlines() if line in said] == [
        line for line in said if what == "terminal" or line != "Snapshotting"
    ]
    if what == "terminal":
        assert (experiment / "gaitnet-seg_iter_7.solverstate").exists()


def test_wrong_words_and_paths(experiment):
    unknown = run(experiment, "seq")
    assert unknown.returncode == 2 and "no step 'seq' (known: seg rec joint sia)" in unknown.stderr
    nowhere = run(experiment, CAFFE_ROOT="/nowhere")
    assert nowhere.returncode == 1 and "error: /nowhere/build/tools/caffe not found" in nowhere.stderr
    assert "wanted an absolute path" in run(experiment, CAFFE_ROOT="caffe").stderr


def test_the_weights_that_the_last_step_ends_with(experiment):
    """What train_net.sh evaluates."""
    done = run(experiment, "--weights")
    assert (done.returncode, done.stdout) == (0, weights(experiment, "sia") + "\n")


# Ends as Caffe does: before it has begun at once, then with a snapshot, as if all were well.
INTERRUPTED = """#!{python} -S
import os, signal, sys, time
step = sys.argv[2].split("solver-")[1].split(".")[0]
def snapshot(*_):
    time.sleep(0.1)
    for kind in ("caffemodel", "solverstate"):
        open(f"gaitnet-{{step}}_iter_7.{{kind}}", "w").close()
    print("Snapshotting", flush=True)
    os._exit(0)
open("started", "w").close()
time.sleep(0.1)
signal.signal(signal.SIGINT, snapshot)
print("Iteration 0", flush=True)
time.sleep(0.1 if os.path.exists("short") else 60)
signal.signal(signal.SIGINT, signal.SIG_IGN)
last = next(line.split()[1] for line in open(f"solver-{{step}}.prototxt") if line.startswith("max_iter: "))
for kind in ("caffemodel", "solverstate"):
    open(f"gaitnet-{{step}}_iter_{{last}}.{{kind}}", "w").close()
"""


def interrupt(experiment, when, *words):
    """Ctrl-C to all processes of the terminal once when() is true; (exit status, what was said)."""
    env = {**os.environ, "CAFFE_ROOT": str(experiment.parent.parent / "caffe"), "CAFFE_PYTHON": sys.executable}
    command = ["sh", str(experiment / "train_net.sh"), *words]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True)
    with subprocess.Popen(command, **options) as job:
        while not when() and job.poll() is None:
            time.sleep(0.005)
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGINT)
        said, _ = job.communicate(timeout=60)
    return job.returncode, said


@pytest.fixture
def interrupted(experiment):
    if experiment.name != "walkers":
        pytest.skip("one is enough")
    caffe = experiment.parent.parent / "caffe/build/tools/caffe"
    caffe.write_text(INTERRUPTED.format(python=sys.executable))
    return experiment


def test_ctrl_c_reaches_caffe_also_before_it_has_begun(interrupted):
    status, said = interrupt(interrupted, (interrupted / "started").exists, "seg")
    assert status == 130 and "Snapshotting" not in said, said


def test_ctrl_c_waits_for_the_snapshot(interrupted):
    """Which the log tells of, after the line that was cut off."""
    log = lambda: [path for path in interrupted.glob("gaitnet-seg-*.log") if "Iteration 0" in path.read_text()]  # noqa: E731
    status, said = interrupt(interrupted, log, "seg")
    assert status == 130 and "run the same command again to go on" in said, said
    assert "Snapshotting" in log()[0].read_text()
    (interrupted / "short").touch()
    done = run(interrupted, "seg")
    assert done.returncode == 0 and "seg: going on from gaitnet-seg_iter_7.solverstate" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ctrl_c_at_a_hundred_random_moments(interrupted):
    (interrupted / "short").touch()
    began = time.monotonic()
    assert run(interrupted).returncode == 0
    whole, rng, ends = time.monotonic() - began, random.Random(0), []
    for _ in range(int(os.environ.get("GAITNET_INTERRUPTS", 100))):
        if (interrupted / weights(interrupted, "sia")).exists():
            for path in interrupted.glob("gaitnet-*"):
                if not path.name.endswith(".prototxt"):
                    path.unlink()
        end = time.monotonic() + rng.uniform(0, whole)
        status, said = interrupt(interrupted, lambda: time.monotonic() > end)  # noqa: B023
        assert "Traceback" not in said or of_pythons_own(said), said
        assert status in (0, 130, -signal.SIGINT), said  # the last: Python itself ends in this way, before our lines
        ends.append(status)
    print(f"train_steps.sh: {len(ends)} moments of {whole:.1f} s, {Counter(ends)}")
    assert run(interrupted).returncode == 0
