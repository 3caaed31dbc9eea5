"""SSD's changes of an image and the boxes in it: distort, expand, sample a part, resize.

An image is an array (H, W, C), BGR bytes; boxes (G, 7) are rows of label, instance, xmin, ymin, xmax, ymax as parts of
the image's width and height, difficult. What is drawn comes from `rng`, a numpy Generator."""

import math

import cv2
import numpy as np

from caffe.forks import boxes as geometry
from caffe.proto import caffe_pb2

MOST_TRIALS, MOST_EXPANSION, LONGEST_SIDE = 10_000, 100, 2**15 - 1  # what files ask for beyond is no augmentation
R = caffe_pb2.ResizeParameter
INTERPOLATION = {
    R.LINEAR: cv2.INTER_LINEAR,
    R.AREA: cv2.INTER_AREA,
    R.NEAREST: cv2.INTER_NEAREST,
    R.CUBIC: cv2.INTER_CUBIC,
    R.LANCZOS4: cv2.INTER_LANCZOS4,
}


class Augmentation:
    """What `transform_param` (distort_param, expand_param, resize_param, emit_constraint) and the batch_samplers of
    `annotated_data_param` say, in this order. `fail(text)` raises errors in the name of the layer."""

    def __init__(self, transform_param, annotated_data_param, fail):
        self.param, self.samplers, self.fail = transform_param, annotated_data_param.batch_sampler, fail
        p, r = transform_param, transform_param.resize_param
        for name, value in _numbers(p.distort_param, p.expand_param):
            if not 0 <= value < math.inf or ("prob" in name and value > 1):
                fail(f"{name} is {value:g}; wanted at least 0, and {'at most 1' if 'prob' in name else 'finite'}")
        for name in ("contrast", "saturation"):
            if getattr(p.distort_param, f"{name}_upper") < getattr(p.distort_param, f"{name}_lower"):
                fail(f"{name}_upper is below {name}_lower")
        if not 1 <= p.expand_param.max_expand_ratio <= MOST_EXPANSION:
            fail(f"max_expand_ratio is {p.expand_param.max_expand_ratio:g}; wanted 1 to {MOST_EXPANSION}")
        if p.HasField("expand_param") and p.mean_file:
            fail("expand_param fills with mean_value, and there is a mean_file")
        if bool(p.crop_h) != bool(p.crop_w):
            fail(f"crop_h is {p.crop_h}, crop_w {p.crop_w}; wanted both, or crop_size, or none")
        if p.HasField("resize_param"):
            if r.prob != 1 or r.height_scale or r.width_scale:
                fail("resize_param: prob, height_scale and width_scale are not here; give height and width alone")
            if not r.height or not r.width:
                fail("resize_param: give height and width")
            if max(r.height, r.width) > LONGEST_SIDE:
                fail(f"resize_param: height {r.height}, width {r.width}; wanted at most {LONGEST_SIDE}")
            if r.pad_mode == R.MIRRORED:
                fail("resize_param: pad_mode MIRRORED is not here; wanted CONSTANT or REPEAT_NEAREST")
        for sampler in self.samplers:
            s = sampler.sampler
            if not sampler.use_original_image:
                fail("batch_sampler: use_original_image: false is not here")
            if not 0 < s.min_scale <= s.max_scale <= 1 or not 0 < s.min_aspect_ratio <= s.max_aspect_ratio:
                fail(
                    "batch_sampler: wanted 0 < min_scale <= max_scale <= 1 and 0 < min_aspect_ratio <= max_aspect_ratio"
                )
            if sampler.max_trials > MOST_TRIALS:
                fail(f"batch_sampler: max_trials is {sampler.max_trials}; wanted at most {MOST_TRIALS}")

    def __call__(self, image, boxes, rng):
        """The changed image and boxes."""
        if self.param.HasField("distort_param"):
            image = self.distorted(image, rng)
        if self.param.HasField("expand_param"):
            image, boxes = self.expanded(image, boxes, rng)
        windows = [window for sampler in self.samplers for window in sampled(sampler, boxes[:, 2:6], rng)]
        if windows:
            image, boxes = self.cropped(image, boxes, windows[rng.integers(len(windows))])
        if self.param.HasField("resize_param"):
            image, boxes = self.resized(image, boxes, rng)
        return image, boxes

    def distorted(self, image, rng):
        """Brightness, contrast, saturation, hue and order of channels, each with its probability."""
        p = self.param.distort_param
        if image.shape[2] != 3:
            self.fail(f"distort_param takes images of 3 channels, not {image.shape[2]}")
        colours = [(p.saturation_prob, _saturation), (p.hue_prob, _hue)]
        contrast = [(p.contrast_prob, _contrast)]
        order = contrast + colours if rng.uniform() > 0.5 else colours + contrast
        for prob, change in [(p.brightness_prob, _brightness), *order]:
            if rng.uniform() < prob:
                image = change(image, p, rng)
        return image[:, :, rng.permutation(3)] if rng.uniform() < p.random_order_prob else image

    def expanded(self, image, boxes, rng):
        """The image somewhere in a larger one that the mean fills."""
        p = self.param.expand_param
        ratio = rng.uniform(1, p.max_expand_ratio)
        if rng.uniform() >= p.prob or ratio < 1.01:
            return image, boxes
        height, width, channels = image.shape
        tall, wide = int(height * ratio), int(width * ratio)
        top, left = int(rng.uniform(0, tall - height)), int(rng.uniform(0, wide - width))
        large = np.empty((tall, wide, channels), np.uint8)
        large[...] = np.rint(list(self.param.mean_value) or [0]).clip(0, 255)
        large[top : top + height, left : left + width] = image
        window = np.array([-left / width, -top / height, (wide - left) / width, (tall - top) / height], np.float32)
        return large, self.projected(boxes, window)

    def cropped(self, image, boxes, window):
        """The part `window` (xmin, ymin, xmax, ymax, in parts) of the image."""
        left, top, right, bottom = window.clip(0, 1) * np.tile(image.shape[1::-1], 2)
        wide, tall = max(int(right - left), 1), max(int(bottom - top), 1)
        left, top = min(int(left), image.shape[1] - wide), min(int(top), image.shape[0] - tall)
        return image[top : top + tall, left : left + wide], self.projected(boxes, window)

    def projected(self, boxes, window):
        """The boxes as parts of `window`, clipped to it: those that meet emit_constraint and have a size there."""
        corners, emit = boxes[:, 2:6], self.param.emit_constraint
        size = window[2:] - window[:2]
        moved = boxes.copy()
        moved[:, 2:6] = ((corners - np.tile(window[:2], 2)) / np.tile(size, 2)).clip(0, 1)
        keep = geometry.area(moved[:, 2:6]) > 0
        if self.param.HasField("emit_constraint") and emit.emit_type == emit.CENTER:
            centre = (corners[:, :2] + corners[:, 2:]) / 2
            keep &= ((centre >= window[:2]) & (centre <= window[2:])).all(1)
        elif self.param.HasField("emit_constraint"):
            keep &= coverage(corners, window) > emit.emit_overlap
        return moved[keep]

    def resized(self, image, boxes, rng):
        """WARP: squeezed to height x width. FIT_LARGE_SIZE_AND_PAD: as large as fits in there, and padded.
        FIT_SMALL_SIZE: as small as covers it, and as long on the other side as the image is."""
        p = self.param.resize_param
        modes = list(p.interp_mode) or [R.LINEAR]
        mode = INTERPOLATION[modes[rng.integers(len(modes))]]
        if p.resize_mode == R.WARP:
            return _planes_kept(cv2.resize(image, (p.width, p.height), interpolation=mode)), boxes
        height, width = image.shape[:2]
        tall, wide, longer = p.height, p.width, width / height > p.width / p.height
        if longer == (p.resize_mode == R.FIT_LARGE_SIZE_AND_PAD):
            tall = max(int(p.width * height / width), 1)
        else:
            wide = max(int(p.height * width / height), 1)
        if p.resize_mode == R.FIT_SMALL_SIZE:
            if max(tall, wide) > LONGEST_SIDE:
                self.fail(f"resize_param makes an image {tall} x {wide} large; wanted sides of at most {LONGEST_SIDE}")
            return _planes_kept(cv2.resize(image, (wide, tall), interpolation=mode)), boxes
        top, left = (p.height - tall) // 2, (p.width - wide) // 2
        border = cv2.BORDER_REPLICATE if p.pad_mode == R.REPEAT_NEAREST else cv2.BORDER_CONSTANT
        value = [float(v) for v in p.pad_value] or [0.0]
        value = value * image.shape[2] if len(value) == 1 else value
        image = cv2.resize(image, (wide, tall), interpolation=mode)
        image = cv2.copyMakeBorder(
            image, top, p.height - tall - top, left, p.width - wide - left, border, value=value[:4]
        )
        boxes = boxes.copy()
        boxes[:, 2:6] = (boxes[:, 2:6] * [wide, tall, wide, tall] + [left, top, left, top]) / np.tile(
            [p.width, p.height], 2
        )
        return _planes_kept(image), boxes


def sampled(sampler, corners, rng):
    """Windows that `sampler` finds at random, of those that one of the boxes `corners` meets its constraint in."""
    p, trials = sampler.sampler, sampler.max_trials
    scale = rng.uniform(p.min_scale, p.max_scale, trials)
    low, high = np.maximum(p.min_aspect_ratio, scale**2), np.minimum(p.max_aspect_ratio, 1 / scale**2)
    root = np.sqrt(rng.uniform(np.minimum(low, high), high))
    size = np.minimum(np.stack([scale * root, scale / root], 1), 1)
    begin = rng.uniform(0, 1 - size)
    windows = np.hstack([begin, begin + size]).astype(np.float32)
    found = windows[allowed(sampler.sample_constraint, windows, corners)]
    return list(found[: sampler.max_sample] if sampler.HasField("max_sample") else found)


def allowed(constraint, windows, corners):
    """In which of the windows (T, 4) one of the boxes (G, 4) meets all bounds of SampleConstraint: its overlap
    (intersection over union) with the window, the part of the window that it covers, its own part that lies there."""
    if not constraint.ListFields():
        return np.ones(len(windows), bool)
    windows, corners = windows[:, None], corners[None]
    measured = {
        "jaccard_overlap": geometry.overlap(corners, windows),
        "sample_coverage": coverage(windows, corners),
        "object_coverage": coverage(corners, windows),
    }
    good = np.ones(measured["jaccard_overlap"].shape, bool)
    for name, values in measured.items():
        for bound, within in ((f"min_{name}", values.__ge__), (f"max_{name}", values.__le__)):
            if constraint.HasField(bound):
                good &= within(getattr(constraint, bound))
    return good.any(1)


def coverage(boxes, others):
    """The part of each of `boxes` that lies in `others`."""
    low, high = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    common = (high - low).clip(0).prod(-1)
    area = np.broadcast_to(geometry.area(boxes), common.shape)
    return np.divide(common, area, out=np.zeros_like(common), where=area > 0)


def _brightness(image, p, rng):
    return _bytes(image + rng.uniform(-p.brightness_delta, p.brightness_delta))


def _contrast(image, p, rng):
    return _bytes(image * rng.uniform(p.contrast_lower, p.contrast_upper))


def _saturation(image, p, rng):
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[:, :, 1] = _bytes(hsv[:, :, 1] * rng.uniform(p.saturation_lower, p.saturation_upper))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _hue(image, p, rng):
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[:, :, 0] = np.rint(hsv[:, :, 0] + rng.uniform(-p.hue_delta, p.hue_delta)) % 180  # of two degrees each
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _bytes(values):
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _planes_kept(image):
    """cv2 drops the last axis of an image of one channel."""
    return image[:, :, None] if image.ndim == 2 else image


def _numbers(*params):
    return [(field.name, value) for p in params for field, value in p.ListFields()]
