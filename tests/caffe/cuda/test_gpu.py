"""What only a GPU can show: CUDA graphs against plain kernels, precisions against float32, memory that stays flat."""

import math

import numpy as np
import pytest
import torch

from caffe import device, precision
from caffe.cuda.graph import WARM_UP
from tests.caffe.cuda.test_graph import solver
from tools import bench_gpu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CLIPS = 8


@pytest.fixture(autouse=True)
def on_gpu():
    device.set_mode_gpu()
    yield
    precision.choose("float32", device.current)
    device.set_mode_cpu()


@pytest.mark.parametrize("layer", ["Batches", "Packed"])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_captured_iterations_equal_plain_ones(layer, kind):
    a, b = solver(layer=layer, type=kind), solver(layer=layer, type=kind)
    a.graphs = False
    a.step(WARM_UP + 10)
    b.step(WARM_UP + 10)
    assert b.iteration._pass and b.iteration._update and not b.iteration.refused
    for name in a.net.blobs:
        # cuDNN may add in another order; the nets are a few layers deep.
        np.testing.assert_allclose(b.net.blobs[name].data, a.net.blobs[name].data, rtol=1e-4, atol=1e-5, err_msg=name)


def test_what_the_user_writes_counts():
    a, b = solver(), solver()
    a.graphs = False
    for s in (a, b):
        s.step(WARM_UP + 2)
        s.net.params["ip"][0].data[...] = 0.25
        s.step(2)
    np.testing.assert_allclose(b.net.params["ip"][0].data, a.net.params["ip"][0].data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", ["seg", "rec", "joint", "sia"])
def test_the_nets_are_captured_and_memory_stays_flat(step):
    made = bench_gpu.make_solver(step, "float32", CLIPS, ready_made=True)
    made.step(WARM_UP + 5)
    assert made.iteration._pass and made.iteration._update and not made.iteration.refused
    before = bench_gpu.allocated()
    made.step(20)
    assert bench_gpu.allocated() == before
    assert math.isfinite(float(made.smoothed_loss))


def test_no_iteration_waits_for_the_gpu(tmp_path):
    waits = bench_gpu.profile("float32", CLIPS, tmp_path / "trace.json")
    assert set(waits) <= {"cudaEventSynchronize"}  # of the copy two batches ago, which is long done


@pytest.mark.parametrize("name, bound", [("tf32", 1e-2), ("bf16", 1e-1)])
def test_precision_on_the_joint_trajectory(name, bound):
    """The first losses, before rounding has grown: 10 and 7 bits of mantissa, through 17 layers."""
    one, reference = (bench_gpu.trajectory(p, CLIPS) for p in (name, "float32"))
    for loss, wanted in zip(one[0][:3], reference[0][:3]):
        assert abs(loss - wanted) <= bound * abs(wanted)
