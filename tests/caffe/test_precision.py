"""The choice of precision: what torch is told, bfloat16 products in float32 nets, errors on the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe import precision
from caffe.errors import CaffeError

NET = """
input: "x" input_shape { dim: 3 dim: 5 dim: 7 dim: 6 }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 11 weight_filler { type: "xavier" } } }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
        convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
"""
GPU = torch.device("cuda", 0)
REPO = str(Path(__file__).resolve().parents[2])


@pytest.fixture(autouse=True)
def as_before():
    yield
    precision.choose("float32", GPU)


@pytest.mark.parametrize("name, flag", [("float32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_torch_is_told(name, flag):
    precision.choose(name, GPU)
    assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == flag


def test_bf16_rounds_products_and_leaves_blobs_float32(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text("force_backward: true" + NET)
    caffe.set_random_seed(1)
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["x"].data[...] = np.random.RandomState(0).randn(3, 5, 7, 6)
    for name in ("ip", "up"):
        net.blobs[name].diff[...] = np.random.RandomState(1).randn(*net.blobs[name].data.shape)

    def run():
        net.clear_param_diffs()
        net.forward()
        net.backward()
        blobs = {name: blob.data.copy() for name, blob in net.blobs.items()}
        return blobs, {f"{name} {i}": b.diff.copy() for name, p in net.params.items() for i, b in enumerate(p)}

    exact = run()
    precision.choose("bf16", GPU)  # the CPU can, too, but is slow at it
    rounded = run()
    for kind in (0, 1):
        for name, value in exact[kind].items():
            other = rounded[kind][name]
            assert other.dtype == np.float32
            # bfloat16 keeps 8 bits: each operand and result is off by at most 2^-9 of its size; three layers, summed
            assert np.abs(other - value).max() <= 0.03 * np.abs(value).max(), name
    assert not np.array_equal(exact[0]["ip"], rounded[0]["ip"])
    assert (rounded[0]["conv"].view(np.uint32) & 0xFFFF == 0).all()  # a bfloat16 has the upper 16 bits


@pytest.mark.parametrize(
    "name, told",
    [
        ("tf32", "precision tf32 is for GPUs, and this run computes on the CPU"),
        ("half", "unknown precision 'half' (known: float32, tf32, bf16)"),
    ],
)
@pytest.mark.medium
def test_one_clear_error_on_the_cpu(name, told, tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    with pytest.raises(CaffeError, match=re.escape(told)):
        precision.choose(name, torch.device("cpu"))
    command = [sys.executable, "-m", "caffe", "time", "--model=net.prototxt", "--iterations=1", f"--precision={name}"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ, PYTHONPATH=REPO), capture_output=True, text=True)
    assert done.returncode == 134 and told in done.stderr and "Traceback" not in done.stderr
