"""What goes wrong in long runs: damaged snapshots, two runs at once, losses that are not numbers, no space."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe import files
from caffe import weights as weights_io
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from caffe.read import read_net_binary
from caffe.snapshot import restore_newest_good

ROOT = Path(__file__).resolve().parents[2]

NET = """
layer { name: "x" type: "DummyData" top: "x"
        dummy_data_param { shape { dim: 4 dim: 5 } data_filler { type: "gaussian" } } }
layer { name: "y" type: "DummyData" top: "y"
        dummy_data_param { shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return tmp_path


def write_solver(max_iter=30, base_lr=0.01, snapshot=10):
    Path("solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: {base_lr} lr_policy: "fixed" momentum: 0.9 max_iter: {max_iter} display: 10 '
        f'snapshot: {snapshot} snapshot_prefix: "run" random_seed: 5 solver_mode: CPU'
    )


def train(*arguments, **options):
    command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt", *arguments]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, **options)


def weights(path):
    return [np.array(b.data, np.float32) for layer in read_net_binary(path).layer for b in layer.blobs]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
@pytest.mark.parametrize("which", ["run_iter_20.solverstate", "run_iter_20.caffemodel"])
@pytest.mark.medium
def test_a_damaged_snapshot_gives_way_to_the_one_before(folder, damage, which):
    write_solver()
    assert train().returncode == 0
    undisturbed = weights("run_iter_30.caffemodel")
    content = bytearray(Path(which).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    Path(which).write_bytes({"flip": content, "truncate": content[: len(content) * 2 // 3], "empty": b""}[damage])
    done = train("--snapshot=run_iter_20.solverstate")
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf" snapshot\.py:\d+\] {which}.*trying the snapshot before it, run_iter_10\.solverstate", done.stderr
    )
    for a, b in zip(weights("run_iter_30.caffemodel"), undisturbed):
        np.testing.assert_array_equal(a, b)


@pytest.mark.medium
def test_the_only_snapshot_damaged_is_an_error(folder):
    write_solver(max_iter=10)
    assert train().returncode == 0
    Path("run_iter_10.caffemodel").write_bytes(Path("run_iter_10.caffemodel").read_bytes()[:-3])
    done = train("--snapshot=run_iter_10.solverstate")
    assert done.returncode == 134
    assert "run_iter_10.caffemodel" in done.stderr and "damaged" in done.stderr


@pytest.mark.medium
def test_weights_that_cannot_be_read_give_way_to_the_snapshot_before(folder, capsys):
    write_solver()
    caffe.get_solver("solver.prototxt").step(20)
    Path("run_iter_20.caffemodel").unlink()
    os.mkfifo("run_iter_20.caffemodel")
    solver = caffe.get_solver("solver.prototxt")
    restore_newest_good(solver, "run_iter_20.solverstate")
    assert solver.iter == 10 and "run_iter_20.caffemodel: it is no regular file -- trying" in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["run", "a\nb", "é[%d]*"])
def test_weights_of_another_run_are_not_taken(folder, prefix):
    """As when a run in a folder of old snapshots is killed between the two files; the one before is taken."""
    runs = {}
    for seed in (1, 2):
        write_solver()
        solver = caffe.get_solver("solver.prototxt")
        solver.param.random_seed, solver.param.snapshot_prefix = seed, prefix
        solver.net.params["ip"][0].data[...] *= seed
        solver.step(20)
        runs[seed] = {name: Path(name).read_bytes() for name in os.listdir() if "_iter_" in name}
    for name in runs[1]:
        Path(name).write_bytes(runs[1][name])
    Path(f"{prefix}_iter_20.caffemodel").write_bytes(runs[2][f"{prefix}_iter_20.caffemodel"])
    solver = caffe.get_solver("solver.prototxt")
    with pytest.raises(CaffeError, match="(?s)it is not the file that .*_iter_20.solverstate was saved with"):
        solver.restore(f"{prefix}_iter_20.solverstate")
    restore_newest_good(solver, f"{prefix}_iter_20.solverstate")
    assert solver.iter == 10


def test_a_state_finds_its_own_weights_beside_it(folder):
    """Not those that a later run has left where it once lay."""
    write_solver()
    solver = caffe.get_solver("solver.prototxt")
    solver.step(10)
    saved = solver.net.params["ip"][0].data.copy()
    Path("kept").mkdir()
    for ending in ("caffemodel", "solverstate"):
        os.rename(f"run_iter_10.{ending}", f"kept/run_iter_10.{ending}")
    other = caffe.get_solver("solver.prototxt")
    other.net.params["ip"][0].data[...] = 5
    other.step(10)
    other.restore("kept/run_iter_10.solverstate")
    np.testing.assert_array_equal(other.net.params["ip"][0].data, saved)


@pytest.mark.medium
def test_nobody_needs_to_read_the_log(folder):
    """The terminal is closed, and tee with it; the disk of the log is full. Training goes on."""
    write_solver(max_iter=3000)
    command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    job = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while "Iteration 20 " not in job.stderr.readline():
        assert job.poll() is None
    job.stderr.close()
    assert job.wait(timeout=60) == 0 and newest_state()[0] == 3000
    write_solver(max_iter=20)
    Path("run_iter_20.solverstate").unlink()
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, env=environment, stderr=full, timeout=60).returncode == 0
    assert Path("run_iter_20.solverstate").exists()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--snapshot=nowhere/run_iter_10.solverstate"], "cannot read the solver state: File not found: nowhere/run"),
        (["--weights=empty.caffemodel"], "empty.caffemodel: holds no weights at all; it was emptied or cut off"),
        (["--weights=/dev/zero"], "Cannot read /dev/zero: it is no regular file"),
        (["--weights=pipe"], "Cannot read pipe: it is no regular file"),
        (["--snapshot=before.solverstate"], "before.solverstate: says that it is of iteration -5; it is damaged"),
    ],
)
@pytest.mark.medium
def test_what_training_cannot_start_from(folder, arguments, told):
    write_solver()
    Path("empty.caffemodel").touch()
    os.mkfifo("pipe")
    state = caffe_pb2.SolverState(iter=-5)
    for shape in ((3, 5), (3,)):
        weights_io.blob_to_proto(caffe.Blob(shape), state.history.add())
    Path("before.solverstate").write_bytes(state.SerializeToString())
    done = train(*arguments)
    assert done.returncode == 134 and told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.medium
def test_a_second_run_in_the_same_folder_is_refused(folder):
    write_solver(max_iter=10)
    with files.only_run("run"):
        done = train()
    assert done.returncode == 134
    assert f"another run (process {os.getpid()}) is writing snapshots named 'run'" in done.stderr
    assert not Path("run.lock").exists()
    assert train().returncode == 0


@pytest.mark.medium
def test_a_loss_that_is_not_finite_stops_the_run_with_its_cause(folder):
    write_solver(max_iter=1000, base_lr=1e6)
    done = train()
    assert done.returncode == 134
    told = re.search(
        r"Iteration (\d+): the loss is (?:inf|nan) \(loss = (?:inf|nan)\); the first bad values are in "
        r"(?:parameter 0|blob '\w+') of layer '(\w+)'",
        done.stderr,
    )
    assert told, done.stderr[-600:]
    assert told[2] in ("ip", "loss")
    assert Path(f"run_iter_{told[1]}.caffemodel").exists()


POISON = """
import caffe
class Poison(caffe.Layer):
    passes = 0
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        if self.passes >= 7:
            top[0].data[1] = float("%s")
        self.passes += 1
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff
"""
SECOND_LOSS = """
layer { name: "zero" type: "DummyData" top: "zero" dummy_data_param { shape { dim: 4 dim: 3 } } }
layer { name: "small" type: "EuclideanLoss" bottom: "%s" bottom: "zero" top: "small" loss_weight: 0.5 }
"""


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(
    "where, terms, bad",
    [
        ("x", r"loss = (nan|inf), small = [\d.]+", "blob 'x'"),  # the data
        ("ip", r"loss = [\d.]+, small = (nan|inf)", "blob 'poisoned'"),  # one of two losses
    ],
)
def test_a_bad_value_is_traced_to_its_blob_and_the_moment_before_is_saved(
    folder, monkeypatch, where, terms, bad, value
):
    monkeypatch.setattr("sys.path", [*sys.path, str(folder)])
    module = f"poison_{where}_{value}"
    Path(f"{module}.py").write_text(POISON % value)
    layer = (
        f'layer {{ name: "poison" type: "Python" bottom: "{where}" top: "%s" '
        f'python_param {{ module: "{module}" layer: "Poison" }} }}\n'
    )
    net = NET + SECOND_LOSS % "y"
    if where == "x":
        net = net.replace('layer { name: "drop"', layer % "x" + 'layer { name: "drop"')
    else:
        net = NET + layer % "poisoned" + SECOND_LOSS % "poisoned"
    Path("net.prototxt").write_text(net)
    write_solver(max_iter=30, snapshot=100)
    solver = caffe.get_solver("solver.prototxt")
    solver.step(7)
    before = [blob.data.flatten() for blob in solver.net.params["ip"]]
    with pytest.raises(CaffeError, match=rf"Iteration 7: the loss is (nan|inf) \({terms}\); .*{bad} .*run_iter_7"):
        solver.step(10)
    for a, b in zip(weights("run_iter_7.caffemodel"), before):
        np.testing.assert_array_equal(a, b)


STATISTICS = """layer { name: "poison" type: "Python" bottom: "x" top: "bad"
        python_param { module: "poison_statistics" layer: "Poison" } }
layer { name: "bn" type: "BatchNorm" bottom: "bad" top: "bn" }
"""


def test_a_bad_batch_leaves_no_trace_in_the_statistics_that_are_saved(folder, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path, str(folder)])
    Path("poison_statistics.py").write_text(POISON % "nan")
    Path("net.prototxt").write_text(
        NET.replace(
            'layer { name: "drop" type: "Dropout" bottom: "x"',
            STATISTICS + 'layer { name: "drop" type: "Dropout" bottom: "bn"',
        )
    )
    write_solver(snapshot=7)
    solver = caffe.get_solver("solver.prototxt")
    solver.step(7)
    before = weights("run_iter_7.caffemodel")
    with pytest.raises(CaffeError, match="Iteration 7: the loss is nan .*saved as run_iter_7"):
        solver.step(1)
    for a, b in zip(weights("run_iter_7.caffemodel"), before):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("max_iter, snapshot", [(30, 4), (30, 5), (8, 5)])
def test_weights_that_are_not_finite_are_never_saved(folder, monkeypatch, max_iter, snapshot):
    """A gradient may be bad while its loss is finite: neither a snapshot that is due nor the last one holds it."""
    monkeypatch.setattr("sys.path", [*sys.path, str(folder)])
    Path("poison_gradient.py").write_text(
        POISON.replace(">= 7", "< 0").replace("= top[0].diff", '= top[0].diff if self.passes != 8 else float("nan")')
        % "nan"
    )
    layer = """layer { name: "poison" type: "Python" bottom: "ip" top: "same"
        python_param { module: "poison_gradient" layer: "Poison" } }
layer { name: "loss" type: "EuclideanLoss" bottom: "same" """
    Path("net.prototxt").write_text(NET.replace('layer { name: "loss" type: "EuclideanLoss" bottom: "ip"', layer))
    write_solver(max_iter=max_iter, snapshot=snapshot)
    with pytest.raises(
        CaffeError, match="Iteration 8: layer 'ip' holds weights that are not finite; they are not saved"
    ):
        caffe.get_solver("solver.prototxt").solve()
    assert newest_state()[0] == snapshot
    assert all(np.isfinite(w).all() for w in weights(f"run_iter_{snapshot}.caffemodel"))


def test_a_loss_that_is_not_finite_is_told_also_where_nothing_can_be_saved(folder):
    write_solver(max_iter=1000, base_lr=1e6)
    solver = caffe.get_solver("solver.prototxt")
    solver.param.snapshot_prefix, solver.param.snapshot = "gone/run", 0
    with pytest.raises(CaffeError, match=r"the loss is (nan|inf) .*cannot write gone/run_iter_\d+.caffemodel: No such"):
        solver.step(1000)


def test_no_space_leaves_the_old_snapshot_and_no_half_file(folder, monkeypatch):
    write_solver()
    solver = caffe.get_solver("solver.prototxt")
    solver.step(10)
    before = sorted(os.listdir())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    solver.iter = 11
    with pytest.raises(CaffeError, match=r"cannot write run_iter_11.caffemodel: No space left on device"):
        solver.snapshot()
    assert sorted(os.listdir()) == before


@pytest.fixture
def disk(folder):
    """A file system of 200 kB that is the current folder; for root alone."""
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount: {mount.stderr.strip()}")
    os.chdir(folder)  # into what was mounted
    Path("net.prototxt").write_text(NET.replace("num_output: 3", "num_output: 900").replace("dim: 3", "dim: 900"))
    yield folder
    os.chdir("/")
    subprocess.run(["umount", folder], check=True)


@pytest.mark.medium
def test_a_full_disk_leaves_the_snapshot_before(disk):
    """Weights and state of 900 units are 44 kB a snapshot: the fifth does not fit."""
    write_solver(max_iter=100)
    done = train()
    assert done.returncode == 134
    told = re.search(r"cannot write run_iter_(\d+)\.(?:caffemodel|solverstate): No space left on device", done.stderr)
    assert told and int(told[1]) > 20, done.stderr[-500:]
    assert not list(Path().glob("*.tmp*")) and not Path("run.lock").exists()
    number, newest = newest_state()
    assert number == int(told[1]) - 10
    for name in Path().glob("run_iter_*"):
        assert files.check_seal(name.read_bytes(), name)
    for name in Path().glob("run_iter_[12]0.*"):
        name.unlink()  # room
    write_solver(max_iter=number + 10)
    assert train(f"--snapshot={newest}").returncode == 0


@pytest.mark.medium
def test_a_read_only_disk_is_told_before_training_or_at_the_snapshot(disk):
    write_solver(max_iter=20)
    solver = caffe.get_solver("solver.prototxt")
    solver.step(5)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(CaffeError, match="cannot write run_iter_10.caffemodel: Read-only file system"):
        solver.step(15)
    done = train()
    assert done.returncode == 134 and "Cannot write to snapshot prefix 'run'" in done.stderr


KILLS = int(os.environ.get("GAITNET_KILLS", 20))


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * KILLS)
def test_killed_at_random_moments_it_ends_as_if_undisturbed(folder):
    """SIGKILL at many moments, while snapshots are written, too (they come every other iteration); each time continued.

    After each kill, all snapshots but the one being written are there, and every file that has its name is whole."""
    iterations = 20 * KILLS
    write_solver(max_iter=iterations, snapshot=2)
    assert train().returncode == 0
    undisturbed = weights(f"run_iter_{iterations}.caffemodel")
    for path in Path().glob("run_iter_*"):
        path.unlink()
    rng = np.random.default_rng(0)
    killed, half = 0, 0
    while killed < KILLS:
        resume = newest_state()
        command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt"]
        command += [f"--snapshot={resume[1]}"] if resume else []
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as job:
            lines, wanted = [], rng.integers(1, 7)
            for line in job.stderr:
                lines.append(line)
                if sum("Snapshotting" in told for told in lines) == wanted:
                    break
            time.sleep(rng.uniform(0, 0.01))
            assert job.poll() is None, "".join(lines)
            job.kill()
            lines += job.stderr.readlines()
        killed += 1
        begun = [int(n) for n in re.findall(r"Snapshotting solver state to .*_iter_(\d+)\.", "".join(lines))]
        half += bool(list(Path().glob("*.tmp*")))
        newest = newest_state()
        assert (newest[0] if newest else 0) >= max(begun, default=2) - 2
        for name in Path().glob("run_iter_*[el]"):
            assert files.check_seal(name.read_bytes(), name)
        if newest and killed < KILLS:
            for old in Path().glob("run_iter_*[el]"):
                if int(re.search(r"_(\d+)\.", old.name)[1]) < newest[0] - 10:
                    old.unlink()
    assert train(f"--snapshot={newest_state()[1]}").returncode == 0
    print(f"{killed} kills, {half} of them while a file was half written")
    assert not list(Path().glob("*.tmp*")) and not Path("run.lock").exists()
    for a, b in zip(weights(f"run_iter_{iterations}.caffemodel"), undisturbed):
        np.testing.assert_array_equal(a, b)


def newest_state():
    found = [(int(re.search(r"_(\d+)\.", p.name)[1]), p.name) for p in Path().glob("run_iter_*.solverstate")]
    return max(found, default=None)
