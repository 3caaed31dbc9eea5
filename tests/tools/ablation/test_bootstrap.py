"""Intervals over people and seeds: against closed forms and loops."""

import numpy as np
import pytest

from eval import metrics
from tools.ablation import bootstrap, report


def test_mean_is_the_plain_mean_and_pairs_cancel():
    values = np.random.default_rng(1).random((3, 20))
    draws = bootstrap.means(values)
    assert draws[0] == pytest.approx(values.mean())
    value, low, high = bootstrap.interval(bootstrap.means(values + 0.1) - draws)
    assert (value, low, high) == pytest.approx((0.1, 0.1, 0.1))


def test_width_of_the_interval_over_people():
    values = np.random.default_rng(2).standard_normal((1, 400))
    _, low, high = bootstrap.interval(bootstrap.means(values))
    # the standard error of a mean; 2000 draws tell the ends to a few percent
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_seeds_widen_it():
    people = np.tile(np.random.default_rng(3).standard_normal(50), (5, 1))
    apart = people + np.arange(5)[:, None]
    width = [np.subtract(*bootstrap.interval(bootstrap.means(x))[:0:-1]) for x in (people, apart)]
    assert width[1] > 1.5 * width[0]


def test_draws_are_paired_people_and_seeds_apart():
    people, seeds = bootstrap.weights(5, "people"), bootstrap.weights(5, "seeds")
    assert np.allclose(people.sum(axis=1), 1) and not np.allclose(people, seeds)
    assert bootstrap.weights(5, "people") is people


def test_equal_error_rate_is_that_of_evaluation():
    rng = np.random.default_rng(4)
    genuine, impostor = rng.normal(1, 0.4, (6, 200)), rng.normal(2, 0.4, (6, 3000))
    places = np.quantile(genuine, np.linspace(0, 1, 101))
    shares = [
        [np.searchsorted(np.sort(one), places, side="right") / len(one) for one in side] for side in (genuine, impostor)
    ]
    exact = metrics.equal_error_rate(*metrics.roc(genuine.ravel(), impostor.ravel()))
    draws = bootstrap.equal_error_rates(*(np.array([side]) for side in shares))
    assert draws[0] == pytest.approx(exact, abs=0.003)  # between hundredths of the genuine pairs
    counts = bootstrap.weights(6, "people")[3] * 6
    chosen = np.repeat(np.arange(6), np.rint(counts).astype(int))
    exact = metrics.equal_error_rate(*metrics.roc(genuine[chosen].ravel(), impostor[chosen].ravel()))
    assert draws[3] == pytest.approx(exact, abs=0.005)


def test_equal_error_rate_of_perfect_and_of_no_separation():
    perfect = bootstrap.equal_error_rates([[[0.5, 1.0]] * 2], [[[0.0, 0.0]] * 2])
    assert perfect[0] == pytest.approx(0, abs=1e-6)
    alike = bootstrap.equal_error_rates([[[0.25, 0.5, 1.0]] * 2], [[[0.25, 0.5, 1.0]] * 2])
    assert alike[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "found, told",
    [
        ((0.02, 0.01, 0.03), "joint beats its control, by 2.0 points (1.0 .. 3.0)."),
        ((0.0, -0.01, 0.01), "joint does not beat its control: +0.0 points (-1.0 .. +1.0), and the interval includes"),
        ((-0.02, -0.03, -0.01), "joint does not beat its control: it is worse by 2.0 points (1.0 .. 3.0)."),
    ],
)
def test_sentences(found, told):
    assert report.sentence("joint beats its control", found).startswith(told)
