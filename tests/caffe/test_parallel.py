"""Training with several processes (gloo on the CPU), started as `torchrun -m caffe train`."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caffe.random import Seeds, Stream
from caffe.read import read_net_binary

ROOT = Path(__file__).resolve().parents[2]

LAYERS = '''
import time
import caffe
import numpy as np


class Part(caffe.Layer):
    """Batch k is the same for any number of ranks: 8 rows, of which each rank takes its share."""

    def setup(self, bottom, top):
        self.batch = -1

    def reshape(self, bottom, top):
        self.batch += 1
        rows = 8 // caffe.solver_count()
        mine = slice(caffe.solver_rank() * rows, (caffe.solver_rank() + 1) * rows)
        rng = np.random.RandomState(self.batch)
        self.data, self.label = rng.randn(8, 3, 6, 5)[mine], rng.randint(0, 4, 8)[mine]
        top[0].reshape(rows, 3, 6, 5)
        top[1].reshape(rows)

    def forward(self, bottom, top):
        time.sleep(float(self.param_str or 0))
        top[0].data[...] = self.data
        top[1].data[...] = self.label

    def backward(self, top, propagate_down, bottom):
        pass

    def __caffe_seek__(self, batch):
        self.batch = batch
'''

NET = """
layer { name: "data" type: "Python" top: "x" top: "y"
        python_param { module: "part_layers" layer: "Part" param_str: "%s" } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""

SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 display: 5 max_iter: %d snapshot: %d
snapshot_prefix: "run" random_seed: 3 solver_mode: CPU"""


def write_job(folder, iterations=20, snapshot=20, pause="", net=NET, solver=SOLVER):
    folder.mkdir(exist_ok=True)
    (folder / "part_layers.py").write_text(LAYERS)
    (folder / "net.prototxt").write_text(net % pause)
    (folder / "solver.prototxt").write_text(solver % (iterations, snapshot))


def run(folder, *command, **variables):
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}:{folder}", OMP_NUM_THREADS="1", **variables)
    command = [sys.executable, *command]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def start(folder, ranks, *arguments, **job):
    """A job of `ranks` processes in `folder`; its Popen."""
    write_job(folder, **job)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return run(folder, *launcher, "-m", "caffe", "train", "--solver=solver.prototxt", *arguments)


def weights(folder, iteration):
    net = read_net_binary(str(folder / f"run_iter_{iteration}.caffemodel"))
    return [np.array(blob.data, np.float32) for layer in net.layer for blob in layer.blobs]


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.medium
def test_ranks_follow_the_trajectory_of_one_process_with_all_the_data(tmp_path, ranks):
    for count in (1, ranks):
        job = start(tmp_path / str(count), count)
        log = job.communicate(timeout=120)[1]
        assert job.returncode == 0, log
    assert len(re.findall(r"Iteration 15 \(", log)) == 1  # only rank 0 tells
    for one, many in zip(weights(tmp_path / "1", 20), weights(tmp_path / str(ranks), 20)):
        np.testing.assert_allclose(many, one, atol=1e-5)  # sums in another order, 20 updates


DROPOUT = """layer { name: "drop" type: "Dropout" bottom: "conv" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" """


@pytest.mark.slow
def test_ranks_without_a_seed_of_their_own_resume_exactly(tmp_path):
    """All draw the same one, which the snapshot keeps; their dropout differs none the less."""
    job = dict(
        net=NET.replace('layer { name: "ip" type: "InnerProduct" bottom: "conv"', DROPOUT),
        solver=SOLVER.replace("random_seed: 3", ""),
        snapshot=10,
    )
    ended = []
    for arguments in ([], ["--snapshot=run_iter_10.solverstate"]):
        log = (training := start(tmp_path, 2, *arguments, **job)).communicate(timeout=120)[1]
        assert training.returncode == 0, log
        ended.append(weights(tmp_path, 20))
    for a, b in zip(*ended):
        np.testing.assert_array_equal(a, b)


def test_every_rank_draws_other_numbers_in_a_pass_and_the_same_for_good(monkeypatch):
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr("caffe.random.solver_rank", lambda rank=rank: rank)
        stream = Stream(Seeds(3), 2)
        drawn.append((stream().initial_seed(), stream.fixed("order", 0).initial_seed()))
    assert drawn[0][0] != drawn[1][0] and drawn[0][1] == drawn[1][1]


@pytest.mark.slow
def test_ranks_that_start_from_different_snapshots_are_stopped(tmp_path):
    """On machines with disks of their own, where one rank's newest snapshot is damaged."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    jobs = []
    for rank in (0, 1):
        folder = tmp_path / str(rank)
        assert start(folder, 1, iterations=20, snapshot=10).wait(60) == 0
        write_job(folder, iterations=30, snapshot=10)
        if rank:
            (folder / "run_iter_20.caffemodel").write_bytes(b"")
        whole = dict(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        command = ["-m", "caffe", "train", "--solver=solver.prototxt", "--snapshot=run_iter_20.solverstate"]
        jobs.append(run(folder, *command, **whole))
    logs = [job.communicate(timeout=60)[1] for job in jobs]
    assert all(job.returncode == 134 for job in jobs)
    assert all("start from different iterations, rank by rank [20, 10]" in log for log in logs), logs


# As `caffe train --gpu=0,1` starts two processes, without GPUs; not in the current folder is caffe looked for.
LAUNCH = f"""import sys; sys.path[:] = [{str(ROOT)!r}, *filter(None, sys.path)]
from caffe.parallel import launch; sys.exit(launch([0, 1], ['train', '--solver=solver.prototxt']))"""


@pytest.mark.medium
def test_the_ranks_of_launch_run_this_caffe(tmp_path):
    """Not a caffe.py that somebody has put beside the prototxt."""
    write_job(tmp_path, iterations=5)
    (tmp_path / "caffe.py").write_text("import sys; sys.exit('a stranger ran')")
    job = run(tmp_path, "-c", LAUNCH)
    log = job.communicate(timeout=60)[1]
    assert job.returncode == 0 and "a stranger ran" not in log, log
    assert (tmp_path / "run_iter_5.caffemodel").exists()


@pytest.mark.slow
def test_a_dead_rank_ends_the_job_and_the_last_snapshot_is_good(tmp_path):
    job = start(tmp_path, 2, iterations=100000, snapshot=10, pause="0.01")
    deadline = time.time() + 60
    while not (tmp_path / "run_iter_10.solverstate").exists():
        assert time.time() < deadline and job.poll() is None
        time.sleep(0.1)
    workers = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    log = job.communicate(timeout=60)[1]
    assert job.returncode != 0
    assert "lost contact with another process" in log or "exitcode: -9" in log or "SIGKILL" in log
    newest = max(int(re.search(r"_(\d+)\.solverstate", p.name)[1]) for p in tmp_path.glob("*.solverstate"))
    assert all(np.isfinite(w).all() for w in weights(tmp_path, newest))


@pytest.mark.medium
def test_ranks_end_with_the_process_that_started_them(tmp_path):
    """Killed outright it cannot stop them; else they would train on, and the same command would be refused."""
    write_job(tmp_path, iterations=100000, snapshot=10)
    job = run(tmp_path, "-c", LAUNCH)
    while not (tmp_path / "run_iter_10.solverstate").exists():
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    ranks = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
    assert len(ranks) == 2
    job.kill()
    job.communicate()  # until the last that could write there has ended
    assert not any(Path("/proc", rank, "exe").exists() for rank in ranks)
