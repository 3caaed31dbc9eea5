"""Every case of tests/golden/layers: what BVLC Caffe 1.0 computed for one layer or a short chain of them.

Keys of a case: `in/<blob>` and `param/<layer>/<i>` are written before the forward pass, `out/`, `mid/` and
`param_after/` must come out of it, `diff/`, `middiff/` and `paramdiff/` out of the backward pass, which starts from
`topdiff/` or from the loss. `in2/` .. `param_after2/` are a second forward pass.
"""

from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2

pytestmark = pytest.mark.usefixtures("either_memory")

CASES = sorted((Path(__file__).parents[2] / "golden" / "layers").glob("*.npz"))
# These move or select values, or count them: nothing is rounded.
EXACT = {
    "Concat",
    "Slice",
    "Split",
    "Crop",
    "Tile",
    "Flatten",
    "Reshape",
    "ReLU",
    "Threshold",
    "ArgMax",
    "Accuracy",
    "Dropout",
    "Silence",
}


def is_exact(layer):
    if layer.type == "Pooling":
        return layer.param.pooling_param.pool == caffe_pb2.PoolingParameter.MAX
    return layer.type in EXACT


class Case:
    def __init__(self, path, folder):
        self.arrays = np.load(path, allow_pickle=False)
        prototxt = folder / "net.prototxt"
        prototxt.write_text(str(self.arrays["prototxt"]))
        self.net = caffe.Net(str(prototxt), getattr(caffe, self.text("phase")))
        self.noise = self.text("noise").split()
        self.exact = all(is_exact(layer) for layer in self.net.layers if layer.type != "Input")

    def text(self, key):
        return str(self.arrays[key])

    def named(self, prefix):
        """The arrays under `prefix/`, by the rest of their names."""
        return {key[len(prefix) + 1 :]: self.arrays[key] for key in self.arrays.files if key.startswith(prefix + "/")}

    def param(self, name):
        layer, i = name.rsplit("/", 1)
        return self.net.params[layer][int(i)]

    def compare(self, prefix, found):
        for name, want in self.named(prefix).items():
            got = found(name)
            assert got.shape == want.shape, f"{prefix}/{name}"
            if f"{prefix}/{name}" in self.noise:
                assert np.abs(got).max() < 1e-5  # zero but for rounding
            elif self.exact:
                np.testing.assert_array_equal(got, want, err_msg=f"{prefix}/{name}")
            else:
                # Caffe with other BLAS kernels differs by up to 4e-6 of the largest value (1e-5 where BatchNorm
                # divides by a tiny variance); 1e-4 is far below any error in a formula.
                bound = 1e-4 * np.abs(want).max(initial=0) + 1e-6
                np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=f"{prefix}/{name}")

    def forward(self, number):
        for name, value in self.named(f"in{number}").items():
            self.net.blobs[name].data[...] = value
        self.net.forward()
        for prefix in ("out", "mid"):
            self.compare(prefix + number, lambda name: self.net.blobs[name].data)
        self.compare(f"param_after{number}", lambda name: self.param(name).data)

    def backward(self):
        for _, blobs in self.net.params.items():
            for blob in blobs:
                blob.diff[...] = 0
        for name, value in self.named("topdiff").items():
            self.net.blobs[name].diff[...] = value
        self.net.backward()
        for prefix in ("diff", "middiff"):
            self.compare(prefix, lambda name: self.net.blobs[name].diff)
        self.compare("paramdiff", lambda name: self.param(name).diff)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_layer(path, tmp_path):
    case = Case(path, tmp_path)
    assert list(case.net.blobs) == case.text("blob_names").split("\n")
    assert list(case.net._layer_names) == case.text("layer_names").split("\n")
    assert case.net.outputs == case.text("outputs").split("\n")
    for name, value in case.named("param").items():
        case.param(name).data[...] = value
    case.forward("")
    if case.text("backward") != "none":
        case.backward()
    if case.named("in2"):
        case.forward("2")


def test_all_cases_are_here():
    assert len(CASES) == 225
