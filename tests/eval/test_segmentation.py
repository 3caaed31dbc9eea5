import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from eval.segmentation import agreement, boundary_f, outline


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    return rng.random((4, 9, 7)) < 0.5, rng.random((4, 9, 7)) < 0.5


def test_iou_and_accuracy_are_scikit_learns(masks):
    found = agreement(*masks)
    for row, predicted, truth in zip(found, *masks):
        assert row[0] == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))
        assert row[1] == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))


def test_empty_masks():
    empty, full = np.zeros((1, 5, 5), bool), np.zeros((1, 5, 5), bool)
    full[0, 2, 2] = True
    np.testing.assert_array_equal(agreement(empty, empty), [[1, 1, 1]])
    np.testing.assert_array_equal(agreement(empty, full)[0, [0, 2]], [0, 0])
    np.testing.assert_array_equal(agreement(full, empty)[0, [0, 2]], [0, 0])


def brute_force_f(predicted, truth):
    def line(mask):
        return [
            (y, x)
            for y in range(9)
            for x in range(7)
            if mask[y, x]
            and any(
                0 <= y + dy < 9 and 0 <= x + dx < 7 and not mask[y + dy, x + dx]
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
            )
        ]

    def near(some, others):
        return sum(any(abs(y - v) + abs(x - u) <= 1 for v, u in others) for y, x in some) / len(some)

    p, t = line(predicted), line(truth)
    precision, recall = near(p, t), near(t, p)
    return 2 * precision * recall / (precision + recall)


def test_boundary_f_against_loops():
    rng = np.random.default_rng(2)
    for _ in range(5):
        predicted, truth = rng.random((2, 9, 7)) < 0.4
        assert boundary_f(predicted, truth) == pytest.approx(brute_force_f(predicted, truth))


def test_boundary_f_of_shifted_squares():
    square = np.zeros((20, 20), bool)
    square[5:15, 5:15] = True
    assert boundary_f(square, square) == 1
    assert boundary_f(np.roll(square, 1, axis=1), square) == 1  # within one pixel
    assert boundary_f(np.roll(square, 3, axis=1), square) < 0.8
    assert outline(square.astype(np.uint8)).sum() == 36
