"""Nets in forked processes, as multiprocessing.Pool makes them on Linux, after their parent computed with threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 8 dim: 3 dim: 48 dim: 48 }
        shape { dim: 8 dim: 5 } data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 16 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" lr_policy: "fixed" base_lr: 1e-4 random_seed: 1 snapshot_prefix: "run" solver_mode: CPU\n'
CODE = """
import multiprocessing, sys
import numpy as np, torch, caffe

solver = caffe.get_solver("solver.prototxt")

def in_child(_):
    solver.net.forward()
    solver.net.backward()
    solver.step(2)
    return solver.net.params["ip"][0].data.copy()

torch.set_num_threads(2)
solver.step(1)
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map_async(in_child, range(2), chunksize=1).get(timeout=60)
assert torch.get_num_threads() == 2
want = in_child(0)
for got in found:
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())  # sums of other lengths, by thread
"""


@pytest.mark.medium
def test_a_forked_process_computes(tmp_path):
    """OpenMP would wait for ever for threads that a fork does not bring along."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
