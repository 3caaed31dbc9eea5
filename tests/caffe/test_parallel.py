"""Training with several processes (gloo on the CPU), started as `torchrun -m caffe train`."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

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


def start(folder, ranks, iterations=20, snapshot=20, pause=""):
    """A job of `ranks` processes in `folder`; its Popen."""
    folder.mkdir(exist_ok=True)
    (folder / "part_layers.py").write_text(LAYERS)
    (folder / "net.prototxt").write_text(NET % pause)
    (folder / "solver.prototxt").write_text(SOLVER % (iterations, snapshot))
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}:{folder}", OMP_NUM_THREADS="1")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "caffe", "train", "--solver=solver.prototxt"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


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
