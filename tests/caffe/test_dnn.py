"""caffe.dnn beside OpenCV 4.10's dnn module: the same calls, the same names, the same numbers."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from caffe import CaffeError, dnn
from tests.caffe.forks.make_opencv_golden import BLOBS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "opencv"
NETS = sorted(path.stem for path in GOLDEN.glob("*.npz") if path.stem != "blobs")


def loaded(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        golden = {key: arrays[key] for key in arrays.files}
    return golden, dnn.readNetFromCaffe(golden["prototxt"], golden["caffemodel"])


def fed(golden, net):
    for key, value in golden.items():
        if key.startswith("in_"):
            net.setInput(value, key[3:])
    return net


@pytest.mark.parametrize("name", NETS)
def test_numbers(name):
    """Float32 in another order of summation: 1e-6 of the largest value, and 1e-5 behind the exponential of boxes."""
    golden, net = loaded(name)
    wanted = {key[4:]: value for key, value in golden.items() if key.startswith("out_")}
    outputs = fed(golden, net).forward(list(wanted))
    assert isinstance(outputs, tuple)
    for (layer, value), found in zip(wanted.items(), outputs):
        if layer == "detection_out":  # OpenCV orders by score, Caffe by class first
            value, found = (rows[0, 0][np.lexsort((-rows[0, 0][:, 2], rows[0, 0][:, 1]))] for rows in (value, found))
        if layer == "proposal":  # OpenCV fills up with zeros
            value = value[: len(found)]
        assert found.shape == value.shape, layer
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=layer)


@pytest.mark.parametrize("name", NETS)
def test_names(name):
    golden, net = loaded(name)
    layers = [layer for layer in golden["layers"].tolist() if layer != "se/scale"]  # OpenCV makes two layers of Axpy
    assert net.getLayerNames() == tuple(layers)
    assert net.getUnconnectedOutLayersNames() == tuple(golden["ends"].tolist())
    assert [net.getLayerNames()[i - 1] for i in net.getUnconnectedOutLayers()] == golden["ends"].tolist()


@pytest.mark.parametrize("name", BLOBS)
def test_blobs(name):
    """Resizing rounds to whole pixel values; another OpenCV may round one apart."""
    with np.load(GOLDEN / "blobs.npz", allow_pickle=False) as arrays:
        blob = dnn.blobFromImage(arrays["image"], **BLOBS[name])
        several = dnn.blobFromImages([arrays["image"], arrays["image"][::-1]], **BLOBS[name])
        scale = BLOBS[name].get("scalefactor", 1)
        np.testing.assert_allclose(blob, arrays[name], rtol=1e-5, atol=1.01 * scale if "size" in BLOBS[name] else 1e-5)
    assert blob.dtype == np.float32 and several.shape == (2, *blob.shape[1:])
    np.testing.assert_array_equal(several[:1], blob)
    np.testing.assert_array_equal(dnn.imagesFromBlob(several)[0].transpose(2, 0, 1), several[0])


def test_script_with_files(tmp_path):
    golden, _ = loaded("lenet")
    (tmp_path / "net.prototxt").write_bytes(golden["prototxt"].tobytes())
    (tmp_path / "net.caffemodel").write_bytes(golden["caffemodel"].tobytes())
    net = dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"))
    assert not net.empty() and dnn.Net().empty()
    net.setPreferableBackend(0)
    net.setPreferableTarget(0)
    image = np.arange(14 * 14, dtype=np.uint8).reshape(14, 14)
    net.setInput(dnn.blobFromImages([image, image, image], 1 / 255))  # another batch than the prototxt says
    prob = net.forward()
    assert prob.shape == (3, 5) and prob.sum(1) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(net.forward("prob"), prob)
    first = net.forward("ip1")
    assert (first < 0).any()  # before the ReLU that works in place
    np.testing.assert_array_equal(net.forward("relu_ip1"), first.clip(0))
    net.setInput(dnn.blobFromImages([image] * 3), scalefactor=1 / 255)
    np.testing.assert_allclose(net.forward(), prob, rtol=1e-5)
    assert net.getLayerId("c1") == 1 and net.getLayerId("none") == -1 and net.getLayersCount("InnerProduct") == 2
    assert net.getLayer(1).type == "Convolution" and net.getParam("c1").shape == (6, 1, 3, 3)
    assert net.getPerfProfile()[0] > 0


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda net: net.forward("none"), "the net has no layer 'none'"),
        (lambda net: net.setInput(np.zeros((1, 1)), "none"), "the net has no input 'none'"),
        (lambda net: net.getLayer("none"), "the net has no layer 'none'"),
        (lambda net: dnn.Net().forward(), "the net is empty"),
        (lambda net: dnn.readNetFromCaffe("none.prototxt"), "File not found"),
        (lambda net: dnn.readNetFromCaffe(b"layer { foo: 1 }"), 'no field named "foo"'),
        (lambda net: dnn.blobFromImages([np.zeros((2, 3)), np.zeros((3, 3))]), "wanted one shape"),
    ],
)
def test_wrong_calls(call, words):
    with pytest.raises(CaffeError, match=words):
        call(loaded("lenet")[1])


def test_signatures_of_opencv():
    assert list(inspect.signature(dnn.blobFromImage).parameters) == [
        "image", "scalefactor", "size", "mean", "swapRB", "crop", "ddepth"]  # fmt: skip
    assert list(inspect.signature(dnn.readNetFromCaffe).parameters) == ["prototxt", "caffeModel"]
    assert dnn.NMSBoxes and dnn.DNN_TARGET_CPU == 0
