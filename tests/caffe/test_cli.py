"""The command: flags in all their forms, the four commands, exit statuses, resuming. Its logs: test_log_golden.py."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe import cli, revision
from caffe.flags import FLAGS
from caffe.proto import caffe_pb2
from caffe.read import read_net_binary

REPO = Path(__file__).resolve().parents[2]

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
        shape { dim: 4 dim: 2 dim: 6 dim: 6 } shape { dim: 4 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" dropout_param { dropout_ratio: 0.4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
layer { name: "staged" type: "Power" bottom: "ip" top: "staged" include { stage: "more" min_level: 2 } }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "step" gamma: 0.5 stepsize: 7 max_iter: 12
display: 4 snapshot: 6 snapshot_prefix: "run" test_iter: 2 test_interval: 5 solver_mode: CPU
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a net and a solver; afterwards the log is silent again and the signals are Python's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("caffe.glog._level", 1)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGHUP)}
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(capfd, *words):
    """(exit status, stdout, the log without its prefixes) of the command, in this process."""
    capfd.readouterr()
    status = cli.main(list(words))
    out, err = capfd.readouterr()
    return status, out, [line.split("] ", 1)[-1] for line in err.splitlines()]


def process(*words):
    """The finished process `python -m caffe ...`."""
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, "-m", "caffe", *words], env=environment, capture_output=True, text=True, timeout=100
    )


def weights(path):
    return {
        f"{layer.name}/{i}": np.array(blob.data, np.float32)
        for layer in read_net_binary(path).layer
        for i, blob in enumerate(layer.blobs)
    }


# ---- the head of the log


def test_the_head_of_the_log_tells_what_repeats_the_run(folder, capfd):
    status, _, log = run(capfd, "train", "--solver", "solver.prototxt")
    assert status == 0
    head = dict(line.split(": ", 1) for line in log[1:7] if ": " in line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", head["time"])
    assert head["command"] == "caffe train --solver solver.prototxt" and head["folder"] == str(folder)
    assert (
        f"torch {torch.__version__.split('+')[0]}" in head["versions"] and f"numpy {np.__version__}" in head["versions"]
    )
    assert head["device"].startswith("cpu") and head["device"].endswith(f"{torch.get_num_threads()} CPU threads")
    commit = subprocess.run(["git", "-C", REPO, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    if (REPO / ".git").exists():
        assert head["commit"].removesuffix("+changes") == commit
    (seed,) = [line for line in log if line.startswith("seed: ")]
    first = weights("run_iter_12.caffemodel")
    drawn = re.fullmatch(r"seed: (\d+), drawn; .*", seed)[1]
    Path("solver.prototxt").write_text(f"{SOLVER} random_seed: {drawn}")
    _, _, log = run(capfd, "train", "--solver=solver.prototxt")
    assert f"seed: {drawn}" in log
    for name, values in weights("run_iter_12.caffemodel").items():
        np.testing.assert_array_equal(values, first[name], err_msg=name)


def test_no_commit_is_told_outside_a_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(revision, "__file__", str(tmp_path / "caffe" / "revision.py"))
    assert revision.commit() == ""


# ---- Python layers that a prototxt may name


@pytest.mark.parametrize(
    "flag, status",
    [
        ("--python_modules=none", 1),
        ("--python_modules=layers,json", 1),
        ("--python_modules=ours", 0),
        ("", 0),
    ],
)
@pytest.mark.parametrize("command", ["time", "test", "train"])
def test_an_allow_list_keeps_other_modules_from_being_imported(command, flag, status, capfd, monkeypatch):
    monkeypatch.setattr("caffe.python_layer._allowed", None)
    Path("ours.py").write_text(
        "import caffe\nopen('imported', 'w').close()\nclass Ours(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n    def reshape(self, bottom, top): top[0].reshape(1)\n"
        "    def forward(self, bottom, top): pass\n    def backward(self, *_): pass\n"
    )
    Path("net.prototxt").write_text(
        'layer { name: "p" type: "Python" top: "x" python_param { module: "ours" layer: "Ours" } }'
    )
    Path("empty.caffemodel").write_bytes(b"")
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 1 solver_mode: CPU snapshot_after_train: false'
    )
    words = {
        "time": ["--model=net.prototxt", "--iterations=1"],
        "test": ["--model=net.prototxt", "--weights=empty.caffemodel", "--iterations=1"],
        "train": ["--solver=solver.prototxt"],
    }[command]
    sys.modules.pop("ours", None)
    found, _, log = run(capfd, command, *words, *([flag] if flag else []))
    assert found == status and Path("imported").exists() == (status == 0)
    if status:
        allowed = flag.split("=")[1].replace(",", ", ")
        allowed = ", ".join(sorted(allowed.split(", ")))
        assert log[-1] == f"error: layer 'p' wants Python module 'ours', which is not allowed here (allowed: {allowed})"


# ---- flags


@pytest.mark.parametrize(
    "words",
    [
        ["--solver=solver.prototxt"],
        ["-solver=solver.prototxt"],
        ["--solver", "solver.prototxt"],
        ["-solver", "solver.prototxt"],
    ],
)
def test_forms_of_a_flag(words, capfd):
    status, out, log = run(capfd, *words[:1], *words[1:], "train") if len(words) == 1 else run(capfd, "train", *words)
    assert status == 0 and out == "" and log[-1] == "Optimization Done."


@pytest.mark.parametrize(
    "words, told",
    [
        (["train", "--nosuch=1"], "ERROR: unknown command line flag 'nosuch' "),
        (["train", "--solver"], "ERROR: flag '--solver' is missing its argument"),
        (["time", "--iterations=many"], "ERROR: illegal value 'many' specified for int32 flag 'iterations'"),
    ],
)
def test_wrong_flags_exit_1(words, told, capfd):
    status, _, log = run(capfd, *words)
    assert status == 1 and len(log) == 1 and log[0].startswith(told)


@pytest.mark.parametrize(
    "words, told",
    [
        (["train", "solver.prototxt"], "not 'train solver.prototxt'; .* as in train --solver=solver.prototxt"),
        (["time", "net.prototxt", "-iterations", "2"], "not 'time net.prototxt'; .* as in time --model=net.prototxt"),
        (["device_query", "0"], "caffe takes one command and flags, not 'device_query 0'$"),
    ],
)
def test_a_file_without_its_flag(words, told, capfd):
    status, out, log = run(capfd, *words)
    assert status == 1 and not out and re.search(told, *log)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h", "train"]])
def test_usage(words, capfd):
    status, out, log = run(capfd, *words)
    assert status == 0 and not log
    assert out.startswith("caffe: command line brew\nusage: caffe <command> <args>\n")
    assert all(f"    -{flag} (" in out for flag in FLAGS) and max(map(len, out.splitlines())) < 80


def test_version(capfd):
    assert run(capfd, "--version")[:2] == (0, "caffe version 1.0.0\n")


@pytest.mark.parametrize(
    "words, told",
    [
        (["time"], "Need a model definition to time."),
        (["test"], "Need a model definition to score."),
        (["time", "--model=net.prototxt", "--phase=DEPLOY"], 'phase must be "TRAIN" or "TEST"'),
        (["train", "--solver=solver.prototxt", "--sigint_effect=jump"], 'Invalid signal effect "jump" was specified'),
        (
            ["train", "--solver=solver.prototxt", "--gpu=first"],
            "--gpu wants device numbers separated by commas or 'all'",
        ),
        (["train", "--solver=solver.prototxt", "--snapshot=absent.solverstate"], "absent.solverstate"),
        (
            ["train", "--solver=solver.prototxt", "--snapshot=absent.solverstate.h5"],
            "Couldn't open absent.solverstate.h5",
        ),
    ],
)
def test_fatal_errors_exit_134(words, told, capfd):
    status, _, log = run(capfd, *words)
    assert status == 134 and told in log[-1]
    assert not [p.name for p in Path().iterdir() if "prototxt" not in p.name]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    "words",
    [["device_query"], ["time", "--model=net.prototxt", "--gpu=0"], ["train", "--solver=solver.prototxt", "--gpu=all"]],
)
def test_no_gpu_is_told(words, capfd):
    status, _, log = run(capfd, *words)
    assert status == 134 and "CUDA device" in log[-1]


# ---- commands


def test_a_process_without_a_gpu_of_its_own_is_told(monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_RANK", "2")  # as torchrun sets it
    status, _, log = run(capfd, "test", "--model=net.prototxt", "--weights=w.caffemodel", "--gpu=0,1")
    assert status == 134
    assert "process 2 of this machine has no GPU in --gpu=0,1" in log[-1]


def test_test_prints_each_batch_and_the_means(capfd):
    caffe.Net("net.prototxt", caffe.TEST).save("w.caffemodel")
    status, _, log = run(capfd, "test", "-model", "net.prototxt", "-weights", "w.caffemodel", "-iterations", "3")
    assert status == 0
    batches = [float(m[1]) for line in log if (m := re.match(r"Batch \d, loss = (\S+)", line))]
    mean = float(log[-1].removeprefix("loss = ").split()[0])
    assert len(batches) == 3 and mean == pytest.approx(np.mean(batches), rel=1e-4)  # six digits are printed
    assert log[-1].endswith(f"(* 1 = {mean:g} loss)") and log[-2].startswith("acc = ")


def test_time_has_a_row_for_every_layer_and_pass(capfd):
    status, _, log = run(capfd, "time", "--model=net.prototxt", "--iterations=2")
    assert status == 0 and "Testing for 2 iterations." in log
    rows = [re.match(r" *(\S+)\t(forward|backward): (\S+) ms\.", line) for line in log]
    rows = [m.groups() for m in rows if m]
    assert [(name, way) for name, way, _ in rows] == [
        (name, way) for name in ("data", "ip", "drop", "loss") for way in ("forward", "backward")
    ]
    forward = sum(float(ms) for _, way, ms in rows if way == "forward")
    told = next(line for line in log if line.startswith("Average Forward pass"))
    assert float(told.split()[3]) == pytest.approx(forward, rel=1e-3)
    assert len([line for line in log if re.match(r"Iteration: \d forward-backward time: \S+ ms\.", line)]) == 2


def test_time_tells_how_fast_layers_compute(capfd):
    _, _, log = run(capfd, "time", "--model=net.prototxt", "--iterations=1")
    told = dict(line.split(": ", 1) for line in log[log.index("*** Benchmark ends ***") + 2 :])
    number = r"[\d.e+-]+"
    assert re.fullmatch(
        rf"{number} GFLOP at {number} GFLOP/s, {number} MB at {number} GB/s", told["        ip\tforward"]
    )
    assert re.fullmatch(rf"{number} MB at {number} GB/s", told["      drop\tbackward"])  # multiplies by no weights
    milliseconds = next(float(line.split()[2]) for line in log if line.startswith("        ip\tforward: "))
    megabytes, rate = (float(told["        ip\tforward"].split(", ")[1].split()[k]) for k in (0, 3))
    assert rate == pytest.approx(megabytes / milliseconds, rel=0.02)  # three digits are printed


@pytest.mark.parametrize(
    "words, staged",
    [
        (["--stage=more", "--level=2"], True),
        (["--stage=other,more", "--level=3"], True),
        (["--stage=more"], False),
        (["--level=2"], False),
    ],
)
def test_level_and_stage(words, staged, capfd):
    _, _, log = run(capfd, "time", "--model=net.prototxt", "--iterations=1", *words)
    assert ("Creating Layer staged" in log) == staged


def test_weights_are_a_list(capfd):
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.params["ip"][0].data[...] = 1
    net.save("one.caffemodel")
    net.params["ip"][0].data[...] = 2
    net.save_hdf5("two.h5")
    Path("solver.prototxt").write_text(SOLVER.replace("base_lr: 0.1", "base_lr: 0"))
    status, _, log = run(capfd, "train", "--solver=solver.prototxt", "--weights=one.caffemodel, two.h5,")
    assert status == 0
    both = ["Finetuning from one.caffemodel", "Finetuning from two.h5"]
    assert [line for line in log if "Finetuning" in line] == both * 2  # the train net, the test net
    assert (weights("run_iter_12.caffemodel")["ip/0"] == 2).all()


@pytest.mark.medium
def test_train_leaves_snapshots_and_nothing_else():
    done = process("train", "--solver=solver.prototxt")
    assert done.returncode == 0, done.stderr
    made = {p.name for p in Path().iterdir()} - {"net.prototxt", "solver.prototxt"}
    assert made == {f"run_iter_{n}.{e}" for n in (6, 12) for e in ("caffemodel", "solverstate")}


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_resumed_run_ends_in_the_same_weights(form, capfd):
    """12 iterations at once, and 6 + 6 in another run, bit for bit, with dropout and random data."""
    ending = ".h5" if form == "HDF5" else ""
    Path("solver.prototxt").write_text(SOLVER + f"snapshot_format: {form}")
    assert run(capfd, "train", "--solver=solver.prototxt")[0] == 0
    whole = caffe.Net("net.prototxt", caffe.TRAIN, weights=f"run_iter_12.caffemodel{ending}")
    os.remove(f"run_iter_12.caffemodel{ending}")
    assert run(capfd, "train", "--solver=solver.prototxt", f"--snapshot=run_iter_6.solverstate{ending}")[0] == 0
    resumed = caffe.Net("net.prototxt", caffe.TRAIN, weights=f"run_iter_12.caffemodel{ending}")
    for a, b in zip(whole.params["ip"], resumed.params["ip"]):
        assert np.array_equal(a.data, b.data)


@pytest.mark.medium
def test_an_interrupted_command_ends_without_a_traceback():
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "caffe", "time", "--model=net.prototxt", "--iterations=100000"]
    # In the background of a shell SIGINT is ignored, and children inherit that; here it is to be heard.
    job = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in job.stderr:
        if "Iteration: 2 " in line:
            job.send_signal(signal.SIGINT)
            break
    rest = job.stderr.read()
    assert job.wait(30) == 130 and "Traceback" not in rest


# ---- exceptions in Python layers


@pytest.mark.medium
def test_a_gradient_that_stays_zero_leaves_no_denormals():
    """They would make Adam's update several times slower, in every thread that takes part in it."""
    Path("once.py").write_text("""
import caffe
class Once(caffe.Layer):  # 1 in the first iterations, then 0
    def setup(self, bottom, top): self.calls = 0
    def reshape(self, bottom, top): top[0].reshape(2, 500)
    def forward(self, bottom, top):
        self.calls += 1
        top[0].data[...] = self.calls < 3
""")
    Path("net.prototxt").write_text("""
layer { name: "x" type: "Python" top: "x" python_param { module: "once" layer: "Once" } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 400 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }
""")
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" type: "Adam" base_lr: 1e-3 momentum: 0.1 lr_policy: '
        '"fixed" max_iter: 43 snapshot_prefix: "run" solver_mode: CPU'
    )
    environment = dict(os.environ, PYTHONPATH=f"{REPO}:.", OMP_NUM_THREADS="2")
    command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt"]
    subprocess.run(command, env=environment, check=True, timeout=100)
    state = caffe_pb2.SolverState.FromString(Path("run_iter_43.solverstate").read_bytes())
    mean, square = (np.array(blob.data, np.float32) for blob in state.history)
    assert (square > 0).all() and (mean == 0).all()


@pytest.mark.parametrize("raised, traceback", [("Told('no data in /nowhere; get some')", False), ("1 / 0", True)])
@pytest.mark.medium
def test_an_exception_in_a_python_layer_exits_1(raised, traceback):
    """An exception class of the layer's own is a message to the user; a built-in one shows where it happened."""
    Path("mine.py").write_text(
        "import caffe\nclass Told(Exception):\n    pass\nclass Mine(caffe.Layer):\n"
        f"    def setup(self, bottom, top):\n        raise {raised}\n"
    )
    Path("net.prototxt").write_text(
        'layer { name: "m" type: "Python" top: "y" python_param { module: "mine" layer: "Mine" } }'
    )
    done = process("time", "--model=net.prototxt")
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == traceback
    said = "ZeroDivisionError: division by zero" if traceback else "no data in /nowhere; get some"
    assert done.stderr.splitlines()[-1] == f"error: {said} (in layer 'm', mine.Mine)"


@pytest.mark.medium
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("given", [None, "glibc.malloc.perturb=0"])
def test_the_command_asks_for_large_pages_unless_told_something_else(given):
    Path("tell.py").write_text("""
import os
import caffe
class Tell(caffe.Layer):
    def setup(self, bottom, top): open("told", "a").write(os.environ["GLIBC_TUNABLES"] + "\\n")
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top): pass
""")
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "Python" top: "x" python_param { module: "tell" layer: "Tell" } }'
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:."}
    environment.pop("GLIBC_TUNABLES", None)
    if given:
        environment["GLIBC_TUNABLES"] = given
    for command in ([sys.executable, "-m", "caffe"], [str(Path(sys.executable).with_name("caffe"))]):
        Path("told").unlink(missing_ok=True)
        command += ["time", "--model=net.prototxt", "--iterations=1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert Path("told").read_text() == (given or "glibc.malloc.hugetlb=1") + "\n"


@pytest.mark.parametrize("words", ["--logtostderr", "-alsologtostderr=1", "--nologtostderr", "--log_dir logs", "-v 1"])
def test_flags_of_glog_change_nothing(words, capfd):
    """Old train.sh scripts give them."""
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } }'
    )
    status, _, log = run(capfd, "time", *words.split(), "--model=net.prototxt", "--iterations=1")
    assert status == 0 and any("Average Forward pass" in line for line in log) and not Path("logs").exists()
