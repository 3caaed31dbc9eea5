"""Nets in the forks' words: they build, run, learn where their layers do, and go to torch and ONNX."""

import math

import numpy as np
import pytest
import torch

import caffe
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import parse_text
from tests.caffe.forks import nets
from tests.caffe.forks.make_opencv_golden import FED


def built(name):
    param = parse_text(nets.DEPLOY[name]().encode(), caffe_pb2.NetParameter, name)
    param.state.phase = caffe.TEST
    net, rng = Net.from_proto(param, seed=3), np.random.default_rng(7)
    for key in net.inputs:
        net.blobs[key].data[...] = FED.get(key, rng.normal(size=net.blobs[key].data.shape))
    return net


@pytest.mark.parametrize("name", nets.DEPLOY)
def test_runs_and_is_the_same_in_torch(name):
    net = built(name)
    fed = [torch.from_numpy(net.blobs[key].data.copy()) for key in net.inputs]
    tops = {key: value.copy() for key, value in net.forward().items()}
    assert all(np.isfinite(value).all() and np.abs(value).max() > 0 for value in tops.values())
    for key, value in caffe.to_torch(net)(*fed).items():
        np.testing.assert_allclose(value.detach().numpy(), tops[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_as_many_rows_as_regions():
    net = built("faster_rcnn_deploy")
    for seed in range(3):
        net.blobs["data"].data[...] = 40 * np.random.default_rng(seed).normal(size=(1, 3, 32, 48))
        prob = net.forward()["cls_prob"]
        assert prob.shape == (net.blobs["proposal"].data.shape[0], 3) and len(prob) > 0


@pytest.mark.parametrize("name", nets.TRAINED)
def test_learns(name, tmp_path):
    """Thirty steps on one batch bring its loss down by a tenth at least."""
    (tmp_path / "net.prototxt").write_text(nets.TRAINED[name](loss=True))
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 random_seed: 5 max_iter: 99 '
        "snapshot_after_train: false solver_mode: CPU clip_gradients: 5"
    )
    solver = caffe.SGDSolver(str(tmp_path / "solver.prototxt"))
    blobs, rng = solver.net.blobs, np.random.default_rng(7)
    for key in solver.net.inputs:
        blobs[key].data[...] = FED.get(key, rng.normal(size=blobs[key].data.shape))
    if name.startswith("ssd"):
        blobs["label"].data[...] = [[0, 1, 0, 0.1, 0.1, 0.5, 0.5, 0], [0, 2, 0, 0.5, 0.4, 0.9, 0.8, 0]]
    elif name in ("segnet", "enet", "pspnet"):
        blobs["label"].data[...] = blobs["data"].data[:, 0] > 0
    else:
        blobs["label"].data[...] = rng.integers(0, 3, blobs["label"].data.shape)
    for key in {"inside", "outside"} & blobs.keys():
        blobs[key].data[...] = abs(blobs[key].data)
    loss = sum(value.item() for value in solver.net.forward().values())
    solver.step(30)
    after = sum(value.item() for value in solver.net.forward().values())
    assert math.isfinite(after) and after < 0.9 * loss


@pytest.mark.medium
@pytest.mark.parametrize(
    "name", "ssd_vgg ssd_mobilenet rfcn_deploy faster_rcnn_deploy senet shufflenet segnet enet pspnet yolo".split()
)
def test_goes_to_onnx(name, tmp_path):
    pytest.importorskip("onnxscript")
    (tmp_path / "net.prototxt").write_text(nets.DEPLOY[name]())
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.save(str(tmp_path / "net.caffemodel"))
    assert caffe.to_onnx(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "net.onnx") < 1e-5
    onnx = pytest.importorskip("onnx").load(str(tmp_path / "net.onnx"))
    assert [put.name for put in onnx.graph.output] == list(net.outputs)
