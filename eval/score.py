"""Distances between probe (P, D) and gallery (G, D) features, and who is nearest.

`distance` and `exp32` give the whole matrix, smaller is nearer; `top_k` never holds it and serves
galleries of millions.
"""

import numpy as np

BLOCK = 8192  # gallery rows a block in the large search: (2048 x 8192) float32 scores are 64 MiB
SPARE = 8  # candidates beyond k that the exact second look of `top_k` gets


def distance(probe, gallery):
    """Squared Euclidean distance (P, G) in float64: the order of exp(-|(p - g)/256|^2) without its rounding."""
    probe, gallery = probe.astype(np.float64), gallery.astype(np.float64)
    centre = gallery.mean(axis=0)  # near zero, so that the products below cancel less
    probe, gallery = probe - centre, gallery - centre
    squares = (probe**2).sum(1)[:, None] + (gallery**2).sum(1) - 2 * probe @ gallery.T
    return np.maximum(squares, 0)


def exp32(probe, gallery):
    """-exp(-|(p - g)/256|^2) (P, G) in float32, as in the original: near 1 many values round to the same number."""
    rows = []
    for vector in probe:
        difference = (vector - gallery) / np.float32(256)
        rows.append(np.exp(-(np.linalg.norm(difference, axis=1) ** 2)))
    return -np.stack(rows)


def parts(probe, gallery):
    """Mean over parts of the Euclidean distance (P, G) of features (P, C, parts), (G, C, parts): OpenGait's."""
    each = [np.sqrt(distance(probe[:, :, i], gallery[:, :, i])) for i in range(probe.shape[2])]
    return np.mean(each, axis=0)


SIMILARITIES = {"distance": distance, "exp32": exp32}


def top_k(probe, gallery, k, block=BLOCK, probe_block=2048):
    """The k nearest gallery rows of every probe, nearest first: (indices (P, k), squared distances (P, k)).

    For galleries of millions: float32 matrix products block by block, a running best list a probe, and an exact
    float64 look at the k + 8 best. Equal distances come in gallery order.
    """
    k = min(k, len(gallery))
    centre = gallery[:BLOCK].mean(axis=0)
    indices, squares = np.empty((len(probe), k), np.int64), np.empty((len(probe), k))
    half_norms = np.concatenate(
        [((gallery[b : b + block] - centre) ** 2).sum(1) / 2 for b in range(0, len(gallery), block)]
    )
    for row in range(0, len(probe), probe_block):
        some = probe[row : row + probe_block]
        found = candidates(some - centre, gallery, centre, half_norms, min(k + SPARE, len(gallery)), block)
        exact = exact_squares(some, gallery, found)
        order = np.lexsort((found, exact), axis=1)[:, :k]
        indices[row : row + probe_block] = np.take_along_axis(found, order, 1)
        squares[row : row + probe_block] = np.take_along_axis(exact, order, 1)
    return indices, squares


def candidates(probe, gallery, centre, half_norms, count, block):
    """Indices (P, count) of the largest p.g - |g|^2/2, which is the order of the distance reversed."""
    best = np.full((len(probe), count), -np.inf, np.float32)
    where = np.zeros((len(probe), count), np.int64)
    for start in range(0, len(gallery), block):
        scores = probe @ (gallery[start : start + block] - centre).T
        scores -= half_norms[start : start + block]
        better = np.flatnonzero(scores.max(axis=1) > best.min(axis=1))  # few, once the lists are good
        if not len(better):
            continue
        pool = np.concatenate([best[better], scores[better]], axis=1)
        keep = np.argpartition(-pool, count - 1, axis=1)[:, :count]
        best[better] = np.take_along_axis(pool, keep, 1)
        old = np.take_along_axis(where[better], np.minimum(keep, count - 1), 1)
        where[better] = np.where(keep < count, old, keep - count + start)
    return where


def exact_squares(probe, gallery, found, rows=256):
    """Squared distances (P, K) of probe row i to gallery[found[i]], in float64."""
    out = np.empty(found.shape)
    for start in range(0, len(probe), rows):
        part = slice(start, start + rows)
        difference = gallery[found[part]].astype(np.float64) - probe[part, None].astype(np.float64)
        out[part] = (difference**2).sum(axis=2)
    return out
