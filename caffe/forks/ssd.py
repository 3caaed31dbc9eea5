"""SSD's boxes: PriorBox makes them, DetectionOutput reads what the net says of them."""

import math

import numpy as np
import torch

from caffe import glog as log
from caffe.forks import boxes, traced
from caffe.forks.rows import Rows, array
from caffe.layer import register
from caffe.torch_layer import TorchLayer


@register("PriorBox")
class PriorBox(TorchLayer):
    """Boxes around each place of a map: top (1, 2, H W P 4), first xmin, ymin, xmax, ymax as parts of the image, then
    the variances. bottom[0] is the map, bottom[1] the image (only their sizes count).

    For each min_size in whole pixels: a square; a square of sqrt(min max) where there are max_sizes; and for each
    aspect_ratio other than 1 (with `flip` its inverse, too) a box of the area of the first.

    SSD: prior_box_layer.cpp."""

    num_bottom, num_top = 2, 1
    differentiable = False
    saves_output = False

    def configure(self, bottom):
        p = self.param.prior_box_param
        if not p.min_size or min(p.min_size) <= 0:
            self.fail("prior_box_param: min_size must be given, and above 0")
        if p.max_size and len(p.max_size) != len(p.min_size):
            self.fail(f"{len(p.max_size)} max_size for {len(p.min_size)} min_size; wanted as many, or none")
        if any(most <= least for least, most in zip(p.min_size, p.max_size)):
            self.fail("each max_size must be above its min_size")
        if len(p.variance) not in (0, 1, 4) or any(v <= 0 for v in p.variance):
            self.fail(f"variance {list(p.variance)}; wanted one or four numbers above 0")
        if any(r <= 0 for r in p.aspect_ratio):
            self.fail("aspect_ratio must be above 0")
        for one, both in (("img_size", ("img_h", "img_w")), ("step", ("step_h", "step_w"))):
            given = [name for name in (one, *both) if p.HasField(name)]
            if given and given not in ([one], [*both]):
                self.fail(f"prior_box_param has {', '.join(given)}; wanted {one}, or {both[0]} and {both[1]}, or none")
            if any(getattr(p, name) <= 0 for name in given):
                self.fail(f"prior_box_param: {', '.join(given)} must be above 0")
        self.ratios = [1.0]
        for ratio in p.aspect_ratio:
            if not any(abs(ratio - known) < 1e-6 for known in self.ratios):
                self.ratios += [ratio, 1 / ratio] if p.flip else [ratio]
        self.count = len(self.ratios) * len(p.min_size) + len(p.max_size)

    def top_shapes(self, shape, image):
        if len(shape) != 4 or len(image) != 4:
            self.fail(f"bottoms have shapes {tuple(shape)} and {tuple(image)}; wanted (N, C, H, W) twice")
        self.priors = torch.from_numpy(self._priors(shape[2:], image[2:]))
        return [(1, 2, shape[2] * shape[3] * self.count * 4)]

    def _priors(self, size, image):
        p = self.param.prior_box_param
        if p.HasField("img_size"):
            image = (p.img_size, p.img_size)
        elif p.HasField("img_h"):
            image = (p.img_h, p.img_w)
        if min(image) < 1:
            self.fail(f"the image in bottom[1] is {image[0]} x {image[1]} large; wanted 1 x 1 or more")
        steps = [np.float32(i) / np.float32(n) for i, n in zip(image, size)]
        if p.HasField("step"):
            steps = [np.float32(p.step)] * 2
        elif p.HasField("step_h"):
            steps = [np.float32(p.step_h), np.float32(p.step_w)]
        y, x = (((np.arange(n, dtype=np.float32) + np.float32(p.offset)) * step) for n, step in zip(size, steps))
        widths, heights = (np.array(side, np.float32) for side in zip(*self._sides()))
        centres = np.broadcast_arrays(x[None, :, None], y[:, None, None])
        half = widths / 2.0, heights / 2.0
        corners = [(c - h) / s for c, h, s in zip(centres, half, image[::-1])]
        corners += [(c + h) / s for c, h, s in zip(centres, half, image[::-1])]
        made: np.ndarray = np.stack(corners, -1).astype(np.float32).reshape(-1, 4)
        if p.clip:
            made = made.clip(0, 1)
        variance = list(p.variance) or [0.1]
        spread = np.resize(np.array(variance, np.float32), made.shape)
        return np.stack([made.reshape(-1), spread.reshape(-1)])[None]

    def _sides(self):
        p = self.param.prior_box_param
        for i, least in enumerate(p.min_size):
            least = int(least)  # as in SSD: pixels
            yield least, least
            if p.max_size:
                yield (math.sqrt(least * int(p.max_size[i])),) * 2
            for ratio in self.ratios[1:]:
                yield least * math.sqrt(ratio), least / math.sqrt(ratio)

    def compute(self, x, image):
        return self.priors.to(x.device)


@register("DetectionOutput")
class DetectionOutput(Rows):
    """What was found: top (1, 1, D, 7) of image, label, score, xmin, ymin, xmax, ymax, by image, label and falling
    score; where there is nothing at all, one row for each image with -1 everywhere else.

    Bottoms: locations (N, P L 4) as codes beside the priors (L: 1, or a box for each class with share_location:
    false), probabilities (N, P num_classes), priors (1, 2, P 4) from PriorBox. For each class but background: boxes
    above confidence_threshold, the top_k best, less those that overlap a better one by more than nms_threshold; then
    the keep_top_k best of the image. `clip` (OpenCV's) cuts boxes off at the border of the image. SSD:
    detection_output_layer.cpp. Files that save_output_param asks for are not written."""

    num_bottom, num_top = (3, 4), 1

    @property
    def no_onnx(self):
        eta = self.param.detection_output_param.nms_param.eta
        return "" if eta == 1 else f"its nms_param has eta {eta:g}, and NonMaxSuppression there knows 1 alone"

    def configure(self, bottom):
        p = self.param.detection_output_param
        if p.num_classes < 1:
            self.fail("detection_output_param: num_classes must be given, and at least 1")
        if p.nms_param.nms_threshold < 0 or not 0 < p.nms_param.eta <= 1:
            self.fail("nms_param: nms_threshold must be at least 0, eta above 0 and at most 1")
        if p.save_output_param.output_directory or p.visualize:
            log.warning(
                "detection_output.cpp:1", f"layer '{self.name}': its results are a top alone, no files or pictures"
            )

    def top_shapes(self, loc, conf, priors, *_):
        p = self.param.detection_output_param
        self.places = 1 if p.share_location else p.num_classes
        count = priors[-1] // 4 if len(priors) > 2 else priors[0]
        if len(priors) < 3 or priors[1] != 2 or math.prod(loc[1:]) != count * self.places * 4:
            self.fail(
                f"bottom[0] has shape {tuple(loc)}, bottom[2] {tuple(priors)}; wanted "
                f"(N, {self.places * 4} P) and (1, 2, 4 P)"
            )
        if math.prod(conf[1:]) != count * p.num_classes or conf[0] != loc[0]:
            self.fail(
                f"bottom[1] has shape {tuple(conf)}; wanted ({loc[0]}, {count * p.num_classes}): "
                f"{p.num_classes} classes for each of {count} priors"
            )
        return [(1, 1, 1, 7)]

    def compute(self, loc, conf, priors, *_):
        p = self.param.detection_output_param
        if torch.compiler.is_exporting():
            return traced.detections(p, self.places, loc, conf, priors)
        made, variances = array(priors).reshape(2, -1, 1, 4)[:, :]
        codes = array(loc).reshape(loc.shape[0], -1, self.places, 4)
        if p.variance_encoded_in_target:
            variances = np.float32(1)
        found = boxes.decode(codes, made, variances, p.code_type)
        found = found.clip(0, 1) if p.clip else found
        scores = array(conf).reshape(loc.shape[0], -1, p.num_classes)
        rows = [row for n in range(len(found)) for row in self._image(n, found[n], scores[n])]
        if not rows:
            rows = [(n, *(-1,) * 6) for n in range(len(found))]
        return torch.from_numpy(np.array(rows, np.float32).reshape(1, 1, -1, 7))

    def _image(self, n, found, scores):
        p = self.param.detection_output_param
        rows = []
        for label in range(p.num_classes):
            if label == p.background_label_id:
                continue
            score, place = scores[:, label], found[:, 0 if self.places == 1 else label]
            chosen = (
                np.flatnonzero(score > p.confidence_threshold)
                if p.HasField("confidence_threshold")
                else np.arange(len(score))
            )
            chosen = chosen[np.argsort(-score[chosen], kind="stable")]
            if p.nms_param.HasField("top_k") and p.nms_param.top_k > -1:
                chosen = chosen[: p.nms_param.top_k]
            kept = boxes.suppress(place[chosen], p.nms_param.nms_threshold, p.nms_param.eta)
            rows += [(n, label, score[i], *place[i]) for i in chosen[kept]]
        if -1 < p.keep_top_k < len(rows):
            best = sorted(range(len(rows)), key=lambda i: -rows[i][2])[: p.keep_top_k]
            rows = [rows[i] for i in sorted(best)]
        return rows
