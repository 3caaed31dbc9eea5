"""`caffe.to_onnx`: what it makes of a net; layers of detection: tests/caffe/forks/test_onnx.py."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe import onnx_file
from caffe.proto import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]

UNEQUAL = """layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { axis: 0 slice_point: 1 slice_point: 9 } }
"""


def test_unequal_cuts_of_the_batch_cannot_be_exported():
    with pytest.raises(caffe.CaffeError, match=r"layer 'cut' cuts the batch at \[1, 9\]"):
        onnx_file.any_batch(text_format.Parse(UNEQUAL, caffe_pb2.NetParameter()))
    equal = onnx_file.any_batch(text_format.Parse(UNEQUAL.replace("9", "2"), caffe_pb2.NetParameter()))
    assert not equal.layer[1].slice_param.slice_point


DATA = 'layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 7 dim: 6 } } }\n'
FILL = "weight_filler { type: 'gaussian' std: 0.3 } bias_filler { type: 'gaussian' }"


def written(text, folder, **options):
    """(the net, onnxruntime's session of what it becomes)"""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (folder / "net.prototxt").write_text(text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    net.save(str(folder / "net.caffemodel"))
    caffe.to_onnx(folder / "net.prototxt", folder / "net.caffemodel", folder / "net.onnx", **options)
    return net, onnxruntime.InferenceSession(str(folder / "net.onnx"))


def same(net, session, **fed):
    """Both on inputs of these shapes."""
    for name, value in fed.items():
        net.blobs[name].reshape(*value.shape)
    wanted = net.forward(**fed)
    for put, got in zip(session.get_outputs(), session.run(None, fed)):
        bound = 1e-5 * np.abs(wanted[put.name]).max()  # float32 in another order of summation
        np.testing.assert_allclose(got, wanted[put.name], rtol=0, atol=bound, err_msg=put.name)


def gives_blobs(session, net, names, fed):
    """The session gives for `fed` what the blobs of the net hold."""
    for name, got in zip(names, session.run(names, fed)):
        np.testing.assert_allclose(got, net.blobs[name].data, rtol=0, atol=1e-5, err_msg=name)


def noise(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.medium
def test_layers_that_took_the_batch_for_a_constant(tmp_path):
    """Crop, and statistics of the batch; ArgMax with the later of equals, Embed's rows of a table."""
    text = DATA + 'layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 dim: 2 } } }\n'
    text += f"""layer {{ name: "up" type: "Deconvolution" bottom: "x" top: "up"
      convolution_param {{ num_output: 4 kernel_size: 4 stride: 2 {FILL} }} }}
    layer {{ name: "c" type: "Crop" bottom: "up" bottom: "x" top: "c" crop_param {{ axis: 2 offset: 1 }} }}
    layer {{ name: "n" type: "BatchNorm" bottom: "c" top: "n" batch_norm_param {{ use_global_stats: false }} }}
    layer {{ name: "t" type: "Threshold" bottom: "n" top: "t" }}
    layer {{ name: "best" type: "ArgMax" bottom: "t" top: "best" argmax_param {{ axis: 1 top_k: 2 }} }}
    layer {{ name: "e" type: "Embed" bottom: "i" top: "e" embed_param {{ input_dim: 5 num_output: 3 {FILL} }} }}"""
    net, session = written(text, tmp_path, outputs=["n", "best", "e"])
    for items in (1, 4):
        net.blobs["x"].reshape(items, 3, 7, 6)
        fed = {"x": noise(items, 3, 7, 6), "i": np.arange(2 * items, dtype=np.float32).reshape(items, 2) % 5}
        for name, value in fed.items():
            net.blobs[name].reshape(*value.shape)
            net.blobs[name].data[...] = value
        net.forward()
        gives_blobs(session, net, ["n", "best", "e"], fed)


@pytest.mark.medium
def test_blobs_named_as_torch_names_its_own(tmp_path):
    """`t`, `convolution`, `relu`: what torch.export calls values of its graph."""
    text = (
        DATA.replace('"x"', '"convolution"')
        + f"""
    layer {{ name: "c" type: "Convolution" bottom: "convolution" top: "relu"
      convolution_param {{ num_output: 4 kernel_size: 3 {FILL} }} }}
    layer {{ name: "r" type: "ReLU" bottom: "relu" top: "view" }}
    layer {{ name: "f" type: "InnerProduct" bottom: "view" top: "t" inner_product_param {{ num_output: 5 {FILL} }} }}"""
    )
    net, session = written(text, tmp_path, outputs=["t", "relu"])
    assert [put.name for put in session.get_outputs()] == ["t", "relu"]
    assert [put.name for put in session.get_inputs()] == ["convolution"]
    net.forward(convolution=noise(1, 3, 7, 6))
    gives_blobs(session, net, ["t", "relu"], {"convolution": noise(1, 3, 7, 6)})


@pytest.mark.medium
def test_layers_that_choose(tmp_path):
    """Masks of pooling, and classes: in another order of summation another one of nearly equals may be the best."""
    text = (
        DATA.replace("dim: 7 dim: 6", "dim: 40 dim: 32")
        + f"""
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "c"
      convolution_param {{ num_output: 16 kernel_size: 5 pad: 2 {FILL} }} }}
    layer {{ name: "p" type: "Pooling" bottom: "c" top: "p" top: "mask" pooling_param {{ kernel_size: 2 stride: 2 }} }}
    layer {{ name: "u" type: "Upsample" bottom: "p" bottom: "mask" top: "u" upsample_param {{ scale: 2 }} }}
    layer {{ name: "s" type: "Convolution" bottom: "u" top: "s" convolution_param {{ num_output: 7 kernel_size: 3 {FILL}
    }} }}
    layer {{ name: "best" type: "ArgMax" bottom: "s" top: "best" argmax_param {{ axis: 1 }} }}"""
    )
    net, session = written(text, tmp_path)
    assert [put.name for put in session.get_outputs()] == ["best"]
    x = noise(2, 3, 40, 32)
    net.blobs["x"].reshape(*x.shape)
    wanted = net.forward(x=x)["best"]
    assert (session.run(None, {"x": x})[0] != wanted).mean() < 0.001 and len(np.unique(wanted)) > 3


@pytest.mark.medium
def test_weights_of_all_layers_are_wanted(tmp_path):
    pytest.importorskip("onnxscript")
    (tmp_path / "net.prototxt").write_text(DATA)
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    layer = 'layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 2 } }'
    (tmp_path / "net.prototxt").write_text(DATA + layer)
    with pytest.raises(caffe.CaffeError, match="w.caffemodel: no weights for f, which would be random numbers"):
        caffe.to_onnx(tmp_path / "net.prototxt", tmp_path / "w.caffemodel", tmp_path / "a.onnx")


@pytest.mark.medium
@pytest.mark.parametrize(
    "text, reason",
    [
        (
            DATA
            + 'layer { name: "s" type: "Reshape" bottom: "x" top: "s" reshape_param { shape { dim: 9 dim: -1 } } }\n'
            'layer { name: "f" type: "InnerProduct" bottom: "s" top: "f" inner_product_param { num_output: 2 '
            f"{FILL} }} }}",
            "",
        ),
        (
            DATA.replace('"x"', '"y"').replace("dim: 1", "dim: 2")
            + DATA
            + 'layer { name: "s" type: "Concat" bottom: "x" bottom: "y" top: "s" concat_param { axis: 0 } }',
            "inputs y, x have no batch size in common",
        ),
    ],
)
def test_nets_of_one_size(text, reason, tmp_path, capfd):
    net, session = written(text, tmp_path)
    assert f"net.onnx takes inputs of the prototxt's sizes alone: {reason}" in capfd.readouterr().err
    same(net, session, **{name: noise(*net.blobs[name].shape) for name in net.inputs})


@pytest.mark.medium
@pytest.mark.parametrize(
    "text, words",
    [
        ('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }', "blob 'x' is an input and an output, which"),
        (
            'layer { name: "f" type: "Flatten" bottom: "x" top: "f" }\nlayer { name: "a" type: "Accuracy" bottom: "f" '
            'bottom: "l" top: "a" }',
            r"'a' \(Accuracy\) cannot .*: it looks at labels, .* outputs f,l the net",
        ),
        (
            'layer { name: "p" type: "Test_Untraceable" bottom: "x" top: "p" }',
            r"layer 'p' \(Test_Untraceable\) cannot be exported \(no graph holds this\); with the outputs x ",
        ),
    ],
)
def test_what_cannot_be_written_is_one_sentence(text, words, tmp_path):
    label = 'layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 1 } } }\n'
    with pytest.raises(caffe.CaffeError, match=words) as e:
        written(DATA + label + text, tmp_path)
    assert len(str(e.value).splitlines()) == 1 and not list(tmp_path.glob("*.onnx*"))


@caffe.layer("Test_Untraceable")
class Untraceable:
    def compute(self, x):
        if torch.compiler.is_exporting():
            raise ValueError("no graph holds this")
        return x + 1


@pytest.mark.medium
def test_nothing_stays_in_tmpdir(tmp_path):
    """Where torch's exporter is loaded for the first time: it makes a folder there."""
    pytest.importorskip("onnxscript")
    (tmp_path / "net.prototxt").write_text(
        DATA + 'layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 2 } }'
    )
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    (tmp_path / "temporary").mkdir()
    words = [sys.executable, "-c", "import caffe; caffe.to_onnx('net.prototxt', 'w.caffemodel', 'a.onnx')"]
    environment = dict(os.environ, TMPDIR=str(tmp_path / "temporary"), PYTHONPATH=str(ROOT))
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "a.onnx").exists() and not os.listdir(tmp_path / "temporary")
