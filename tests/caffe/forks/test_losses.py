"""The forks' losses beside plain loops: values and gradients."""

import math

import numpy as np
import pytest

from caffe import CaffeError
from tests.caffe.forks.test_detection import TRUTH, decoded, iou, scene
from tests.caffe.ops.checks import backward, forward, layer_net

# ---- SmoothL1Loss


@pytest.mark.parametrize("sigma, weights", [(1, 0), (3, 2), (0.7, 2), (1, 1)])
def test_smooth_l1_loss(sigma, weights):
    """Fast R-CNN's with none or two weights; SSD's has one, which its gradient meets once."""
    a, b, *given = np.random.default_rng(23).normal(size=(2 + weights, 3, 4, 2, 1)).astype(np.float32)
    net = layer_net(
        f'type: "SmoothL1Loss" loss_weight: 1 smooth_l1_loss_param {{ sigma: {sigma} }}',
        *[(3, 4, 2, 1)] * (2 + weights),
    )
    loss, diff, q = 0.0, np.zeros(a.shape), sigma**2
    for i in np.ndindex(*a.shape):
        inner, outer = given[0][i] if weights else 1.0, given[1][i] if weights == 2 else 1.0
        d = inner * (float(a[i]) - b[i])
        loss += outer * (q * d * d / 2 if abs(d) < 1 / q else abs(d) - 0.5 / q) / 3
        slope = q * d if abs(d) < 1 / q else math.copysign(1, d)
        diff[i] = 2 / 3 * slope * outer * (inner if weights == 2 else 1.0)
    top = forward(net, a, b, *given)[0]
    np.testing.assert_allclose(top, loss, rtol=1e-5)
    found = backward(net, np.float32(2))
    np.testing.assert_allclose(found[0], diff, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], -diff, rtol=1e-4, atol=1e-6)


# ---- MultiBoxLoss

SCENES = [
    {},
    {"match_type": "BIPARTITE", "loc_loss_type": "L2", "code_type": "CORNER", "loc_weight": 0.5},
    {"conf_loss_type": "LOGISTIC", "code_type": "CORNER_SIZE", "encode_variance_in_target": True},
    {"mining_type": "NONE", "ignore_cross_boundary_bbox": True, "use_difficult_gt": False},
    {"mining_type": "NONE", "share_location": False},
    {"mining_type": "NONE", "share_location": False, "ignore_cross_boundary_bbox": True, "use_difficult_gt": False},
    {"mining_type": "NONE", "share_location": False, "use_prior_for_matching": False, "overlap_threshold": 0.2},
    {"use_prior_for_matching": False, "overlap_threshold": 0.3, "neg_overlap": 0.4},
    {"use_prior_for_matching": False, "bp_inside": True, "overlap_threshold": 0.2, "neg_pos_ratio": 1.5},
    {"bp_inside": True, "ignore_cross_boundary_bbox": False},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 7, "overlap_threshold": 0.3},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 5, "bp_inside": True, "loc_loss_type": "L2"},
    {"map_object_to_agnostic": True, "neg_pos_ratio": 2},
    {"normalization": "BATCH_SIZE"},
    {"normalization": "FULL"},
    {"normalization": "NONE"},
]
DEFAULTS = {
    "loc_loss_type": "SMOOTH_L1",
    "conf_loss_type": "SOFTMAX",
    "loc_weight": 1.0,
    "share_location": True,
    "match_type": "PER_PREDICTION",
    "overlap_threshold": 0.5,
    "use_prior_for_matching": True,
    "use_difficult_gt": True,
    "neg_pos_ratio": 3.0,
    "neg_overlap": 0.5,
    "code_type": "CENTER_SIZE",
    "encode_variance_in_target": False,
    "map_object_to_agnostic": False,
    "ignore_cross_boundary_bbox": False,
    "bp_inside": False,
    "mining_type": "MAX_NEGATIVE",
    "sample_size": 64,
    "normalization": "VALID",
}


def coded(box, prior, variance, kind):
    """What `decoded` undoes."""
    if kind == "CORNER":
        return (box - prior) / variance
    (x1, y1, x2, y2), w, h = prior, prior[2] - prior[0], prior[3] - prior[1]
    if kind == "CORNER_SIZE":
        return (box - prior) / [w, h, w, h] / variance
    bw, bh = box[2] - box[0], box[3] - box[1]
    dx, dy = (box[0] + box[2] - x1 - x2) / 2 / w, (box[1] + box[3] - y1 - y2) / 2 / h
    return np.array([dx, dy, math.log(bw / w), math.log(bh / h)]) / variance


def matched(candidates, rows, o):
    """[index of the row that each candidate gets, -1 free, -2 crossing], [its largest overlap]."""
    match, best = [-1] * len(candidates), [0.0] * len(candidates)
    pairs = []
    for i, box in enumerate(candidates):
        if rows and o["ignore_cross_boundary_bbox"] and (min(box) < 0 or max(box) > 1):
            match[i] = -2
            continue
        for j, row in enumerate(rows):
            lap = iou(box, row[3:7])
            if lap > 1e-6:
                pairs.append((lap, i, j))
                best[i] = max(best[i], lap)
    given: set = set()
    for _, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if match[i] == -1 and j not in given:
            match[i] = j
            given.add(j)
    if o["match_type"] == "PER_PREDICTION":
        for i in range(len(candidates)):
            own = [(lap, -j) for lap, k, j in pairs if k == i]
            if match[i] == -1 and own and max(own)[0] >= o["overlap_threshold"]:
                match[i] = -max(own)[1]
    return match, best


def class_loss(scores, label, o):
    """(loss, gradient for the scores)"""
    target = np.eye(len(scores))[label]
    if o["conf_loss_type"] == "LOGISTIC":
        p = 1 / (1 + np.exp(-scores))
        return -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(), p - target
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return -math.log(p[label]), p - target


def place_loss(code, box, prior, variance, o):
    """(loss, gradient for the code) of a location whose true box is `box`."""
    v = np.ones(4) if o["encode_variance_in_target"] else variance
    d = code - coded(box, prior, v, o["code_type"])
    if o["bp_inside"]:
        lies = prior if o["use_prior_for_matching"] else decoded(code, prior, v, o["code_type"])
        d = np.where((lies < 0) | (lies > 1), 0, d)
    if o["loc_loss_type"] == "L2":
        return (d**2 / 2).sum(), d
    return np.where(abs(d) < 1, d**2 / 2, abs(d) - 0.5).sum(), np.clip(d, -1, 1)


def loop_loss(loc, conf, priors, truth, o):
    """Loss, its gradients for loc and conf, and how many (positives, negatives) there are."""
    made, variance = priors.reshape(2, -1, 4).astype(float)
    items, count = len(loc), len(made)
    loc, conf = loc.reshape(items, count, -1, 4).astype(float), conf.reshape(items, count, -1).astype(float)
    dloc, dconf = np.zeros(loc.shape), np.zeros(conf.shape)
    places, cost, positives, negatives = loc.shape[2], 0.0, 0, 0
    for n in range(items):
        rows = [row for row in truth.reshape(-1, 8) if row[0] == n and (o["use_difficult_gt"] or not row[7])]
        by_place = []
        for place in range(places):
            mine = rows
            if o["use_prior_for_matching"]:
                match, best = matched(made, rows, o)
                if places > 1:
                    match = [m if m < 0 or rows[m][1] == place else -1 for m in match]
            else:
                mine = rows if places == 1 else [row for row in rows if row[1] == place]
                v = np.ones_like(variance) if o["encode_variance_in_target"] else variance
                boxes = [decoded(loc[n, i, place], made[i], v[i], o["code_type"]) for i in range(count)]
                match, best = matched(boxes, mine, o)
            by_place.append([mine[m] if m >= 0 else {-1: None, -2: "crossing"}[m] for m in match])
        label = [0] * count
        for found in by_place:
            for i, row in enumerate(found):
                if isinstance(row, np.ndarray):
                    label[i] = 1 if o["map_object_to_agnostic"] else int(row[1])
        losses = [class_loss(conf[n, i], label[i], o) for i in range(count)]
        taken = {(i, k) for k in range(places) for i in range(count) if isinstance(by_place[k][i], np.ndarray)}
        if o["mining_type"] == "NONE":
            counted = list(range(count))
        elif not rows:
            counted = []
        else:
            free = [i for i in range(count) if by_place[0][i] is None]
            if o["mining_type"] == "MAX_NEGATIVE":
                free = [i for i in free if best[i] < o["neg_overlap"]]
                most = int(len(taken) * o["neg_pos_ratio"])
                chosen = sorted(free, key=lambda i: -losses[i][0])[:most]
            else:
                total = {i: losses[i][0] for i in [*free, *(i for i, _ in taken)]}
                for i, _ in taken:
                    total[i] += place_loss(loc[n, i, 0], by_place[0][i][3:7], made[i], variance[i], o)[0]
                hard = sorted(total, key=lambda i: -total[i])[: o["sample_size"]]
                chosen, taken = [i for i in hard if i in free], {(i, k) for i, k in taken if i in hard}
            counted = [*chosen, *(i for i, _ in taken)]
            negatives += len(chosen)
        positives += len(taken)
        for i in counted:
            cost += losses[i][0]
            dconf[n, i] += losses[i][1]
        for i, k in taken:
            value, slope = place_loss(loc[n, i, k], by_place[k][i][3:7], made[i], variance[i], o)
            cost += o["loc_weight"] * value
            dloc[n, i, k] += o["loc_weight"] * slope
    norm = {"VALID": positives, "BATCH_SIZE": items, "FULL": items * count, "NONE": 1}[o["normalization"]]
    norm = max(norm, 1)
    return cost / norm, dloc.reshape(items, -1) / norm, dconf.reshape(items, -1) / norm, (positives, negatives)


@pytest.mark.parametrize("own", SCENES, ids=lambda own: " ".join(map(str, own)) or "default")
def test_multibox_loss(own):
    o = {**DEFAULTS, **own}
    rng = np.random.default_rng(8)
    loc, conf, priors = scene(items=3, count=14, places=1 if o["share_location"] else 3, rng=rng)
    loc *= 0.7
    priors[:, 0] = 0.5 + 1.25 * (priors[:, 0] - 0.5)  # so that some reach out of the image
    conf = rng.normal(size=conf.shape).astype(np.float32)
    told = {**own, "code_type": o["code_type"]}
    normalization = told.pop("normalization", "VALID")
    text = " ".join(f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in told.items())
    net = layer_net(
        f'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: 3 {text} }} '
        f"loss_param {{ normalization: {normalization} }}",
        loc.shape,
        conf.shape,
        priors.shape,
        TRUTH.shape,
    )
    loss, dloc, dconf, (positives, negatives) = loop_loss(loc, conf, priors, TRUTH, o)
    assert positives > 3 and (negatives or o["mining_type"] == "NONE")
    for field in ("bp_inside", "ignore_cross_boundary_bbox"):
        assert not o[field] or abs(loop_loss(loc, conf, priors, TRUTH, {**o, field: False})[0] - loss) > 1e-3
    np.testing.assert_allclose(forward(net, loc, conf, priors, TRUTH)[0], loss, rtol=1e-4)
    found = backward(net, np.float32(1))
    np.testing.assert_allclose(found[0], dloc, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[1], dconf, rtol=1e-3, atol=1e-5)


def test_suppression_in_mining_is_refused():
    loc, conf, priors = scene()
    with pytest.raises(CaffeError, match="nms_param is not supported"):
        layer_net(
            'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 nms_param { nms_threshold: 0.5 } }',
            loc.shape,
            conf.shape,
            priors.shape,
            TRUTH.shape,
        )
