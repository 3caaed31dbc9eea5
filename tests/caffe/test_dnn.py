"""caffe.dnn beside OpenCV 4.10's dnn module: the same calls, the same names, the same numbers."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe import CaffeError, dnn
from caffe.proto import caffe_pb2
from caffe.read import read_net_binary
from tests.caffe.forks.make_opencv_golden import BLOBS, SIZES, _models

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "opencv"
NETS = sorted(path.stem for path in GOLDEN.glob("*.npz") if path.stem not in ("blobs", "models"))


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


def test_no_detections():
    """OpenCV 4.10 gives keep_top_k rows of 0."""
    golden, _ = loaded("ssd_vgg")
    text = golden["prototxt"].tobytes().replace(b"confidence_threshold: 0.3", b"confidence_threshold: 0.999")
    net = dnn.readNetFromCaffe(text, golden["caffemodel"])
    np.testing.assert_array_equal(fed(golden, net).forward(), np.zeros((1, 1, 20, 7)))


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


@pytest.mark.parametrize("name", SIZES)
def test_blobs_of_images_of_several_sizes(name):
    with np.load(GOLDEN / "blobs.npz", allow_pickle=False) as arrays:
        image = arrays["image"]
    with np.load(GOLDEN / "models.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(dnn.blobFromImages([image, image[:9]], **SIZES[name]), arrays[name], atol=1.01)


def test_models_and_counts():
    """DetectionModel and its like, getFLOPS, getMemoryConsumption, getLayersShapes, getLayerTypes: as OpenCV's."""
    with np.load(GOLDEN / "blobs.npz", allow_pickle=False) as arrays:
        image = arrays["image"]
    found = dict(_models(dnn, GOLDEN, image))
    with np.load(GOLDEN / "models.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == found.keys() | SIZES.keys()
        for name, value in found.items():
            if name == "detection_boxes":  # cut to whole pixels
                np.testing.assert_allclose(value, arrays[name], atol=1)
            elif arrays[name].dtype.kind == "f":
                np.testing.assert_allclose(value, arrays[name], rtol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(value, arrays[name], name)


def test_other_ways_to_call():
    golden, net = loaded("lenet")
    proto, model = golden["prototxt"].tobytes(), golden["caffemodel"].tobytes()
    for same in (
        dnn.readNetFromCaffe(bufferProto=proto, bufferModel=model),
        dnn.readNet("caffe", model, proto),
        dnn.readNet(framework="Caffe", bufferModel=golden["caffemodel"], bufferConfig=golden["prototxt"]),
    ):
        np.testing.assert_array_equal(fed(golden, same).forward(), fed(golden, net).forward())
    by_layer, by_blob = net.forward("ip1"), net.forward(outBlobNames=["relu_ip1", "ip1"])
    np.testing.assert_array_equal(by_layer.clip(0), by_blob[0])
    np.testing.assert_array_equal(by_layer, by_blob[1])
    np.testing.assert_array_equal(net.forward("data"), golden["in_data"])
    (conv,), (prob,) = net.forwardAndRetrieve(["c1", "prob"])
    assert conv.shape == (2, 6, 14, 14) and prob.shape == (2, 5)
    net.setInputShape("data", [3, 1, 14, 14])
    assert net.getLayersShapes([2, 1, 14, 14])[2][-1][0].tolist() == [2, 5]
    assert net.getFLOPS(1, [2, 1, 14, 14]) == 2 * 6 * 14 * 14 * (2 * 9 + 1)  # of the convolution
    assert net.getMemoryConsumption(1, [2, 1, 14, 14]) == (4 * 6 * (9 + 1), 4 * 2 * 6 * 14 * 14)
    named = {"layerId": 1, "netInputShapes": [[2, 1, 14, 14]]}
    assert net.getFLOPS(1, netInputShape=[2, 1, 14, 14]) == net.getFLOPS(**named) == net.getFLOPS(1, [2, 1, 14, 14])
    assert net.getLayer("c1").outputNameToIndex("c1") == 0 and net.getLayer(0).outputNameToIndex("data") == 0
    assert "1 c1 (Convolution): data -> c1 [3, 6, 14, 14]" in net.dump()
    net.setParam("ip2", 1, np.full(5, 7))
    assert (net.getParam("ip2", 1) == 7).all()
    weight = net.getParam("ip2").copy()
    net.getLayer(net.getLayerId("ip2")).blobs = [-weight, np.full((1, 5), 3)]  # as the colorization script does it
    np.testing.assert_array_equal(net.getParam("ip2"), -weight)
    np.testing.assert_array_equal(net.forward("ip2"), net.forward("relu_ip1") @ -weight.T + 3)
    with pytest.raises(CaffeError, match="layer 'ip2' has parameters .*\\(5, 8\\), \\(5,\\).*, not"):
        net.getLayer("ip2").blobs = [weight]


def test_shapes_that_a_layer_refuses_leave_no_trace():
    golden, net = loaded("lenet")
    wanted = fed(golden, net).forward()
    _, asked = loaded("lenet")
    for ask in (asked.getFLOPS, asked.getLayersShapes, lambda shape: asked.setInputShape("data", shape)):
        with pytest.raises(CaffeError, match="layer 'p1'"):
            ask([2, 1, 1, 1])
    assert asked.forward().shape == wanted.shape
    np.testing.assert_array_equal(fed(golden, asked).forward(), wanted)


def test_files_in_either_order(tmp_path):
    golden, net = loaded("resnet")
    proto, model = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    proto.write_bytes(golden["prototxt"].tobytes())
    model.write_bytes(golden["caffemodel"].tobytes())
    for same in (
        dnn.readNet(str(model), str(proto)),
        dnn.readNet(str(proto), str(model)),
        dnn.readNet(config=str(proto), model=str(model)),
        dnn.readNetFromCaffe(proto, model),
    ):
        np.testing.assert_array_equal(fed(golden, same).forward(), fed(golden, net).forward())
    net.dumpToFile(tmp_path / "net.txt")
    assert (tmp_path / "net.txt").read_text() == net.dump()
    image = np.zeros((9, 9, 3), np.uint8)
    wanted = dnn.ClassificationModel(net).classify(image)
    for files in ((str(model), str(proto)), (model, proto)):
        assert dnn.ClassificationModel(*files).classify(image) == wanted


def test_script_that_says_cv2_dnn(monkeypatch):
    """`cv2.dnn = caffe.dnn` is enough, and what this module lacks is still OpenCV's."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(cv2, "dnn", dnn)
    golden, _ = loaded("yolo")
    net = cv2.dnn.readNetFromCaffe(golden["prototxt"], golden["caffemodel"])
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    assert fed(golden, net).forward().shape == golden["out_out"].shape
    kept = cv2.dnn.NMSBoxes([[0, 0, 10, 10], [1, 1, 10, 10], [30, 30, 5, 5]], [0.9, 0.8, 0.7], 0.5, 0.4)
    assert np.ravel(kept).tolist() == [0, 2]
    with pytest.raises(AttributeError):
        getattr(cv2.dnn, "readNetFromNowhere")  # noqa: B009


def test_weights_in_half_precision():
    """As OpenCV's shrinkCaffeModel writes them (its field numbers were read from a file of OpenCV 4.10)."""
    golden, net = loaded("lenet")
    shrunk = read_net_binary(golden["caffemodel"].tobytes())
    for layer in shrunk.layer:
        for blob in layer.blobs:
            blob.raw_data, blob.raw_data_type = np.array(blob.data, "<f2").tobytes(), caffe_pb2.FLOAT16
            del blob.data[:]
    shrunk.ClearField("checksum")
    half = dnn.readNetFromCaffe(golden["prototxt"].tobytes(), shrunk.SerializeToString())
    bias = next(layer for layer in shrunk.layer if layer.name == "ip1").blobs[1]
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(bias), half.getParam("ip1", 1))
    np.testing.assert_allclose(half.getParam("ip1"), net.getParam("ip1"), rtol=1e-3)
    assert not np.array_equal(half.getParam("ip1"), net.getParam("ip1"))
    np.testing.assert_allclose(fed(golden, half).forward(), fed(golden, net).forward(), atol=2e-3)
    shrunk.layer[1].blobs[0].raw_data = b"123"
    with pytest.raises(CaffeError, match="holds 1 values"):
        dnn.readNetFromCaffe(golden["prototxt"].tobytes(), shrunk.SerializeToString())


NO_INPUT = b'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 dim: 3 } } }'


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda net: net.forward("none"), "the net has no layer 'none'"),
        (lambda net: net.setInput(np.zeros((1, 1)), "none"), "the net has no input 'none'"),
        (lambda net: net.getLayer("none"), "the net has no layer 'none'"),
        (lambda net: dnn.Net().forward(), "the net is empty"),
        (lambda net: dnn.readNetFromCaffe("none.prototxt"), "File not found"),
        (lambda net: dnn.readNetFromCaffe(b"layer { foo: 1 }"), 'no field named "foo"'),
        (lambda net: dnn.blobFromImages([np.zeros((2, 3)), np.zeros((3, 3, 2))]), "images of one shape"),
        (lambda net: dnn.blobFromImages([]), "found no images"),
        (lambda net: dnn.blobFromImage(np.zeros((2, 3)), ddepth=6), "ddepth is 6"),
        (lambda net: dnn.blobFromImage(np.zeros((2, 3), np.uint8), 2, ddepth=0), "scalefactor 1 and no mean"),
        (lambda net: dnn.readNetFromCaffe(), "wants a prototxt"),
        (lambda net: net.getLayer(99), "no layer 99; wanted a name, or a number from 1 to 7"),
        (lambda net: net.getFLOPS(8, [2, 1, 14, 14]), "no layer 8; wanted a name, or a number from 1 to 7"),
        (lambda net: net.getMemoryConsumption(), "give the shapes of the net's inputs"),
        (lambda net: dnn.readNetFromCaffe(NO_INPUT).setInput(np.zeros((2, 3))), "its inputs: none"),
        (lambda net: dnn.Model(dnn.readNetFromCaffe(NO_INPUT)).predict(None), "no input size"),
        (lambda net: net.setParam("ip2", 1, np.zeros(4)), "has shape \\(5,\\), not \\(4,\\)"),
        (lambda net: dnn.DetectionModel(net).detect(np.zeros((4, 4), np.uint8)), "ends in a layer of type Detection"),
        (lambda net: dnn.SegmentationModel(loaded("rfcn")[1]).setInputSize(0, 0).segment(None), "no input size"),
    ],
)
def test_wrong_calls(call, words):
    with pytest.raises(CaffeError, match=words):
        call(loaded("lenet")[1])


def test_signatures_of_opencv():
    assert list(inspect.signature(dnn.blobFromImage).parameters) == [
        "image",
        "scalefactor",
        "size",
        "mean",
        "swapRB",
        "crop",
        "ddepth",
    ]
    assert list(inspect.signature(dnn.readNetFromCaffe).parameters)[:2] == ["prototxt", "caffeModel"]
    assert dnn.NMSBoxes and dnn.DNN_TARGET_CPU == 0
