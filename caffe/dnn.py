"""Nets of Caffe files as OpenCV 4's dnn module gave them, for scripts that OpenCV 5 has left without a reader.

    from caffe import dnn  # in place of: from cv2 import dnn

    net = dnn.readNetFromCaffe("deploy.prototxt", "net.caffemodel")
    net.setInput(dnn.blobFromImage(image, 0.017, (224, 224), (104, 117, 123)))
    prob = net.forward()

It computes what Caffe computes, where OpenCV and Caffe differ, too: PriorBox cuts sizes to whole pixels. `forward`
gives detections in OpenCV's order. Other names of cv2.dnn (NMSBoxes, DNN_BACKEND_OPENCV) are cv2's own. A script that
says `cv2.dnn.` all over gets these functions by `cv2.dnn = caffe.dnn`.
"""

import importlib
import math
import os
import time

import numpy as np

from caffe import dnn_costs
from caffe import net as caffe_net
from caffe.errors import CaffeError
from caffe.files import write
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_net_binary, read_net_file
from caffe.upgrade import upgrade_net
from caffe.weights import copy_from_proto

MODELS = ("Model", "ClassificationModel", "DetectionModel", "KeypointsModel", "SegmentationModel")


def __getattr__(name):
    if name in MODELS:
        return getattr(importlib.import_module("caffe.dnn_models"), name)
    return getattr(_opencv(), name)


def _opencv():
    importlib.import_module("cv2")  # half a second
    return importlib.import_module("cv2.dnn")  # the attribute cv2.dnn may be this module by now


def readNetFromCaffe(prototxt=None, caffeModel=None, *, bufferProto=None, bufferModel=None) -> "Net":
    """The net of `prototxt` in phase TEST with the weights of `caffeModel`: paths, or the files' bytes (bytes,
    bytearray, uint8 arrays). Without weights they are what the fillers give. Raises CaffeError."""
    prototxt = bufferProto if prototxt is None else prototxt
    caffeModel = bufferModel if caffeModel is None else caffeModel
    if prototxt is None:
        raise CaffeError("readNetFromCaffe wants a prototxt: its path, or its bytes")
    if isinstance(prototxt, (str, os.PathLike)):
        param = read_net_file(os.fspath(prototxt))
    else:
        param = parse_text(bytes(prototxt), caffe_pb2.NetParameter, "(bytes)")
        upgrade_net(param, "(bytes)")
    param.state.phase = caffe_pb2.TEST
    weights = None
    if isinstance(caffeModel, os.PathLike) or (caffeModel is not None and len(caffeModel)):
        source = os.fspath(caffeModel) if isinstance(caffeModel, (str, os.PathLike)) else bytes(caffeModel)
        weights = read_net_binary(source), source if isinstance(source, str) else "(bytes)"
    return Net(param, weights)


def readNet(*given, **named):
    """readNet(model, config="", framework=""): the net of a caffemodel and a prototxt, whose paths may come in either
    order; or readNet(framework, bufferModel, bufferConfig=b"") with "caffe" and the files' bytes. cv2 reads what is no
    file of Caffe's. Raises CaffeError."""
    buffers = "bufferModel" in named or (len(given) > 1 and not isinstance(given[1], (str, os.PathLike)))
    order = ("framework", "bufferModel", "bufferConfig") if buffers else ("model", "config", "framework")
    options = {**dict(zip(order, given)), **named}
    model, config = (options.get(name, "") for name in (order[1:] if buffers else order[:2]))
    ends = [] if buffers else [str(model), str(config)]
    if options.get("framework", "").lower() != "caffe" and not any(
        e.endswith((".caffemodel", ".prototxt")) for e in ends
    ):
        return _opencv().readNet(*given, **named)
    if ends and (ends[0].endswith(".prototxt") or ends[1].endswith(".caffemodel")):
        model, config = config, model
    return readNetFromCaffe(config, model)


class Layer:
    """One layer of a net: `name`, `type` and `blobs`, its parameters' arrays. Arrays that are assigned to `blobs` are
    written into the net: as many, each of as many numbers."""

    preferableTarget = 0

    def __init__(self, name, type, blobs, tops):
        self.name, self.type = name, type
        self._blobs, self._tops = blobs, tops

    @property
    def blobs(self):
        return [blob.data for blob in self._blobs]

    @blobs.setter
    def blobs(self, arrays):
        own, given = self.blobs, [np.asarray(array, np.float32) for array in arrays]
        if [array.size for array in own] != [array.size for array in given]:
            raise CaffeError(
                f"layer '{self.name}' has parameters {[a.shape for a in own]}, not {[a.shape for a in given]}"
            )
        for array, value in zip(own, given):
            array[...] = value.reshape(array.shape)

    def outputNameToIndex(self, outputName) -> int:
        """Which of the layer's tops has this name, or -1."""
        return self._tops.index(outputName) if outputName in self._tops else -1


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

    # ---- running it

    def setInput(self, blob, name="", scalefactor=1.0, mean=(0, 0, 0, 0)) -> None:
        """Set the input `name` (default: the first) to scalefactor (blob - mean); one mean for each channel."""
        net = self._need()
        name = self._input(name)
        value = np.asarray(blob, np.float32)
        if np.any(mean):
            value = value - _means(mean, value.shape[1]).reshape(1, -1, *(1,) * (value.ndim - 2))
        value = value * np.float32(scalefactor)
        if value.ndim != len(net.blobs[name].shape) and value.size == net.blobs[name].count:
            value = value.reshape(net.blobs[name].shape)  # an image without its batch, im_info without its item
        self._given[name] = value

    def setInputShape(self, inputName, shape) -> None:
        """Give the input `inputName` this shape."""
        self._reshape({self._input(inputName): tuple(int(n) for n in shape)})

    def setInputsNames(self, inputBlobNames) -> None:
        """Nothing for the names that the inputs have in the prototxt; others are an error."""
        for name in inputBlobNames:
            self._input(name)

    def forward(self, outputName="", *, outBlobNames=None):
        """Run the net: the output of the layer `outputName` (default: the last), an array; a tuple of arrays where
        several layers are named in a list, or in `outBlobNames`. A layer's output is its first top as it leaves it; the
        name of a blob that no layer has stands for what the last layer leaves in it."""
        outputName = outputName if outBlobNames is None else outBlobNames
        several = not isinstance(outputName, str)
        wanted = list(outputName) if several else [outputName]
        found = self._run(wanted)
        return tuple(found[name][0] for name in wanted) if several else found[outputName][0]

    def forwardAndRetrieve(self, outBlobNames):
        """Run the net: for each of these layers the list of all its tops."""
        found = self._run(list(outBlobNames))
        return tuple(tuple(found[name]) for name in outBlobNames)

    def _run(self, wanted):
        """The tops of each of the layers or blobs named in `wanted`, {name: [array]}."""
        net = self._need()
        ends = {name: self._end(name) for name in wanted}
        begin = time.perf_counter_ns()
        self._reshape({name: value.shape for name, value in self._given.items()})
        for name, value in self._given.items():
            net.blobs[name].data[...] = value
        order, found, start = list(net._layer_names), {}, 0
        for end in sorted({number for number, _ in ends.values()}):
            if end >= 0:
                net.forward(start=order[start], end=order[end])
            for name, (number, tops) in ends.items():
                if number == end:
                    values = [net.blobs[top].data.copy() for top in tops]
                    layer = net.nodes[end].param
                    found[name] = [_by_score(layer, *values)] if layer.type == "DetectionOutput" else values
            start = end + 1
        self._duration = time.perf_counter_ns() - begin
        return found

    def _end(self, name):
        """(number of the layer after which the layer or blob `name` is there, the names of its tops); -1: at once."""
        net = self._need()
        order = list(net._layer_names)
        if not name:
            name = next((layer.name for layer in reversed(self._layers) if layer.top), "")
        if name in self._names:
            layer = self._layers[self._names.index(name)]
            if not layer.top:
                raise CaffeError(f"layer '{name}' ({layer.type}) has no output")
            return order.index(name), list(layer.top)
        makers = [layer.name for layer in self._layers if name in layer.top]
        if not makers and name not in net.inputs:
            raise CaffeError(f"the net has no layer '{name}' (its layers: {', '.join(self._names)})")
        return (order.index(makers[-1]) if makers else -1), [name]

    def _reshape(self, shapes):
        """Let the inputs {name: shape} have these shapes; where a layer refuses them, all stay as they were."""
        net = self._need()
        before = {name: net.blobs[name].shape for name, shape in shapes.items()}
        changed = {name: shape for name, shape in shapes.items() if before[name] != tuple(shape)}
        if not changed:
            return
        try:
            for name, shape in changed.items():
                net.blobs[name].reshape(*shape)
            net.reshape()
        except Exception:  # a layer of a user's may raise anything
            for name in changed:
                net.blobs[name].reshape(*before[name])
            net.reshape()
            raise

    def _input(self, name):
        net = self._need()
        name = name or next(iter(net.inputs), "")
        if name not in net.inputs:
            raise CaffeError(f"the net has no input '{name}' (its inputs: {', '.join(net.inputs) or 'none'})")
        return name

    # ---- its layers

    def getLayerNames(self):
        """Names of all layers but inputs, in order."""
        return tuple(self._names)

    def getLayerId(self, layer) -> int:
        """Number of the layer named so: from 1 on, -1 where there is none."""
        return self._names.index(layer) + 1 if layer in self._names else -1

    def getLayer(self, layer) -> Layer:
        """The layer of this name or number; 0 stands for all inputs together."""
        net, number = self._need(), self._number(layer)
        if number == 0:
            return Layer("_input", "__NetInputLayer__", [], net.inputs)
        found = self._layers[number - 1]
        return Layer(found.name, found.type, list(net.layer_dict[found.name].blobs), list(found.top))

    def _number(self, layer):
        number = self.getLayerId(layer) if isinstance(layer, str) else int(layer)
        if not 0 <= number <= len(self._names):
            raise CaffeError(f"the net has no layer {layer!r}; wanted a name, or a number from 1 to {len(self._names)}")
        return number

    def getLayerTypes(self):
        """The types of its layers and inputs, each once, by the alphabet."""
        return tuple(sorted({layer.type for layer in self._layers} | {"__NetInputLayer__"}))

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

    # ---- what it costs

    def getLayersShapes(self, netInputShapes):
        """For inputs of these shapes (a list of shapes, or one): the layers' numbers, 0 for the inputs, and for each
        layer its bottoms' and its tops' shapes."""
        shapes = self._shapes(netInputShapes)
        ins, outs = (tuple(tuple(np.array(s, np.int32) for s in each) for each in sides) for sides in zip(*shapes))
        return np.arange(len(shapes), dtype=np.int32), ins, outs

    def getLayerShapes(self, netInputShapes, layerId):
        """(shapes of the bottoms, shapes of the tops) of layer number `layerId`, 0 for the inputs."""
        return self._shapes(netInputShapes)[self._number(layerId)]

    def getFLOPS(self, *given, netInputShapes=None, netInputShape=None, layerId=None) -> int:
        """Floating-point operations of a forward pass for inputs of these shapes (a list of shapes, or one), as OpenCV
        counts them; getFLOPS(layerId, shapes): of one layer."""
        shapes, number = self._asked(given, netInputShapes, netInputShape, layerId)
        costs = [0] + [dnn_costs.flops(layer, *each) for layer, each in zip(self._layers, shapes[1:])]
        return sum(costs) if number is None else costs[number]

    def getMemoryConsumption(self, *given, netInputShapes=None, netInputShape=None, layerId=None):
        """(bytes of the parameters, bytes of all tops) for inputs of these shapes (a list of shapes, or one);
        getMemoryConsumption(layerId, shapes): of one layer."""
        shapes, number = self._asked(given, netInputShapes, netInputShape, layerId)
        layers = self._need().layer_dict
        weights = [0] + [sum(4 * blob.count for blob in layers[name].blobs) for name in self._names]
        blobs = [sum(4 * math.prod(shape) for shape in outs) for _, outs in shapes]
        return (sum(weights), sum(blobs)) if number is None else (weights[number], blobs[number])

    def _asked(self, given, several, one, layerId):
        """(`_shapes` for the inputs' shapes, the layer's number or None) of a call f([layerId,] shapes), in which any
        of the two may have been named."""
        if given and isinstance(given[0], (int, np.integer)):
            layerId, *given = given
        shapes = next((shapes for shapes in (*given, several, one) if shapes is not None), None)
        if shapes is None:
            raise CaffeError("give the shapes of the net's inputs, such as [1, 3, 224, 224]")
        return self._shapes(shapes), None if layerId is None else self._number(layerId)

    def _shapes(self, given):
        """[(shapes of the bottoms, of the tops)] of the inputs (together) and all layers."""
        net = self._need()
        one = not len(given) or np.ndim(given[0]) == 0
        wanted = {name: tuple(int(n) for n in shape) for name, shape in zip(net.inputs, [given] if one else given)}
        wanted = {name: shape for name, shape in wanted.items() if shape}
        before = {name: net.blobs[name].shape for name in net.inputs}
        self._reshape(wanted)
        sizes = {name: [int(n) for n in blob.shape] for name, blob in net.blobs.items()}
        self._reshape(before)
        inputs = [sizes[name] for name in net.inputs]
        return [(inputs, inputs)] + [
            ([sizes[b] for b in layer.bottom], [sizes[t] for t in layer.top]) for layer in self._layers
        ]

    def getPerfProfile(self):
        """Nanoseconds of the last `forward`, in all and as an array of that one number."""
        return self._duration, np.array([self._duration], np.float64)

    def dump(self) -> str:
        """The net as text: a line for each layer with its number, name, type and the shapes of its tops."""
        shapes = self._shapes([])
        return "".join(
            f"{i} {layer.name} ({layer.type}): {', '.join(layer.bottom)} -> "
            f"{', '.join(f'{top} {shape}' for top, shape in zip(layer.top, outs))}\n"
            for i, (layer, (_, outs)) in enumerate(zip(self._layers, shapes[1:]), 1)
        )

    def dumpToFile(self, path) -> None:
        """Write `dump()` to the file `path`."""
        write(path, self.dump())

    # ---- what OpenCV chooses, and here there is no choice

    def setPreferableBackend(self, backendId) -> None:
        """Nothing: torch computes, on the device that caffe.set_mode_gpu() or set_mode_cpu() chose."""

    def setPreferableTarget(self, targetId) -> None:
        """Nothing, as setPreferableBackend."""

    def enableFusion(self, fusion) -> None:
        """Nothing: the numbers are the same."""

    def enableWinograd(self, useWinograd) -> None:
        """Nothing: the numbers are the same."""

    def setHalideScheduler(self, scheduler) -> None:
        """Nothing, as setPreferableBackend."""

    def _need(self):
        if self._net is None:
            raise CaffeError("the net is empty; readNetFromCaffe makes one")
        return self._net


def _by_score(layer, detections):
    """The rows (1, 1, D, 7) of DetectionOutput as OpenCV orders them, by image and falling score; where there is none,
    rows of 0, keep_top_k for each image."""
    rows = detections.reshape(-1, 7)
    if (rows[:, 1] < 0).all():
        return np.zeros((1, 1, len(rows) * max(1, layer.detection_output_param.keep_top_k), 7), np.float32)
    return rows[np.lexsort((-rows[:, 2], rows[:, 0]))].reshape(1, 1, -1, 7)


def blobFromImage(image, scalefactor=1.0, size=(0, 0), mean=(0, 0, 0, 0), swapRB=False, crop=False, ddepth=5):
    """One image (H, W, C) or (H, W) as a blob (1, C, H, W); see blobFromImages."""
    return blobFromImages([image], scalefactor, size, mean, swapRB, crop, ddepth)


def blobFromImages(images, scalefactor=1.0, size=(0, 0), mean=(0, 0, 0, 0), swapRB=False, crop=False, ddepth=5):
    """Images as a blob (N, C, H, W) of scalefactor (image - mean), float32, or uint8 with ddepth cv2.CV_8U (0).

    They are resized to `size` (width, height; default: the first image's), with `crop` so that they cover it, and the
    middle is taken. swapRB exchanges the first and the third channel; `mean` is in the order after that."""
    if ddepth not in (0, 5):
        raise CaffeError(f"ddepth is {ddepth}; wanted cv2.CV_32F (5) or cv2.CV_8U (0)")
    made: list[np.ndarray] = []
    size = tuple(int(n) for n in size)
    for image in images:
        image = np.asarray(image)
        size = size if 0 not in size else image.shape[1::-1]
        image = _resized(image, size, crop)
        image = image[:, :, None] if image.ndim == 2 else image
        if swapRB and image.shape[2] > 2:
            image = image[:, :, [2, 1, 0, *range(3, image.shape[2])]]
        if ddepth == 0:
            if image.dtype != np.uint8 or scalefactor != 1 or np.any(mean):
                raise CaffeError("a blob of CV_8U takes uint8 images, scalefactor 1 and no mean")
        else:
            image = (image.astype(np.float32) - _means(mean, image.shape[2])) * np.float32(scalefactor)
        made.append(image.transpose(2, 0, 1))
    if len({image.shape for image in made}) != 1:
        told = ", ".join(str(image.shape) for image in made) or "no images"
        raise CaffeError(f"a blob is made of images of one shape (C, H, W); found {told}")
    return np.ascontiguousarray(np.stack(made))


def _means(given, channels):
    """A mean for each channel, 0 where none is given."""
    return np.pad(np.ravel(given)[:channels].astype(np.float32), (0, max(0, channels - np.size(given))))


def imagesFromBlob(blob_):
    """The images (H, W, C) of the blob (N, C, H, W)."""
    return tuple(np.ascontiguousarray(image.transpose(1, 2, 0)) for image in np.asarray(blob_))


def _resized(image, size, crop):
    height, width = image.shape[:2]
    if size == (width, height):
        return image
    import cv2  # half a second

    if not crop:
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    factor = float(np.float32(max(size[0] / width, size[1] / height)))  # as in OpenCV
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    left, top = int(0.5 * (image.shape[1] - size[0])), int(0.5 * (image.shape[0] - size[1]))
    return image[top : top + size[1], left : left + size[0]]
