"""From pixels to net input: crop, mirror, mean, scale (Caffe: data_transformer.cpp; TransformationParameter)."""

import cv2
import numpy as np

from caffe.weights import read_array

OF_BOXES = ("resize_param", "emit_constraint", "crop_h", "crop_w", "distort_param", "expand_param")  # SSD's


class Transformer:
    """(pixel - mean) * scale of a crop, mirrored at random: what `transform_param` of a data layer says.

    phase TRAIN crops anywhere, TEST in the middle. `fail(text)` raises errors in the name of the layer."""

    def __init__(self, param, phase, fail, with_boxes=False):
        self.param, self.random_crop, self.fail = param, phase == 0, fail
        for field in () if with_boxes else OF_BOXES:
            if param.HasField(field):
                fail(f"transform_param: {field} is for images with boxes, in layers of type AnnotatedData")
        crop = (param.crop_h, param.crop_w) if param.crop_h and param.crop_w else (param.crop_size,) * 2
        self.crop = crop if any(crop) else None
        if param.force_color and param.force_gray:
            fail("cannot set both force_color and force_gray")
        if param.mean_file and len(param.mean_value):
            fail("Cannot specify mean_file and mean_value at the same time")
        self.mean: np.ndarray | None = None  # (C, H, W), or a value for each channel as (C, 1, 1)
        if param.mean_file:
            mean = read_array(param.mean_file)
            if mean.ndim < 3 or mean.size != np.prod(mean.shape[-3:]):
                fail(f"the mean in {param.mean_file} has shape {mean.shape}; wanted (1, C, H, W)")
            self.mean = mean.reshape(mean.shape[-3:])
        elif len(param.mean_value):
            self.mean = np.array(param.mean_value, np.float32)[:, None, None]

    @property
    def color(self):
        """cv2.imdecode flag for encoded pixels: as they are, unless colour or grey is forced."""
        p = self.param
        return cv2.IMREAD_COLOR if p.force_color else cv2.IMREAD_GRAYSCALE if p.force_gray else cv2.IMREAD_UNCHANGED

    def __call__(self, pixels, rng):
        """`pixels` (C, H, W), uint8 or float, to float32 (C, crop, crop), or (C, H, W) without crop_size."""
        return self.applied(pixels, *self.chosen(pixels, rng))

    def chosen(self, pixels, rng):
        """What is taken of `pixels`: top, left, height and width of a window, and whether it is mirrored."""
        self._check(pixels)
        _, height, width = pixels.shape
        top, left, tall, wide = 0, 0, height, width
        if self.crop:
            tall, wide = self.crop
            top, left = height - tall, width - wide
            random = self.random_crop
            top, left = (rng.integers(top + 1), rng.integers(left + 1)) if random else (top // 2, left // 2)
        return top, left, tall, wide, bool(self.param.mirror and rng.integers(2))

    def applied(self, pixels, top, left, tall, wide, mirrored):
        """The window of `pixels` less the mean, scaled, float32."""
        p, window = self.param, (slice(None), slice(top, top + tall), slice(left, left + wide))
        out = pixels[window].astype(np.float32)
        if self.mean is not None:
            out -= self.mean[window] if p.mean_file else self.mean
        if p.scale != 1:
            out *= p.scale
        return out[:, :, ::-1] if mirrored else out

    def _check(self, pixels):
        channels = pixels.shape[0]
        if self.crop and any(crop > size for crop, size in zip(self.crop, pixels.shape[1:])):
            self.fail(f"crop_size is {_told(self.crop)}; an image has shape {pixels.shape} (channels, height, width)")
        if self.mean is not None and self.param.mean_file and self.mean.shape != pixels.shape:
            self.fail(f"the mean in {self.param.mean_file} has shape {self.mean.shape}, an image {pixels.shape}")
        if len(self.param.mean_value) not in (0, 1, channels):
            self.fail(
                "Specify either 1 mean_value or as many as channels: "
                f"{len(self.param.mean_value)} values, {channels} channels"
            )


def _told(crop):
    return crop[0] if crop[0] == crop[1] else f"{crop[0]} x {crop[1]}"
