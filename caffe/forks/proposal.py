"""Proposal: the regions that Faster R-CNN's region proposal net finds."""

import math

import numpy as np
import torch

from caffe.forks import boxes, traced
from caffe.forks.rows import Rows, array
from caffe.layer import register


@register("Proposal")
class Proposal(Rows):
    """Top rois (R, 5) of 0, x1, y1, x2, y2 in pixels of the image, by falling score; the scores (R, 1) as second top.

    Bottoms: probabilities (1, 2 A, H, W), the last A of which say "object"; codes (1, 4 A, H, W); im_info (1, 3) of
    height, width and scale of the image (or height, width and two scales). Around each place stand A anchors, one for
    each `ratio` and `scale`, `feat_stride` pixels apart; boxes are clipped to the image, those below min_size times the
    scale dropped, the pre_nms_topn best thinned out by nms_thresh, the post_nms_topn best kept.
    Faster R-CNN: rpn/proposal_layer.py."""

    num_bottom, num_top = 3, (1, 2)

    def configure(self, bottom):
        p = self.param.proposal_param
        if not p.ratio or not p.scale:
            self.fail("proposal_param: give ratio and scale, at least one each")
        if p.base_size < 1 or not all(0 < x < math.inf for x in (*p.ratio, *p.scale)):
            self.fail(
                f"proposal_param: base_size {p.base_size}, ratio {list(p.ratio)}, scale {list(p.scale)}; wanted are a "
                "base_size of at least 1, and ratios and scales above 0"
            )
        self.anchors = anchors(p.base_size, p.ratio, p.scale)

    def top_shapes(self, scores, codes, info):
        count = len(self.anchors)
        if len(scores) != 4 or tuple(scores[:2]) != (1, 2 * count) or tuple(codes) != (1, 4 * count, *scores[2:]):
            self.fail(
                f"bottoms have shapes {tuple(scores)} and {tuple(codes)}; wanted (1, {2 * count}, H, W) and "
                f"(1, {4 * count}, H, W) for {count} anchors"
            )
        if math.prod(info) not in (3, 4):
            self.fail(f"bottom[2] has shape {tuple(info)}; wanted (1, 3): height, width, scale")
        return [(1, 5), (1, 1)]

    def compute(self, scores, codes, info):
        p, count = self.param.proposal_param, len(self.anchors)
        rows, columns = (np.arange(n, dtype=np.float32) * p.feat_stride for n in scores.shape[2:])
        x, y = np.meshgrid(columns, rows)
        shifts = np.stack([x, y, x, y], -1)[:, :, None]
        around = (self.anchors + shifts).reshape(-1, 4)
        if torch.compiler.is_exporting():
            return traced.proposals(p, torch.from_numpy(around), scores, codes, info)
        height, width, *scale = array(info).reshape(-1)
        codes = array(codes)[0].transpose(1, 2, 0).reshape(-1, 4)
        score = array(scores)[0, count:].transpose(1, 2, 0).reshape(-1)
        with np.errstate(over="ignore"):  # what is too large for float32 is clipped to the image
            found = boxes.decode_pixels(around, codes)
        found = found.clip(0, np.array([width, height, width, height], np.float32) - 1)
        large = (found[:, 2] - found[:, 0] + 1 >= p.min_size * scale[-1]) & (
            found[:, 3] - found[:, 1] + 1 >= p.min_size * scale[0]
        )
        found, score = found[large], score[large]
        order = np.argsort(-score, kind="stable")
        order = order[: p.pre_nms_topn] if p.pre_nms_topn else order
        kept = order[boxes.suppress(found[order], p.nms_thresh, pixel=1, most=p.post_nms_topn or None)]
        rois = np.concatenate([np.zeros((len(kept), 1), np.float32), found[kept]], 1).astype(np.float32)
        return torch.from_numpy(rois), torch.from_numpy(score[kept, None].astype(np.float32))


def anchors(base, ratios, scales):
    """Boxes (A, 4) around the middle of the first `base` x `base` pixels, for each ratio height / width and scale."""
    made = []
    for ratio in ratios:
        width = np.round(math.sqrt(base * base / ratio))
        height = np.round(width * ratio)
        for scale in scales:
            half = (width * scale - 1) / 2, (height * scale - 1) / 2
            centre = (base - 1) / 2
            made.append((centre - half[0], centre - half[1], centre + half[0], centre + half[1]))
    return np.array(made, np.float32)
