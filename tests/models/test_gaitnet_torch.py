"""GaitNet in plain PyTorch: what tools/test_export.py does not look at, which is speed and gradients."""

import time

import numpy as np
import pytest
import torch

import caffe
from caffe.state_dict import state_dict
from models.gaitnet import deploy
from models.gaitnet_torch import GaitNet

CLIPS = 2


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    path = tmp_path_factory.mktemp("deploy") / "deploy.prototxt"
    path.write_text(str(deploy(CLIPS)))
    net, plain = caffe.Net(str(path), caffe.TEST), GaitNet()
    plain.load_state_dict(state_dict(net), strict=False)
    return net, plain.eval()


@pytest.fixture(scope="module")
def clips():
    return torch.from_numpy(np.random.default_rng(0).normal(0, 50, (CLIPS, 6, 3, 64, 64)).astype(np.float32))


@pytest.mark.medium
def test_as_fast_as_the_net_it_came_from(nets, clips):
    """About 1.1 of its CPU time on one thread; it was 9 when conv6 to conv8 were convolutions. 2 is the bound, for a
    busy machine, and of five runs in turn the best counts."""
    net, plain = nets
    for k in range(6):
        net.blobs[f"im{k}"].data[...] = clips[:, k].numpy()
    spent = {}
    with torch.inference_mode():
        for _ in range(5):
            for run in (net.forward, lambda: plain(clips)):
                begin = time.process_time()
                run()
                spent.setdefault(run.__name__, []).append(time.process_time() - begin)
    ours, theirs = (min(times) for times in spent.values())
    assert theirs < 2 * ours


@pytest.mark.medium
def test_gradients_reach_every_parameter(nets, clips):
    """The matrix products are the layers' own weights."""
    _, plain = nets
    feature, masks = plain(clips)
    (feature.sum() + masks.sum()).backward()
    lacking = [name for name, p in plain.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not lacking
