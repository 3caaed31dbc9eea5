"""Fixtures of several rooms."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def log_level():
    """Commands switch Caffe's log on for the rest of the process: each test ends as quiet as it began."""
    before = getattr(sys.modules.get("caffe.glog"), "_level", None)
    yield
    if glog := sys.modules.get("caffe.glog"):
        glog._level = glog._least(glog.WARNING) if before is None else before


@pytest.fixture(scope="session")
def deploy_net():
    """The deploy net with weights that are drawn, not learned: masks and features that differ from frame to frame."""
    import caffe

    net = caffe.Net(str(ROOT / "eval" / "deploy_gaitnet.prototxt"), caffe.TEST)
    rng = np.random.default_rng(7)
    for name, blobs in net.params.items():
        if name.startswith("bn"):
            for blob, value in zip(blobs, (0.05, 1.2, 1)):
                blob.data[...] = value
        else:
            scale = np.sqrt(2 / np.prod(blobs[0].data.shape[1:])) / (64 if name == "conv1_0" else 1)
            blobs[0].data[...] = scale * rng.standard_normal(blobs[0].data.shape, np.float32)
            blobs[1].data[...] = 0.1 * rng.standard_normal(blobs[1].data.shape, np.float32)
    return net


@pytest.fixture(scope="session")
def weights(deploy_net, tmp_path_factory):
    """The .caffemodel of `deploy_net`."""
    path = tmp_path_factory.mktemp("weights") / "drawn.caffemodel"
    deploy_net.save(str(path))
    return path
