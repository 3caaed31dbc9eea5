"""CAFFE_ROOT: evaluation by a Caffe that is not ours, a stand-in; neither the bundled one nor torch takes part."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caffe.proto import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]

# What evaluation needs of pycaffe, computed by rules of its own: masks are bright where the image is, features are
# sums over blocks of the masks. It has no parameters.
STANDIN = """
import atexit, sys
from collections import OrderedDict
import numpy as np
from google.protobuf import text_format
from caffe.proto import caffe_pb2

__version__, TEST = "9.9.9", 1


def set_mode_cpu():
    pass


class Blob:
    def __init__(self, shape):
        self.reshape(*shape)

    def reshape(self, *shape):
        self.data, self.shape = np.zeros(shape, np.float32), tuple(shape)


class Net:
    def __init__(self, path, phase):
        assert phase == TEST
        net = text_format.Parse(open(path).read(), caffe_pb2.NetParameter())
        self.entry = net.layer[0].name
        self.blobs = OrderedDict({self.entry: Blob(net.layer[0].input_param.shape[0].dim)})
        self.params = OrderedDict()

    def copy_from(self, path):
        pass

    def forward(self):
        x = self.blobs[self.entry].data
        if self.entry == "im_cube":
            return {"conv8_0": (x.mean(axis=1, keepdims=True) > 0).astype(np.float32)}
        return {"fc_fea": x.reshape(len(x), 16, 4, 16, 4).sum(axis=(2, 4)).reshape(len(x), 256)}


@atexit.register
def told():
    ours = [m.__file__ for m in list(sys.modules.values()) if str(getattr(m, "__file__", "")).startswith("ROOT/caffe/")]
    print("torch" in sys.modules, ours, file=sys.stderr)
""".replace("ROOT", str(ROOT))


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """A folder that CAFFE_ROOT can name."""
    root = tmp_path_factory.mktemp("other")
    package = root / "python/caffe"
    (package / "proto").mkdir(parents=True)
    (package / "__init__.py").write_text(STANDIN)
    (package / "proto/__init__.py").touch()
    shutil.copy(ROOT / "caffe/proto/caffe_pb2.py", package / "proto")
    return root


def evaluate(folder, data, root, **environment):
    net = caffe_pb2.NetParameter()
    fc_id = net.layer.add(name="fc_id").blobs.add(data=[0] * 8)
    fc_id.shape.dim.extend([4, 2])
    (folder / "w.caffemodel").write_bytes(net.SerializeToString())
    script = ROOT / "eval/eval-casiab.py"
    words = ["--im-path", data / "crop-im", "--gt-path", data / "crop-seg", "--weights", folder / "w.caffemodel"]
    words += ["--train-num", "4", "--out", folder / "out", "--cache", folder / "feat", "--report"]
    command = [sys.executable, script, *words]
    environment = {**os.environ, "CAFFE_ROOT": str(root), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd="/")


@pytest.mark.medium
def test_the_caffe_that_caffe_root_names_computes_alone(standin, small_casiab, tmp_path):
    for run in ("computed", "from the cache"):
        done = evaluate(tmp_path, small_casiab, standin)
        assert done.returncode == 0, done.stderr
        said = done.stderr.splitlines()
        assert (f"Caffe 9.9.9, {standin}: {standin}/python/caffe" in said) == (run == "computed")
        if run == "computed":
            assert said[-1] == "False []"
        origin = json.loads((tmp_path / "out/metrics.json").read_text())["provenance"]
        assert origin["caffe"] == str(standin)
        assert "numpy" in origin["versions"] and "torch" not in origin["versions"]
    assert len(list((tmp_path / "feat").glob("*.npz"))) == 1


@pytest.mark.medium
def test_features_of_another_caffe_are_not_taken(standin, small_casiab, tmp_path):
    """The bundled one computes anew, and says that these weights are none of the net's."""
    evaluate(tmp_path, small_casiab, standin)
    done = evaluate(tmp_path, small_casiab, "")
    assert done.returncode == 1 and "w.caffemodel: no weights for conv1_0, " in done.stderr
    assert any(line.startswith("Caffe 1.0.0, bundled: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("line", ["import no_such_package", "raise AttributeError('_ARRAY_API not found')"])
def test_a_python_that_does_not_go_with_it(small_casiab, tmp_path, line):
    """NumPy 2 refuses a _caffe.so built with NumPy 1 in this way."""
    package = tmp_path / "caffe/python/caffe"
    shutil.copytree(ROOT / "caffe/proto", package / "proto", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text(line)
    done = evaluate(tmp_path, small_casiab, tmp_path / "caffe")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: CAFFE_ROOT is ")
    assert "name the Python that goes with that Caffe: CAFFE_PYTHON=" in done.stderr
