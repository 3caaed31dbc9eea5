import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from eval.baseline import LinearDiscriminants, energy_image, principal_components


def same_up_to_sign(found, want, rtol):
    signs = np.sign((found * want).sum(axis=0))
    np.testing.assert_allclose(found * signs, want, rtol=rtol, atol=rtol * np.abs(want).max())


@pytest.mark.parametrize("shape", [(30, 8), (9, 25)])  # more rows than columns, and the other way round
def test_principal_components_are_scikit_learns(shape):
    vectors = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    found = principal_components(vectors - vectors.mean(axis=0), 4)
    same_up_to_sign(found, PCA(4).fit(vectors).components_.T, rtol=1e-8)


def test_discriminants_are_scikit_learns():
    rng = np.random.default_rng(1)
    labels = np.repeat([3, 5, 9, 11], [9, 12, 7, 10])
    vectors = rng.normal(size=(38, 6)) @ rng.normal(size=(6, 6)) + labels[:, None] * rng.normal(size=6)
    new = rng.normal(size=(5, 6))
    found = LinearDiscriminants(vectors, labels)(new)
    assert found.shape == (5, 3)
    reference = LinearDiscriminantAnalysis(solver="eigen").fit(vectors, labels)
    want = reference.transform(new)
    # scikit-learn scales directions by the within covariance, we by the scatter: one constant a direction
    found, want = (x - x.mean(axis=0) for x in (found, want))
    assert np.abs(np.sum(found * want, axis=0)) == pytest.approx(
        np.linalg.norm(found, axis=0) * np.linalg.norm(want, axis=0), rel=1e-3
    )  # the ridge turns them slightly


def test_discriminants_find_the_direction_that_tells_people_apart():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(6), 8)
    vectors = rng.normal(size=(48, 40)) * 10
    vectors[:, 7] = labels + 0.05 * rng.normal(size=48)
    found = LinearDiscriminants(vectors, labels)(vectors)
    spread = [found[labels == k, 0].std() for k in range(6)]
    centres = np.sort([found[labels == k, 0].mean() for k in range(6)])
    assert max(spread) < np.diff(centres).min() / 2


def test_energy_image():
    silhouettes = np.array([[[0, 1]], [[1, 1]], [[0, 1]], [[0, 0]]], bool)
    np.testing.assert_array_equal(energy_image(silhouettes), [[0.25, 0.75]])
