import numpy as np
import pytest

from eval.score import distance, exp32, top_k


def test_distance_is_the_squared_distance():
    rng = np.random.default_rng(0)
    probe, gallery = rng.random((5, 7), np.float32) + 100, rng.random((4, 7), np.float32) + 100
    want = [[sum((float(a) - float(b)) ** 2 for a, b in zip(p, g)) for g in gallery] for p in probe]
    np.testing.assert_allclose(distance(probe, gallery), want, rtol=1e-12)  # float64; the common offset cancels


def test_distance_of_equal_vectors_is_not_negative():
    vectors = np.random.default_rng(1).random((20, 256), np.float32)
    found = distance(vectors, vectors)
    assert (found >= 0).all()
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-12)  # rounding of sums near 20


def test_exp32_is_the_original_rule_with_its_ties():
    rng = np.random.default_rng(2)
    probe, gallery = rng.random((6, 256), np.float32), rng.random((50, 256), np.float32)
    want = np.empty((6, 50), np.float32)
    for i, p in enumerate(probe):  # the original's double loop
        for j, g in enumerate(gallery):
            want[i, j] = np.exp(-(np.linalg.norm((p - g) / np.float32(256), axis=0) ** 2))
    # the norm of one row and of many rows may round differently, by one step of float32 near 1
    np.testing.assert_allclose(-exp32(probe, gallery), want, atol=6.0e-8, rtol=0)
    assert exp32(probe, gallery).dtype == np.float32


def test_exp32_ties_where_the_distance_does_not():
    probe = np.zeros((1, 256), np.float32)
    gallery = np.zeros((2, 256), np.float32)
    gallery[:, 0] = 0.002, 0.001
    assert np.argmin(exp32(probe, gallery)[0]) == 0  # both round to 1: the first of the gallery wins
    assert np.argmin(distance(probe, gallery)[0]) == 1


@pytest.mark.parametrize("block, probe_block", [(3, 2), (7, 100), (1000, 4)])
def test_top_k_is_the_sorted_distance(block, probe_block):
    rng = np.random.default_rng(3)
    probe, gallery = rng.random((9, 16), np.float32), rng.random((101, 16), np.float32)
    indices, squares = top_k(probe, gallery, 5, block, probe_block)
    want = np.argsort(distance(probe, gallery), axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(indices, want)
    np.testing.assert_allclose(squares, np.take_along_axis(distance(probe, gallery), want, 1), rtol=1e-10)


def test_top_k_of_a_gallery_sorted_the_wrong_way():
    gallery = np.arange(50, 0, -1, dtype=np.float32)[:, None]  # every block is better than the one before
    indices, _ = top_k(np.zeros((2, 1), np.float32), gallery, 3, block=4)
    np.testing.assert_array_equal(indices, [[49, 48, 47]] * 2)


def test_top_k_of_a_small_gallery_with_duplicates():
    gallery = np.ones((4, 2), np.float32)
    indices, squares = top_k(np.zeros((1, 2), np.float32), gallery, 9, block=2)
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(squares, [[2, 2, 2, 2]])
