"""Writes tests/golden/opencv: what OpenCV 4.10's dnn module computes from the nets of nets.py, its blobs of images, its
models and counts.

python -m tests.caffe.forks.make_opencv_golden nets /tmp/nets           # prototxts, weights, inputs
pip install opencv-python-headless==4.10.0.84 'numpy<2'                 # in an environment of its own
python tests/caffe/forks/make_opencv_golden.py outputs /tmp/nets tests/golden/opencv
"""

import sys
from pathlib import Path

import numpy as np

FED = {"rois": [[0, 0, 0, 31, 31], [0, 3, 5, 18, 9], [0, 10, 12, 29, 27], [0, 6, 1, 7, 30]], "im_info": [[32, 48, 1]]}
MORE = {
    "ssd_vgg": ["conv2_norm", "conv3_priorbox", "mbox_loc"],
    "lenet": ["c1", "n1"],
    "senet": ["gate"],
    "resnet": ["prelu"],
    "rpn": ["prob", "bbox"],
}
BLOBS = {  # arguments of blobFromImage
    "plain": {},
    "scaled": {"scalefactor": 0.017, "mean": (104, 117, 123), "swapRB": True},
    "resized": {"size": (9, 7), "mean": (1, 2, 3)},
    "cropped": {"size": (8, 8), "crop": True, "scalefactor": 0.5},
}
SIZES = {"first": {}, "crop": {"size": (7, 12), "crop": True, "mean": (3, 2, 1), "swapRB": True}}  # of several images
COUNTED = ("lenet", "resnet", "fcn", "shufflenet")


def write_nets(folder):
    import caffe
    from caffe.net import Net
    from caffe.proto import caffe_pb2
    from caffe.read import parse_text
    from tests.caffe.forks import nets

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for name, make in nets.DEPLOY.items():
        # OpenCV reads neither BN nor Upsample of SegNet and ENet, and fills Proposal's regions up, so that more are
        # classified.
        if name in ("segnet", "enet", "faster_rcnn_deploy"):
            continue
        # OpenCV knows depthwise convolution by the name of one fork, and BN by none.
        text = make(bn=False) if name == "pspnet" else make().replace("'DepthwiseConvolution'", "'Convolution'")
        param = parse_text(text.encode(), caffe_pb2.NetParameter, name)
        param.state.phase = caffe.TEST
        net = Net.from_proto(param, seed=3)
        if name == "resnet":
            for blob, value in zip(net.params["bn1"], (0.3, 2, 1)):
                blob.data[...] = value
        net.save(str(folder / f"{name}.caffemodel"))
        (folder / f"{name}.prototxt").write_text(text)
        fed = {key: FED.get(key, rng.normal(size=net.blobs[key].data.shape)) for key in net.inputs}
        np.savez(folder / f"{name}.npz", **{key: np.asarray(value, np.float32) for key, value in fed.items()})


def write_outputs(folder, golden):
    import cv2

    assert cv2.__version__.startswith("4.10."), cv2.__version__
    golden.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.prototxt")):
        model = path.with_suffix(".caffemodel")
        net = cv2.dnn.readNetFromCaffe(str(path), str(model))
        fed = dict(np.load(path.with_suffix(".npz")))
        for name, value in fed.items():
            net.setInput(value, name)
        # The ends, but of SENet: OpenCV's Axpy takes a y + x for a x + y.
        outputs = ["gate"] if path.stem == "senet" else [*MORE.get(path.stem, []), *net.getUnconnectedOutLayersNames()]
        found = dict(zip(outputs, net.forward(outputs)))
        np.savez_compressed(
            golden / f"{path.stem}.npz",
            prototxt=np.frombuffer(path.read_bytes(), np.uint8),
            caffemodel=np.frombuffer(model.read_bytes(), np.uint8),
            layers=np.array(net.getLayerNames()),
            ends=np.array(net.getUnconnectedOutLayersNames()),
            **{f"in_{name}": value for name, value in fed.items()},
            **{f"out_{name}": value for name, value in found.items()},
        )
    image = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    blobs = {name: cv2.dnn.blobFromImage(image, **options) for name, options in BLOBS.items()}
    np.savez_compressed(golden / "blobs.npz", image=image, **blobs)
    several = {name: cv2.dnn.blobFromImages([image, image[:9]], **options) for name, options in SIZES.items()}
    np.savez_compressed(golden / "models.npz", **several, **dict(_models(cv2.dnn, golden, image)))


def _models(dnn, golden, image):
    """(name, array) of what a dnn module's models and counts say of the nets in `golden`."""

    def net(name):
        with np.load(golden / f"{name}.npz", allow_pickle=False) as arrays:
            return dnn.readNetFromCaffe(arrays["prototxt"], arrays["caffemodel"]), arrays["in_data"].shape

    for name in COUNTED:
        counted, shape = net(name)
        yield f"flops_{name}", np.int64(counted.getFLOPS(shape))
        yield f"memory_{name}", np.int64(counted.getMemoryConsumption(shape))
        _, ins, outs = counted.getLayersShapes(shape)
        yield (
            f"shapes_{name}",
            np.array([str([[list(map(int, s)) for s in each] for each in side]) for side in (ins, outs)]),
        )
        yield f"types_{name}", np.array(counted.getLayerTypes())
    detection = dnn.DetectionModel(net("ssd_vgg")[0])
    detection.setInputParams(0.02, (32, 32), (100, 110, 120), True)
    for name, found in zip(("classes", "confidences", "boxes"), detection.detect(image, 0.3)):
        yield f"detection_{name}", found
    yield "detection_none", np.array([len(found) for found in detection.detect(image, 0.999)])
    classification = dnn.ClassificationModel(net("resnet")[0])
    classification.setInputScale(0.02).setInputSize(12, 12).setInputMean((100, 110, 120)).setInputCrop(True)
    yield "classified", np.array(classification.classify(image))
    classification.setEnableSoftmaxPostProcessing(True)
    yield "classified_softmax", np.array(classification.classify(image))
    segmentation, keypoints = (kind(net("fcn")[0]) for kind in (dnn.SegmentationModel, dnn.KeypointsModel))
    for model in (segmentation, keypoints):
        model.setInputParams(0.02, (16, 16))
    yield "segmented", segmentation.segment(image)
    yield "keypoints", keypoints.estimate(image, 0.01)


if __name__ == "__main__":
    task, *paths = sys.argv[1:]
    {"nets": write_nets, "outputs": write_outputs}[task](*map(Path, paths))
