"""Python layers: when Caffe calls which method, and what such layers can do."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import caffe

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "pylayer"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of Python layers where nets find it; gives its imported form."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(name, source):
        (tmp_path / f"{name}.py").write_text("import caffe\nimport numpy as np\n" + textwrap.dedent(source))
        names.append(name)
        return __import__(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def python_layer(name, module, layer, bottoms=(), top=None, more=""):
    ends = "".join(f' bottom: "{b}"' for b in bottoms) + (f' top: "{top}"' if top else "")
    return (
        f'layer {{ name: "{name}" type: "Python"{ends} '
        f'python_param {{ module: "{module}" layer: "{layer}" {more} }} }}\n'
    )


def net_of(tmp_path, text, phase=None, **kwargs):
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), caffe.TRAIN if phase is None else phase, **kwargs)


INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }\n'


# ---- the order of calls


@pytest.mark.parametrize("case", ["py_plain", "py_forced"])
def test_calls_and_numbers_are_caffes(case, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(GOLDEN))
    import trace_layers

    z = np.load(GOLDEN / f"{case}.npz", allow_pickle=False)
    trace = trace_layers.TRACE
    trace.clear()
    done = []

    def equal(key, value):
        np.testing.assert_array_equal(value, z[key], err_msg=key)
        done.append(key)

    def head(text):
        trace.append(f"# {text}")

    path = str(GOLDEN / f"{case}_net.prototxt")
    head("Net(..., TRAIN)")
    net = caffe.Net(path, caffe.TRAIN)
    head("net.forward()")
    net.forward()
    equal("forward1/loss", net.blobs["loss"].data)
    equal("forward1/w", net.blobs["w"].data)
    head("net.backward()")
    net.clear_param_diffs()
    net.backward()
    equal("backward1/w_diff", net.params["w"][0].diff)
    for name in ("src", "ref", "w"):
        equal(f"backward1/{name}", net.blobs[name].diff)
    head("net.backward()  (again: parameter diffs add up)")
    net.backward()
    equal("backward2/w_diff", net.params["w"][0].diff)
    head("net.reshape()")
    net.reshape()
    head("net.forward()")
    net.forward()
    equal("forward2/loss", net.blobs["loss"].data)
    head("net.forward(end='w')")
    net.forward(end="w")
    head("net.forward(start='w')")
    net.forward(start="w")
    head("SGDSolver(...)")
    solver_path = tmp_path / "solver.prototxt"
    solver_path.write_text(
        f'net: "{path}" base_lr: 0.01 lr_policy: "fixed" test_iter: 2 test_interval: 2 snapshot_after_train: false'
    )
    solver = caffe.SGDSolver(str(solver_path))
    head("solver.step(1)")
    solver.step(1)
    equal("step1/w", solver.net.params["w"][0].data)
    head("solver.step(2)")
    solver.step(2)
    np.testing.assert_allclose(solver.net.params["w"][0].data, z["step3/w"], rtol=1e-6)  # one rounding a step
    lines = [line if line.startswith("#") else f"  {line}" for line in trace]
    assert lines == str(z["trace"]).rstrip("\n").split("\n")
    assert "\n".join(lines) == (GOLDEN / f"{case}_trace.txt").read_text().rstrip("\n")
    assert sorted([*done, "step3/w", "trace", "prototxt"]) == sorted(z.files)


# ---- what a Python layer sees and may do


def test_ten_times(module, tmp_path):
    """A chain of Python layers between Caffe's own: values, gradients, reshaping."""
    module(
        "ten",
        """
        class Ten(caffe.Layer):
            def setup(self, bottom, top):
                pass
            def reshape(self, bottom, top):
                top[0].reshape(*bottom[0].data.shape)
            def forward(self, bottom, top):
                top[0].data[...] = 10 * bottom[0].data
            def backward(self, top, propagate_down, bottom):
                bottom[0].diff[...] = 10 * top[0].diff
    """,
    )
    net = net_of(
        tmp_path,
        "force_backward: true\n"
        + INPUT
        + python_layer("one", "ten", "Ten", ["data"], "one")
        + 'layer { name: "half" type: "Power" bottom: "one" top: "half" power_param { scale: 0.5 } }\n'
        + python_layer("two", "ten", "Ten", ["half"], "two"),
    )
    x = np.random.RandomState(0).randn(2, 3).astype(np.float32)
    net.blobs["data"].data[...] = x
    np.testing.assert_allclose(net.forward()["two"], 50 * x, rtol=1e-6)
    net.blobs["two"].diff[...] = 7
    net.backward()
    assert np.array_equal(net.blobs["data"].diff, np.full((2, 3), 350, np.float32))
    shape = (4, 1, 2, 5)
    net.blobs["data"].reshape(*shape)
    net.blobs["data"].data[...] = 3
    assert net.forward()["two"].shape == shape and (net.blobs["two"].data == 150).all()


@pytest.mark.parametrize("method", ["setup", "reshape", "forward", "backward"])
def test_an_exception_comes_out_as_it_is(method, module, tmp_path):
    module(
        "faulty",
        f"""
        class Oops(Exception):
            pass

        class Faulty(caffe.Layer):
            def setup(self, bottom, top): pass
            def reshape(self, bottom, top): top[0].reshape(1)
            def forward(self, bottom, top): pass
            def backward(self, top, propagate_down, bottom): pass

        def fail(*args):
            raise Oops("not today")

        Faulty.{method} = fail
    """,
    )
    import faulty

    with pytest.raises(faulty.Oops, match="not today") as e:
        net = net_of(tmp_path, "force_backward: true\n" + INPUT + python_layer("l", "faulty", "Faulty", ["data"], "y"))
        net.forward()
        net.backward()
    assert e.value.__notes__ == ["(in layer 'l', faulty.Faulty)"]


def test_param_str_and_phase(module, tmp_path):
    module(
        "told",
        """
        class Told(caffe.Layer):
            def setup(self, bottom, top):
                self.told = eval(self.param_str)
            def reshape(self, bottom, top):
                top[0].reshape(2)
            def forward(self, bottom, top):
                top[0].data[...] = self.told["value"], self.phase
    """,
    )
    text = python_layer("l", "told", "Told", top="y", more="param_str: \"{'value': 4.5}\"")
    for phase in (caffe.TRAIN, caffe.TEST):
        assert net_of(tmp_path, text, phase).forward()["y"].tolist() == [4.5, phase]


def test_parameters_of_a_python_layer_are_learned_and_saved(module, tmp_path):
    module(
        "weighted",
        """
        class Bias(caffe.Layer):
            def setup(self, bottom, top):
                self.blobs.add_blob(1, 3)
                self.blobs[0].data[...] = 0
            def reshape(self, bottom, top):
                top[0].reshape(*bottom[0].data.shape)
            def forward(self, bottom, top):
                top[0].data[...] = bottom[0].data + self.blobs[0].data
            def backward(self, top, propagate_down, bottom):
                self.blobs[0].diff[...] += top[0].diff.sum(0)
    """,
    )
    text = (
        INPUT
        + INPUT.replace("data", "want")
        + python_layer("bias", "weighted", "Bias", ["data"], "y")
        + ('layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "want" top: "loss" }')
    )
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "{tmp_path}/s"'
    )
    solver = caffe.SGDSolver(str(tmp_path / "solver.prototxt"))
    solver.net.blobs["want"].data[...] = [[1, 2, 3], [1, 2, 3]]
    solver.step(200)
    np.testing.assert_allclose(solver.net.params["bias"][0].data, [[1, 2, 3]], rtol=1e-3)
    solver.net.save(str(tmp_path / "bias.caffemodel"))
    solver.net.save_hdf5(str(tmp_path / "bias.h5"))
    for name in ("bias.caffemodel", "bias.h5"):
        net = net_of(tmp_path, text, weights=str(tmp_path / name))
        assert np.array_equal(net.params["bias"][0].data, solver.net.params["bias"][0].data)


def test_a_parameter_layer_gives_its_blob_as_a_top(tmp_path):
    text = (
        'layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } }\n'
        + INPUT
        + 'layer { name: "s" type: "EuclideanLoss" bottom: "w" bottom: "data" top: "loss" }'
    )
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.5 lr_policy: "fixed" snapshot_prefix: "{tmp_path}/s"'
    )
    solver = caffe.SGDSolver(str(tmp_path / "solver.prototxt"))
    solver.net.blobs["data"].data[...] = np.arange(6).reshape(2, 3)
    solver.step(1)
    # loss = sum (w - d)^2 / 2N, so the first gradient is -d / 2 and w = d / 4
    np.testing.assert_allclose(solver.net.params["p"][0].data, np.arange(6).reshape(2, 3) / 4, rtol=1e-6)
    solver.net.forward()
    assert np.array_equal(solver.net.blobs["w"].data, solver.net.params["p"][0].data)


def test_blobs_of_a_python_layer_with_lr_mult(module, tmp_path):
    """param { lr_mult: 0 } stops learning, and shared names give one blob, as for any layer."""
    module(
        "own",
        """
        class Own(caffe.Layer):
            def setup(self, bottom, top):
                self.blobs.add_blob(3)
                self.blobs[0].data[...] = 2
            def reshape(self, bottom, top):
                top[0].reshape(*bottom[0].data.shape)
            def forward(self, bottom, top):
                top[0].data[...] = bottom[0].data * self.blobs[0].data
    """,
    )
    a = python_layer("a", "own", "Own", ["data"], "ya").replace("python_param", 'param { name: "w" } python_param')
    b = a.replace('"a"', '"b"').replace('"ya"', '"yb"')
    net = net_of(tmp_path, INPUT + a + b)
    net.params["a"][0].data[...] = 5
    assert (net.params["b"][0].data == 5).all()
    net.blobs["data"].data[...] = 1
    assert (net.forward()["yb"] == 5).all()


def test_bottom_and_top_have_a_length_and_items(module, tmp_path):
    module(
        "ends",
        """
        class Ends(caffe.Layer):
            def setup(self, bottom, top):
                self.seen = len(bottom), len(top), bottom[1].num, bottom[-1].shape[1]
            def reshape(self, bottom, top):
                for i in range(len(top)):
                    top[i].reshape(1)
            def forward(self, bottom, top):
                top[0].data[0], top[1].data[0] = self.seen[2:]
    """,
    )
    text = INPUT + INPUT.replace("data", "more") + python_layer("e", "ends", "Ends", ["data", "more"], 'x" top: "y')
    net = net_of(tmp_path, text)
    assert net.layers[-1].seen == (2, 2, 2, 3)
    out = net.forward()
    assert (out["x"][0], out["y"][0]) == (2, 3)


# ---- what goes wrong


@pytest.mark.parametrize(
    "module_name, layer, words",
    [
        ("no_such_module", "L", "cannot import Python module 'no_such_module'"),
        ("", "L", "module is ''; wanted the name of a Python module"),
        (".os", "L", "module is '.os'; wanted the name"),
        ("os..path", "L", "module is 'os..path'; wanted the name"),
        ("os", "NoSuchLayer", "module 'os' has no layer 'NoSuchLayer'"),
        ("os", "getcwd", "os.getcwd is not a caffe.Layer"),
    ],
)
def test_a_layer_that_cannot_be_made_is_named(module_name, layer, words, tmp_path):
    with pytest.raises(caffe.CaffeError) as e:
        net_of(tmp_path, python_layer("mine", module_name, layer, top="y"))
    assert "layer 'mine'" in str(e.value) and words in str(e.value)


def test_a_module_that_ends_the_program(tmp_path, monkeypatch):
    """Its status 0 would say that the command did what it was told to."""
    (tmp_path / "quits.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(caffe.CaffeError, match=r"layer 'mine': Python module 'quits' ends the program .SystemExit.0"):
        net_of(tmp_path, python_layer("mine", "quits", "L", top="y"))


def test_modules_can_be_limited(module, tmp_path, request):
    module("harmless", "class H(caffe.Layer):\n    def reshape(self, bottom, top):\n        top[0].reshape(1)\n")
    request.addfinalizer(lambda: caffe.allow_python_modules(None))
    caffe.allow_python_modules(["harmless"])
    net_of(tmp_path, python_layer("h", "harmless", "H", top="y"))
    with pytest.raises(caffe.CaffeError, match="Python module 'subprocess', which is not allowed"):
        net_of(tmp_path, python_layer("s", "subprocess", "Popen", top="y"))
