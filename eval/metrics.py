"""What is measured, each with its source. Pure functions of arrays; percentages are made by those who print them.

A *cell* is one probe group (view or clothing) against one gallery group. As in the gait literature (Yu et al., CASIA-B,
ICPR 2006) every figure is computed cell by cell and averaged over cells, with or without those of identical groups.
"""

import numpy as np

FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001)


def rank(distances, probe_labels, gallery_labels):
    """Where a probe's own subject appears in the gallery sorted by distance (P, G), ties in gallery order.

    Returns (P,) arrays: first, rank of the first match from 1 (inf without one); ap, average precision, the mean over
    matches of precision at their rank (Manning et al., Introduction to Information Retrieval, 8.4); inp, number of
    matches over the rank of the last one (Ye et al., Deep Learning for Person Re-identification, TPAMI 2021); nearest,
    index of the nearest item. ap and inp are 0 for a probe without a match.
    """
    order = np.argsort(distances, axis=1, kind="stable")
    match = gallery_labels[order] == probe_labels[:, None]
    found = match.sum(axis=1)
    ranks = np.arange(1, match.shape[1] + 1)
    first = np.where(found > 0, match.argmax(axis=1) + 1, np.inf)
    last = match.shape[1] - match[:, ::-1].argmax(axis=1)
    ap = (match * match.cumsum(axis=1) / ranks).sum(axis=1) / np.maximum(found, 1)
    return first, ap, found / last, order[:, 0]


def cell_means(values, groups, num_groups):
    """Mean of values (P, T) over the probes of each group: (T, T), probe groups in rows; nan without probes."""
    table = np.full((num_groups, values.shape[1]), np.nan)
    for group in np.unique(groups):
        table[group] = values[groups == group].mean(axis=0)
    return table


def overall(table, identical=True):
    """Mean over the cells of a table (T, T), nan left out; with identical=False the diagonal as well."""
    return mean_of(table if identical else table[~np.eye(len(table), dtype=bool)])


def mean_of(values):
    """Mean of those that are numbers; nan where none is."""
    finite = np.isfinite(values)
    return float(np.mean(values, where=finite)) if finite.any() else float("nan")


RESAMPLES = 1000


def bootstrap(values, groups, labels, num_groups, rng, identical=True, resamples=RESAMPLES):
    """95% interval of `overall(cell_means(values))`, drawing test subjects with replacement, the gallery kept.

    Percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13). Whole subjects are drawn,
    because the walks of one person are not independent. values (P, T); returns (low, high), nan without a number.
    """
    subjects = np.unique(labels)
    return interval(resampled(values, groups, labels, num_groups, draws_of(len(subjects), rng, resamples), identical))


def draws_of(subjects, rng, resamples=RESAMPLES):
    """How often each of so many subjects is drawn: (resamples, subjects)."""
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)


def resampled(values, groups, labels, num_groups, draws, identical=True):
    """`overall(cell_means(values))` of every draw: (B,). The draws count the sorted subjects among the labels."""
    subjects, which = np.unique(labels, return_inverse=True)
    cells = values.shape[1] * num_groups
    sums, counts = np.zeros((len(subjects), num_groups, values.shape[1])), np.zeros((len(subjects), num_groups, 1))
    np.add.at(sums, (which, groups), values)
    np.add.at(counts, (which, groups), 1)
    counts = np.broadcast_to(counts, sums.shape)
    with np.errstate(invalid="ignore"):  # a cell that a draw leaves empty is nan
        tables = (draws @ sums.reshape(-1, cells)) / (draws @ counts.reshape(-1, cells))
    return np.array([overall(table.reshape(num_groups, -1), identical) for table in tables])


def interval(values):
    """(low, high): 95% of the values lie between; nan where none is a number."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
    return float(low), float(high)


def roc(genuine, impostor):
    """(false accept rate, true accept rate) at every threshold, from distances of genuine and impostor pairs.

    A pair is accepted when its distance is at most the threshold (ISO/IEC 19795-1, biometric performance testing).
    Both start at 0 and end at 1.
    """
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    accepted = [np.searchsorted(np.sort(side), thresholds, side="right") / len(side) for side in (impostor, genuine)]
    return tuple(np.concatenate([[0.0], side]) for side in accepted)


def equal_error_rate(far, tar):
    """Where the false accept rate equals the false reject rate 1 - tar, linearly between thresholds."""
    gap = far - (1 - tar)  # rises from -1 to 1
    i = int(np.argmax(gap >= 0))
    share = gap[i - 1] / (gap[i - 1] - gap[i])
    return float(far[i - 1] + share * (far[i] - far[i - 1]))


def tar_at_far(far, tar, wanted):
    """Largest true accept rate whose false accept rate is at most `wanted`."""
    return float(tar[far <= wanted].max())


def subject_errors(first, nearest_labels, labels):
    """Per subject, worst first: trials, rank-1, and who it is most often taken for.

    first, nearest_labels (P, T), labels (P,). One trial is one probe against one gallery group.
    """
    rows = []
    for subject in np.unique(labels):
        wrong = nearest_labels[labels == subject]
        right = first[labels == subject] == 1
        others, times = np.unique(wrong[~right], return_counts=True)
        confused = int(others[times.argmax()]) if len(others) else None
        rows.append(
            {
                "subject": int(subject),
                "trials": int(right.size),
                "rank1": float(right.mean()),
                "most_confused_with": confused,
            }
        )
    return sorted(rows, key=lambda row: (row["rank1"], row["subject"]))
