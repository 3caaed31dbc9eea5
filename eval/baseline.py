"""Classical gait recognition to stand beside the net: gait energy images, with and without discriminant analysis.

Han and Bhanu, Individual Recognition Using Gait Energy Image, TPAMI 28(2), 2006.
"""

import numpy as np
from scipy.linalg import eigh

from eval.protocol import identify

COMPONENTS = 200  # kept by the principal component analysis, or fewer where there are few training walks
RIDGE = 1e-6  # of the mean within-class variance: keeps directions without variance from dividing by zero


def energy_image(silhouettes):
    """Gait energy image (64, 64), the mean of the silhouettes (n, 64, 64) of one walk; float16, 0..1."""
    return silhouettes.mean(axis=0, dtype=np.float32).astype(np.float16)  # half the cache, exact enough


def baselines(features, extras, origin, groups, seed, training=None):
    """{"baselines": ...}: nearest neighbours of gait energy images; with the features and extras of the walks that
    train, whose masks are predicted by the same net, after PCA and LDA learned from them as well.

    From predicted masks and, where there is ground truth, from true masks. {} where extras hold no energy images."""
    if "energy" not in extras:
        return {}
    rows = {}
    for name, energy in [("predicted", "energy")] + ([("true", "true_energy")] if origin.get("ground_truth") else []):
        described = {f"GEI, {name} masks": flat(extras[energy])}
        if training:
            walks, their_extras = training
            project = LinearDiscriminants(flat(their_extras[energy]), walks.labels)
            described[f"GEI+PCA+LDA, {name} masks"] = project(flat(extras[energy]))
        for row, vectors in described.items():
            rows[row] = identify(features.with_vectors(vectors), groups, seed)
    return {"baselines": rows}


def flat(images):
    return images.reshape(len(images), -1).astype(np.float32)


class LinearDiscriminants:
    """PCA, then Fisher's linear discriminants: fitted on training walks, applied to those of other people."""

    def __init__(self, vectors, labels):
        """vectors (N, D), labels (N,): at least two subjects, one of them with two walks."""
        self.mean = vectors.mean(axis=0, dtype=np.float64)
        classes, which = np.unique(labels, return_inverse=True)
        components = principal_components(vectors - self.mean, min(COMPONENTS, len(vectors) - len(classes)))
        projected = (vectors - self.mean) @ components  # (N, K)
        centres = np.stack([projected[which == c].mean(axis=0) for c in range(len(classes))])
        residuals = projected - centres[which]
        within = residuals.T @ residuals
        within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
        between = centres.T @ (centres * np.bincount(which)[:, None])
        kept = min(len(classes) - 1, len(within))
        _, directions = eigh(between, within, subset_by_index=(len(within) - kept, len(within) - 1))
        self.projection = components @ directions[:, ::-1]  # (D, kept), best direction first

    def __call__(self, vectors):
        return ((vectors - self.mean) @ self.projection).astype(np.float32)


def principal_components(centred, count):
    """The `count` directions (D, count) of largest variance of centred vectors (N, D), from the smaller Gram matrix."""
    size = min(centred.shape)
    count = min(count, size)
    wide = centred.shape[0] < centred.shape[1]
    _, vectors = eigh(centred @ centred.T if wide else centred.T @ centred, subset_by_index=(size - count, size - 1))
    directions = centred.T @ vectors if wide else vectors
    return (directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-12))[:, ::-1]
