"""How good detections are: SSD's DetectionEvaluate, and the mean average precision of its rows."""

import numpy as np
import torch

from caffe import glog as log
from caffe.errors import CaffeError
from caffe.forks import boxes
from caffe.forks.rows import Rows, array
from caffe.layer import register

VERSIONS = ("11point", "Integral")

MOST_CLASSES = 2**20


@register("DetectionEvaluate")
class DetectionEvaluate(Rows):
    """Top (1, 1, K + D, 5): a row -1, label, number of true boxes, -1, -1 for each of the K classes but background;
    then for each detection image, label, score, whether it is right, whether it is wrong.

    Bottoms: detections (1, 1, D, 7) from DetectionOutput, true boxes (1, 1, G, 8) from AnnotatedData. In order of
    falling score a detection is right when the true box of its image and class that it overlaps most is overlapped by
    overlap_threshold at least, and not taken yet. With evaluate_difficult_gt: false difficult boxes count neither as
    true nor, where one is found, as right or wrong. Boxes are parts of the image: name_size_file is not here. SSD:
    detection_evaluate_layer.cpp."""

    num_bottom, num_top = 2, 1

    def configure(self, bottom):
        p = self.param.detection_evaluate_param
        if not 1 <= p.num_classes <= MOST_CLASSES:
            self.fail(f"detection_evaluate_param: num_classes must be given, from 1 to {MOST_CLASSES}")
        if p.name_size_file or p.HasField("resize_param"):
            self.fail(
                "detection_evaluate_param: boxes are not measured in pixels of the first images here; leave "
                "name_size_file and resize_param out to measure them as parts of the image"
            )
        self.labels = [label for label in range(p.num_classes) if label != p.background_label_id]

    def top_shapes(self, found, truth):
        if tuple(found[:2]) != (1, 1) or len(found) != 4 or found[3] != 7:
            self.fail(f"bottom[0] has shape {tuple(found)}; wanted (1, 1, D, 7), DetectionOutput's")
        if tuple(truth[:2]) != (1, 1) or len(truth) != 4 or truth[3] != 8:
            self.fail(f"bottom[1] has shape {tuple(truth)}; wanted (1, 1, G, 8), AnnotatedData's")
        return [(1, 1, len(self.labels) + 1, 5)]

    def compute(self, found, truth):
        p = self.param.detection_evaluate_param
        found, truth = array(found).reshape(-1, 7), array(truth).reshape(-1, 8)
        found, truth = found[found[:, 0] >= 0], truth[truth[:, 0] >= 0]
        for what, rows in (("detection in bottom[0]", found), ("box in bottom[1]", truth)):
            if (wrong := rows[~np.isin(rows[:, 1], self.labels)]).size:
                self.fail(f"a {what} has label {wrong[0, 1]:g}; wanted one of {p.num_classes} but the background's")
        counts = truth if p.evaluate_difficult_gt else truth[truth[:, 7] == 0]
        rows = [(-1, label, (counts[:, 1] == label).sum(), -1, -1) for label in self.labels]
        for image, label in np.unique(found[:, :2], axis=0):
            own = found[(found[:, 0] == image) & (found[:, 1] == label)]
            true = truth[(truth[:, 0] == image) & (truth[:, 1] == label)]
            rows += self._judged(own[np.argsort(-own[:, 2], kind="stable")], true)
        return torch.from_numpy(np.array(rows, np.float32).reshape(1, 1, -1, 5))

    def _judged(self, found, true):
        """The rows of one class in one image, detections in order of falling score."""
        p, taken = self.param.detection_evaluate_param, set()
        for row in found:
            right = wrong = False
            overlaps = boxes.overlap(row[3:7], true[:, 3:7])
            best = int(overlaps.argmax()) if len(true) else -1
            if best < 0 or overlaps[best] < p.overlap_threshold:
                wrong = True
            elif p.evaluate_difficult_gt or not true[best, 7]:
                right, wrong = best not in taken, best in taken
                taken.add(best)
            yield (*row[:3], right, wrong)


class MeanPrecision:
    """The mean average precision of a test net's outputs, all of them DetectionEvaluate's, over the passes of a test;
    with show_per_class_result that of each class goes to the log, too."""

    def __init__(self, solver_param):
        if solver_param.ap_version not in VERSIONS:
            raise CaffeError(f"ap_version is '{solver_param.ap_version}'; wanted {' or '.join(VERSIONS)}")
        self.version, self.tells = solver_param.ap_version, solver_param.show_per_class_result
        self.rows: dict = {}

    def add(self, net):
        for name in net.outputs:
            rows = net.blobs[name].data
            if rows.ndim != 4 or rows.shape[3] != 5:
                raise CaffeError(
                    f"eval_type is 'detection', and the test net's output '{name}' has shape {rows.shape}; wanted "
                    "DetectionEvaluate's (1, 1, D, 5) alone"
                )
            self.rows.setdefault(name, []).append(rows.reshape(-1, 5).copy())

    def means(self):
        """[(name, 0, mean average precision)] of the outputs."""
        return [(name, 0, self._mean(np.concatenate(rows))) for name, rows in self.rows.items()]

    def _mean(self, rows):
        counts, found = rows[rows[:, 0] < 0], rows[(rows[:, 0] >= 0) & (rows[:, 3:] != 0).any(1)]
        precisions = []
        for label in np.unique(counts[:, 1]):
            _, _, scores, right, _ = found[found[:, 1] == label].T
            count = counts[counts[:, 1] == label, 2].sum()
            precisions.append(average_precision(scores, right, count, self.version))
            if self.tells:
                log.info("solver.cpp:540", f"class{label:g}: {log.number(precisions[-1])}")
        return float(np.mean(precisions))


def average_precision(scores, right, count, version):
    """The average precision of detections with `scores`, of which those are `right` (1 or 0), for `count` true boxes.

    "11point": the mean, over recalls r = 0, 0.1 .. 1, of the best precision at a recall of r or more (PASCAL VOC 2007);
    "Integral": the sum of precision times the gain in recall."""
    if not len(scores) or not count:
        return 0.0
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")].astype(float))
    precision = hits / np.arange(1, len(hits) + 1)
    recall = (hits / count).astype(np.float32).astype(float)  # as in SSD: 7 of 10 in float32 are less than 0.7
    if version == "Integral":
        return float((precision * np.diff(recall, prepend=0)).sum())
    return float(sum(max(precision[recall >= r / 10], default=0.0) for r in range(11)) / 11)
