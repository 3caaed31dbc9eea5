import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(11)
SHAPE = (2, 3, 2)


def inputs(count):
    """Values from a grid of 0.1, so that no two elements to compare lie within a finite difference of each other."""
    return list(0.1 * RNG.permutation(count * 12).reshape(count, *SHAPE).astype(np.float32) - 1)


@pytest.mark.parametrize(
    "param, formula",
    [
        ("", lambda x: sum(x)),
        ("coeff: 1 coeff: -0.5 coeff: 2", lambda x: x[0] - 0.5 * x[1] + 2 * x[2]),
        ("operation: PROD", lambda x: x[0] * x[1] * x[2]),
        ("operation: PROD stable_prod_grad: false", lambda x: x[0] * x[1] * x[2]),
        ("operation: MAX", lambda x: np.maximum(np.maximum(x[0], x[1]), x[2])),
    ],
)
def test_formula_and_gradient(param, formula):
    x = inputs(3)
    if "false" in param:  # the top over the bottom: Caffe has no gradient at 0
        x = [np.where(v == 0, 0.05, v).astype(np.float32) for v in x]
    net = layer_net(f'type: "Eltwise" eltwise_param {{ {param} }}', *[SHAPE] * 3)
    np.testing.assert_allclose(forward(net, *x)[0], formula(x), rtol=1e-5, atol=1e-6)
    check_gradients(net, *x, wrt=(0, 1, 2))


def test_diffs_do_not_share_memory():
    net = layer_net('type: "Eltwise"', (2,), (2,))
    forward(net, [1, 2], [3, 4])
    backward(net, [5, 6])
    a, b, top = (net.blobs[name].diff for name in ("b0", "b1", "t0"))
    a[...] = 0
    np.testing.assert_array_equal(b, [5, 6])
    np.testing.assert_array_equal(top, [5, 6])


def test_of_equals_the_second_wins_and_a_later_one_must_be_larger():
    net = layer_net('type: "Eltwise" eltwise_param { operation: MAX }', (3,), (3,), (3,))
    np.testing.assert_array_equal(forward(net, [1, 2, 0], [1, 0, 0], [1, 2, 5])[0], [1, 2, 5])
    diffs = backward(net, [7, 8, 9])
    np.testing.assert_array_equal(diffs, [[0, 8, 0], [7, 0, 0], [0, 0, 9]])


def test_product_with_zeros_has_a_gradient():
    net = layer_net('type: "Eltwise" eltwise_param { operation: PROD }', (2,), (2,))
    forward(net, [0, 0], [3, 0])
    np.testing.assert_array_equal(backward(net, [1, 1]), [[3, 0], [0, 0]])


@pytest.mark.parametrize(
    "param, shapes, text",
    [
        ("coeff: 1", [(2,), (2,)], "one coefficient per bottom blob; 1 for 2 bottoms"),
        ("operation: PROD coeff: 1 coeff: 2", [(2,), (2,)], "only takes coefficients for summation"),
        ("", [(2, 3), (2, 3), (3, 2)], r"bottom\[2\] has shape \(3, 2\), bottom\[0\] \(2, 3\)"),
        ("", [(2,)], "at least 2 bottom"),
    ],
)
def test_bad_input(param, shapes, text):
    with pytest.raises(caffe.CaffeError, match=text):
        layer_net(f'type: "Eltwise" eltwise_param {{ {param} }}', *shapes)
