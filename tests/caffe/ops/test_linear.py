import numpy as np
import pytest

from caffe.errors import CaffeError
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(7)
# Sums of at most a few dozen float32 products of order 1.
CLOSE = dict(rtol=1e-5, atol=1e-5)


def values(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def set_params(net):
    """Give the layer's parameters random values and return them."""
    blobs = net.params["layer"]
    for blob in blobs:
        blob.data[...] = values(*blob.shape)
    return [blob.data.copy() for blob in blobs]


def inner_product(rest):
    return f'type: "InnerProduct" inner_product_param {{ {rest} }}'


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("axis, inputs, top", [(1, 12, (2, 5)), (2, 4, (2, 3, 5)), (-1, 4, (2, 3, 5)), (0, 24, (5,))])
def test_inner_product(axis, inputs, top, transpose):
    net = layer_net(inner_product(f"num_output: 5 axis: {axis} transpose: {str(transpose).lower()}"), (2, 3, 4))
    weight, bias = set_params(net)
    assert weight.shape == ((inputs, 5) if transpose else (5, inputs)) and bias.shape == (5,)
    x = values(2, 3, 4)
    (y,) = forward(net, x)
    want = x.reshape(-1, inputs) @ (weight if transpose else weight.T) + bias
    np.testing.assert_allclose(y, want.reshape(top), **CLOSE)
    check_gradients(net, x)


def test_inner_product_without_bias():
    net = layer_net(inner_product("num_output: 3 bias_term: false"), (2, 4))
    (weight,) = set_params(net)
    x = values(2, 4)
    np.testing.assert_allclose(forward(net, x)[0], x @ weight.T, **CLOSE)
    check_gradients(net, x)


def test_inner_product_refuses_another_input_size():
    net = layer_net(inner_product("num_output: 3"), (2, 4))
    net.blobs["b0"].reshape(5, 4)
    net.forward()
    assert net.blobs["t0"].shape == (5, 3)
    net.blobs["b0"].reshape(5, 6)
    with pytest.raises(CaffeError, match=r"bottom shape \(5, 6\) has 6 values.*\(3, 4\) want 4"):
        net.forward()


def test_embed_adds_up_repeated_indices():
    net = layer_net('type: "Embed" embed_param { num_output: 2 input_dim: 4 }', (2, 3))
    weight, bias = set_params(net)
    index = np.array([[3, 0, 3], [1, 3, 0]])
    (y,) = forward(net, index)
    np.testing.assert_allclose(y, weight[index] + bias, **CLOSE)
    grad = values(2, 3, 2)
    backward(net, grad)
    want = np.zeros((4, 2))
    np.add.at(want, index, grad)
    found = net.params["layer"]
    np.testing.assert_allclose(found[0].diff, want, **CLOSE)
    np.testing.assert_allclose(found[1].diff, grad.sum((0, 1)), **CLOSE)


def test_embed_refuses_a_row_it_does_not_have():
    net = layer_net('type: "Embed" embed_param { num_output: 2 input_dim: 4 bias_term: false }', (3,))
    with pytest.raises(CaffeError, match=r"index in bottom\[0\] is 4; wanted 0\.\.3"):
        forward(net, [0, 4, 1])


@pytest.mark.parametrize(
    "options, shape, spread",
    [
        ("", (3,), (1, 3, 1, 1)),
        ("axis: 0 num_axes: 2", (2, 3), (2, 3, 1, 1)),
        ("axis: -2 num_axes: -1", (4, 5), (1, 1, 4, 5)),
        ("num_axes: 0", (), (1, 1, 1, 1)),
    ],
)
def test_scale_and_bias(options, shape, spread):
    x = values(2, 3, 4, 5)
    scale = layer_net(f'type: "Scale" scale_param {{ {options} bias_term: true }}', x.shape)
    np.testing.assert_array_equal(forward(scale, x)[0], x)  # scale 1 and bias 0 to begin with
    s, b = set_params(scale)
    assert s.shape == b.shape == shape
    np.testing.assert_allclose(forward(scale, x)[0], x * s.reshape(spread) + b.reshape(spread), **CLOSE)
    # Gradients of the parameters are sums of up to 120 terms; the step's own error stays below the bound.
    check_gradients(scale, x)
    bias = layer_net(f'type: "Bias" bias_param {{ {options} }}', x.shape)
    (b,) = set_params(bias)
    assert b.shape == shape
    np.testing.assert_allclose(forward(bias, x)[0], x + b.reshape(spread), **CLOSE)
    check_gradients(bias, x)


@pytest.mark.parametrize("layer", ["Scale", "Bias"])
def test_the_operand_may_be_a_second_bottom(layer):
    x, operand = values(2, 3, 4), values(3, 4)
    net = layer_net(f'type: "{layer}" {layer.lower()}_param {{ axis: 1 }}', x.shape, operand.shape)
    assert "layer" not in net.params
    (y,) = forward(net, x, operand)
    np.testing.assert_allclose(y, x * operand if layer == "Scale" else x + operand, **CLOSE)
    check_gradients(net, x, operand, wrt=(0, 1))


@pytest.mark.parametrize(
    "layer, shapes, message",
    [
        ('type: "Scale" scale_param { axis: 2 num_axes: 3 }', [(2, 3, 4)], r"past bottom\[0\]'s shape \(2, 3, 4\)"),
        ('type: "Bias" bias_param { num_axes: -2 }', [(2, 3)], "num_axes is -2"),
        ('type: "Scale"', [(2, 3, 4), (4,)], r"\(3,\) from axis 1 on; it wants to be \(4,\)"),
        ('type: "Bias" bias_param { axis: 3 }', [(2, 3, 4)], "axis 3 out of range"),
        (inner_product("num_output: 2 axis: 2"), [(2, 3)], "axis 2 out of range"),
        (inner_product(""), [(2, 3)], "num_output must be at least 1"),
        ('type: "Embed" embed_param { num_output: 2 }', [(2,)], "input_dim is 0"),
    ],
)
def test_parameters_that_do_not_fit(layer, shapes, message):
    with pytest.raises(CaffeError, match=f"layer 'layer'.*{message}"):
        layer_net(layer, *shapes)


@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_in_place_the_parameters_get_the_gradient_of_the_top(kind):
    """The bottom's diff is written over the top's where somebody holds the array, and the bias's is the top's."""
    extra = (
        "scale_param { axis: 0 num_axes: -1 bias_term: true }"
        if kind == "Scale"
        else "bias_param { axis: 0 num_axes: -1 }"
    )
    x, diff = RNG.normal(size=(2, 3)).astype(np.float32), RNG.normal(size=(2, 3)).astype(np.float32)
    net = layer_net(f'type: "{kind}" {extra}', x.shape, in_place=True)
    net.params["layer"][0].data[...] = 3
    forward(net, x)
    held = net.blobs["b0"].diff
    backward(net, diff)
    np.testing.assert_allclose(held, diff * (3 if kind == "Scale" else 1), rtol=1e-6)
    np.testing.assert_allclose(net.params["layer"][-1].diff, diff, rtol=1e-6)


def test_the_bias_of_a_scale_by_a_bottom_keeps_its_shape():
    net = layer_net('type: "Scale" scale_param { axis: 0 bias_term: true }', (2, 3), (2, 3))
    for name in ("b0", "b1"):
        net.blobs[name].reshape(1, 3)
    with pytest.raises(CaffeError, match=r"bottom\[1\] has shape \(1, 3\); wanted that of the bias, \(2, 3\)"):
        net.reshape()
