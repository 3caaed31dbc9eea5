"""Nets in the forks' words: they build, run, learn where their layers do, and go to torch and ONNX."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import parse_text
from tests.caffe.forks import nets
from tests.caffe.forks.make_opencv_golden import FED

ROOT = Path(__file__).resolve().parents[3]


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


# The number of rows of DetectionOutput and Proposal depends on values; ONNX gets the net without them.
EXPORTED = {
    "ssd_vgg": "mbox_loc,conf_flat,mbox_priorbox",
    "ssd_mobilenet": "mbox_loc,mbox_conf",
    "senet": None,
    "shufflenet": None,
    "segnet": None,
    "enet": None,
    "pspnet": None,
    "yolo": None,
    "faster_rcnn": None,
    "rfcn": None,
}


LONG = {"faster_rcnn"}  # ROIPooling is a graph of thousands of nodes


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else pytest.mark.medium) for n in EXPORTED]
)
def test_goes_to_onnx(name, tmp_path):
    pytest.importorskip("onnxscript")
    outputs = EXPORTED[name].split(",") if EXPORTED[name] else None
    assert _exported(name, tmp_path, outputs) < 1e-5


@pytest.mark.parametrize(
    "name, words",
    [
        (
            "ssd_vgg",
            "'detection_out' \\(DetectionOutput\\) cannot .*; --outputs mbox_loc,conf_flat,mbox_priorbox writes",
        ),
        ("ssd_vgg_learns", "'mbox_loss' \\(MultiBoxLoss\\) cannot be written as ONNX"),
    ],
)
def test_onnx_has_no_such_layer(name, words, tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(caffe.CaffeError, match=words):
        _exported(name, tmp_path, None)


def _exported(name, tmp_path, outputs):
    sys.path.insert(0, str(ROOT))
    from tools.export import export_onnx

    text = nets.ssd_vgg(loss=True) if name == "ssd_vgg_learns" else nets.DEPLOY[name]()
    (tmp_path / "net.prototxt").write_text(text)
    weights, path = str(tmp_path / "net.caffemodel"), str(tmp_path / "net.onnx")
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(weights)
    return export_onnx(str(tmp_path / "net.prototxt"), weights, path, outputs)
