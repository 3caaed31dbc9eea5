import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from eval import metrics


@pytest.fixture
def trial():
    rng = np.random.default_rng(0)
    probe_labels = rng.integers(0, 6, 23)
    gallery_labels = rng.integers(0, 5, 31)  # subject 5 has no match
    distances = rng.random((23, 31)) + (probe_labels[:, None] != gallery_labels) * 0.2
    return distances, probe_labels, gallery_labels


def test_rank_against_loops(trial):
    distances, probe_labels, gallery_labels = trial
    first, ap, inp, nearest = metrics.rank(distances, probe_labels, gallery_labels)
    for i, row in enumerate(distances):
        order = sorted(range(len(row)), key=lambda j: row[j])
        places = [r for r, j in enumerate(order, 1) if gallery_labels[j] == probe_labels[i]]
        assert nearest[i] == order[0]
        assert first[i] == (places[0] if places else np.inf)
        assert ap[i] == pytest.approx(np.mean([(n + 1) / r for n, r in enumerate(places)]) if places else 0)
        assert inp[i] == pytest.approx(len(places) / places[-1] if places else 0)
    assert np.isinf(first).any() and np.isfinite(first).any()


def test_average_precision_is_scikit_learns(trial):
    distances, probe_labels, gallery_labels = trial
    ap = metrics.rank(distances, probe_labels, gallery_labels)[1]
    for i in np.flatnonzero(probe_labels < 5):
        want = average_precision_score(gallery_labels == probe_labels[i], -distances[i])
        assert ap[i] == pytest.approx(want, abs=1e-12)


def test_ties_go_to_the_first_of_the_gallery():
    first, *_, nearest = metrics.rank(np.zeros((1, 3)), np.array([7]), np.array([5, 7, 7]))
    assert first[0] == 2 and nearest[0] == 0


def test_cell_means_and_overall():
    values = np.array([[1, 0], [0, 0], [1, 1]], float)
    table = metrics.cell_means(values, np.array([0, 0, 1]), 2)
    np.testing.assert_array_equal(table, [[0.5, 0], [1, 1]])
    assert metrics.overall(table) == 0.625
    assert metrics.overall(table, identical=False) == 0.5


def test_a_group_without_probes_does_not_count():
    table = metrics.cell_means(np.array([[1.0, 0.5]]), np.array([0]), 2)
    assert np.isnan(table[1]).all()
    assert metrics.overall(table) == 0.75


def test_bootstrap_against_a_loop():
    rng = np.random.default_rng(1)
    labels, groups = np.repeat(np.arange(12), 6), np.tile([0, 1, 1, 0, 1, 0], 12)
    values = (rng.random((72, 2)) < np.linspace(0.2, 1, 12)[labels][:, None]).astype(float)
    low, high = metrics.bootstrap(values, groups, labels, 2, np.random.default_rng(5), resamples=300)
    draws = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=300)
    means = []
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(labels == s) for s in range(12) for _ in range(draw[s])])
        means.append(metrics.overall(metrics.cell_means(values[rows], groups[rows], 2)))
    np.testing.assert_allclose([low, high], np.percentile(means, [2.5, 97.5]), rtol=1e-12)
    assert low < metrics.overall(metrics.cell_means(values, groups, 2)) < high


def test_bootstrap_is_wider_than_the_binomial_when_walks_of_a_person_agree():
    labels = np.repeat(np.arange(10), 20)
    values = np.repeat([1.0, 0] * 5, 20)[:, None]
    low, high = metrics.bootstrap(values, np.zeros(200, int), labels, 1, np.random.default_rng(0))
    assert high - low > 0.4  # 200 independent trials would give 0.14


@pytest.fixture
def pairs():
    rng = np.random.default_rng(4)
    return np.round(rng.normal(1, 0.5, 80), 1), np.round(rng.normal(2, 0.5, 400), 1)  # rounded: many ties


def test_roc_is_scikit_learns(pairs):
    far, tar = metrics.roc(*pairs)
    same = np.repeat([1, 0], [80, 400])
    want_far, want_tar, _ = roc_curve(same, -np.concatenate(pairs), drop_intermediate=False)
    np.testing.assert_allclose(far, want_far, atol=1e-12)
    np.testing.assert_allclose(tar, want_tar, atol=1e-12)
    assert auc(far, tar) == pytest.approx(roc_auc_score(same, -np.concatenate(pairs)))


def test_tar_at_far_against_loops(pairs):
    genuine, impostor = pairs
    far, tar = metrics.roc(genuine, impostor)
    for wanted in (0.1, 0.01, 0.001):
        best = max(
            [(genuine <= t).mean() for t in np.unique(np.concatenate(pairs)) if (impostor <= t).mean() <= wanted],
            default=0,
        )
        assert metrics.tar_at_far(far, tar, wanted) == pytest.approx(best)


def test_equal_error_rate():
    far, tar = metrics.roc(np.array([1, 2, 3, 6.0]), np.array([4, 5, 7, 8.0]))
    assert metrics.equal_error_rate(far, tar) == 0.25
    assert metrics.equal_error_rate(*metrics.roc(np.array([1.0]), np.array([2.0]))) == 0
    assert metrics.equal_error_rate(*metrics.roc(np.array([2.0]), np.array([1.0]))) == 1
    assert metrics.equal_error_rate(*metrics.roc(np.array([1.0]), np.array([1.0]))) == 0.5


def test_equal_error_rate_lies_on_both_curves(pairs):
    far, tar = metrics.roc(*pairs)
    eer = metrics.equal_error_rate(far, tar)
    np.testing.assert_allclose(np.interp(eer, far, tar), 1 - eer, atol=1e-12)


def test_subject_errors():
    first = np.array([[1, 2], [3, 1], [1, 1]], float)
    nearest = np.array([[7, 9], [9, 7], [8, 8]])
    rows = metrics.subject_errors(first, nearest, np.array([7, 7, 8]))
    assert rows == [
        {"subject": 7, "trials": 4, "rank1": 0.5, "most_confused_with": 9},
        {"subject": 8, "trials": 2, "rank1": 1.0, "most_confused_with": None},
    ]
