"""From pixels to net input: crop, mirror, mean, scale (Caffe: data_transformer.cpp; TransformationParameter)."""

import cv2
import numpy as np

from caffe.binaryproto import read_array


class Transformer:
    """(pixel - mean) * scale of a crop, mirrored at random: what `transform_param` of a data layer says.

    phase TRAIN crops anywhere, TEST in the middle. `fail(text)` raises errors in the name of the layer."""

    def __init__(self, param, phase, fail):
        self.param, self.random_crop, self.fail = param, phase == 0, fail
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
        p, crop = self.param, self.param.crop_size
        self._check(pixels)
        _, height, width = pixels.shape
        window = (slice(None), slice(None), slice(None))
        if crop:
            h, w = height - crop, width - crop
            h, w = (rng.integers(h + 1), rng.integers(w + 1)) if self.random_crop else (h // 2, w // 2)
            window = (slice(None), slice(h, h + crop), slice(w, w + crop))
        out = pixels[window].astype(np.float32)
        if self.mean is not None:
            out -= self.mean[window] if p.mean_file else self.mean
        if p.scale != 1:
            out *= p.scale
        if p.mirror and rng.integers(2):
            out = out[:, :, ::-1]
        return out

    def _check(self, pixels):
        crop, channels = self.param.crop_size, pixels.shape[0]
        if crop > min(pixels.shape[1:]):
            self.fail(f"crop_size is {crop}; an image has shape {pixels.shape} (channels, height, width)")
        if self.mean is not None and self.param.mean_file and self.mean.shape != pixels.shape:
            self.fail(f"the mean in {self.param.mean_file} has shape {self.mean.shape}, an image {pixels.shape}")
        if len(self.param.mean_value) not in (0, 1, channels):
            self.fail("Specify either 1 mean_value or as many as channels: "
                      f"{len(self.param.mean_value)} values, {channels} channels")  # fmt: skip


def planes(image) -> np.ndarray:
    """An image as cv2 gives it, (H, W) or (H, W, C), as (C, H, W)."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
