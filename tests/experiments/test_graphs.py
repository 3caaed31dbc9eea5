"""The four nets as captured iterations: on the CPU, with memory as on a GPU, the very run that is not captured."""

from pathlib import Path

import pytest
import torch

from caffe.cuda.graph import WARM_UP, why_not
from caffe.layer import TRAIN
from caffe.net import Net
from caffe.read import read_net_file
from models.summary import fed
from tests.caffe.apart import memory_apart
from tests.caffe.cuda.recorder import Recorder
from tools import bench_gpu

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.medium
@pytest.mark.parametrize("step", ["seg", "rec", "joint", "sia"])
def test_captured_equals_plain(step):
    with memory_apart():
        plain, captured = (bench_gpu.make_solver(step, "float32", 2, ready_made=True) for _ in range(2))
        engine = Recorder(sync=True)  # labels are looked at on a CPU alone
        plain.capture_with(Recorder(sync=True))
        captured.capture_with(engine)
        plain.iteration.refused = "told so"
        for _ in range(WARM_UP + 2):
            plain.step(1)
            captured.step(1)
            assert float(plain.smoothed_loss) == float(captured.smoothed_loss)
            captured.net.blobs["im0"].data.sum()  # to look changes nothing
        assert (engine.captures, engine.replays) == (2, 2 * 2)
        for a, b in zip(plain.net.learnable_params, captured.net.learnable_params):
            assert torch.equal(a.tensor(), b.tensor())


@pytest.mark.medium
@pytest.mark.parametrize("name", ["casiab", "walkers"])
def test_every_layer_of_the_shipped_nets_can_be_captured(name):
    """But the data layers, whose work is done beforehand: here they are inputs."""
    files = sorted((ROOT / "experiments" / name).glob("gaitnet-*.prototxt"))
    assert len(files) == 4
    for file in files:
        param = fed(read_net_file(str(file)), TRAIN)
        param.state.phase = TRAIN
        net = Net.from_proto(param)
        assert why_not(net) is None, file
        assert sum(node.duty.backward for node in net.nodes) > 10
