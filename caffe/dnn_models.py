"""Models as cv2.dnn has them: a net with the way that images go into it, and what its outputs mean.

model = dnn.DetectionModel("net.caffemodel", "deploy.prototxt")
model.setInputParams(1 / 127.5, (300, 300), 127.5)
classIds, confidences, boxes = model.detect(image, confThreshold=0.5)
"""

import os

import numpy as np

from caffe.dnn import Net, blobFromImage, readNet
from caffe.errors import CaffeError


class Model:
    """`model` a Net, or a caffemodel and `config` its prototxt, in either order. Images are BGR arrays."""

    def __init__(self, model, config=""):
        self._net = readNet(model, config) if isinstance(model, (str, os.PathLike)) else model
        self._scale, self._mean, self._crop, self._swap = 1.0, (0, 0, 0, 0), False, False
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._size = (0, 0)
        if isinstance(self._net, Net):
            for shape in self._net.getLayerShapes([], 0)[1][:1]:
                self._size = (shape[3], shape[2]) if len(shape) == 4 else (0, 0)

    def setInputSize(self, *size):
        """Width and height, as two numbers or a pair (default: the prototxt's)."""
        self._size = tuple(size) if len(size) == 2 else tuple(size[0])
        return self

    def setInputMean(self, mean):
        """What is taken from each channel."""
        self._mean = mean
        return self

    def setInputScale(self, scale):
        """What the difference is multiplied by."""
        self._scale = float(np.ravel(scale)[0])
        return self

    def setInputCrop(self, crop):
        """Whether the middle of the image is taken, in place of squeezing it."""
        self._crop = crop
        return self

    def setInputSwapRB(self, swapRB):
        """Whether the net wants RGB."""
        self._swap = swapRB
        return self

    def setInputParams(self, scale=1.0, size=(0, 0), mean=(0, 0, 0, 0), swapRB=False, crop=False):
        """All of these at once."""
        self.setInputScale(scale).setInputSize(size).setInputMean(mean).setInputSwapRB(swapRB).setInputCrop(crop)

    def setOutputNames(self, outNames):
        """The layers whose outputs `predict` gives (default: those that no other layer takes)."""
        self._outputs = tuple(outNames)
        return self

    def setPreferableBackend(self, backendId):
        """Nothing, as Net's."""
        return self

    def setPreferableTarget(self, targetId):
        """Nothing, as Net's."""
        return self

    def enableWinograd(self, useWinograd):
        """Nothing, as Net's."""
        return self

    def predict(self, frame):
        """The outputs for one image, a tuple of arrays."""
        if 0 in self._size:
            raise CaffeError("the model has no input size; setInputSize(width, height) gives it one")
        self._net.setInput(blobFromImage(frame, self._scale, self._size, self._mean, self._swap, self._crop))
        if self._net.getLayer(0).outputNameToIndex("im_info") >= 0:
            self._net.setInput(np.array([[self._size[1], self._size[0], 1.6]], np.float32), "im_info")  # as in OpenCV
        return self._net.forward(self._outputs)


class ClassificationModel(Model):
    """What is in an image."""

    _softmax = False

    def setEnableSoftmaxPostProcessing(self, enable):
        """Whether `classify` runs the output through a softmax."""
        self._softmax = enable
        return self

    def getEnableSoftmaxPostProcessing(self):
        return self._softmax

    def classify(self, frame):
        """(number of the best class, its value)."""
        scores = np.ravel(self.predict(frame)[0])
        if self._softmax:
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        return int(scores.argmax()), float(scores.max())


class DetectionModel(Model):
    """Boxes in an image, of a net that ends in DetectionOutput."""

    _across = False

    def setNmsAcrossClasses(self, value):
        """Nothing: DetectionOutput has thinned out the boxes of each class."""
        self._across = value
        return self

    def getNmsAcrossClasses(self):
        return self._across

    def detect(self, frame, confThreshold=0.5, nmsThreshold=0.0):
        """(numbers of the classes (D,), confidences (D,), boxes (D, 4): left, top, width, height in pixels), by falling
        confidence, of boxes with confThreshold or more; empty tuples where there is none. nmsThreshold plays no part,
        as in OpenCV."""
        outputs = self.predict(frame)
        rows = outputs[0].reshape(-1, 7) if outputs[0].shape[-1] == 7 and len(outputs) == 1 else None
        if rows is None:
            raise CaffeError("DetectionModel takes a net that ends in a layer of type DetectionOutput")
        rows = rows[rows[:, 2] >= confThreshold]
        height, width = frame.shape[:2]
        boxes = [_pixels(row[3:], width, height) for row in rows]
        if not boxes:
            return (), (), ()
        return rows[:, 1].astype(np.int32), rows[:, 2].copy(), np.array(boxes, np.int32)


def _pixels(corners, width, height):
    """A box in pixels, or in parts of the image where that would leave nothing of it, as (left, top, width, height)."""
    left, top, right, bottom = (int(c) for c in corners)
    if right - left + 1 <= 2 or bottom - top + 1 <= 2:
        left, top, right, bottom = (int(c * size) for c, size in zip(corners, (width, height) * 2))
    wide, tall = right - left + 1, bottom - top + 1
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return left, top, max(1, min(wide, width - left)), max(1, min(tall, height - top))


class SegmentationModel(Model):
    """The class of each pixel."""

    def segment(self, frame):
        """Numbers of the classes (H, W), uint8, as large as the net's output."""
        return self.predict(frame)[0][0].argmax(0).astype(np.uint8)


class KeypointsModel(Model):
    """Places of a body in an image, of a net that gives a map of each."""

    def estimate(self, frame, thresh=0.5):
        """x and y of each place in pixels (P, 2), (-1, -1) where its map has no value above `thresh`. The last map is
        the background's."""
        maps, points = self.predict(frame)[0][0][:-1], []
        for values in maps:
            y, x = np.unravel_index(values.argmax(), values.shape)
            place = x * frame.shape[1] / values.shape[1], y * frame.shape[0] / values.shape[0]
            points.append(place if values[y, x] > thresh else (-1, -1))
        return np.array(points, np.float32)
