"""Complete runs of the command against BVLC Caffe's: log line by line, exit status, files left, CSVs of its log parser.

What may differ, and why:
* times, rates, process numbers; and the first loss of `caffe time`, which comes from random weights;
* `Creating layer X` a second time: Caffe's SoftmaxWithLoss has a Softmax layer inside, ours computes both in one;
* the usage lists flags of our own, too (--precision);
* the head of ours tells command, commit, versions and device (`provenance.py`), and the end of `time` how fast the
  layers computed (`costs.py`);
* the last line of a run that fails: Caffe names the C++ line and condition that failed, ours may tell more (the file,
  the layer). It must hold Caffe's message; stack traces and the libraries' own complaints are left out.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from caffe.proto import caffe_pb2

pytestmark = pytest.mark.medium

REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden" / "log"
RUNS = {run["name"]: run for run in json.loads((GOLDEN / "runs.json").read_text())}
SIGNALLED = ("sigint", "sighup")
MADE_BY_TRAIN = (GOLDEN / "train.files").read_text().split()

PREFIX = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ (\S+:\d+\]) ?", re.MULTILINE)
PREFIX_OF_MESSAGE = re.compile(r"^F \S+\] ")
CHECK = re.compile(  # the C++ conditions, and the values compared
    r"Check failed: (fd != -1|FLAGS_\S+ > 0|!FLAGS_snapshot\.size\(\) \|\| !FLAGS_weights\.size\(\)|file_hid >= 0|"
    r"registry\.count\(type\) == 1|ReadProtoFromTextFile\(param_file, param\))( \(\S+ vs\. \S+\))? "
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def copy_to(folder, without=()):
    for path in GOLDEN.iterdir():
        if path.suffix in (".prototxt", ".py", ".caffemodel", ".solverstate") and path.name not in without:
            shutil.copy(path, folder)


def start(command, folder):
    """Start `caffe ...` in `folder`."""
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1")
    environment.pop("GLOG_minloglevel", None)
    return subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(command, folder):
    """(exit status, stdout, stderr) of `caffe ...` in `folder`."""
    process = start(command, folder)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def messages(log):
    """The lines of a log as `I net.cpp:53] text`, without what only Caffe or its libraries have to say."""
    log = re.sub(r"\*\*\* Check failure stack trace: \*\*\*\n(    @ .*\n?)*", "", log)
    log = re.sub(r"HDF5-DIAG: .*\n(  .*\n|, name = .*\n)*", "", log)
    log = re.sub(r"\[libprotobuf ERROR \S+\] ", "", log)
    lines = PREFIX.sub(r"\1 \2 ", log).splitlines()
    inner = "I layer_factory.hpp:77] Creating layer "
    created = ""  # the layer being set up
    kept = []
    for line in lines:
        if line.startswith(inner) and line.removeprefix(inner) == created:
            continue
        if line.startswith(("I provenance.py:", "I costs.py:")):
            continue
        if line.startswith("I net.cpp:86] Creating Layer "):
            created = line.removeprefix("I net.cpp:86] Creating Layer ")
        kept.append(line)
    return kept


def assert_same_line(got, want):
    """Equal text; numbers to six digits but for rounding; times and rates are only numbers."""
    if "iter/s" in want or " ms." in want or "Initial loss" in want:
        got, want = (
            re.sub(r"(?<=\()\S+ iter/s, \S+?s|\S+(?= ms\.)|(?<=Initial loss: ).*", "#", x) for x in (got, want)
        )
    if got == want:
        return
    assert NUMBER.split(got) == NUMBER.split(want)
    np.testing.assert_allclose(
        *([float(x) for x in NUMBER.findall(line)] for line in (got, want)), rtol=1e-4, err_msg=want
    )


def assert_same_failure(got, want):
    """The last line holds Caffe's message (its parts, where Caffe's library wrote one on a line before)."""
    for line in want:
        text = CHECK.sub("", PREFIX_OF_MESSAGE.sub("", line))
        text = text.removeprefix("ModuleNotFoundError: ")
        if "known types: " in text:  # ours may know more
            text, known = text.rstrip(")").split("known types: ")
            assert set(known.split(", ")) <= set(got.rstrip(")").split("known types: ")[1].split(", "))
        assert " ".join(text.split()) in " ".join(got.split())


OWN_ACTIONS = ("check",)  # that Caffe does not have


@pytest.mark.parametrize("name", [name for name in RUNS if name not in SIGNALLED])
def test_run(name, tmp_path):
    copy_to(tmp_path, without=MADE_BY_TRAIN if name == "train" else ())
    if name == "test":  # it was run after `resume`, whose weights it found
        run(RUNS["resume"]["command"], tmp_path)
    before = set(os.listdir(tmp_path))
    status, out, err = run(RUNS[name]["command"], tmp_path)
    assert status == RUNS[name]["exit"]
    golden_out = GOLDEN / f"{name}.out"
    wanted_out = golden_out.read_text() if golden_out.exists() else ""
    assert without_own_flags(out, wanted_out) == wanted_out
    got, want = messages(err), messages((GOLDEN / f"{name}.log").read_text())
    got = [line for line in got if "caffe.cpp:81]" not in line or line.split()[-1] not in OWN_ACTIONS]
    if status:
        failure = 2 if name == "err_bad_field" else 1  # protobuf's line, then Caffe's
        assert_same_failure(got.pop(), want[-failure:])
        del want[-failure:]
    assert len(got) == len(want)
    for a, b in zip(got, want):
        assert_same_line(a, b)
    made = set(os.listdir(tmp_path)) - before - {"__pycache__"}
    if name == "train":
        assert made == set(MADE_BY_TRAIN)
        check_weights(tmp_path / "toy_iter_100.caffemodel", GOLDEN / "toy_iter_100.caffemodel")
        check_weights(tmp_path / "toy_iter_50.caffemodel", GOLDEN / "toy_iter_50.caffemodel")
    elif status or "train" not in RUNS[name]["command"]:
        assert not made
    if (GOLDEN / f"{name}.log.train").exists():
        check_table(err, "Train", GOLDEN / f"{name}.log.train")
        check_table(err, "Test", GOLDEN / f"{name}.log.test")


def without_own_flags(usage, caffes):
    """`usage` without the entries of flags and actions that Caffe does not have."""
    usage = re.sub(rf"^  ({'|'.join(OWN_ACTIONS)}) .*\n", "", usage, flags=re.M)
    entry = re.compile(r"    -(\w+) \(.*\n(?:      .*\n)*")
    known = {m[1] for m in entry.finditer(caffes)}
    return entry.sub(lambda m: m[0] if m[1] in known else "", usage)


def check_weights(got_path, want_path):
    got, want = (caffe_pb2.NetParameter.FromString(path.read_bytes()) for path in (got_path, want_path))
    for a, b in zip(got.layer, want.layer):
        for x, y in zip(a.blobs, b.blobs):
            wanted = np.array(y.data)
            np.testing.assert_allclose(np.array(x.data), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
            del x.data[:], y.data[:]
    got.ClearField("checksum")  # ours; BVLC Caffe skips the field
    assert got == want


def table(log, kind):
    """What people's parsers take from a log: rows of (iteration, seconds, rate, {output: value}); Train or Test."""
    rows, rate, iteration = [], None, None
    for line in log.splitlines():
        stamp = re.match(r"[IWEF](\d{4} \d\d:\d\d:\d\d\.\d{6})", line)
        if not stamp:
            continue
        when = datetime.strptime("2000" + stamp[1], "%Y%m%d %H:%M:%S.%f")
        if "] Solving" in line:
            begin = when
        iteration = int(m[1]) if (m := re.search(r"Iteration (\d+)", line)) else iteration
        rate = float(m[1]) if (m := re.search(r"lr = (\S+)", line)) else rate
        if m := re.search(kind + r" net output #(\d+): (\S+) = (\S+)", line):
            if m[1] == "0":
                rows.append([iteration, (when - begin).total_seconds(), rate, {}])
            rows[-1][3][m[2]] = float(m[3])
    first = next(row[2] for row in rows if row[2] is not None)
    return [[i, s, first if r is None else r, outputs] for i, s, r, outputs in rows]


def check_table(log, kind, golden_path):
    head, *lines = golden_path.read_text().splitlines()
    rows = table(log, kind)
    names = head.split(",")[3:]
    got = np.array([[i, r, *(outputs[n] for n in names)] for i, _, r, outputs in rows])
    want = np.array([[float(x) for x in line.split(",")] for line in lines])
    np.testing.assert_allclose(got, np.delete(want, 1, axis=1), rtol=1e-4)
    seconds = [row[1] for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0


@pytest.mark.parametrize("name", SIGNALLED)
def test_signal(name, tmp_path):
    """SIGINT stops with a snapshot, SIGHUP snapshots and goes on; both at the end of the iteration, exit 0."""
    copy_to(tmp_path)
    before = set(os.listdir(tmp_path))
    process = start(RUNS[name]["command"], tmp_path)
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "Iteration 10, lr" in line:
            time.sleep(0.05)
            process.send_signal(getattr(signal, name.upper()))
    assert process.wait(60) == RUNS[name]["exit"]
    process.stdout.close()
    process.stderr.close()
    got, want = messages("".join(seen)), messages((GOLDEN / f"{name}.log").read_text())
    solving = next(i for i, line in enumerate(want) if "Solving" in line)
    for a, b in zip(got[:solving], want[:solving]):
        assert_same_line(a, b)
    stopped = int(re.search(r"slow_iter_(\d+)\.", "".join(got))[1])
    assert 11 <= stopped < (2000 if name == "sigint" else 40)
    # the same lines as Caffe's, with the iteration at which the signal came in place of Caffe's
    parts = [drop_progress(lines, at) for lines, at in ((got[solving:], stopped), (want[solving:], 22))]
    assert parts[0] == parts[1]
    last = [] if name == "sigint" else [40]
    made = set(os.listdir(tmp_path)) - before - {"__pycache__"}
    assert made == {f"slow_iter_{n}.{e}" for n in [stopped, *last] for e in ("caffemodel", "solverstate")}
    assert len(made) == len((GOLDEN / f"{name}.files").read_text().split())
    state = caffe_pb2.SolverState.FromString((tmp_path / f"slow_iter_{stopped}.solverstate").read_bytes())
    assert (state.iter, state.learned_net) == (stopped, f"slow_iter_{stopped}.caffemodel")


def drop_progress(lines, stopped):
    """The lines about snapshots and the end; how far the run came in between depends on the signal's moment."""
    kept = [line for line in lines if re.search(r"Snapshotting|Optimization|Iteration 40, loss", line)]
    return [line.replace(f"_iter_{stopped}.", "_iter_N.") for line in kept]
