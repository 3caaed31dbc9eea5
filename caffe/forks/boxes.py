"""Boxes as arrays (n, 4) of xmin, ymin, xmax, ymax: overlap, suppression, the codes of SSD and of Faster R-CNN.

Arrays are NumPy's; what decodes takes torch's tensors, too."""

import numpy as np
import torch

from caffe.proto import caffe_pb2

CORNER, CORNER_SIZE = caffe_pb2.PriorBoxParameter.CORNER, caffe_pb2.PriorBoxParameter.CORNER_SIZE  # or CENTER_SIZE


def area(boxes, pixel=0):
    """Areas, 0 where a box is inside out; with `pixel` 1 the last row and column belong to it."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return np.where((width < 0) | (height < 0), 0, (width + pixel) * (height + pixel)).astype(np.float32)


def overlap(a, b, pixel=0):
    """Intersection over union of boxes `a` and `b`, all of shapes that broadcast."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    sides = high - low + np.float32(pixel)
    common = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0)
    union = area(a, pixel) + area(b, pixel) - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


def suppress(boxes, threshold, eta=1.0, pixel=0, most=None):
    """Indices of the boxes that stay, of those in order of falling score, at most `most`: one that overlaps one before
    it by more than `threshold` goes. With `eta` below 1 the threshold shrinks by it after each, down to 0.5."""
    largest = np.full(len(boxes), -np.inf, np.float32)  # overlap of each with those that stay
    kept: list[int] = []
    for i in range(len(boxes)):
        if kept and not largest[i] <= threshold:
            continue
        kept.append(i)
        if len(kept) == most:
            break
        np.maximum(largest[i + 1 :], overlap(boxes[i], boxes[i + 1 :], pixel), out=largest[i + 1 :])
        if eta < 1 and threshold > 0.5:
            threshold *= eta
    return kept


def _centred(boxes):
    size = boxes[..., 2:] - boxes[..., :2]
    return (boxes[..., :2] + boxes[..., 2:]) / 2, size


def decode(codes, priors, variances, code_type):
    """The boxes that `codes` mean beside `priors`; `variances` is 1 where the codes hold them already."""
    lib = _library(codes)
    codes = codes * variances
    if code_type == CORNER:
        return priors + codes
    centre, size = _centred(priors)
    if code_type == CORNER_SIZE:
        return priors + codes * lib.concatenate([size, size], -1)
    centre = codes[..., :2] * size + centre
    size = lib.exp(codes[..., 2:]) * size
    return lib.concatenate([centre - size / 2, centre + size / 2], -1)


def decode_pixels(anchors, codes):
    """The boxes that `codes` mean beside `anchors`, whose last row and column of pixels belong to them."""
    lib = _library(codes)
    size = anchors[:, 2:] - anchors[:, :2] + 1
    centre = codes[:, :2] * size + anchors[:, :2] + size / 2
    size = lib.exp(codes[:, 2:]) * size
    return lib.concatenate([centre - size / 2, centre + size / 2], 1)


def _library(array):
    return torch if isinstance(array, torch.Tensor) else np


def encode(boxes, priors, variances, code_type):
    """The codes that mean `boxes` beside `priors`."""
    centre, size = _centred(priors)
    if code_type == CORNER:
        codes = boxes - priors
    elif code_type == CORNER_SIZE:
        codes = (boxes - priors) / np.concatenate([size, size], -1)
    else:
        target, target_size = _centred(boxes)
        codes = np.concatenate([(target - centre) / size, np.log(target_size / size)], -1)
    return codes / variances
