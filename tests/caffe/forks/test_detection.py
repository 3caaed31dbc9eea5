"""SSD's layers and Faster R-CNN's Proposal, beside plain loops."""

import math

import numpy as np
import pytest
import torch

import caffe
from caffe import CaffeError
from caffe.forks import boxes, traced
from tests.caffe.ops.checks import backward, forward, layer_net

RNG = np.random.default_rng(11)


def iou(a, b, pixel=0):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + pixel for i in (0, 1)]
    if min(sides) <= 0:
        return 0.0
    areas = [(q[2] - q[0] + pixel) * (q[3] - q[1] + pixel) for q in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def test_prior_box():
    own = (
        "min_size: 30.9 min_size: 60 max_size: 60 max_size: 99 aspect_ratio: 2 aspect_ratio: 0.5 variance: 0.1 "
        "variance: 0.1 variance: 0.2 variance: 0.2 step: 16"
    )
    net = layer_net(f'type: "PriorBox" prior_box_param {{ {own} }}', (1, 4, 2, 3), (1, 3, 40, 50))
    top = net.forward()["t0"]
    wanted = []
    for i, j in np.ndindex(2, 3):
        for least, most in ((30, 60), (60, 99)):
            sides = [(least, least), (math.sqrt(least * most),) * 2]
            sides += [(least * math.sqrt(r), least / math.sqrt(r)) for r in (2, 0.5)]
            for w, h in sides:
                x, y = (j + 0.5) * 16, (i + 0.5) * 16
                wanted.append([(x - w / 2) / 50, (y - h / 2) / 40, (x + w / 2) / 50, (y + h / 2) / 40])
    assert top.shape == (1, 2, 2 * 3 * 8 * 4)
    np.testing.assert_allclose(top[0, 0].reshape(-1, 4), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(top[0, 1].reshape(-1, 4), np.tile(np.float32([0.1, 0.1, 0.2, 0.2]), (48, 1)))
    clipped = layer_net('type: "PriorBox" prior_box_param { min_size: 30 clip: true }', (1, 4, 2, 3), (1, 3, 40, 50))
    top = clipped.forward()["t0"]
    assert top[0, 0].min() == 0 and top[0, 0].max() == 1 and (top[0, 1] == np.float32(0.1)).all()


def scene(items=2, count=12, classes=3, places=1, rng=RNG):
    centre, size = rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.2, 0.5, (count, 2))
    priors = np.concatenate([centre - size / 2, centre + size / 2], 1)
    variances = np.tile([0.1, 0.1, 0.2, 0.2], (count, 1))
    loc = rng.normal(size=(items, count, places, 4))
    conf = rng.dirichlet(np.ones(classes), size=(items, count))
    both = np.stack([priors, variances]).reshape(1, 2, -1)
    return [a.astype(np.float32) for a in (loc.reshape(items, -1), conf.reshape(items, -1), both)]


def decoded(code, prior, variance, kind):
    if kind == "CORNER":
        return prior + variance * code
    (x1, y1, x2, y2), t = prior, variance * code
    w, h = x2 - x1, y2 - y1
    if kind == "CORNER_SIZE":
        return prior + t * [w, h, w, h]
    cx, cy = (x1 + x2) / 2 + t[0] * w, (y1 + y2) / 2 + t[1] * h
    w, h = w * math.exp(t[2]), h * math.exp(t[3])
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


@pytest.mark.parametrize("kind", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("share, clip", [(True, False), (False, False), (True, True)])
def test_detection_output(kind, share, clip):
    loc, conf, priors = scene(places=1 if share else 3)
    own = (
        f"num_classes: 3 share_location: {str(share).lower()} code_type: {kind} keep_top_k: 5 clip: {int(clip)} "
        "confidence_threshold: 0.2 nms_param { nms_threshold: 0.4 top_k: 6 }"
    )
    net = layer_net(f'type: "DetectionOutput" detection_output_param {{ {own} }}', loc.shape, conf.shape, priors.shape)
    top = forward(net, loc, conf, priors)[0]
    made, variance = priors.reshape(2, -1, 4).astype(float)
    rows = []
    for n in range(2):
        found = []
        for label in (1, 2):
            score = conf[n].reshape(-1, 3)[:, label]
            order = [i for i in np.argsort(-score) if score[i] > 0.2][:6]
            kept: list = []
            for i in order:
                code = loc[n].reshape(len(made), -1, 4)[i, 0 if share else label]
                box = decoded(code, made[i], variance[i], kind)
                box = np.clip(box, 0, 1) if clip else box
                if all(iou(box, other) <= 0.4 for _, other in kept):
                    kept.append((score[i], box))
            found += [(n, label, s, *box) for s, box in kept]
        best = sorted(found, key=lambda row: -row[2])[:5]
        rows += sorted(best, key=lambda row: (row[1], -row[2]))
    assert top.shape == (1, 1, len(rows), 7) and len(rows) > 4
    np.testing.assert_allclose(top[0, 0], rows, rtol=1e-4, atol=1e-5)


def test_nothing_detected():
    loc, conf, priors = scene()
    own = "num_classes: 3 confidence_threshold: 2"
    net = layer_net(f'type: "DetectionOutput" detection_output_param {{ {own} }}', loc.shape, conf.shape, priors.shape)
    np.testing.assert_array_equal(forward(net, loc, conf, priors)[0][0, 0], [[0] + [-1] * 6, [1] + [-1] * 6])


@pytest.mark.parametrize("own", ["keep_top_k: 5 nms_param { top_k: 6 }", "confidence_threshold: 0.5", "clip: true"])
def test_detections_as_they_are_exported(own):
    """The layer in operations on whole tensors gives its rows."""
    given, own = scene(rng=np.random.default_rng(2)), f"num_classes: 3 code_type: CENTER_SIZE {own}"
    net = layer_net(f'type: "DetectionOutput" detection_output_param {{ {own} }}', *(x.shape for x in given))
    layer = net.layer_dict["layer"]
    top = traced.detections(layer.param.detection_output_param, 1, *(torch.from_numpy(x) for x in given))
    np.testing.assert_allclose(top.numpy(), forward(net, *given)[0], rtol=1e-5, atol=1e-6)  # exp of another library


@pytest.mark.parametrize("threshold, eta, most", [(0.3, 1, None), (0.9, 0.8, None), (0.6, 1, 7), (0, 1, 99)])
def test_suppression(threshold, eta, most):
    """Beside a loop over pairs; a box that is no number overlaps none."""
    rng = np.random.default_rng(6)
    centre, size = rng.uniform(0, 1, (60, 2)), rng.uniform(0.1, 0.4, (60, 2))
    given = np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)
    given[9, 0] = np.nan
    kept, limit = [], threshold
    for i, box in enumerate(given):
        if i == 9 or all(k == 9 or iou(box, given[k]) <= limit for k in kept):
            kept.append(i)
            limit *= eta if eta < 1 and limit > 0.5 else 1
    assert boxes.suppress(given, threshold, eta, most=most) == kept[:most] and 7 < len(kept) < len(given)


TRUTH = np.array(
    [
        [0, 1, 0, 0.1, 0.1, 0.5, 0.5, 0],
        [0, 2, 0, 0.5, 0.4, 0.9, 0.8, 0],
        [1, 1, 0, 0.3, 0.3, 0.7, 0.8, 0],
        [1, 2, 1, 0, 0.1, 0.4, 0.3, 1],
    ],
    np.float32,
).reshape(1, 1, 4, 8)


def multibox(own, loc, conf, priors, truth=TRUTH):
    net = layer_net(
        f'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: 3 {own} }}',
        loc.shape,
        conf.shape,
        priors.shape,
        truth.shape,
    )
    return net, float(forward(net, loc, conf, priors, truth)[0])


@pytest.mark.parametrize(
    "own",
    [
        "code_type: CENTER_SIZE",
        "loc_loss_type: L2 code_type: CORNER match_type: BIPARTITE",
        "conf_loss_type: LOGISTIC code_type: CORNER_SIZE encode_variance_in_target: true",
        "mining_type: NONE ignore_cross_boundary_bbox: true",
        "mining_type: HARD_EXAMPLE sample_size: 8",
        "mining_type: NONE share_location: false",
    ],
)
def test_gradient_of_multibox_loss(own):
    """Finite differences in some places, for a step that does not change what is mined."""
    loc, conf, priors = scene(places=3 if "share" in own else 1)
    conf = (3 * RNG.permutation(conf.size) / conf.size).reshape(conf.shape).astype(np.float32)
    net, loss = multibox(own, loc, conf, priors)
    assert loss > 0
    diffs = backward(net, np.ones(()))
    for k, values in ((0, loc), (1, conf)):
        assert np.abs(diffs[k]).max() > 0
        for place in np.random.default_rng(0).choice(values.size, 12, replace=False):
            index, losses = np.unravel_index(place, values.shape), []
            for step in (4e-3, -4e-3):
                moved = [loc.copy(), conf.copy()]
                moved[k][index] += step
                losses.append(float(forward(net, *moved, priors, TRUTH)[0]))
            assert diffs[k][index] == pytest.approx((losses[0] - losses[1]) / 8e-3, abs=4e-3)


def test_wrong_ground_truth():
    loc, conf, priors = scene()
    for label, words in ((0, "which is the background's"), (3, "has label 3; wanted 0..2")):
        truth = TRUTH.copy()
        truth[0, 0, 0, 1] = label
        with pytest.raises(CaffeError, match=words):
            multibox("", loc, conf, priors, truth)
    nothing = np.full((1, 1, 1, 8), -1, np.float32)
    assert multibox("", loc, conf, priors, nothing)[1] == 0  # no negatives without a box


def test_proposal():
    ratios, scales, h, w, stride = (0.5, 1, 2), (2, 4), 3, 4, 16
    count = 6
    scores = RNG.permutation(2 * count * h * w).reshape(1, 2 * count, h, w).astype(np.float32)
    codes = RNG.normal(0, 0.3, (1, 4 * count, h, w)).astype(np.float32)
    own = (
        "ratio: 0.5 ratio: 1 ratio: 2 scale: 2 scale: 4 min_size: 24 pre_nms_topn: 30 post_nms_topn: 9 nms_thresh: 0.5"
    )
    net = layer_net(
        f'type: "Proposal" proposal_param {{ {own} }}', scores.shape, codes.shape, (1, 3), tops=2, phase=caffe.TEST
    )
    rois, kept_scores = forward(net, scores, codes, np.array([[48, 60, 0.5]]))
    around = []
    for i, j in np.ndindex(h, w):
        for a, (r, s) in enumerate((r, s) for r in ratios for s in scales):
            aw = round(math.sqrt(256 / r))
            aw, ah = aw * s, round(aw * r) * s
            t = codes[0, 4 * a : 4 * a + 4, i, j]
            left, top = 7.5 - (aw - 1) / 2 + j * stride, 7.5 - (ah - 1) / 2 + i * stride
            cx, cy = left + aw / 2 + t[0] * aw, top + ah / 2 + t[1] * ah
            bw, bh = aw * math.exp(t[2]), ah * math.exp(t[3])
            box = np.clip([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], 0, [59, 47, 59, 47])
            if min(box[2] - box[0], box[3] - box[1]) + 1 >= 12:
                around.append((scores[0, count + a, i, j], box))
    kept: list = []
    for score, box in sorted(around, key=lambda b: -b[0])[:30]:
        if all(iou(box, other, 1) <= 0.5 for _, other in kept):
            kept.append((score, box))
    kept = kept[:9]
    assert 3 < len(kept) and rois.shape == (len(kept), 5) and (rois[:, 0] == 0).all()
    np.testing.assert_allclose(rois[:, 1:], [box for _, box in kept], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(kept_scores[:, 0], [score for score, _ in kept])


@pytest.mark.parametrize(
    "given, words",
    [
        ("step_h: 8", "has step_h; wanted step, or step_h and step_w"),
        ("img_w: 40", "has img_w; wanted img_size, or img_h and img_w"),
        ("step: 8 step_h: 8 step_w: 8", "has step, step_h, step_w; wanted"),
        ("img_size: 40 img_h: 40 img_w: 40", "has img_size, img_h, img_w; wanted"),
        ("step_h: 8 step_w: 0", "step_h, step_w must be above 0"),
    ],
)
def test_prior_box_guesses_no_size(given, words):
    with pytest.raises(CaffeError, match=words):
        layer_net(f'type: "PriorBox" prior_box_param {{ min_size: 9 {given} }}', (1, 4, 2, 3), (1, 3, 40, 50))


@pytest.mark.parametrize("own", ["ratio: -1 scale: 8", "ratio: 0 scale: 8", "ratio: 1 scale: inf", "base_size: 0"])
def test_anchors_that_have_no_size_are_refused(own):
    own = own if "ratio" in own else f"{own} ratio: 1 scale: 1"
    with pytest.raises(CaffeError, match="base_size of at least 1, and ratios and scales above 0"):
        layer_net(f'type: "Proposal" proposal_param {{ {own} }}', (1, 2, 3, 3), (1, 4, 3, 3), (1, 3), phase=caffe.TEST)


def test_classes_without_number_are_refused():
    own = "num_classes: 4000000000 background_label_id: 0"
    with pytest.raises(CaffeError, match="num_classes must be given, from 1 to 1048576"):
        layer_net(f'type: "DetectionEvaluate" detection_evaluate_param {{ {own} }}', (1, 1, 2, 7), (1, 1, 2, 8))
