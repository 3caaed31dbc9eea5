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

    With use_prior_for_matching: false the boxes that the locations mean are matched, in place of the priors. With
    bp_inside a coordinate in which the matched prior (or box) lies outside of the image costs nothing. With
    share_location: false each class has locations of its own, matched by the boxes of that class.

    nms_param is not here. SSD: multibox_loss_layer.cpp."""

    num_bottom, num_top = 4, 1
    auto_top = is_loss = True
    no_gradient = (2, 3)
    saves_output = False
    capturable = False
    no_onnx = "it is a loss, whose matches of boxes are not found by operations on tensors"

    def configure(self, bottom):
        p = self.param.multibox_loss_param
        if p.num_classes < 1:
            self.fail("multibox_loss_param: num_classes must be given, and at least 1")
        self.mining = p.mining_type
        if p.HasField("do_neg_mining") and not p.HasField("mining_type"):
            self.mining = P.MAX_NEGATIVE if p.do_neg_mining else P.NONE
        if self.mining != P.NONE and not p.share_location:
            self.fail("mining_type must be NONE with share_location: false")
        if p.HasField("nms_param") and self.mining != P.NONE:
            self.fail("multibox_loss_param: nms_param is not supported; leave it out")

    def top_shapes(self, loc, conf, priors, truth):
        p = self.param.multibox_loss_param
        self.places = 1 if p.share_location else p.num_classes
        self.count = priors[-1] // 4 if len(priors) == 3 and priors[1] == 2 else 0
        if math.prod(loc[1:]) != self.count * self.places * 4 or math.prod(conf[1:]) != self.count * p.num_classes:
            self.fail(
                f"bottoms have shapes {tuple(loc)}, {tuple(conf)}, {tuple(priors)}; wanted "
                f"(N, {4 * self.places} P), (N, {p.num_classes} P), (1, 2, 4 P)"
            )
        if not truth or truth[-1] != 8:
            self.fail(f"bottom[3] has shape {tuple(truth)}; wanted (1, 1, G, 8)")
        return [()]

    def compute(self, loc, conf, priors, truth):
        p, items = self.param.multibox_loss_param, loc.shape[0]
        loc, conf = loc.reshape(items, self.count, self.places, 4), conf.reshape(items, self.count, p.num_classes)
        made, variances = array(priors).reshape(2, self.count, 4)
        truths = self._truths(array(truth).reshape(-1, 8), items)
        matches, overlaps = self._match(array(loc), made, variances, truths)
        with torch.no_grad():
            positive, negative = self._mined(loc, conf, made, variances, truths, matches, overlaps)
        cost = self._location_costs(loc, made, variances, truths, matches, positive).sum()
        matched = sum(int((m > FREE).sum()) for m in matches) if self.mining != P.HARD_EXAMPLE else len(positive)
        return (p.loc_weight * cost + self._classes(conf, truths, matches, positive, negative)) / self._norm(
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
            self.fail(
                f"a box in bottom[3] has label {labels[(labels < 0) | (labels >= p.num_classes)][0]}; wanted "
                f"0..{p.num_classes - 1}"
            )
        return [(labels[rows[:, 0] == n], rows[rows[:, 0] == n, 3:7]) for n in range(items)]

    def _match(self, loc, made, variances, truths):
        """Index of the box of each prior (N, places, P), FREE or CROSSING; its largest overlap with any."""
        matches = np.full((len(truths), self.places, self.count), FREE)
        best = np.zeros(matches.shape, np.float32)
        for n, (labels, wanted) in enumerate(truths):
            if self.param.multibox_loss_param.use_prior_for_matching:
                match, best[n] = self._matched(made, wanted, np.arange(len(labels)))
                matches[n] = match
                if self.places > 1:
                    taken = np.flatnonzero(match > FREE)
                    matches[n][:, taken] = FREE
                    matches[n, labels[match[taken]], taken] = match[taken]
                continue
            for place in range(self.places):
                own = np.arange(len(labels)) if self.places == 1 else np.flatnonzero(labels == place)
                meant = self._meant(loc[n, :, place], made, variances)
                matches[n, place], best[n, place] = self._matched(meant, wanted, own)
        return matches, best

    def _meant(self, codes, made, variances):
        """The boxes that `codes` mean."""
        p = self.param.multibox_loss_param
        return boxes.decode(codes, made, np.float32(1) if p.encode_variance_in_target else variances, p.code_type)

    def _matched(self, made, wanted, own):
        """For each of the boxes `made` the index of one of the true boxes `wanted[own]`, FREE or CROSSING; its largest
        overlap with any of these."""
        p = self.param.multibox_loss_param
        match, crossing = np.full(len(made), FREE), ((made < 0) | (made > 1)).any(1) & p.ignore_cross_boundary_bbox
        if not len(own):
            return match, np.float32(0)
        match[crossing] = CROSSING
        lap = boxes.overlap(made[:, None], wanted[None, own])
        lap[(lap <= 1e-6) | crossing[:, None]] = 0
        free = lap.copy()
        for _ in own:
            prior, box = np.unravel_index(free.argmax(), free.shape)
            if free[prior, box] <= 0:
                break
            match[prior] = own[box]
            free[prior], free[:, box] = 0, 0
        if p.match_type == P.PER_PREDICTION:
            more = (match == FREE) & (lap.max(1) >= p.overlap_threshold) & (lap.max(1) > 0)
            match[more] = own[lap[more].argmax(1)]
        return match, lap.max(1)

    def _location_costs(self, loc, made, variances, truths, matches, rows):
        """Loss of the location of each of the `rows` (item, prior, place)."""
        p = self.param.multibox_loss_param
        n, prior, place = _columns(rows, 3)
        wanted = np.array([truths[i][1][matches[i, k, j]] for i, j, k in rows], np.float32).reshape(-1, 4)
        spread = np.float32(1) if p.encode_variance_in_target else variances[prior]
        codes = boxes.encode(wanted, made[prior], spread, p.code_type).astype(np.float32)
        found = loc[n, prior, place]
        d = found - torch.from_numpy(codes).to(loc.device)
        if p.bp_inside:
            inside = made[prior]
            if not p.use_prior_for_matching:
                inside = boxes.decode(array(found), inside, spread, p.code_type)
            d = torch.where(torch.from_numpy((inside >= 0) & (inside <= 1)).to(loc.device), d, 0.0)
        cost = d.square() / 2 if p.loc_loss_type == P.L2 else F.smooth_l1_loss(d, torch.zeros_like(d), reduction="none")
        return cost.sum(1)

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
        positive = [
            (n, int(i), k)
            for n in range(len(matches))
            for k in range(self.places)
            for i in np.flatnonzero(matches[n, k] > FREE)
        ]
        if self.mining == P.NONE:
            return positive, []
        cost = array(self._costs(conf, self._labels(truths, matches)))
        negative = []
        for n, (labels, _) in enumerate(truths):
            if not len(labels):
                continue
            match, lap = matches[n, 0], overlaps[n, 0]
            if self.mining == P.MAX_NEGATIVE:
                could = np.flatnonzero((match == FREE) & (lap < p.neg_overlap))
                most = min(int((match > FREE).sum() * p.neg_pos_ratio), len(could))
                negative += [(n, int(i)) for i in could[np.argsort(-cost[n, could], kind="stable")][:most]]
                continue
            rows = [row for row in positive if row[0] == n]
            total = cost[n].copy()
            total[[i for _, i, _ in rows]] += array(self._location_costs(loc, made, variances, truths, matches, rows))
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
