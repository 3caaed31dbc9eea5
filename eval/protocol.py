"""One evaluation: features of gallery and probe in, every figure of the report out."""

import numpy as np

from eval import metrics
from eval.score import SIMILARITIES

MAX_RANK = 20
CURVE_POINTS = 400  # of a ROC curve kept for JSON and plots


def evaluate(features, groups, similarity="distance", seed=0):
    """All identification and verification figures of one set of features; plain numbers, lists and dicts.

    features: see eval.features.Features. groups: names of the rows and columns. Rates are shares, 0..1.
    """
    trials = Trials(features.gallery, features.probe, len(groups), SIMILARITIES[similarity])
    probe = features.probe
    result = {
        "groups": list(groups),
        "similarity": similarity,
        "gallery": np.bincount(features.gallery.groups, minlength=len(groups)).tolist(),
        "probes": np.bincount(probe.groups, minlength=len(groups)).tolist(),
        "identification": trials.identification(seed),
        "verification": trials.verification(),
        "subjects": trials.subjects(),
    }
    return result | covariates(features, len(groups), SIMILARITIES[similarity], seed)


def identify(features, groups, seed=0):
    """The identification figures alone, by distance: for baselines."""
    dissimilarity = SIMILARITIES["distance"]
    trials = Trials(features.gallery, features.probe, len(groups), dissimilarity)
    return {"identification": trials.identification(seed)} | covariates(features, len(groups), dissimilarity, seed)


def covariates(features, num_groups, dissimilarity, seed):
    """{"covariates": identification of NM, BG and CL probes against the same gallery}; {} where there are none.

    The protocol of today's literature on CASIA-B, which reports the mean without identical views (Chao et al., GaitSet,
    AAAI 2019).
    """
    names = sorted(set(features.covariates) - {""}, key=lambda name: (name != "NM", name))
    rows = {
        name: Trials(features.gallery, features.take(features.covariates == name), num_groups, dissimilarity)
        for name in names
    }
    return {"covariates": {name: trials.identification(seed) for name, trials in rows.items()}} if rows else {}


class Trials:
    """Every probe against every gallery group: ranks and distances from which the figures follow."""

    def __init__(self, gallery, probe, num_groups, dissimilarity):
        self.probe, self.num_groups = probe, num_groups
        self.columns = np.unique(gallery.groups)  # the cells of groups without gallery stay nan
        shape = len(probe), num_groups
        self.first, self.ap, self.inp = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
        self.nearest_labels = np.full(shape, -1)
        self.genuine, self.impostor = [], []  # of each gallery group: (distances, of an identical group?)
        for j in self.columns:
            column = gallery.take(gallery.groups == j)
            distances = dissimilarity(probe.vectors, column.vectors)
            ranks = metrics.rank(distances, probe.labels, column.labels)
            self.first[:, j], self.ap[:, j], self.inp[:, j], nearest = ranks
            self.nearest_labels[:, j] = column.labels[nearest]
            same_group = np.broadcast_to((probe.groups == j)[:, None], distances.shape)
            same_person = probe.labels[:, None] == column.labels
            self.genuine.append((distances[same_person], same_group[same_person]))
            self.impostor.append((distances[~same_person], same_group[~same_person]))

    def identification(self, seed):
        """Rank-1 table; with and without identical groups: means with 95% intervals, CMC, mAP, mINP."""
        hit = self.within(1)
        table = self.table(hit)
        summary = {"rank1_table": table.tolist()}
        for name, identical in self.averages():
            summary[name] = {
                "rank1": metrics.overall(table, identical),
                "rank1_95": metrics.bootstrap(
                    hit, self.probe.groups, self.probe.labels, self.num_groups, np.random.default_rng(seed), identical
                ),
                "cmc": [metrics.overall(self.table(self.within(k)), identical) for k in range(1, MAX_RANK + 1)],
                "mAP": metrics.overall(self.table(self.ap), identical),
                "mINP": metrics.overall(self.table(self.inp), identical),
            }
        return summary

    def verification(self):
        """ROC, equal error rate, and true accept rate at fixed false accept rates, over all pairs."""
        summary = {}
        for name, identical in self.averages():
            genuine, impostor = (
                np.concatenate([d if identical else d[~same] for d, same in side])
                for side in (self.genuine, self.impostor)
            )
            if not len(genuine) or not len(impostor):
                continue
            far, tar = metrics.roc(genuine, impostor)
            grid = np.concatenate([[0], np.geomspace(max(1 / len(impostor), 1e-6), 1, CURVE_POINTS)])
            summary[name] = {
                "genuine_pairs": len(genuine),
                "impostor_pairs": len(impostor),
                "eer": metrics.equal_error_rate(far, tar),
                "tar_at_far": {f"{rate:g}": metrics.tar_at_far(far, tar, rate) for rate in metrics.FALSE_ACCEPT_RATES},
                "roc": {"far": grid.tolist(), "tar": tar[np.searchsorted(far, grid, side="right") - 1].tolist()},
            }
        return summary

    def within(self, k):
        """1 where a probe's own subject is among the k nearest, else 0: (P, T), nan without gallery."""
        return np.where(np.isnan(self.first), np.nan, self.first <= k)

    def subjects(self):
        """Errors by subject, see eval.metrics.subject_errors."""
        first, nearest = (values[:, self.columns] for values in (self.first, self.nearest_labels))
        return metrics.subject_errors(first, nearest, self.probe.labels)

    def averages(self):
        """(name, identical groups included?); a table of one cell has no others."""
        return [("with_identical", True)] + ([("without_identical", False)] if self.num_groups > 1 else [])

    def table(self, values):
        return metrics.cell_means(values, self.probe.groups, self.num_groups)
