import numpy as np
import pytest

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(5)
# Sums of a few dozen float32 terms of order 1 against the same in float64.
CLOSE = dict(rtol=1e-5, atol=1e-6)


def scores(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def softmax(x, axis=1):
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_euclidean():
    net = layer_net('type: "EuclideanLoss"', (3, 2, 4), (3, 8))
    a, b = scores(3, 2, 4), scores(3, 8)
    (loss,) = forward(net, a, b)
    assert loss.shape == ()
    np.testing.assert_allclose(loss, ((a.reshape(3, 8) - b) ** 2).sum() / 6, **CLOSE)
    check_gradients(net, a, b, wrt=(0, 1))


@pytest.mark.parametrize("legacy", [False, True])
def test_contrastive_loss(legacy):
    margin = 3.0
    net = layer_net(
        f'type: "ContrastiveLoss" contrastive_loss_param {{ margin: {margin} legacy_version: {str(legacy).lower()} }}',
        (5, 4),
        (5, 4),
        (5,),
    )
    a, b, similar = scores(5, 4), scores(5, 4), np.array([1, 0, 0, 1, 0], np.float32)
    squared = ((a - b).astype(np.float64) ** 2).sum(1)
    gap = np.maximum(margin - squared, 0) if legacy else np.maximum(margin - np.sqrt(squared), 0) ** 2
    (loss,) = forward(net, a, b, similar)
    np.testing.assert_allclose(loss, np.where(similar, squared, gap).sum() / 10, **CLOSE)
    # The gradient's own 1e-4 beside a distance of order 1 is below the tolerance.
    check_gradients(net, a, b, similar, wrt=(0, 1))


def test_contrastive_gradient_divides_by_distance_plus_1e_4():
    net = layer_net('type: "ContrastiveLoss"', (1, 2), (1, 2), (1,))
    a, b = np.array([[3e-4, 0]], np.float32), np.zeros((1, 2), np.float32)
    forward(net, a, b, np.zeros(1))
    da, db, _ = backward(net, 1)
    want = -(1 - 3e-4) / (3e-4 + 1e-4) * 3e-4
    np.testing.assert_allclose(da, [[want, 0]], rtol=1e-5)
    np.testing.assert_array_equal(db, -da)


def test_softmax_loss_against_formula():
    net = layer_net('type: "SoftmaxWithLoss" loss_param { ignore_label: 2 }', (2, 4, 3), (2, 3))
    x, label = scores(2, 4, 3), np.array([[0, 2, 3], [2, 1, 1]], np.float32)
    p = softmax(x)
    used = [(n, int(label[n, i]), i) for n in range(2) for i in range(3) if label[n, i] != 2]
    (loss,) = forward(net, x, label)
    np.testing.assert_allclose(loss, -np.mean([np.log(p[k]) for k in used]), **CLOSE)
    check_gradients(net, x, label)


@pytest.mark.parametrize(
    "normalization, divisor", [("VALID", 4), ("FULL", 6), ("BATCH_SIZE", 2), ("NONE", 1), (None, 4)]
)
def test_softmax_loss_normalization(normalization, divisor):
    chosen = f"normalization: {normalization}" if normalization else ""
    net = layer_net(f'type: "SoftmaxWithLoss" loss_param {{ ignore_label: 7 {chosen} }}', (2, 4, 3), (2, 3))
    x, label = np.zeros((2, 4, 3)), np.array([[0, 7, 3], [7, 1, 1]])
    (loss,) = forward(net, x, label)
    np.testing.assert_allclose(loss, 4 * np.log(4) / divisor, **CLOSE)


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_names_no_class(label):
    net = layer_net('type: "SoftmaxWithLoss"', (2, 5), (2,))
    with pytest.raises(CaffeError, match=rf"label in bottom\[1\] is {label}; wanted 0\.\.4"):
        forward(net, scores(2, 5), np.array([0, label]))


def infogain_loss(x, label, matrix):
    """-mean over positions of sum_l H[label, l] log softmax(x)[l]"""
    log_p = np.log(softmax(x))
    return -np.mean(
        [(matrix[int(label[n, i])] * log_p[n, :, i]).sum() for n in range(x.shape[0]) for i in range(x.shape[2])]
    )


@pytest.mark.parametrize("from_file", [False, True])
def test_infogain(from_file, tmp_path):
    x, label, matrix = scores(2, 3, 4), RNG.integers(3, size=(2, 4)), np.abs(scores(3, 3))
    if from_file:
        proto = caffe_pb2.BlobProto(num=1, channels=1, height=3, width=3, data=matrix.reshape(-1).tolist())
        (tmp_path / "h.binaryproto").write_bytes(proto.SerializeToString())
        text = f'type: "InfogainLoss" infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}'
        net, bottoms = layer_net(text, (2, 3, 4), (2, 4)), (x, label)
    else:
        net, bottoms = layer_net('type: "InfogainLoss"', (2, 3, 4), (2, 4), (3, 3)), (x, label, matrix)
    (loss,) = forward(net, *bottoms)
    np.testing.assert_allclose(loss, infogain_loss(x, label, matrix), **CLOSE)
    check_gradients(net, *bottoms)


def test_infogain_with_the_identity_is_the_softmax_loss():
    x, label = scores(6, 4), RNG.integers(4, size=6)
    infogain = layer_net('type: "InfogainLoss"', (6, 4), (6,), (4, 4))
    plain = layer_net('type: "SoftmaxWithLoss"', (6, 4), (6,))
    np.testing.assert_allclose(forward(infogain, x, label, np.eye(4)), forward(plain, x, label), **CLOSE)
    np.testing.assert_allclose(backward(infogain, 1)[0], backward(plain, 1)[0], **CLOSE)


def test_infogain_without_a_matrix():
    with pytest.raises(CaffeError, match="Infogain matrix source must be specified"):
        layer_net('type: "InfogainLoss"', (6, 4), (6,))
    with pytest.raises(CaffeError, match=r"infogain matrix has shape \(3, 4\); wanted \(4, 4\)"):
        layer_net('type: "InfogainLoss"', (6, 4), (6,), (3, 4))


def test_sigmoid_cross_entropy():
    net = layer_net('type: "SigmoidCrossEntropyLoss"', (3, 2, 2), (3, 4))
    x, t = scores(3, 2, 2), RNG.random((3, 4)).astype(np.float32)
    s = 1 / (1 + np.exp(-x.reshape(3, 4).astype(np.float64)))
    (loss,) = forward(net, x, t)
    np.testing.assert_allclose(loss, -(t * np.log(s) + (1 - t) * np.log(1 - s)).sum() / 3, **CLOSE)
    check_gradients(net, x, t)


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge(norm):
    net = layer_net(f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}', (4, 3), (4, 1))
    x, label = scores(4, 3), np.array([[2], [0], [1], [1]])
    x[np.abs(np.abs(x) - 1) < 0.05] += 0.1  # off the kink
    margins = np.maximum(0, 1 + np.where(np.arange(3) == label, -x, x))
    (loss,) = forward(net, x, label)
    np.testing.assert_allclose(loss, (margins if norm == "L1" else margins**2).sum() / 4, **CLOSE)
    check_gradients(net, x, label)


def test_multinomial_logistic():
    net = layer_net('type: "MultinomialLogisticLoss"', (5, 4), (5,))
    p, label = RNG.uniform(0.4, 1, (5, 4)).astype(np.float32), np.array([0, 3, 1, 1, 2])
    (loss,) = forward(net, p, label)
    np.testing.assert_allclose(loss, -np.log(p[np.arange(5), label]).mean(), **CLOSE)
    check_gradients(net, p, label)


def test_multinomial_logistic_takes_nothing_below_1e_20():
    net = layer_net('type: "MultinomialLogisticLoss"', (1, 2), (1,))
    (loss,) = forward(net, [[0, 1]], [0])
    np.testing.assert_allclose(loss, -np.log(1e-20), rtol=1e-6)
    np.testing.assert_allclose(backward(net, 1)[0], [[-1e20, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "layer, shapes, message",
    [
        ("SoftmaxWithLoss", [(4, 3), (5,)], r"same first dimension.*\(4, 3\).*\(5,\)"),
        ("SoftmaxWithLoss", [(4, 3, 2), (4,)], r"Number of labels must match.* 8 labels.*\(4,\)"),
        ("SoftmaxWithLoss", [(4,), (4,)], "axis 1 out of range"),
        ("EuclideanLoss", [(4, 3), (4, 2)], r"Inputs must have the same dimension.*\(4, 3\).*\(4, 2\)"),
        ("SigmoidCrossEntropyLoss", [(4, 3), (4,)], "must have the same count"),
        ("HingeLoss", [(4, 3), (4, 2)], "one label for each of the 4 items"),
        ("MultinomialLogisticLoss", [(4, 3), (4, 3)], "one label for each of the 4 items"),
        ("ContrastiveLoss", [(4, 3), (4, 5), (4,)], r"\(4, 3\) and \(4, 5\)"),
        ("ContrastiveLoss", [(4, 3, 2, 2), (4, 3, 2, 2), (4,)], r"wanted the same \(N, C\)"),
        ("ContrastiveLoss", [(4, 3), (4, 3), (5,)], "one value for each of the 4 pairs"),
        ("ContrastiveLoss", [(4, 3), (4, 3)], "takes 3 bottom"),
    ],
)
def test_shapes_that_do_not_fit(layer, shapes, message):
    with pytest.raises(CaffeError, match=message):
        layer_net(f'type: "{layer}"', *shapes)


def test_certain_of_the_wrong_class_costs_87_3365():
    least = np.finfo(np.float32).tiny
    for rows in (1, 3):
        x, labels = np.tile(np.array([200, 0, 100], np.float32), (rows, 1)), np.ones(rows, np.float32)
        net = layer_net('type: "SoftmaxWithLoss"', x.shape, labels.shape)
        assert (
            forward(net, x, labels)[0] == np.float32(-np.log(np.float64(least)))
            and f"{net.blobs['t0'].data:g}" == "87.3365"
        )
        np.testing.assert_allclose(backward(net, 1.0)[0], np.tile(np.array([1, -1, 0]) / rows, (rows, 1)), atol=1e-7)
        net = layer_net('type: "InfogainLoss"', x.shape, labels.shape, (3, 3))
        assert forward(net, x, labels, np.eye(3))[0] == np.float32(-np.log(1e-20))
        net = layer_net('type: "MultinomialLogisticLoss"', x.shape, labels.shape)
        assert forward(net, np.eye(3)[[0] * rows], labels)[0] == np.float32(-np.log(1e-20))


@pytest.mark.parametrize(
    "kind, weights",
    [
        ("SoftmaxWithLoss", "loss_weight: 1 loss_weight: 0"),
        ("SoftmaxWithLoss", ""),
        ("InfogainLoss", ""),
        ("SoftmaxWithLoss", "loss_weight: 1"),
    ],
)
def test_the_second_top_has_the_probabilities(kind, weights, capfd):
    x, labels = scores(2, 4, 3), np.array([[0, 3, 2], [1, 1, 0]], np.float32)
    bottoms = [x, labels] + [np.eye(4)] * (kind == "InfogainLoss")
    net = layer_net(f'type: "{kind}" {weights}', *(b.shape for b in bottoms), tops=2)
    assert ("BVLC Caffe refuses this: two tops" in capfd.readouterr().err) == (weights.count(":") != 2)
    loss, probabilities = forward(net, *bottoms)
    np.testing.assert_allclose(probabilities, softmax(x), **CLOSE)
    one = layer_net(f'type: "{kind}"', *(b.shape for b in bottoms))
    assert loss == forward(one, *bottoms)[0]
    net.blobs["t1"].diff[...] = 7  # plays no part
    np.testing.assert_array_equal(backward(net, 1.0)[0], backward(one, 1.0)[0])


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_takes_nan_for_no_margin(norm):
    x, labels = np.array([[np.nan, 0.5, -3], [2, np.nan, 0]], np.float32), np.array([0, 0], np.float32)
    net = layer_net(f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}', x.shape, labels.shape)
    assert forward(net, x, labels)[0] == {"L1": (1.5 + 1) / 2, "L2": (2.25 + 1) / 2}[norm]
    assert backward(net, 1.0)[0].tolist() == {"L1": [[0, 0.5, 0], [0, 0, 0.5]], "L2": [[0, 1.5, 0], [0, 0, 1]]}[norm]
