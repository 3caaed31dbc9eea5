"""Nets of Caffe files as OpenCV 4's dnn module gave them, for scripts that OpenCV 5 has left without a reader.

    from caffe import dnn  # in place of: from cv2 import dnn

    net = dnn.readNetFromCaffe("deploy.prototxt", "net.caffemodel")
    net.setInput(dnn.blobFromImage(image, 0.017, (224, 224), (104, 117, 123)))
    prob = net.forward()

It computes what Caffe computes, where OpenCV and Caffe differ, too: PriorBox cuts sizes to whole pixels,
DetectionOutput gives a row of -1 for an image without detections. Other names of cv2.dnn (NMSBoxes,
DNN_BACKEND_OPENCV) are cv2's own.
"""

import time

import numpy as np

from caffe import net as caffe_net
from caffe.errors import CaffeError
from caffe.layer import TEST
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_net_binary, read_net_file
from caffe.upgrade import upgrade_net
from caffe.weights import copy_from_proto


def __getattr__(name):
    import cv2  # half a second

    return getattr(cv2.dnn, name)


def readNetFromCaffe(prototxt, caffeModel=None) -> "Net":
    """The net of `prototxt` in phase TEST with the weights of `caffeModel`: paths, or the files' bytes (bytes,
    bytearray, uint8 arrays). Without weights they are what the fillers give. Raises CaffeError."""
    if isinstance(prototxt, (bytes, bytearray, np.ndarray)):
        param = parse_text(bytes(prototxt), caffe_pb2.NetParameter, "(bytes)")
        upgrade_net(param, "(bytes)")
    else:
        param = read_net_file(prototxt)
    param.state.phase = TEST
    weights = None
    if caffeModel is not None and len(caffeModel):
        source = caffeModel if isinstance(caffeModel, str) else bytes(caffeModel)
        weights = read_net_binary(source), source if isinstance(source, str) else "(bytes)"
    return Net(param, weights)


def readNet(model, config="", framework="") -> "Net":
    """The net of a prototxt and a caffemodel, whose paths may come in either order; or readNet("caffe", model bytes,
    prototxt bytes). Raises CaffeError."""
    if isinstance(model, str) and model.lower() == "caffe":
        return readNetFromCaffe(framework, config)
    if str(model).endswith(".caffemodel"):
        model, config = config, model
    return readNetFromCaffe(model, config)


class Layer:
    """One layer: `name`, `type` and `blobs`, its parameters' arrays."""

    def __init__(self, layer):
        self.name, self.type = layer.name, layer.type
        self.blobs = [blob.data for blob in layer.blobs]


class Net:
    """A net as cv2.dnn.Net: an input is set, `forward` gives the outputs of layers, named as in the prototxt.

    Inputs may have another size than the prototxt says, where the layers allow it."""

    def __init__(self, param=None, weights=None):
        self._net = None
        self._names: list[str] = []
        if param is None:
            return
        self._net = caffe_net.Net.from_proto(param)
        if weights is not None:
            copy_from_proto(self._net, *weights)
        self._layers = [layer for layer in filter_net(param).layer if layer.type != "Input"]
        self._names = [layer.name for layer in self._layers]
        self._given: dict[str, np.ndarray] = {}
        self._duration = 0

    def empty(self) -> bool:
        """Whether there is no layer in it."""
        return not self._names

    def setInput(self, blob, name="", scalefactor=1.0, mean=(0, 0, 0, 0)) -> None:
        """Set the input `name` (default: the first) to scalefactor (blob - mean); one mean for each channel."""
        net = self._need()
        name = name or net.inputs[0]
        if name not in net.inputs:
            raise CaffeError(f"the net has no input '{name}' (its inputs: {', '.join(net.inputs)})")
        value = np.asarray(blob, np.float32)
        if np.any(mean):
            value = value - np.array(mean, np.float32)[: value.shape[1]].reshape(1, -1, *(1,) * (value.ndim - 2))
        self._given[name] = value * np.float32(scalefactor)

    def forward(self, outputName="", *, outBlobNames=None):
        """Run the net: the output of the layer `outputName` (default: the last), an array; a tuple of arrays where
        several layers are named in a list, or in `outBlobNames`. A layer's output is its first top as it leaves it."""
        net = self._need()
        outputName = outputName if outBlobNames is None else outBlobNames
        several = not isinstance(outputName, str)
        wanted = list(outputName) if several else [outputName or self._names[-1]]
        for name in wanted:
            if name not in self._names:
                raise CaffeError(f"the net has no layer '{name}' (its layers: {', '.join(self._names)})")
        begin = time.perf_counter_ns()
        changed = False
        for name, value in self._given.items():
            if net.blobs[name].data.shape != value.shape:
                net.blobs[name].reshape(*value.shape)
                changed = True
        if changed:
            net.reshape()
        for name, value in self._given.items():
            net.blobs[name].data[...] = value
        order = list(net._layer_names)
        found, start = {}, 0
        for end in sorted({order.index(name) for name in wanted}):
            net.forward(start=order[start], end=order[end])
            layer = self._layers[self._names.index(order[end])]
            found[order[end]] = net.blobs[layer.top[0]].data.copy()
            start = end + 1
        self._duration = time.perf_counter_ns() - begin
        return tuple(found[name] for name in wanted) if several else found[wanted[0]]

    def getLayerNames(self):
        """Names of all layers but inputs, in order."""
        return tuple(self._names)

    def getLayerId(self, layer) -> int:
        """Number of the layer named so: from 1 on, -1 where there is none."""
        return self._names.index(layer) + 1 if layer in self._names else -1

    def getLayer(self, layer) -> Layer:
        """The layer of this name or number."""
        net = self._need()
        number = self.getLayerId(layer) if isinstance(layer, str) else int(layer)
        if not 1 <= number <= len(self._names):
            raise CaffeError(f"the net has no layer {layer!r}; wanted a name, or a number from 1 to {len(self._names)}")
        return Layer(net.layer_dict[self._names[number - 1]])

    def getLayersCount(self, layerType) -> int:
        """Number of layers of a type."""
        return sum(layer.type == layerType for layer in self._layers)

    def getParam(self, layer, numParam=0):
        """Array of parameter number `numParam` of a layer."""
        return self.getLayer(layer).blobs[numParam]

    def setParam(self, layer, numParam, blob) -> None:
        """Write the array `blob` into parameter number `numParam` of a layer; as many numbers as it has."""
        own, value = self.getParam(layer, numParam), np.asarray(blob, np.float32)
        if own.size != value.size:
            raise CaffeError(f"parameter {numParam} of layer {layer!r} has shape {own.shape}, not {value.shape}")
        own[...] = value.reshape(own.shape)

    def getUnconnectedOutLayers(self):
        """Numbers of the layers whose tops no other layer takes."""
        taken = [set(layer.bottom) for layer in self._layers]
        ends = [
            i + 1
            for i, layer in enumerate(self._layers)
            if not any(top in later for top in layer.top for later in taken[i + 1 :])
        ]
        return np.array(ends, np.int32)

    def getUnconnectedOutLayersNames(self):
        """Names of the layers whose tops no other layer takes."""
        return tuple(self._names[i - 1] for i in self.getUnconnectedOutLayers())

    def getPerfProfile(self):
        """Nanoseconds of the last `forward`, in all and as an array of that one number."""
        return self._duration, np.array([[self._duration]], np.float64)

    def setPreferableBackend(self, backendId) -> None:
        """Nothing: torch computes, on the device that caffe.set_mode_gpu() or set_mode_cpu() chose."""

    def setPreferableTarget(self, targetId) -> None:
        """Nothing, as setPreferableBackend."""

    def enableFusion(self, fusion) -> None:
        """Nothing: the numbers are the same."""

    def _need(self):
        if self._net is None:
            raise CaffeError("the net is empty; readNetFromCaffe makes one")
        return self._net


def blobFromImage(image, scalefactor=1.0, size=(0, 0), mean=(0, 0, 0, 0), swapRB=False, crop=False, ddepth=5):
    """One image (H, W, C) or (H, W) as a blob (1, C, H, W); see blobFromImages."""
    return blobFromImages([image], scalefactor, size, mean, swapRB, crop, ddepth)


def blobFromImages(images, scalefactor=1.0, size=(0, 0), mean=(0, 0, 0, 0), swapRB=False, crop=False, ddepth=5):
    """Images as a blob (N, C, H, W) of scalefactor (image - mean), float32, or uint8 with ddepth cv2.CV_8U (0).

    They are resized to `size` (width, height), with `crop` so that they cover it, and the middle is taken. swapRB
    exchanges the first and the third channel; `mean` is in the order after that."""
    made = []
    for image in images:
        image = _resized(np.asarray(image), tuple(int(n) for n in size), crop)
        image = image[:, :, None] if image.ndim == 2 else image
        if swapRB:
            image = image[:, :, [2, 1, 0, *range(3, image.shape[2])]]
        if ddepth == 0:
            if image.dtype != np.uint8 or scalefactor != 1 or np.any(mean):
                raise CaffeError("a blob of CV_8U takes uint8 images, scalefactor 1 and no mean")
        else:
            means = np.zeros(image.shape[2], np.float32)
            given = np.ravel(mean)[: image.shape[2]]
            means[: len(given)] = given
            image = (image.astype(np.float32) - means) * np.float32(scalefactor)
        made.append(image.transpose(2, 0, 1))
    if len({image.shape for image in made}) != 1:
        raise CaffeError(f"images have shapes {', '.join(str(i.shape) for i in made)} (C, H, W); wanted one shape")
    return np.ascontiguousarray(np.stack(made))


def imagesFromBlob(blob):
    """The images (H, W, C) of a blob (N, C, H, W)."""
    return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in np.asarray(blob)]


def _resized(image, size, crop):
    height, width = image.shape[:2]
    if 0 in size or size == (width, height):
        return image
    import cv2  # half a second

    if not crop:
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    factor = max(size[0] / width, size[1] / height)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    left, top = int(0.5 * (image.shape[1] - size[0])), int(0.5 * (image.shape[0] - size[1]))
    return image[top : top + size[1], left : left + size[0]]
