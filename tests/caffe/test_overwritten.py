"""A layer in place on the top of another one: Caffe's backward of that one reads what has been written over its top.

The wanted values are Caffe's formulas (sigmoid_layer.cpp and so on) in NumPy: of g, the gradient of the layer's top, of
x, what the bottom holds, and of y, what the top holds when backward runs."""

import numpy as np
import pytest

from tests.caffe.test_from_blobs import layer, net_copy, net_of, values

SHAPE = (2, 3, 2, 2)


def neighbours(v):
    """Sums over three channels."""
    wide = np.pad(v, [(0, 0), (1, 1), (0, 0), (0, 0)])
    return wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]


def lrn(x, y, g):
    scale = 1 + 0.5 / 3 * neighbours(x * x)
    return g * scale**-0.75 - 2 * 0.5 * 0.75 / 3 * x * neighbours(g * y / scale)


def mvn(x, y, g):
    mean = lambda v: v.mean((2, 3), keepdims=True)  # noqa: E731
    return (g - mean(g) - y * mean(g * y)) / (x.std((2, 3), keepdims=True) + 1e-9)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


APART = {
    "Sigmoid": ("", lambda x, y, g: g * y * (1 - y)),
    "TanH": ("", lambda x, y, g: g * (1 - y * y)),
    "Exp": ("exp_param { scale: 0.5 }", lambda x, y, g: g * 0.5 * y),
    "ELU": ("elu_param { alpha: 0.7 }", lambda x, y, g: g * np.where(x > 0, 1, 0.7 + y)),
    "Power": ("power_param { power: 3 shift: 4 scale: 0.5 }", lambda x, y, g: g * 1.5 * y / (4 + 0.5 * x)),
    "Swish": ("swish_param { beta: 1.5 }", lambda x, y, g: g * (1.5 * y + sigmoid(1.5 * x) * (1 - 1.5 * y))),
    "Softmax": ("", lambda x, y, g: (g - (g * y).sum(1, keepdims=True)) * y),
    "LRN": ("lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 }", lrn),
    "MVN": ("", mvn),
    # These read the bottom, which nobody has overwritten, or what they have kept.
    "ReLU": ("relu_param { negative_slope: 0.2 }", lambda x, y, g: g * np.where(x > 0, 1, 0.2)),
    "Clip": ("clip_param { min: -0.5 max: 0.5 }", lambda x, y, g: g * (np.abs(x) <= 0.5)),
    "BNLL": ("", lambda x, y, g: g * sigmoid(x)),
    "Log": ("log_param { shift: 9 }", lambda x, y, g: g / (9 + x)),
    "Power ": ("power_param { power: 2 shift: 4 }", lambda x, y, g: g * 2 * (4 + x)),
    "PReLU": ("prelu_param { filler { value: 0.3 } }", lambda x, y, g: g * np.where(x > 0, 1, 0.3)),
}
# In place the bottom is the top. Swish keeps its sigmoids, PReLU its bottom, Dropout in TEST nothing.
IN_PLACE = {kind: case for kind, case in APART.items() if kind not in ("Swish", "LRN", "MVN", "PReLU", "Power", "Log")}
WRITERS = {
    "Scale": "scale_param { filler { value: -0.5 } bias_term: true bias_filler { value: 0.25 } }",
    "ReLU": "relu_param { negative_slope: -0.5 }",
}


def run(text, end, frugal, looked):
    """The net of `text` after a backward pass: it, and x, g: the data's values and the gradient of blob `end`."""
    net = net_of(layer("cut", "Power", "data", "x") + text, shape=SHAPE)
    x, g = values(*SHAPE), values(*SHAPE)
    net.blobs["data"].data[...] = x
    if frugal:
        net.frugal()
    for _ in range(2):  # the second pass finds what the first one has left
        net.executor.forward()
        if looked:
            [(k, v.data.shape) for k, v in net.blobs.items()]
        net.blobs[end].diff[...] = g
        net.executor.backward(at_once=not looked)
    return net, x, g


MANNERS = pytest.mark.parametrize("frugal, looked", [(False, False), (False, True), (True, False)])


@pytest.mark.parametrize("kind", APART)
@pytest.mark.parametrize("writer", WRITERS)
@MANNERS
def test_what_overwrites_the_top_is_what_backward_reads(kind, writer, frugal, looked, either_memory):
    options, formula = APART[kind]
    text = layer("f", kind.strip(), "x", "y", options) + layer("w", writer, "y", more=WRITERS[writer])
    net, x, g = run(text + layer("end", "Power", "y", "end"), "end", frugal, looked)
    y = net_copy(net, "y") if not frugal else written(kind, options, writer, x)
    g = g * (-0.5 if writer == "Scale" else np.where(y > 0, 1, -0.5))
    np.testing.assert_allclose(net.blobs["data"].diff, formula(x, y, g), rtol=1e-4, atol=1e-5)


def written(kind, options, writer, x):
    """What the two layers leave in the blob, by a net that is only run forward."""
    text = layer("f", kind.strip(), "data", "y", options) + layer("w", writer, "y", more=WRITERS[writer])
    net = net_of(text, shape=SHAPE)
    net.blobs["data"].data[...] = x
    net.forward()
    return net.blobs["y"].data.copy()


@pytest.mark.parametrize("kind", IN_PLACE)
@MANNERS
def test_of_two_layers_in_place_the_first_reads_what_the_second_has_written(kind, frugal, looked, either_memory):
    options, formula = IN_PLACE[kind]
    text = layer("f", kind.strip(), "x", more=options) + layer("w", "Scale", "x", more=WRITERS["Scale"])
    net, x, g = run(text + layer("end", "Power", "x", "end"), "end", frugal, looked)
    y = written(kind, options, "Scale", x)
    want = formula(y, y, -0.5 * g)
    if kind == "Power ":
        want = (2 * (4 + y)) ** 2  # see test_power_and_log_in_place
    np.testing.assert_allclose(net.blobs["data"].diff, want, rtol=1e-4, atol=1e-5)


def test_swish_in_place_keeps_its_sigmoids(either_memory):
    text = layer("f", "Swish", "x") + layer("w", "Scale", "x", more=WRITERS["Scale"])
    net, x, g = run(text + layer("end", "Power", "x", "end"), "end", False, False)
    y = written("Swish", "", "Scale", x)
    np.testing.assert_allclose(net.blobs["data"].diff, -0.5 * g * (y + sigmoid(x) * (1 - y)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind, more, slope",
    [
        ("Power", "power_param { scale: 3 }", lambda y: 3 + 0 * y),
        ("Power", "power_param { power: 2 scale: 2 shift: 1 }", lambda y: 4 * (1 + 2 * y)),
        ("Power", "power_param { power: 3 }", lambda y: 3 + 0 * y),  # power y / x, and x is y
        ("Power", "power_param { scale: 0 shift: 2 }", lambda y: 0 * y),
        ("Log", "log_param { shift: 9 scale: 2 }", lambda y: 2 / (9 + 2 * y)),
    ],
)
def test_power_and_log_in_place_take_their_slope_for_the_gradient(kind, more, slope, capfd):
    """Caffe writes the slope over the top's gradient, and multiplies it by that."""
    net, _, _ = run(layer("f", kind, "x", more=more) + layer("end", "Power", "x", "end"), "end", False, False)
    assert "layer 'f'" in (told := capfd.readouterr().err) and "give it a top of its own" in told
    np.testing.assert_allclose(net.blobs["data"].diff, slope(net_copy(net, "x")) ** 2, rtol=1e-4)


def test_nobody_is_told_where_no_gradient_comes_by(capfd):
    net_of(layer("f", "Power", "data", more="power_param { scale: 2 }"), force=False)
    assert not capfd.readouterr().err


def two(operation, more=""):
    return (
        layer("k", "Power", "data", "b", "power_param { scale: 2 shift: 1 }")
        + layer("other", "Power", "b", "other")
        + f'layer {{ name: "f" type: "Eltwise" bottom: "x" bottom: "other" top: "x" '
        f"eltwise_param {{ operation: {operation} {more} }} }}" + layer("end", "Power", "x", "end")
    )


@pytest.mark.parametrize(
    "operation, more, told, formula",
    [
        ("SUM", "", False, lambda a, b, y, g: (g, g)),
        ("SUM", "coeff: 0.5 coeff: 2", True, lambda a, b, y, g: (0.5 * g, 2 * 0.5 * g)),
        ("MAX", "", True, lambda a, b, y, g: (g * (a > b), 0 * g)),
        ("PROD", "", True, lambda a, b, y, g: (b * b, y * b * b)),
        ("PROD", "stable_prod_grad: false", True, lambda a, b, y, g: (1 + 0 * g, y / b)),
    ],
)
@MANNERS
def test_eltwise_in_place(operation, more, told, formula, frugal, looked, capfd):
    net, x, g = run(two(operation, more), "end", frugal, looked)
    assert ("give it a top of its own" in capfd.readouterr().err) == told
    b = 2 * x + 1
    y = {"PROD": x * b, "MAX": np.maximum(x, b)}.get(operation, x + b)
    da, db = formula(x, b, y, g)
    np.testing.assert_allclose(net.blobs["data"].diff, da + 2 * db, rtol=1e-4, atol=1e-5)


@MANNERS
def test_product_that_divides(frugal, looked):
    """stable_prod_grad: false is top over bottom: what is written over the top counts, and 0 / 0 is no number."""
    text = two("PROD", "stable_prod_grad: false").replace('top: "x" eltwise', 'top: "y" eltwise')
    text = text.replace('bottom: "x" top: "end"', 'bottom: "y" top: "end"')
    writer = layer("w", "Scale", "y", more=WRITERS["Scale"])
    net, x, g = run(text.replace('layer { name: "end"', writer + 'layer { name: "end"'), "end", frugal, looked)
    b = 2 * x + 1
    y = -0.5 * x * b + 0.25
    np.testing.assert_allclose(net.blobs["data"].diff, -0.5 * g * (y / x + 2 * y / b), rtol=1e-3, atol=1e-4)
    if not frugal:
        net.blobs["data"].data[0, 0, 0, 0] = 0
        net.forward()
        net.blobs["x"].data[0, 0, 0, 0] = net.blobs["y"].data[0, 0, 0, 0] = 0
        net.backward()
        assert np.isnan(net.blobs["data"].diff).sum() == 1


@pytest.mark.parametrize("kind", ["Softmax", "Swish", "LRN", "MVN", "Sigmoid"])
@pytest.mark.parametrize("looked", [False, True])
def test_what_users_write_into_the_top_counts(kind, looked, either_memory):
    options, formula = APART[kind]
    net, x, g = run(layer("f", kind, "x", "y", options) + layer("end", "Power", "y", "end"), "end", False, looked)
    net.blobs["y"].data[...] = y = values(*SHAPE)
    net.backward()
    np.testing.assert_allclose(net.blobs["data"].diff, formula(x, y, g), rtol=1e-4, atol=1e-5)


def test_a_cube_at_zero_has_no_gradient_in_caffe():
    """power y / x, whether somebody has looked or not."""
    for looked in (False, True):
        net, x, g = run(
            layer("f", "Power", "x", "y", "power_param { power: 3 }") + layer("end", "Power", "y", "end"),
            "end",
            False,
            looked,
        )
        net.blobs["data"].data[...] = np.where(x > 0, x, 0)
        net.executor.forward()
        net.executor.backward()
        np.testing.assert_allclose(net.blobs["data"].diff, np.where(x > 0, 3 * x * x * g, np.nan), rtol=1e-4)


@pytest.mark.parametrize("first, told", [("Sigmoid", True), ("InnerProduct", False), ("BNLL", False)])
def test_told_where_a_view_lies_between(first, told, capfd):
    more = "inner_product_param { num_output: 3 }" if first == "InnerProduct" else ""
    net_of(layer("s", first, "data", "s", more) + layer("v", "Flatten", "s", "v") + layer("r", "Dropout", "v"))
    assert ("layer 'r' (Dropout): works in place on memory that layer 's' reads" in capfd.readouterr().err) == told


def test_ordinary_nets_are_run_as_ever():
    text = layer("c", "BatchNorm", "data", "c") + layer("s", "Scale", "c") + layer("r", "ReLU", "c")
    net = net_of(text + layer("d", "Dropout", "c") + layer("p", "PReLU", "c", "p") + layer("q", "ReLU", "p"))
    assert not any(node.duty.rereads for node in net.nodes)
