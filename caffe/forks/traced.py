"""Detections, proposals and regions in operations that ONNX has: what torch.export sees of these layers.

The layers themselves work on the few boxes that matter; here all tensors have sizes known beforehand, and the rows
that stay are picked out at the end. `suppressed` becomes ONNX's NonMaxSuppression (`caffe/onnx_file.py`)."""

import numpy as np
import torch

from caffe.forks import boxes

LEAST = float(np.finfo(np.float32).min)


@torch.library.custom_op("caffe::suppress", mutates_args=())
def suppressed(found: torch.Tensor, score: torch.Tensor, overlap: float, least: float, most: int) -> torch.Tensor:
    """Which of the boxes `found` (B, k, 4) stay, (B, k): in each of the B lists, by falling score (B, k), those above
    `least` that overlap none before them by more than `overlap`; at most `most`."""
    keep = torch.zeros_like(score, dtype=torch.bool)
    for mask, place, own in zip(keep, found.numpy(), score):
        could = torch.nonzero(own > least)[:, 0]
        mask[could[boxes.suppress(place[could], overlap, most=most)]] = True
    return keep


@suppressed.register_fake
def _(found, score, overlap, least, most):
    return torch.empty_like(score, dtype=torch.bool)


def detections(p, places, loc, conf, priors):
    """DetectionOutput with the DetectionOutputParameter `p`; `places`: locations of a prior."""
    items, count = loc.shape[0], priors.shape[2] // 4
    made, variances = priors.reshape(2, count, 1, 4).unbind(0)
    codes = loc.reshape(items, count, places, 4)
    found = boxes.decode(codes, made, 1 if p.variance_encoded_in_target else variances, p.code_type)
    found = (found.clamp(0, 1) if p.clip else found).transpose(1, 2)  # (N, places, P, 4)
    labels = [label for label in range(p.num_classes) if label != p.background_label_id]
    best = min(p.nms_param.top_k, count) if p.nms_param.HasField("top_k") and p.nms_param.top_k > -1 else count
    scores = conf.reshape(items, count, p.num_classes).transpose(1, 2)[:, labels]
    score, order = scores.topk(best, 2)  # ONNX's: the first of equals comes first
    found = found[:, labels] if places > 1 else found.expand(-1, len(labels), -1, -1)
    found = found.gather(2, order[..., None].expand(-1, -1, -1, 4))  # (N, labels, best, 4)
    flat = (-1, best)
    least = p.confidence_threshold if p.HasField("confidence_threshold") else LEAST
    overlap = min(p.nms_param.nms_threshold, 1.0)  # ONNX takes none above, and no overlap is
    keep = suppressed(_upright(found).reshape(*flat, 4), score.reshape(flat), overlap, least, best)
    keep, score = (x.reshape(items, len(labels) * best) for x in (keep, score))
    if p.keep_top_k > -1:
        most = min(p.keep_top_k, len(labels) * best)
        first = torch.where(keep, score, -torch.inf).topk(most, 1).indices
        keep = keep & torch.zeros_like(keep).scatter(1, first, True)
    item = torch.arange(items, device=loc.device)[:, None]
    label = torch.tensor(labels).repeat_interleave(best)[None]
    columns = [x.expand(keep.shape).to(loc.dtype) for x in (item, label, score)]
    rows = torch.cat([torch.stack(columns, 2), found.flatten(1, 2)], 2)
    nothing = torch.cat([item.to(loc.dtype), item.new_full((1, 1), -1).expand(items, 6).to(loc.dtype)], 1)
    return _chosen(
        torch.cat([rows.reshape(-1, 7), nothing]), torch.cat([keep.reshape(-1), ~keep.any().expand(items)])
    ).reshape(1, 1, -1, 7)


def proposals(p, around, scores, codes, info):
    """Proposal with the ProposalParameter `p`; `around`: the anchors (H W A, 4), place by place."""
    info, count = info.reshape(-1), codes.shape[1] // 4
    height, width, scale = info[0], info[1], info[2:]
    codes = codes[0].permute(1, 2, 0).reshape(-1, 4)
    score = scores[0, count:].permute(1, 2, 0).reshape(-1)
    found = boxes.decode_pixels(around, codes)
    found = found.clamp(min=0).minimum(torch.stack([width, height, width, height]) - 1)
    sides = found[:, 2:] - found[:, :2] + 1
    large = (sides[:, 0] >= p.min_size * scale[-1]) & (sides[:, 1] >= p.min_size * scale[0])
    score = torch.where(large, score, -torch.inf)
    best = min(p.pre_nms_topn or len(around), len(around))
    score, order = score.topk(best, 0)
    found = found[order]
    to_the_end = found + torch.tensor([0, 0, 1, 1])  # the last pixel belongs to a box
    keep = suppressed(to_the_end[None], score[None], min(p.nms_thresh, 1.0), LEAST, p.post_nms_topn or best)[0]
    rois = torch.cat([torch.zeros_like(score)[:, None], found], 1)
    return _chosen(rois, keep), _chosen(score[:, None], keep)


def regions_max(x, rois, p):
    """ROIPooling with the ROIPoolingParameter `p`, whose rounding ONNX's MaxRoiPool has."""
    return torch.onnx.ops.symbolic(
        "MaxRoiPool",
        (x, rois),
        {"pooled_shape": [p.pooled_h, p.pooled_w], "spatial_scale": p.spatial_scale},
        dtype=x.dtype,
        shape=(rois.shape[0], x.shape[1], p.pooled_h, p.pooled_w),
    )


def _upright(found):
    """Boxes that are inside out as points: they overlap nothing, where ONNX takes any two corners."""
    return torch.where((found[..., 2:] >= found[..., :2]).all(-1, keepdim=True), found, 0.0)


def _chosen(rows, keep):
    return rows.index_select(0, keep.nonzero()[:, 0])
