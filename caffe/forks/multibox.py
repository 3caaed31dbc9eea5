"""MultiBoxLoss: SSD's loss of locations and classes of its prior boxes."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from caffe.forks import boxes
from caffe.forks.rows import array
from caffe.layer import register
from caffe.ops.loss import FLT_MIN
from caffe.proto import caffe_pb2
from caffe.torch_layer import TorchLayer

FREE, CROSSING = -1, -2  # matches of a prior: to none; it reaches out of the image
P = caffe_pb2.MultiBoxLossParameter


@register("MultiBoxLoss")
class MultiBoxLoss(TorchLayer):
    """(loc_weight sum of locations' losses + sum of classes' losses) / the number of matches (loss_param VALID).

    Bottoms: locations (N, P L 4), class scores (N, P num_classes), priors (1, 2, P 4), ground truth (1, 1, G, 8) with
    rows item, label, instance, xmin, ymin, xmax, ymax, difficult (item -1: none). Each box gets the prior that overlaps
    it most, the largest overlap first; with PER_PREDICTION priors that overlap a box by overlap_threshold get it, too.
    Locations' losses (SMOOTH_L1 or L2 of the codes) count matched priors; classes' losses (SOFTMAX or LOGISTIC) those
    and the background of others: with MAX_NEGATIVE the neg_pos_ratio times as many that cost most, with HARD_EXAMPLE
    what is among the sample_size that cost most, with NONE all.

    use_prior_for_matching: false, bp_inside and nms_param are not here. SSD: multibox_loss_layer.cpp."""

    num_bottom, num_top = 4, 1
    auto_top = is_loss = True
    no_gradient = (2, 3)
    saves_output = False
    capturable = False

    def configure(self, bottom):
        p = self.param.multibox_loss_param
        if p.num_classes < 1:
            self.fail("multibox_loss_param: num_classes must be given, and at least 1")
        self.mining = p.mining_type
        if p.HasField("do_neg_mining") and not p.HasField("mining_type"):
            self.mining = P.MAX_NEGATIVE if p.do_neg_mining else P.NONE
        if self.mining != P.NONE and not p.share_location:
            self.fail("mining_type must be NONE with share_location: false")
        for field, wrong in (("use_prior_for_matching", False), ("bp_inside", True)):
            if getattr(p, field) == wrong:
                self.fail(f"multibox_loss_param: {field}: {str(wrong).lower()} is not supported")
        if p.HasField("nms_param") and self.mining == P.HARD_EXAMPLE:
            self.fail("multibox_loss_param: nms_param is not supported")

    def top_shapes(self, loc, conf, priors, truth):
        p = self.param.multibox_loss_param
        self.places = 1 if p.share_location else p.num_classes
        self.count = priors[-1] // 4 if len(priors) == 3 and priors[1] == 2 else 0
        if math.prod(loc[1:]) != self.count * self.places * 4 or math.prod(conf[1:]) != self.count * p.num_classes:
            self.fail(f"bottoms have shapes {tuple(loc)}, {tuple(conf)}, {tuple(priors)}; wanted "
                      f"(N, {4 * self.places} P), (N, {p.num_classes} P), (1, 2, 4 P)")  # fmt: skip
        if not truth or truth[-1] != 8:
            self.fail(f"bottom[3] has shape {tuple(truth)}; wanted (1, 1, G, 8)")
        return [()]

    def compute(self, loc, conf, priors, truth):
        p, items = self.param.multibox_loss_param, loc.shape[0]
        loc, conf = loc.reshape(items, self.count, self.places, 4), conf.reshape(items, self.count, p.num_classes)
        made, variances = array(priors).reshape(2, self.count, 4)
        truths = self._truths(array(truth).reshape(-1, 8), items)
        matches, overlaps = self._match(made, truths)
        with torch.no_grad():
            positive, negative = self._mined(loc, conf, made, variances, truths, matches, overlaps)
        n, prior, place = (
            (np.array(axis, np.int64) for axis in zip(*positive)) if positive else np.zeros((3, 0), np.int64)
        )
        found = [truths[i][1][matches[i, k, j]] for i, j, k in zip(n, prior, place)]
        wanted = np.array(found, np.float32).reshape(-1, 4)
        spread = np.float32(1) if p.encode_variance_in_target else variances[prior]
        codes = boxes.encode(wanted, made[prior], spread, p.code_type).astype(np.float32)
        d = loc[n, prior, place] - torch.from_numpy(codes).to(loc.device)
        cost = d.square() / 2 if p.loc_loss_type == P.L2 else F.smooth_l1_loss(d, torch.zeros_like(d), reduction="none")
        matched = sum(int((m > FREE).sum()) for m in matches) if self.mining != P.HARD_EXAMPLE else len(positive)
        return (p.loc_weight * cost.sum() + self._classes(conf, truths, matches, positive, negative)) / self._norm(
            items, matched
        )

    def _norm(self, items, matched):
        p = self.param.loss_param
        mode = p.normalization
        if p.HasField("normalize") and not p.HasField("normalization"):
            mode = p.VALID if p.normalize else p.BATCH_SIZE
        return max(1, {p.VALID: matched, p.FULL: items * self.count, p.BATCH_SIZE: items, p.NONE: 1}[mode])

    def _truths(self, rows, items):
        """(labels, boxes) of the ground truth of each item."""
        p = self.param.multibox_loss_param
        rows = rows[(rows[:, 0] >= 0) & ((rows[:, 7] == 0) | p.use_difficult_gt)]
        labels = rows[:, 1].astype(int)
        if (labels == p.background_label_id).any():
            self.fail(f"a box in bottom[3] has label {p.background_label_id}, which is the background's")
        if ((labels < 0) | (labels >= p.num_classes)).any():
            self.fail(f"a box in bottom[3] has label {labels[(labels < 0) | (labels >= p.num_classes)][0]}; wanted "
                      f"0..{p.num_classes - 1}")  # fmt: skip
        return [(labels[rows[:, 0] == n], rows[rows[:, 0] == n, 3:7]) for n in range(items)]

    def _match(self, made, truths):
        """Index of the box of each prior (N, places, P), FREE or CROSSING; its largest overlap with any."""
        p = self.param.multibox_loss_param
        matches = np.full((len(truths), self.places, self.count), FREE)
        best = np.zeros(matches.shape, np.float32)
        crossing = ((made < 0) | (made > 1)).any(1) & p.ignore_cross_boundary_bbox
        for n, (labels, wanted) in enumerate(truths):
            if not len(labels):
                continue
            for place in range(self.places):
                own = np.arange(len(labels)) if self.places == 1 else np.flatnonzero(labels == place)
                matches[n, place, crossing] = CROSSING
                if not len(own):
                    continue
                lap = boxes.overlap(made[:, None], wanted[None, own])
                lap[(lap <= 1e-6) | crossing[:, None]] = 0
                best[n, place] = lap.max(1)
                matches[n, place] = self._matched(lap, own, matches[n, place])
        return matches, best

    def _matched(self, lap, own, match):
        p, free, left = self.param.multibox_loss_param, lap.copy(), len(own)
        while left:
            prior, box = np.unravel_index(free.argmax(), free.shape)
            if free[prior, box] <= 0:
                break
            match[prior] = own[box]
            free[prior], free[:, box] = 0, 0
            left -= 1
        if p.match_type == P.PER_PREDICTION:
            more = (match == FREE) & (lap.max(1) >= p.overlap_threshold) & (lap.max(1) > 0)
            match[more] = own[lap[more].argmax(1)]
        return match

    def _labels(self, truths, matches):
        """The class that each prior should have (N, P)."""
        p = self.param.multibox_loss_param
        wanted = np.full((len(truths), self.count), p.background_label_id)
        for n, (labels, _) in enumerate(truths):
            for match in matches[n]:
                taken = match > FREE
                wanted[n, taken] = p.background_label_id + 1 if p.map_object_to_agnostic else labels[match[taken]]
        return wanted

    def _costs(self, conf, wanted):
        """Loss of the class of each of some priors: scores (.., K), wanted classes (..)."""
        p, index = self.param.multibox_loss_param, torch.from_numpy(wanted).to(conf.device)
        if p.conf_loss_type == P.LOGISTIC:
            one = F.one_hot(index, p.num_classes).to(conf.dtype)
            return F.binary_cross_entropy_with_logits(conf, one, reduction="none").sum(-1)
        cost = -F.log_softmax(conf, -1).gather(-1, index[..., None])[..., 0]
        return cost + (cost.clamp(max=-math.log(FLT_MIN)) - cost).detach()

    def _mined(self, loc, conf, made, variances, truths, matches, overlaps):
        """(positive, negative): (item, prior, place) of what is matched, (item, prior) of what is background."""
        p = self.param.multibox_loss_param
        positive = [(n, int(i), k) for n in range(len(matches)) for k in range(self.places)
                    for i in np.flatnonzero(matches[n, k] > FREE)]  # fmt: skip
        if self.mining == P.NONE:
            return positive, []
        cost = array(self._costs(conf, self._labels(truths, matches)))
        negative = []
        for n, (labels, wanted) in enumerate(truths):
            if not len(labels):
                continue
            match, lap = matches[n, 0], overlaps[n, 0]
            if self.mining == P.MAX_NEGATIVE:
                could = np.flatnonzero((match == FREE) & (lap < p.neg_overlap))
                most = min(int((match > FREE).sum() * p.neg_pos_ratio), len(could))
                negative += [(n, int(i)) for i in could[np.argsort(-cost[n, could], kind="stable")][:most]]
                continue
            taken = np.flatnonzero(match > FREE)
            total = cost[n].copy()
            spread = np.float32(1) if p.encode_variance_in_target else variances[taken]
            codes = boxes.encode(wanted[match[taken]], made[taken], spread, p.code_type)
            d = np.abs(array(loc[n, :, 0])[taken] - codes)
            total[taken] += (d**2 / 2 if p.loc_loss_type == P.L2 else np.where(d < 1, d**2 / 2, d - 0.5)).sum(1)
            could = np.flatnonzero(match != CROSSING)
            hard = set(could[np.argsort(-total[could], kind="stable")][: p.sample_size].tolist())
            positive = [row for row in positive if row[0] != n or row[1] in hard]
            negative += [(n, i) for i in sorted(hard) if match[i] == FREE]
        return positive, negative

    def _classes(self, conf, truths, matches, positive, negative):
        wanted = self._labels(truths, matches)
        if self.mining == P.NONE:
            return self._costs(conf, wanted).sum()
        rows = [(n, i) for n, i, _ in positive] + negative
        n, prior = _columns(rows, 2)
        return self._costs(conf[n, prior], wanted[n, prior]).sum()


def _columns(rows, count):
    """The `count` columns of a list of tuples, as arrays of indices."""
    return np.array(rows, np.int64).reshape(-1, count).T
