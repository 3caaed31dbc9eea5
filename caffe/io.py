"""Arrays, messages and images: pycaffe's `caffe.io`.

An image is height x width x channels, RGB, float32 in 0..1. OpenCV reads and resizes where pycaffe uses scikit-image;
bilinear values agree inside the image, and at its border the outermost pixels are repeated, not faded to black.
"""

import os

import cv2
import numpy as np

from caffe import glog, packed
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from caffe.regular import MOST_IMAGE, open_file

INTERPOLATION = {0: cv2.INTER_NEAREST, 1: cv2.INTER_LINEAR, 3: cv2.INTER_CUBIC}
MOST_SCANS = 100  # of a JPEG; encoders write ten or so, and a hundred kB hold enough for hours
GREY_OF_RGB = np.array([0.2125, 0.7154, 0.0721], np.float32)  # luminance as scikit-image weighs it


# ---- messages


def blobproto_to_array(blob, return_diff=False):
    """The data of a BlobProto (or its diff) as an array, float32, or float64 where it holds doubles.

    Raises ValueError when the shape does not fit the number of values."""
    single, double = (blob.diff, blob.double_diff) if return_diff else (blob.data, blob.double_data)
    values = np.array(double, np.float64) if len(double) else np.array(single, np.float32)
    if blob.raw_data and not return_diff:
        values = packed.read_values(blob)
    return values.reshape(packed.shape(blob))


def array_to_blobproto(arr, diff=None):
    """A BlobProto with the shape and values of `arr`, and those of `diff`."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(arr.astype(np.float32).flat)
    if diff is not None:
        blob.diff.extend(diff.astype(np.float32).flat)
    return blob


def arraylist_to_blobprotovector_str(arraylist) -> bytes:
    """A list of arrays as the bytes of a BlobProtoVector."""
    return caffe_pb2.BlobProtoVector(blobs=[array_to_blobproto(arr) for arr in arraylist]).SerializeToString()


def blobprotovector_str_to_arraylist(data: bytes) -> list:
    """The arrays in the bytes of a BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(data).blobs]


def array_to_datum(arr, label=None):
    """A Datum of `arr` (channels, height, width): bytes when it is uint8, floats otherwise."""
    if arr.ndim != 3:
        raise ValueError(f"Incorrect array shape: {arr.shape}; a Datum holds (channels, height, width).")
    try:
        datum = caffe_pb2.Datum(label=label)
    except TypeError as e:
        raise TypeError(f"the label of a Datum is {label!r}; wanted a whole number") from e
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(np.float32).flat)
    return datum


def datum_to_array(datum):
    """The array (channels, height, width) of a Datum: uint8 or float32; an encoded image is decoded, BGR or grey."""
    if datum.encoded:
        pixels = decode(datum.data, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError("Could not decode the image in a Datum.")
        return np.ascontiguousarray(planes(pixels))
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape).copy()
    return np.array(datum.float_data, np.float32).reshape(shape)


# ---- images


def decode(data, flag):
    """The image in `data`, bytes of a file, as OpenCV's `flag` says; None: it is none, OpenCV finds it too large, or
    it is a JPEG of more than MOST_SCANS scans (the log tells)."""
    data = bytes(data)
    if data.startswith(b"\xff\xd8\xff") and (scans := data.count(b"\xff\xda")) > MOST_SCANS:
        glog.warning(
            glog.here(), f"a JPEG of {scans} scans over all its pixels is not decoded; wanted {MOST_SCANS} at most"
        )
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag) if len(data) else None
    except cv2.error:
        return None


def planes(image) -> np.ndarray:
    """An image as cv2 gives it, (H, W) or (H, W, C), as (C, H, W)."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def load_image(filename, color=True):
    """The image as (height, width, 3) RGB, or with `color` False as (height, width, 1) grey; float32 in 0..1.

    filename: a path, or a file object open for reading bytes, such as an io.BytesIO."""
    if hasattr(filename, "read"):
        content, told = filename.read(), getattr(filename, "name", f"a {type(filename).__name__}")
        if not isinstance(content, bytes):
            raise CaffeError(
                f"Could not decode image file: {told} gives {type(content).__name__}; "
                "open it for reading bytes, as io.BytesIO or open(..., 'rb') do"
            )
    elif not isinstance(filename, (str, bytes, os.PathLike)):
        raise TypeError(f"load_image wants a path or an open file, not a {type(filename).__name__}")
    else:
        told = os.fsdecode(filename)
        if not os.path.isfile(told):
            raise CaffeError(f"File not found: {told}")
        try:
            with open_file(told, MOST_IMAGE) as file:
                content = file.read()
        except OSError as e:
            raise CaffeError(f"{told}: {e.strerror}") from e
    pixels = decode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise CaffeError(f"Could not decode image file: {told}")
    largest = np.iinfo(pixels.dtype.name).max if pixels.dtype.kind in "iu" else 1
    pixels = np.atleast_3d(pixels).astype(np.float32) / largest
    rgb = pixels[:, :, 2::-1] if pixels.shape[2] >= 3 else np.tile(pixels[:, :, :1], (1, 1, 3))  # alpha is dropped
    if color:
        return np.ascontiguousarray(rgb)
    return pixels if pixels.shape[2] == 1 else (rgb @ GREY_OF_RGB)[:, :, np.newaxis]


def resize_image(im, new_dims, interp_order=1):
    """`im` (height, width, channels) with (height, width) `new_dims`; float32.

    interp_order: 0 nearest, 1 bilinear, 3 bicubic. Nothing is smoothed before shrinking."""
    if interp_order not in INTERPOLATION:
        raise ValueError(f"interp_order is {interp_order}; 0 (nearest), 1 (bilinear) and 3 (bicubic) are known.")
    height, width = _size("new_dims", new_dims)
    im = _image(im)
    out = np.empty((height, width, im.shape[2]), np.float32)
    for c in range(im.shape[2]):
        out[:, :, c] = cv2.resize(im[:, :, c], (width, height), interpolation=INTERPOLATION[interp_order])
    return out


def _image(array):
    array = np.asarray(array, np.float32)
    if array.ndim != 3:
        raise ValueError(f"an image has axes (height, width, channels); this array has shape {array.shape}")
    return array


def _size(argument, given):
    if np.shape(given) != (2,) or min(given) < 1:
        raise ValueError(f"{argument} is {given}; wanted (height, width), both at least 1")
    height, width = (int(n) for n in given)
    return height, width


def oversample(images, crop_dims):
    """Ten crops of each image: corners (upper left, upper right, lower left, lower right), center, and their mirrors.

    images: all of one shape (height, width, channels). Returns (10 * len(images), *crop_dims, channels), float32."""
    images = [_image(image) for image in images]
    shapes = sorted({image.shape for image in images})
    if len(shapes) != 1:
        raise ValueError(f"oversample wants images of one shape; found {', '.join(map(str, shapes)) or 'none'}")
    height, width, channels = shapes[0]
    h, w = _size("crop_dims", crop_dims)
    if h > height or w > width:
        raise ValueError(f"crops of {h} x {w} are larger than an image of {height} x {width}; resize the images first")
    bottom, right = height - h, width - w
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = np.empty((len(images), 2, len(corners), h, w, channels), np.float32)
    for image, of_image in zip(images, crops):
        for i, (y, x) in enumerate(corners):
            of_image[0, i] = image[y : y + h, x : x + w]
    crops[:, 1] = crops[:, 0, :, :, ::-1]
    return crops.reshape(-1, h, w, channels)


class Transformer:
    """From images to the layout a net's input blob wants, and back.

    inputs: {input blob name: shape (N, channels, height, width)}. The setters take the name of an input first."""

    def __init__(self, inputs):
        self.inputs = inputs
        self.transpose = {}
        self.channel_swap = {}
        self.raw_scale = {}
        self.mean = {}
        self.input_scale = {}

    def preprocess(self, in_, data):
        """`data` (height, width, channels) made ready for input `in_`; float32.

        Steps, each if it was set: resize, transpose, swap channels, times raw_scale, minus mean, times input_scale."""
        self._check_input(in_)
        out = _image(data).copy()
        size = tuple(self.inputs[in_][2:])
        if out.shape[:2] != size:
            out = resize_image(out, size)
        if in_ in self.transpose:
            out = out.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            order = list(self.channel_swap[in_])
            if max(order) >= len(out):
                raise ValueError(
                    f"channel swap {order} of input '{in_}' wants {max(order) + 1} channels, not {len(out)}"
                )
            out = out[order]
        if in_ in self.raw_scale:
            out = out * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            out = out - self.mean[in_].astype(np.float32)
        if in_ in self.input_scale:
            out = out * np.float32(self.input_scale[in_])
        return out

    def deprocess(self, in_, data):
        """The steps of `preprocess` undone, last one first (the size stays)."""
        self._check_input(in_)
        out = np.array(data).squeeze()
        if in_ in self.input_scale:
            out = out / self.input_scale[in_]
        if in_ in self.mean:
            out = out + self.mean[in_]
        if in_ in self.raw_scale:
            out = out / self.raw_scale[in_]
        if in_ in self.channel_swap:
            out = out[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            out = out.transpose(np.argsort(self.transpose[in_]))
        return out

    def set_transpose(self, in_, order):
        """Order of the axes: (2, 0, 1) turns height x width x channels into channels x height x width."""
        self._check_input(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise ValueError(
                f"Transpose order {order} needs to have the same number of dimensions as the input: "
                f"{len(self.inputs[in_]) - 1}."
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_, order):
        """Order of the channels, after the transpose: (2, 1, 0) turns RGB into BGR."""
        self._check_input(in_)
        if len(order) != self.inputs[in_][1]:
            raise ValueError(
                f"Channel swap {order} needs to have the same number of dimensions as the input channels: "
                f"{self.inputs[in_][1]}."
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_, scale):
        """Factor applied before the mean is subtracted: 255 for nets that were trained on 0..255."""
        self._check_input(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_, mean):
        """Mean to subtract: one value for each channel, or an array (channels, height, width), resized to the input."""
        self._check_input(in_)
        mean = np.asarray(mean)
        channels, *size = self.inputs[in_][1:]
        if mean.ndim == 1:
            if len(mean) != channels:
                raise ValueError(f"Mean channels incompatible with input: {len(mean)} values, {channels} channels.")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            if mean.ndim not in (2, 3):
                raise ValueError(f"Mean shape invalid: {mean.shape}; want (channels,) or (channels, height, width).")
            mean = mean if mean.ndim == 3 else mean[np.newaxis]
            if mean.shape[0] != channels:
                raise ValueError(f"Mean shape incompatible with input shape: {mean.shape}, {(channels, *size)}.")
            if mean.shape[1:] != tuple(size):
                mean = resize_image(mean.transpose(1, 2, 0), size).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_, scale):
        """Factor applied after the mean is subtracted."""
        self._check_input(in_)
        self.input_scale[in_] = scale

    def _check_input(self, in_):
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the net inputs: {', '.join(self.inputs)}")
