"""A run continued elsewhere: which digits stay, by threads, by the processor's instructions, and with --deterministic.

Another processor is one that torch, oneDNN, MKL and glibc are told to take this one for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe import flags
from caffe.proto import caffe_pb2
from caffe.read import read_net_binary

pytestmark = pytest.mark.medium
ROOT = Path(__file__).resolve().parents[2]
NET = """
layer { name: "x" type: "DummyData" top: "x"
        dummy_data_param { shape { dim: 8 dim: 3 dim: 37 dim: 41 } data_filler { type: "gaussian" } } }
layer { name: "y" type: "DummyData" top: "y"
        dummy_data_param { shape { dim: 8 dim: 9 } data_filler { type: "gaussian" } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 24 kernel_size: 5 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "elu" type: "ELU" bottom: "bn" top: "elu" }
layer { name: "lrn" type: "LRN" bottom: "elu" top: "lrn" }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
        inner_product_param { num_output: 9 weight_filler { type: "xavier" } } }
layer { name: "sigmoid" type: "Sigmoid" bottom: "ip" top: "sigmoid" }
layer { name: "loss" type: "EuclideanLoss" bottom: "sigmoid" bottom: "y" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 4 snapshot: 2
snapshot_prefix: "run" random_seed: 5 solver_mode: CPU
"""
USUAL = {"OMP_NUM_THREADS": "1"}
THREADS = {"OMP_NUM_THREADS": "2"}
OLDER = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def train(folder, environment, *words):
    """The log of a training; its weights after iteration 4."""
    command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt", *words]
    inherited = {k: v for k, v in os.environ.items() if k not in OLDER}
    done = subprocess.run(
        command,
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    blobs = [blob for layer in read_net_binary(str(folder / "run_iter_4.caffemodel")).layer for blob in layer.blobs]
    return done.stderr, [np.array(blob.data, np.float32) for blob in blobs]


RESUME = "--snapshot=run_iter_2.solverstate"
TOLD = r"run_iter_2\.solverstate was computed by (.*); this is (.*): the last digits may come out otherwise"


def test_another_number_of_threads_or_processor_is_told_and_changes_last_digits_alone(folder):
    log, weights = train(folder, USUAL)
    log, again = train(folder, USUAL, RESUME)
    assert "computed by" not in log
    for a, b in zip(weights, again):
        np.testing.assert_array_equal(a, b)
    for environment, here in ((THREADS, "2 threads"), (OLDER, "AVX2, 1 thread")):
        log, elsewhere = train(folder, environment, RESUME)
        told = re.search(TOLD, log)
        assert told and here in told[2].replace("with ", "") and "1 thread" in told[1], log
        for a, b in zip(weights, elsewhere):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # of sums of 10^5 float32s


def test_deterministic_is_equal_bit_by_bit_on_all_of_them(folder):
    runs = [train(folder, environment, "--deterministic") for environment in (USUAL, THREADS, OLDER)]
    for _, weights in runs[1:]:
        for a, b in zip(runs[0][1], weights):
            np.testing.assert_array_equal(a, b)
    log, weights = train(folder, THREADS, "--deterministic", RESUME)  # from the snapshot of another processor
    assert "computed by" not in log
    for a, b in zip(runs[0][1], weights):
        np.testing.assert_array_equal(a, b)
    state = caffe_pb2.SolverState.FromString((folder / "run_iter_2.solverstate").read_bytes())
    assert re.match(r"any \w+ CPU \(--deterministic\), torch 2", state.computed_by)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_from_a_gpu_to_a_cpu_is_told(folder, form, monkeypatch, capfd):
    from caffe import cli, machine

    monkeypatch.chdir(folder)
    (folder / "solver.prototxt").write_text(SOLVER + f"snapshot_format: {form}")
    ending = ".h5" if form == "HDF5" else ""
    with monkeypatch.context() as patched:
        patched.setattr(machine, "told", lambda where: "NVIDIA H100, torch 2.13.0, linux")
        assert cli.main(["train", "--solver=solver.prototxt"]) == 0
    assert cli.main(["train", "--solver=solver.prototxt", RESUME + ending]) == 0
    told = "was computed by NVIDIA H100, torch 2.13.0, linux; this is"
    assert f"run_iter_2.solverstate{ending} {told}" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words, found",
    [
        ([], False),
        (["--deterministic"], True),
        (["-deterministic=true"], True),
        (["--deterministic=0"], False),
        (["--deterministic=N"], False),
        (["--deterministic", "--nodeterministic"], False),
        (["--deterministic=maybe"], "illegal value 'maybe'"),
    ],
)
def test_the_flag_is_written_as_gflags_write_it(words, found):
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            flags.parse(["train", *words])
    else:
        given, rest = flags.parse(["train", *words])
        assert given["deterministic"] is found and rest == ["train"]
