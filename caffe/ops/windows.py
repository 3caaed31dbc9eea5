"""WindowData: regions of images, warped to one size, part of them background (R-CNN)."""

import os
from dataclasses import dataclass

import cv2
import numpy as np

from caffe import bvlc
from caffe.io import decode
from caffe.layer import register
from caffe.ops.batches import BatchLayer


@dataclass(frozen=True)
class Window:
    path: str
    label: int  # 0: background
    box: tuple  # x1, y1, x2, y2 in pixels, all four inside the window


@register("WindowData")
class WindowData(BatchLayer):
    """Tops: windows (N, C, crop, crop), labels (N). Each batch draws fg_fraction of its windows from those that overlap
    an object by at least fg_threshold, after as many background windows (overlap below bg_threshold) as remain.

    A window is warped to crop_size with context_pad pixels of its surroundings on each side, zeros where the image
    ends; crop_mode "square" extends it to a square first. `source` lists for each image: `# index`, path, channels,
    height, width, number of windows, then a line each: class overlap x1 y1 x2 y2. Caffe: window_data_layer.cpp."""

    num_top = 2

    def open(self, top):
        p = self.param.window_data_param
        self.batch_size, self.crop = p.batch_size, self.param.transform_param.crop_size
        if self.param.transform_param.HasField("scale"):
            bvlc.tell(self, "transform_param.scale is ignored, as in BVLC Caffe; window_data_param.scale counts")
        if self.crop < 1:
            self.fail("transform_param.crop_size is not set; wanted the size of the windows")
        if 2 * p.context_pad >= self.crop:
            self.fail(f"context_pad {p.context_pad} on each side leaves nothing of crop_size {self.crop}")
        if p.crop_mode not in ("warp", "square"):
            self.fail(f"crop_mode is {p.crop_mode!r}; wanted 'warp' or 'square'")
        self.foreground: list[Window] = []
        self.background: list[Window] = []
        self.parse(self.lines(p.source))
        self.require_memory(self.batch_size, self.channels, self.crop, self.crop)
        self.num_foreground = int(self.batch_size * p.fg_fraction)
        for kind, windows in (("foreground", self.foreground), ("background", self.background)):
            wanted = self.num_foreground if kind == "foreground" else self.batch_size - self.num_foreground
            if wanted and not windows:
                self.fail(f"{p.source!r} has no {kind} window, but a batch wants {wanted}")
        self.encoded = {}  # path -> bytes of the file, with cache_images

    def parse(self, lines):
        """Fill `foreground` and `background` from the window file."""
        p, rows = self.param.window_data_param, iter(lines)
        try:
            for number, head in enumerate(rows):  # noqa: B007 - told in errors
                if not head.startswith("#"):
                    raise ValueError(f"an image starts with a line '# index', not {head!r}")
                path = os.path.join(p.root_folder, next(rows).strip())
                self.channels, _, _, count = [int(next(rows)) for _ in range(4)]
                if self.channels < 1:
                    raise ValueError(f"it has {self.channels} channels; wanted at least 1")
                for _ in range(count):
                    self.add(path, *next(rows).split())
        except (ValueError, TypeError) as e:
            self.fail(f"window file {p.source!r}, image number {number}: {e}")
        except StopIteration:
            self.fail(f"window file {p.source!r} ends within image number {number}")

    def add(self, path, label, overlap, x1, y1, x2, y2):
        """A line of the window file: class overlap x1 y1 x2 y2."""
        p, label, overlap = self.param.window_data_param, int(label), float(overlap)
        box = (int(x1), int(y1), int(x2), int(y2))
        if box[2] < box[0] or box[3] < box[1]:
            raise ValueError(f"window {box} has no pixel; wanted x1 <= x2 and y1 <= y2")
        if overlap >= p.fg_threshold:
            if label < 1:
                raise ValueError(f"window {box} is foreground (overlap {overlap}) of class {label}; wanted 1 or more")
            self.foreground.append(Window(path, label, box))
        elif overlap < p.bg_threshold:
            self.background.append(Window(path, 0, box))

    def read(self, numbers, rng):
        data = np.zeros((len(numbers), self.channels, self.crop, self.crop), np.float32)
        labels = np.zeros(len(numbers), np.float32)
        for i in range(len(numbers)):
            among = self.background if i < self.batch_size - self.num_foreground else self.foreground
            window = among[rng.integers(len(among))]
            labels[i] = window.label
            self.cut(window, self.param.transform_param.mirror and rng.integers(2), data[i])
        return [data, labels]

    def cut(self, window, mirror, out):
        """Write the warped window into `out` (C, crop, crop), which is zero."""
        image = self.load(window.path)
        if image.shape[2] != self.channels:
            self.fail(f"{window.path} has {image.shape[2]} channels, the window file says {self.channels}")
        (x1, x2), (y1, y2) = self.expanded(window.box)
        height, width = image.shape[:2]
        left, right, above, below = max(0, -x1), max(0, x2 - width + 1), max(0, -y1), max(0, y2 - height + 1)
        inside = image[y1 + above : y2 - below + 1, x1 + left : x2 - right + 1]
        if not inside.size:
            self.fail(f"window {window.box} lies outside of {window.path} ({width} x {height} pixels)")
        scale_x, scale_y = self.crop / (x2 - x1 + 1), self.crop / (y2 - y1 + 1)
        row, column = _round(above * scale_y), _round((right if mirror else left) * scale_x)
        # Rounding must not push the window out of the crop.
        h = min(_round(inside.shape[0] * scale_y), self.crop - row)
        w = min(_round(inside.shape[1] * scale_x), self.crop - column)
        if h < 1 or w < 1:
            return
        warped = cv2.resize(inside, (w, h)).reshape(h, w, -1)
        if mirror:
            warped = warped[:, ::-1]
        out[:, row : row + h, column : column + w] = self.normal(warped.transpose(2, 0, 1), row, column)

    def expanded(self, box):
        """((x1, x2), (y1, y2)) of the box with its context; it may reach beyond the image."""
        p = self.param.window_data_param
        x1, y1, x2, y2 = box
        if not p.context_pad and p.crop_mode == "warp":
            return (x1, x2), (y1, y2)
        half_w, half_h = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
        center_x, center_y = x1 + half_w, y1 + half_h
        if p.crop_mode == "square":
            half_w = half_h = max(half_w, half_h)
        scale = self.crop / (self.crop - 2 * p.context_pad)
        return (
            (_round(center_x - half_w * scale), _round(center_x + half_w * scale)),
            (_round(center_y - half_h * scale), _round(center_y + half_h * scale)),
        )

    def normal(self, pixels, row, column):
        """(pixels - mean) * window_data_param.scale; a mean image is read around its middle, shifted as the
        window is in the crop."""
        t, mean = self.param.transform_param, self.transform.mean
        if mean is not None and t.mean_file:
            offset = (mean.shape[2] - self.crop) // 2
            top, left = offset + row, offset + column
            mean = mean[:, top : top + pixels.shape[1], left : left + pixels.shape[2]]
        return (pixels.astype(np.float32) - (0 if mean is None else mean)) * np.float32(
            self.param.window_data_param.scale
        )

    def load(self, path):
        data = self.encoded.get(path)
        if data is None:
            data = self.image_file(path)
            if self.param.window_data_param.cache_images:
                self.encoded[path] = data
        image = decode(data, cv2.IMREAD_COLOR)
        if image is None:
            self.fail(f"{path} is no image that can be read")
        return image


def _round(value):
    """As C's round: halves away from zero."""
    return int(np.floor(abs(value) + 0.5) * np.sign(value))
