"""Mistakes that users of pycaffe make: one sentence each, where it happens, of what was found and what was wanted."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe import layers as L

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false '


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)


def solver(more=""):
    Path("solver.prototxt").write_text(SOLVER + more)
    return caffe.get_solver("solver.prototxt")


def made(*args, **kwargs):
    return lambda net: caffe.Net("net.prototxt", *args, **kwargs)


@pytest.mark.parametrize(
    "mistake, told",
    [
        (made("test"), "phase is None; wanted caffe.TRAIN or caffe.TEST"),
        (made(5), "phase is 5; wanted caffe.TRAIN or caffe.TEST"),
        (made(caffe.TEST, "w.caffemodel"), "and weights by their name: weights='w.caffemodel'"),
        (made(caffe.TEST, stages="deploy"), r"stages is 'deploy'; wanted a list of names, as in \['deploy'\]"),
        (lambda net: caffe.Net(None, caffe.TEST), "network_file is None; wanted the path of a file"),
        (lambda net: net.copy_from(net), "weights is <caffe.net.Net .*; wanted the path of a file"),
        (lambda net: net.share_with("other"), "share_with wants a caffe.Net, not 'other'"),
        (lambda net: net.forward(np.zeros((2, 3))), r"blobs is a ndarray; .*given by name, as in data="),
        (lambda net: net.forward(blobs="ip"), "blobs is 'ip'; wanted a list of names"),
        (lambda net: net.backward(diffs="ip"), "diffs is 'ip'; wanted a list of names"),
        (lambda net: net.forward_all(), "wants an array for each input of the net: x, label"),
        (lambda net: net.forward_backward_all(), "wants an array for each input of the net: x, label"),
        (lambda net: net.blobs["x"].reshape((2, 3)), r"one by one: blob.reshape\(\*\(2, 3\)\)"),
        (lambda net: net.blobs["x"].reshape(5 / 2, 3), r"size is 2.5; wanted whole numbers \(in Python 3, //"),
        (lambda net: net.blobs["x"].reshape("2", 3), "size is '2'; wanted whole numbers"),
        (lambda net: net.blobs["x"].reshape(np.float32("inf"), 3), r"size is .*inf.*; wanted whole numbers"),
        (lambda net: caffe.to_proto(L.Convolution(L.Input(), num_output=64 / 2)), "Parameter.num_output is 32.0"),
        (
            lambda net: caffe.to_proto(L.Convolution(L.Input(), weight_filler="xavier")),
            "FillerParameter is 'xavier'; wanted a dict of its fields",
        ),
        (lambda net: caffe.to_proto(L.Pooling(L.Input(), pool="MEAN")), "PoolingParameter.pool is 'MEAN'"),
    ],
)
def test_wrong_argument(mistake, told):
    with pytest.raises((TypeError, ValueError), match=told) as error:
        mistake(caffe.Net("net.prototxt", caffe.TEST))
    assert "\n" not in str(error.value)


def test_one_number_for_a_batch_is_none_for_each_item():
    net = caffe.Net("net.prototxt", caffe.TEST)
    with pytest.raises(caffe.CaffeError, match="'loss' is one number for a whole batch"):
        net.forward_all(x=np.zeros((4, 3)), label=np.zeros(4))


def test_paths_of_any_kind():
    path = Path("w.caffemodel")
    caffe.Net(b"net.prototxt", caffe.TEST).save(path)
    net = caffe.Net(Path("net.prototxt"), path, caffe.TEST)
    assert net.loaded_from == ["w.caffemodel"]


@pytest.mark.parametrize(
    "layer",
    [
        'type: "ImageData" top: "b" transform_param { mean_file: "none" } image_data_param { source: "list" }',
        'type: "InfogainLoss" bottom: "x" bottom: "label" infogain_loss_param { source: "none" }',
    ],
)
def test_a_file_that_a_layer_lacks_is_told_with_the_layer(layer):
    Path("list").write_text("a.png 0\n")
    Path("net.prototxt").write_text(NET + f'layer {{ name: "mine" top: "a" {layer} }}')
    with pytest.raises(caffe.CaffeError, match="layer 'mine' .*: File not found: none"):
        caffe.Net("net.prototxt", caffe.TEST)


def test_a_file_of_another_kind():
    mine = solver('snapshot_prefix: "mine"')
    mine.step(1)
    mine.snapshot()
    for mistake, told in (
        (lambda: caffe.get_solver("net.prototxt"), "net.prototxt: .*: it is a net; wanted a solver"),
        (lambda: caffe.Net("solver.prototxt", caffe.TEST), "solver.prototxt: .*: it is a solver; wanted a net"),
        (lambda: mine.net.copy_from("mine_iter_1.solverstate"), "it is a solver state; wanted weights"),
        (lambda: mine.restore("mine_iter_1.caffemodel"), "weights alone are no state to go on from"),
    ):
        with pytest.raises(caffe.CaffeError, match=told) as error:
            mistake()
        assert "has no field" not in str(error.value)


@pytest.mark.parametrize("form", ["net", "h5"])
def test_weights_of_another_net_are_told_of(form, capfd):
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.save("w.net")
    net.save_hdf5("w.h5")
    Path("other.prototxt").write_text(NET.replace('"ip"', '"fc"'))
    other = caffe.Net("other.prototxt", caffe.TEST)
    kept = other.params["fc"][0].data.copy()
    other.copy_from(f"w.{form}")
    assert f"w.{form}: has weights for none of the net's layers, such as fc" in capfd.readouterr().err
    assert np.array_equal(other.params["fc"][0].data, kept)
    net.copy_from(f"w.{form}")
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    "rate, iteration, told",
    [
        ('lr_policy: "poly" power: 1', 0, "poly is nan"),  # of max_iter 0
        ('lr_policy: "poly" power: 1.5 max_iter: 1', 2, "poly is nan"),
        ('lr_policy: "inv" gamma: -1 power: 0.5', 1, "inv is inf"),
        ('lr_policy: "exp" gamma: 1e300', 1, "exp is inf"),
    ],
)
def test_a_rate_that_is_no_number(rate, iteration, told):
    param = SOLVER.replace('lr_policy: "fixed" max_iter: 2', rate)
    Path("solver.prototxt").write_text(param)
    mine = caffe.get_solver("solver.prototxt")
    with pytest.raises(caffe.CaffeError, match=f"Iteration {iteration}: the learning rate of lr_policy {told}; check"):
        mine.step(4)
    assert mine.iter == iteration and np.isfinite(mine.net.params["ip"][0].data).all()


def test_halves_of_whole_numbers_are_sizes():
    blob = caffe.Net("net.prototxt", caffe.TEST).blobs["x"]
    blob.reshape(64 / 2, 3, np.float32(2), np.int64(5))
    assert blob.shape == (32, 3, 2, 5)


@pytest.mark.parametrize(
    "code, told",
    [
        ("import cPickle", r"\(No module named 'cPickle'\); that name is of Python 2: write pickle"),
        ("import fast_rcnn.config", r"\(No module named 'fast_rcnn'\); install it, put its folder into PYTHONPATH, or"),
        ("raise ImportError('no', name='yaml')", r"\(no\); pip install PyYAML, or leave it out there"),
        ('print "loaded"', "'their_layers' is no Python 3 .*for Python 2 code see docs/FROM_BVLC.md"),
        (None, r"\(No module named 'their_layers'\); is its folder in PYTHONPATH"),
    ],
)
def test_a_module_that_cannot_be_imported(code, told, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    if code:
        Path("their_layers.py").write_text(code)
    python = 'type: "Python" python_param { module: "their_layers" layer: "Mine" }'
    Path("net.prototxt").write_text(NET + f'layer {{ name: "mine" top: "a" {python} }}')
    with pytest.raises(caffe.CaffeError, match=f"layer 'mine': .*{told}"):
        caffe.Net("net.prototxt", caffe.TEST)


def test_a_file_of_data_is_no_list_of_such_files():
    with h5py.File("data.h5", "w") as f:
        f["x"] = np.zeros((4, 2))
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "HDF5Data" top: "x" hdf5_data_param { source: "data.h5" batch_size: 2 } }'
    )
    with pytest.raises(caffe.CaffeError, match="source 'data.h5' is binary; wanted a text file that lists such files"):
        caffe.Net("net.prototxt", caffe.TEST)


def test_parameters_of_another_shape():
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].reshape(5, 3)
    net.params["ip"][1].reshape(5)
    told = r"layer 'ip' .*: parameters of shape \(5, 3\), \(5,\) give \(2, 5\) where \(2, 4\) is wanted"
    with pytest.raises(caffe.CaffeError, match=told):
        net.forward()


def test_nets_of_a_solver_stay():
    mine = solver()
    for name in ("net", "test_nets"):
        with pytest.raises(AttributeError, match=name):
            setattr(mine, name, None)


def test_weights_are_no_prototxt():
    caffe.Net("net.prototxt", caffe.TEST).save("w.caffemodel")
    with pytest.raises(caffe.CaffeError, match="w.caffemodel: .*the file is binary; wanted text, a prototxt"):
        caffe.Net("w.caffemodel", caffe.TEST)


@pytest.mark.parametrize("text", [NET, "<!DOCTYPE html>\n<html>", "version https://git-lfs.github.com/spec/v1\noid x"])
def test_text_is_no_weights(text):
    Path("w.caffemodel").write_text(text)
    begin = text.strip().splitlines()[0][:20]
    with pytest.raises(
        caffe.CaffeError, match=f"w.caffemodel: it is text that begins '{begin}.*; wanted a binary file"
    ):
        caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")


def test_weights_are_no_state():
    mine = solver()
    mine.net.save("w.caffemodel")
    with pytest.raises(caffe.CaffeError, match="weights alone are no state to go on from"):
        mine.restore("w.caffemodel")


def test_no_test_passes():
    """`test_iter: 0` is how public solvers keep a test net that scripts alone use."""
    mine = solver("test_iter: 0 test_interval: 1 test_compute_loss: true")
    mine.solve()
    assert mine.iter == 2 and len(mine.test_nets) == 1
