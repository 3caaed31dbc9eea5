"""Means over people and seeds, their differences, and 95% intervals of both.

Percentile bootstrap that draws people and seeds with replacement, each on its own, and with them all that was measured
on them (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007). Draws are the same for every arm, so that
differences are paired: the same people, from the same training draws.
"""

from functools import lru_cache

import numpy as np

DRAWS = 2000


@lru_cache
def weights(number, what):
    """(DRAWS + 1, number): how much each of the "people" or "seeds" counts in every draw; in row 0 all count alike."""
    rng = np.random.default_rng((number, what == "seeds"))
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=DRAWS)
    return np.concatenate([np.ones((1, number)), drawn]) / number


def means(values):
    """values (seeds, people) -> (DRAWS + 1,): the mean itself, then that of each draw."""
    values = np.asarray(values, float)
    return mean_over_seeds(values @ weights(values.shape[1], "people").T)


def equal_error_rates(genuine, impostor):
    """Shares of accepted pairs (seeds, people, thresholds) -> (DRAWS + 1,), the mean over seeds of the rate at which as
    many impostors are accepted as genuine pairs are not, linearly between thresholds."""
    people = weights(np.shape(genuine)[1], "people")
    rates = []
    for tar, far in zip(np.asarray(genuine, float), np.asarray(impostor, float)):
        tar, far = people @ tar, people @ far
        none = np.zeros((len(people), 1))
        tar, far = np.hstack([none, tar]), np.hstack([none, far])
        gap = far - (1 - tar)  # rises from -1 to 0 or more, where all genuine pairs are accepted
        i = np.argmax(gap >= -1e-9, axis=1)[:, None]
        low, high = np.take_along_axis(gap, i - 1, 1), np.take_along_axis(gap, i, 1)
        before, after = np.take_along_axis(far, i - 1, 1), np.take_along_axis(far, i, 1)
        rates.append((before + (after - before) * -low / (high - low))[:, 0])
    return mean_over_seeds(np.stack(rates))


def mean_over_seeds(values):
    """(seeds, DRAWS + 1) -> (DRAWS + 1,)"""
    return (values * weights(len(values), "seeds").T).sum(axis=0)


def interval(draws):
    """(value, low, high) of what `means` gives, or of a difference of two."""
    low, high = np.percentile(draws[1:], [2.5, 97.5])
    return float(draws[0]), float(low), float(high)
