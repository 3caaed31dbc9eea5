"""Layer types of users: a class with compute, options of its own, by an import or by --layers."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe import CaffeError, options
from caffe.computed_layer import SAID
from caffe.layer import REGISTRY
from caffe.proto import caffe_pb2
from caffe.read import parse_text
from caffe.text import message_to_text
from tests.caffe.ops.checks import check_gradients, forward, layer_net

ROOT = Path(__file__).resolve().parents[2]
X = np.linspace(-2, 2, 24).reshape(2, 3, 4).astype(np.float32)

MODULE = '''
import torch
import caffe


@caffe.layer("TestMish", test_mish_param=dict(beta=1.0))
class Mish:
    """x tanh(log(1 + exp(beta x)))"""

    num_bottom = num_top = 1

    def compute(self, x):
        return x * torch.tanh(torch.nn.functional.softplus(self.test_mish_param.beta * x))
'''
NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4 weight_filler {
  type: "xavier" } } }
layer { name: "mish" type: "TestMish" bottom: "ip" top: "y" test_mish_param { beta: 2 } }
"""


@pytest.fixture(scope="module")
def my_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "test_mish_module.py").write_text(MODULE)
    (folder / "net.prototxt").write_text(NET)
    sys.path.insert(0, str(folder))
    from caffe.user_layer import load_layers

    load_layers(["test_mish_module"])
    yield folder
    sys.path.remove(str(folder))
    del REGISTRY["TestMish"]


def mish(x, beta=1.0):
    return x * np.tanh(np.log1p(np.exp(beta * x)))


def test_computes_with_its_options_and_defaults(my_module):
    for text, beta in (("test_mish_param { beta: 2 }", 2.0), ("", 1.0)):
        net = layer_net(f'type: "TestMish" {text}', X.shape)
        np.testing.assert_allclose(forward(net, X)[0], mish(X, beta), rtol=1e-5, atol=1e-6)
        check_gradients(net, X)


def test_binary_text_and_net_spec_hold_the_options(my_module):
    net = parse_text(NET.encode(), caffe_pb2.NetParameter, "net")
    again = caffe_pb2.NetParameter.FromString(net.SerializeToString())
    assert again.layer[2].Extensions[options.extension("test_mish_param")].beta == 2
    assert "  test_mish_param {\n    beta: 2\n  }" in message_to_text(again)
    assert parse_text(message_to_text(again).encode(), caffe_pb2.NetParameter, "again") == net
    spec = caffe.NetSpec()
    spec.x = caffe.layers.Input(shape=dict(dim=[2, 3]))
    spec.y = caffe.layers.TestMish(spec.x, test_mish_param=dict(beta=0.5))
    spec.z = caffe.layers.TestMish(spec.y, beta=0.25)
    layers = spec.to_proto().layer
    assert [layer.Extensions[options.extension("test_mish_param")].beta for layer in layers[1:]] == [0.5, 0.25]


def test_goes_to_torch(my_module):
    net = caffe.Net(str(my_module / "net.prototxt"), caffe.TEST)
    tops = caffe.to_torch(net)(torch.from_numpy(X))
    net.blobs["x"].data[...] = X
    np.testing.assert_allclose(tops["y"].detach().numpy(), net.forward()["y"], rtol=1e-5, atol=1e-6)


def test_parameters_without_a_filler_go_to_torch():
    @caffe.layer("TestOffset")
    class Offset:
        def configure(self, bottom):
            self.add_blob(bottom[0].shape[1:])

        def compute(self, x):
            return x + self.weights[0]

    try:
        net = layer_net('type: "TestOffset"', X.shape)
        net.params["layer"][0].data[...] = 3
        (top,) = caffe.to_torch(net)(torch.from_numpy(X)).values()
        np.testing.assert_array_equal(top.detach().numpy(), X + 3)
    finally:
        del REGISTRY["TestOffset"]


@pytest.mark.medium
def test_command_and_export_take_the_module(my_module, tmp_path):
    net = caffe.Net(str(my_module / "net.prototxt"), caffe.TEST)
    net.save(str(tmp_path / "net.caffemodel"))

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=my_module, env=environment, capture_output=True, text=True, timeout=300)

    timed = ["-m", "caffe", "time", "--model=net.prototxt", "--iterations=1"]
    done = run(*timed, "--layers=test_mish_module")
    assert done.returncode == 0 and "mish\tforward" in done.stderr, done.stderr
    done = run(*timed)
    assert done.returncode == 134 and 'no field named "test_mish_param"' in done.stderr
    done = run(*timed, "--layers=no_such_module")
    assert done.returncode == 1 and "--layers: cannot import Python module 'no_such_module'" in done.stderr
    pytest.importorskip("onnxscript")
    files = [
        "--model",
        "net.prototxt",
        "--weights",
        str(tmp_path / "net.caffemodel"),
        "--onnx",
        str(tmp_path / "a.onnx"),
    ]
    done = run(str(ROOT / "tools" / "export.py"), *files, "--layers", "test_mish_module")
    assert done.returncode == 0 and "checked in onnxruntime" in done.stdout, done.stderr


def test_parameters_and_several_bottoms():
    @caffe.layer("TestBlend", test_blend_param=dict(axis=1, names=[str], limit=float, clip=False))
    class Blend:
        num_bottom = 2

        def configure(self, bottom):
            self.add_blob((bottom[0].shape[1],), caffe_pb2.FillerParameter(value=0.25))

        def compute(self, a, b):
            w = self.weights[0].reshape(-1, 1)
            return w * a + (1 - w) * b

    try:
        net = layer_net('type: "TestBlend"', X.shape, X.shape)
        np.testing.assert_allclose(forward(net, X, -X)[0], -0.5 * X, rtol=1e-6)
        check_gradients(net, X, -X, wrt=(0, 1))
        own = net.layer_dict["layer"].own.test_blend_param
        assert (own.axis, list(own.names), own.HasField("limit"), own.clip) == (1, [], False, False)
        with pytest.raises(CaffeError, match="takes 2 bottom"):
            layer_net('type: "TestBlend"', X.shape)
        assert REGISTRY["TestBlend"].type == "TestBlend" and not REGISTRY["TestBlend"].capturable
        assert Blend.__mro__ == (Blend, object)
    finally:
        del REGISTRY["TestBlend"]


@pytest.fixture
def of_type():
    """of_type(compute, tops=1, **more) is a net around one layer of a class with these methods."""

    def made(compute, tops=1, **more):
        REGISTRY.pop("TestGiven", None)
        caffe.layer("TestGiven")(type("Given", (), dict(compute=compute, **more)))
        return layer_net('type: "TestGiven"', X.shape, tops=tops)

    yield made
    REGISTRY.pop("TestGiven", None)


@pytest.mark.parametrize(
    "compute, tops, told",
    [
        (lambda self, x: None, 1, r"gives 1 value\(s\) \(NoneType\); wanted 1 tensor"),
        (lambda self, x: 3.0, 1, r"gives 1 value\(s\) \(float\)"),
        (lambda self, x: np.zeros(x.shape), 1, r"gives 1 value\(s\) \(ndarray\)"),
        (lambda self, x: x, 2, r"gives 1 value\(s\) \(Tensor\); wanted 2 tensor"),
    ],
)
def test_what_is_no_top(compute, tops, told, of_type):
    with pytest.raises(CaffeError, match=f"layer 'layer' .*its compute {told}"):
        of_type(compute, tops)


@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.bool])
def test_tops_of_other_kinds_become_single(kind, of_type):
    top = forward(of_type(lambda self, x: x.to(kind)), np.full(X.shape, 2.0))[0]
    assert top.dtype == np.float32 and np.all(top == (1 if kind == torch.bool else 2))


def test_numpy_inside(of_type):
    """It has no values while shapes are found."""
    net = of_type(lambda self, x: torch.from_numpy(np.tanh(x.detach().numpy())))
    np.testing.assert_allclose(forward(net, X)[0], np.tanh(X), rtol=1e-5)


def test_fillers_in_short(of_type):
    def configure(self, bottom):
        self.add_blob((2,), dict(type="constant", value=3))
        self.add_blob((1,))

    net = of_type(lambda self, x: x * self.weights[0].sum() + self.weights[1], configure=configure)
    np.testing.assert_allclose(forward(net, X)[0], 6 * X, rtol=1e-6)


def test_parameters_that_are_no_blobs_are_told(of_type, capfd):
    def configure(self, bottom):
        self.linear = torch.nn.Linear(X.shape[-1], 1)

    of_type(lambda self, x: self.linear(x), configure=configure)
    assert "its linear, a Linear of torch, has parameters that are neither learned nor saved" in capfd.readouterr().err


CAFFES = {"compute", "configure", "top_shapes"}  # and what ComputedLayer says of a class: num_bottom and the like


def names_of_the_runtime():
    """All that a layer inside has, and what other names users like."""
    layer = layer_net('type: "InnerProduct" inner_product_param { num_output: 1 }', X.shape).layer_dict["layer"]
    inside = {name for name in (*dir(layer), *vars(layer)) if not name.startswith("__")}
    return sorted(
        (inside | {"own", "own_class", "net", "node", "data", "cfg", "test_taken_param"}) - CAFFES - set(SAID)
    )


def test_shapes_of_what_needs_values():
    """Operations that do not run on tensors without values: ctc_loss, item()."""

    @caffe.layer("TestWarpCTC")
    class WarpCTC:
        num_bottom, num_top = 2, 1
        no_gradient = (1,)

        def compute(self, x, labels):
            steps, items, _ = x.shape
            wanted, long = labels.long(), torch.full((items,), steps)
            return torch.nn.functional.ctc_loss(x.log_softmax(2), wanted, long, (wanted > 0).sum(1))

    try:
        net = layer_net('type: "TestWarpCTC" loss_weight: 1', (5, 2, 3), (2, 2))
        x = np.random.default_rng(0).normal(size=(5, 2, 3))
        check_gradients(net, x, np.array([[1, 2], [2, 1]]))
    finally:
        del REGISTRY["TestWarpCTC"]


@pytest.mark.parametrize("where", ["object", "class", "init"])
def test_every_name_is_free(where):
    taken = set(names_of_the_runtime()) - {"setup", "reshape", "forward", "backward"}
    assert {"param", "random", "blobs", "name", "duty", "weights", "_record", "fail", "remember"} <= taken

    class Taker:
        num_bottom = 1

        def __init__(self):
            if where == "init":
                vars(self).update(dict.fromkeys(taken, "mine"))

        def configure(self, bottom):
            if where == "object":
                self.add_blob((4,), caffe_pb2.FillerParameter(value=3))
                vars(self).update(dict.fromkeys(taken, "mine"))

        def compute(self, x):
            assert all(getattr(self, name) == "mine" for name in taken)
            return 2 * x * x

    if where == "class":
        for name in taken:
            setattr(Taker, name, "mine")
    caffe.layer("TestTaker", test_taken_param=dict(a=1))(Taker)
    try:
        net = layer_net('type: "TestTaker" test_taken_param { a: 4 }', X.shape)
        np.testing.assert_allclose(forward(net, X)[0], 2 * X * X, rtol=1e-6)
        check_gradients(net, X)
        tops = caffe.to_torch(net)(torch.from_numpy(X))
        np.testing.assert_allclose(next(iter(tops.values())).numpy(), 2 * X * X, rtol=1e-6)
        assert len(net.layer_dict["layer"].blobs) == (where == "object")
    finally:
        del REGISTRY["TestTaker"]


def test_a_net_with_such_a_layer_is_freed():
    @caffe.layer("TestFreed")
    class Freed:
        def compute(self, x):
            return x + 1

    gc.disable()
    try:
        net = layer_net('type: "TestFreed"', X.shape)
        forward(net, X)
        gone = weakref.ref(net.layer_dict["layer"].own)
        del net
        assert gone() is None
    finally:
        gc.enable()
        del REGISTRY["TestFreed"]


def test_redefined_in_a_notebook():
    try:
        for factor in (2, 3):

            @caffe.layer("TestTimes")
            class Times:
                by = factor

                def compute(self, x):
                    return self.by * x

        np.testing.assert_array_equal(forward(layer_net('type: "TestTimes"', X.shape), X)[0], 3 * X)
    finally:
        del REGISTRY["TestTimes"]


class Some:
    def compute(self, x):
        return x


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: caffe.layer("ReLU")(Some), "Layer type ReLU already registered"),
        (lambda: caffe.layer("TestBad")(type("No", (), {})), "no class with a method compute"),
        (lambda: caffe.layer(Some), "wants the name of a layer type"),
        (lambda: caffe.layer("TestBad", relu_param=dict(a=1))(Some), "'relu_param' are Caffe's own"),
        (lambda: caffe.layer("TestBad", test=dict(a=1))(Some), "ends in _param"),
        (lambda: caffe.layer("TestBad", a_param={}, b_param={}), "wanted one message of options"),
        (
            lambda: caffe.layer("TestBad")(type("No", (Some,), {"forward": 1})),
            "class No defines forward; it",
        ),
        (lambda: caffe.layer("TestBad", test_bad_param=dict(a=None))(Some), "field 'a' is declared as None"),
        (lambda: caffe.layer("TestBad", test_bad_param=3)(Some), "'test_bad_param' are 3; wanted a dict of fields"),
        (lambda: caffe.layer("TestBad", 5, test_bad_param=dict(a=1))(Some), "have number 5; wanted one of"),
    ],
)
def test_what_cannot_be_declared(make, words):
    with pytest.raises(CaffeError, match=words):
        make()
    assert "TestBad" not in REGISTRY


@pytest.mark.medium
def test_a_type_of_caffes_is_refused_at_once():
    """Also before anything has imported Caffe's own types; nets go on to work."""
    code = """
import caffe
for name in ("ReLU", "SpatialDropout"):
    try:
        caffe.layer(name)(type("Mine", (), dict(compute=lambda self, x: x)))
    except caffe.CaffeError as e:
        print(e)
assert {"ReLU", "SpatialDropout"} < set(caffe.layer_type_list())
"""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    told = [f"Layer type {name} already registered; take another name" for name in ("ReLU", "SpatialDropout")]
    assert (done.stderr, done.stdout.splitlines()) == ("", told)


@pytest.mark.parametrize("name", ["resize_param", "expansion_param", "filler_param"])
def test_options_may_have_names_of_caffes_messages(name):
    extension = options.declare(name, dict(scale=2.5))
    layer = parse_text(f"layer {{ {name} {{ }} }}".encode(), caffe_pb2.NetParameter, "net").layer[0]
    assert layer.HasExtension(extension) and layer.Extensions[extension].scale == 2.5


def test_options_stay_what_they_are():
    first = options.declare("test_stays_param", dict(a=1.5))
    assert options.declare("test_stays_param", dict(a=1.5)) is first
    with pytest.raises(CaffeError, match="declared already, with other fields"):
        options.declare("test_stays_param", dict(a=2.5))
