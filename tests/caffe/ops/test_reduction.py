import numpy as np
import pytest

from caffe.errors import CaffeError
from tests.caffe.ops.checks import check_gradients, forward, layer_net

RNG = np.random.default_rng(9)


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis):
    x = values(2, 3, 4)
    net = layer_net(f'type: "Softmax" softmax_param {{ axis: {axis} }}', x.shape)
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(forward(net, x)[0], e / e.sum(axis, keepdims=True), rtol=1e-5)  # float32 exp
    check_gradients(net, x)


@pytest.mark.parametrize("operation", ["SUM", "ASUM", "SUMSQ", "MEAN"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_reduction(operation, axis):
    x = values(2, 3, 4)
    x[np.abs(x) < 0.05] = 0.3  # off the kink of |x|
    net = layer_net(f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: 0.7 }}', x.shape)
    flat = x.reshape(*x.shape[: axis % 3], -1).astype(np.float64)
    formula = {"SUM": flat.sum, "ASUM": np.abs(flat).sum, "SUMSQ": (flat**2).sum, "MEAN": flat.mean}[operation]
    np.testing.assert_allclose(forward(net, x)[0], 0.7 * formula(-1), rtol=1e-5, atol=1e-6)  # sums of 24 terms
    check_gradients(net, x)


def accuracy_loops(scores, labels, top_k, ignore):
    """(accuracy, accuracy per class) for scores (N, C, M) and labels (N, M), counted one by one."""
    classes = scores.shape[1]
    hits, counts = np.zeros(classes), np.zeros(classes)
    for n, m in np.ndindex(*labels.shape):
        label = labels[n, m]
        if label != ignore:
            better = sum(scores[n, c, m] >= scores[n, label, m] for c in range(classes) if c != label)
            hits[label] += better < top_k
            counts[label] += 1
    return hits.sum() / max(1, counts.sum()), hits / np.maximum(1, counts)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_accuracy(top_k):
    scores = RNG.integers(0, 5, (3, 4, 6)).astype(np.float32)  # with many ties
    labels = RNG.integers(0, 3, (3, 6))  # class 3 is absent
    labels[0, :2] = 9
    net = layer_net(
        f'type: "Accuracy" accuracy_param {{ top_k: {top_k} ignore_label: 9 }} propagate_down: [false, false]',
        (3, 4, 6),
        (3, 6),
        tops=2,
    )
    share, per_class = accuracy_loops(scores, labels, top_k, ignore=9)
    found, found_per_class = forward(net, scores, labels)
    assert found.shape == () and found_per_class.shape == (4,)
    np.testing.assert_allclose(found, share, rtol=1e-6)  # one division in float32
    np.testing.assert_allclose(found_per_class, per_class, rtol=1e-6)


def test_accuracy_refuses_a_label_that_names_no_class():
    net = layer_net('type: "Accuracy"', (2, 3), (2,))
    with pytest.raises(CaffeError, match=r"label in bottom\[1\] is 3; wanted 0\.\.2"):
        forward(net, values(2, 3), [0, 3])


def largest(row, k):
    """(indices, values) of the k largest, the later one first among equals."""
    order = sorted(range(len(row)), key=lambda i: (row[i], i), reverse=True)[:k]
    return order, [row[i] for i in order]


@pytest.mark.parametrize(
    "shape, extra", [((3, 7), ()), ((3, 2, 4), ()), ((3, 2, 2, 2), (1,)), ((2, 2, 2, 2, 1), (1, 1))]
)
@pytest.mark.parametrize("with_values", [False, True])
def test_argmax_over_all_but_the_first_axis(shape, extra, with_values):
    x = RNG.integers(0, 4, shape).astype(np.float32)
    net = layer_net(f'type: "ArgMax" argmax_param {{ top_k: 3 out_max_val: {str(with_values).lower()} }}', shape)
    (y,) = forward(net, x)
    assert y.shape == (shape[0], 1 + with_values, 3, *extra)
    for row, found in zip(x.reshape(shape[0], -1), y.reshape(shape[0], -1, 3)):
        np.testing.assert_array_equal(found, largest(row, 3)[: 1 + with_values])


@pytest.mark.parametrize("with_values", [False, True])
def test_argmax_along_an_axis(with_values):
    x = RNG.integers(0, 3, (2, 4, 3)).astype(np.float32)
    net = layer_net(
        f'type: "ArgMax" argmax_param {{ axis: -2 top_k: 2 out_max_val: {str(with_values).lower()} }}', x.shape
    )
    (y,) = forward(net, x)
    assert y.shape == (2, 2, 3)
    for n, m in np.ndindex(2, 3):
        np.testing.assert_array_equal(y[n, :, m], largest(x[n, :, m], 2)[with_values])


@pytest.mark.parametrize(
    "layer, shapes, message",
    [
        ('type: "Accuracy" accuracy_param { top_k: 4 }', [(2, 3), (2,)], "top_k must be .* number of classes: 4, 3"),
        ('type: "Accuracy"', [(2, 3), (3,)], "Number of labels must match number of predictions"),
        ('type: "ArgMax" argmax_param { top_k: 4 axis: 1 }', [(5, 3)], r"top_k is 4; wanted 1\.\.3"),
        ('type: "Softmax" softmax_param { axis: 2 }', [(5, 3)], "axis 2 out of range"),
        ('type: "Reduction" reduction_param { axis: -3 }', [(5, 3)], "axis -3 out of range"),
    ],
)
def test_parameters_that_do_not_fit(layer, shapes, message):
    with pytest.raises(CaffeError, match=f"layer 'layer'.*{message}"):
        layer_net(layer, *shapes)


def test_argmax_of_a_blob_with_one_axis():
    net = layer_net('type: "ArgMax" argmax_param { out_max_val: true }', (3,))
    np.testing.assert_array_equal(forward(net, [5, -1, 2])[0], [[[0], [5]], [[0], [-1]], [[0], [2]]])
