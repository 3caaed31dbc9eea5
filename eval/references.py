"""What stands beside the net in a result: classical baselines on the same walks, and how good the masks are."""

from typing import Any

import numpy as np

from eval.baseline import LinearDiscriminants
from eval.protocol import identify
from eval.segmentation import MEASURES
from eval.walks import features_of


def segmentation(extras, origin):
    """{"segmentation": means over all frames of the measures of eval.segmentation}; {} without ground truth."""
    if not origin.get("ground_truth"):
        return {}
    means = np.average(extras["agreement"], axis=0, weights=extras["frames"])
    return {"segmentation": {**dict(zip(MEASURES, means.tolist())), "frames": int(extras["frames"].sum())}}


def baselines(features, extras, origin, result, seed, source=None):
    """{"baselines": ...}: nearest neighbours of gait energy images; with a source, after PCA and LDA as well.

    From predicted masks and, where there is ground truth, from true masks. The discriminants are learned from the
    training walks, whose masks are predicted by the same net.
    """
    masks = [("predicted", "energy")] + ([("true", "true_energy")] if origin.get("ground_truth") else [])
    if "energy" not in extras:
        return {}
    rows = {}
    training: Any = None
    training_extras: Any = None
    if source:
        training, training_extras, _ = features_of(source, "train")
    for name, energy in masks:
        described = {f"GEI, {name} masks": flat(extras[energy])}
        if source:
            project = LinearDiscriminants(flat(training_extras[energy]), training.labels)
            described[f"GEI+PCA+LDA, {name} masks"] = project(flat(extras[energy]))
        for row, vectors in described.items():
            rows[row] = identify(features.with_vectors(vectors), result["groups"], seed)
    return {"baselines": rows}


def flat(images):
    return images.reshape(len(images), -1).astype(np.float32)
