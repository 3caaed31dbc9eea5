"""What a trained net makes of the people who are scored, person by person, so that differences can be paired."""

import numpy as np

from eval.baseline import energy_image
from eval.deploy import open_net
from eval.extract import window_sums
from eval.features import Features
from eval.protocol import Trials
from eval.score import distance
from eval.segmentation import THRESHOLD, agreement
from layers.datasets import NUM_FRAMES, SIZE
from layers.frames import PLANES
from tools.ablation import people
from tools.ablation.plan import DATASET
from tools.walkers.trees import partner

THRESHOLDS = 100  # of distances, where error rates are kept
DIGITS = 6  # kept of a share


class Scorer:
    """planes: see people.planes. `masks` and `vectors` are arrays with a row for each walk."""

    def __init__(self, size, planes, gpu=None):
        self.size, self.planes, self.gpu = size, planes, gpu
        self.walks = people.scored(size)
        self.windows = size.frames - NUM_FRAMES + 1  # of a walk

    def net(self, weights, part):
        return open_net(weights, self.gpu, parts=(part,))

    def predicted(self, weights, walks):
        """Masks (walks, frames, 64, 64) float16 of the first so many `walks`, each frame seen once."""
        net = self.net(weights, "segmentation")
        masks = np.empty((walks, *self.planes.shape[1:2], SIZE, SIZE), np.float16)
        step = max(net.frames // self.size.frames, 1)
        for start in range(0, walks, step):
            some = self.planes[start : min(start + step, walks)]
            masks[start : start + step] = net.masks(some.reshape(-1, *PLANES)).reshape(len(some), -1, SIZE, SIZE)
        return masks

    def true(self, walks):
        return (self.planes[:walks, :, 3] / np.float32(255)).astype(np.float16)

    def features(self, weights, masks):
        """(walks, 256): means over all windows of six frames."""
        net = self.net(weights, "recognition")
        rows = []
        for some in np.array_split(masks, max(len(masks) // 64, 1)):
            sums = np.concatenate([window_sums(walk.astype(np.float32)) for walk in some])
            rows.append(net.features(sums).reshape(len(some), self.windows, -1).mean(axis=1))
        return np.concatenate(rows)

    def figures(self, vectors):
        """What is kept of one description of the usual walks."""
        return {"rank1": self.rank1(vectors), "verification": self.verification(vectors)}

    def rank1(self, vectors):
        """{"NM": {"with_identical": share right of each person, "without_identical": ...}, "BG": ..., "CL": ...}"""
        features = self.described(vectors, self.chosen("usual"))
        covariates = sorted(set(features.covariates) - {""})
        return {
            name: by_person(features.gallery, features.take(features.covariates == name), len(self.size.views))
            for name in covariates
        }

    def verification(self, vectors):
        """Of each person, the shares of genuine and impostor pairs of NM probes that are at most so far apart, at
        THRESHOLDS + 1 distances; pairs of one view are left out."""
        features = self.described(vectors, self.chosen("usual"))
        gallery, probe = features.gallery, features.take(features.covariates == "NM")
        apart = distance(probe.vectors, gallery.vectors)
        counts = probe.groups[:, None] != gallery.groups
        same = probe.labels[:, None] == gallery.labels
        places = np.quantile(apart[same & counts], np.linspace(0, 1, THRESHOLDS + 1))
        found = {}
        for name, pairs in (("genuine", same & counts), ("impostor", ~same & counts)):
            own = [np.sort(apart[rows][pairs[rows]]) for rows in (probe.labels == p for p in np.unique(probe.labels))]
            found[name] = [rounded(np.searchsorted(one, places, side="right") / len(one)) for one in own]
        return found

    def iou(self, masks, looks):
        """Of each person, the mean over the frames."""
        which = self.chosen(looks)
        values = [agreement(masks[i] > THRESHOLD, self.planes[i, :, 3] > 127)[:, 0].mean() for i in which]
        return rounded(np.reshape(values, (self.size.people, -1)).mean(axis=1))

    def elsewhere(self, vectors, masks):
        """Rank-1 of NM probes among other looks: with the gallery in the same ones, or walks of the usual kind.

        "worn": how often a probe in swapped looks is taken for the person whose looks it has."""
        cases = {
            "usual": ("usual", "usual"),
            "other": ("other", "other"),
            "usual to other": ("usual", "other"),
            "own": ("own", "own"),
            "swapped": ("own", "swapped"),
        }
        found: dict = {"rank1": {}, "iou": {name: self.iou(masks, name) for name in ("usual", "other")}}
        for name, (gallery_looks, probe_looks) in cases.items():
            gallery = self.described(vectors, self.some(gallery_looks, "nm-01"))
            probe = self.described(vectors, self.some(probe_looks, "nm-05"))
            found["rank1"][name] = by_person(gallery, probe, len(self.size.views))
            if name == "swapped":
                worn = np.array([partner(label + 1) - 1 for label in probe.labels])
                taken = Features(probe.vectors, worn, probe.groups, probe.roles, probe.covariates, probe.names)
                found["rank1"]["worn"] = by_person(gallery, taken, len(self.size.views))
        return found

    def chosen(self, looks):
        return [i for i, seen in enumerate(self.walks) if seen.looks == looks]

    def some(self, looks, condition):
        walks = [(i, self.walks[i].walk) for i in self.chosen(looks)]
        return [i for i, walk in walks if walk.condition == condition and walk.view in self.size.looks_views]

    def described(self, vectors, which):
        walks = [self.walks[i].walk for i in which]
        protocol = DATASET.protocol
        return Features(
            vectors[which],
            np.array([walk.subject - 1 for walk in walks]),
            np.array([self.size.views.index(walk.view) for walk in walks]),
            np.array([protocol.role(walk) or "" for walk in walks]),
            np.array([protocol.covariate(walk) or "" for walk in walks]),
            np.array([walk.path for walk in walks]),
        )


def by_person(gallery, probe, views):
    """Shares of right answers of each person, over all cells and over those of two views."""
    hit = Trials(gallery, probe, views, distance).within(1)  # (P, views), nan without gallery
    identical = probe.groups[:, None] == np.arange(views)
    people = np.unique(probe.labels)
    return {
        name: rounded([np.nanmean(np.where(wanted, hit, np.nan)[probe.labels == person]) for person in people])
        for name, wanted in (("with_identical", np.ones_like(identical)), ("without_identical", ~identical))
    }


def energies(masks):
    """Gait energy images of walks: (walks, frames, 64, 64) -> (walks, 4096)."""
    return np.stack([energy_image(walk > THRESHOLD).astype(np.float32).ravel() for walk in masks])


def rounded(values):
    return [round(float(value), DIGITS) for value in values]
