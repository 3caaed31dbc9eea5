"""`caffe.to_torch`: the module computes what the net computes, forward and backward, in every golden layer case."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe

CASES = sorted((Path(__file__).parents[1] / "golden" / "layers").glob("*.npz"))


def build(text, folder, phase=caffe.TEST):
    path = folder / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase)


def named(arrays, prefix):
    return {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_cases(path, tmp_path):
    z = np.load(path, allow_pickle=False)
    net = build(str(z["prototxt"]), tmp_path, getattr(caffe, str(z["phase"])))
    for name, value in named(z, "param/").items():
        layer, i = name.rsplit("/", 1)
        net.params[layer][int(i)].data[...] = value
    module = caffe.to_torch(net)
    inputs = {name: torch.tensor(z[f"in/{name}"], requires_grad=f"diff/{name}" in z) for name in module.inputs}
    tops = module(**inputs)

    def close(got, want, what):
        # The layers' own bound (tests/caffe/ops/test_golden_layers.py): Caffe itself differs by 1e-5 of the largest.
        assert tuple(got.shape) == want.shape, what
        bound = 1e-4 * np.abs(want).max(initial=0) + 1e-6
        np.testing.assert_allclose(got.detach().numpy(), want, rtol=0, atol=bound, err_msg=what)

    for name, want in named(z, "out/").items():
        close(tops[name], want, name)
    for name, want in named(z, "param_after/").items():
        close(module.params[name], want, name)

    if str(z["backward"]) == "none":
        return
    given = named(z, "topdiff/")
    loss = module.loss(tops) if not given else sum((tops[name] * torch.tensor(d)).sum() for name, d in given.items())
    if loss.requires_grad:  # else nothing below it has a gradient, and what is compared below is zero
        loss.backward()
    noise = str(z["noise"]).split()
    for name, want in named(z, "diff/").items():
        got = inputs[name].grad
        close(torch.zeros(want.shape) if got is None else got, want, f"diff/{name}")
    for name, want in named(z, "paramdiff/").items():
        p = module.params.get(name)
        if p is None or f"paramdiff/{name}" in noise or not p.requires_grad:
            continue  # shared and kept under its owner's name; rounding noise; frozen
        close(torch.zeros(want.shape) if p.grad is None else p.grad, want, f"paramdiff/{name}")


TWO = """layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "p" top: "p" }
"""


def test_the_module_is_independent_of_the_net(tmp_path):
    net = build(TWO, tmp_path)
    module = caffe.to_torch(net)
    x = torch.arange(2 * 3 * 7 * 6).view(2, 3, 7, 6) / 100
    before = module(x)["p"].detach().clone()
    net.params["conv"][0].data[...] = 0
    assert torch.equal(module(x)["p"], before)
    assert before.abs().max() > 0


def test_other_shapes_and_blobs_than_the_nets(tmp_path):
    net = build(TWO, tmp_path)
    module = caffe.to_torch(net, outputs=["c", "p"])
    tops = module(torch.zeros(5, 3, 9, 8))
    assert tops["c"].shape == (5, 4, 7, 6) and tops["p"].shape == (5, 4, 4, 3)  # Caffe rounds 3.5 up
    assert module(x=torch.zeros(2, 3, 7, 6))["p"].shape == (2, 4, 3, 2)


def test_frozen_parameters_and_dropout(tmp_path):
    module = caffe.to_torch(build(TWO, tmp_path, caffe.TRAIN))
    assert {name: p.requires_grad for name, p in module.named_parameters()} == {
        "params.conv/0": False,
        "params.conv/1": True,
    }
    module.params["conv/1"].data += 1
    torch.manual_seed(3)
    first = module(torch.zeros(2, 3, 7, 6))["p"]
    torch.manual_seed(3)
    assert torch.equal(first, module(torch.zeros(2, 3, 7, 6))["p"])
    assert set(first.detach().unique().tolist()) == {0, 2}


def test_what_cannot_be_done_is_told(tmp_path):
    net = build(TWO, tmp_path)
    with pytest.raises(caffe.CaffeError, match="no blob 'nose'"):
        caffe.to_torch(net, outputs=["nose"])
    with pytest.raises(TypeError, match="the net takes x"):
        caffe.to_torch(net)(y=torch.zeros(1))


def test_python_layers_with_bottoms_are_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import caffe\nclass Same(caffe.Layer):\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = bottom[0].data\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("rpn", "rpn.proposal_layer"):  # no other test's, neither before nor after
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    text = (
        TWO + 'layer { name: "py" type: "Python" bottom: "p" top: "q" python_param { module: "mine" layer: "Same" } }'
    )
    with pytest.raises(caffe.CaffeError, match=r"layer 'py' \(Python\): computes outside torch"):
        caffe.to_torch(build(text, tmp_path))


def test_a_python_layer_that_a_type_replaces_is_told_so(tmp_path, monkeypatch):
    (tmp_path / "rpn").mkdir()
    (tmp_path / "rpn" / "proposal_layer.py").write_text(
        "import caffe\nclass ProposalLayer(caffe.Layer):\n    def reshape(self, bottom, top): top[0].reshape(1, 5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("rpn", "rpn.proposal_layer"):  # no other test's, neither before nor after
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    text = (
        TWO
        + """layer { name: "rois" type: "Python" bottom: "p" top: "q"
      python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" } }"""
    )
    with pytest.raises(caffe.CaffeError, match="layer 'rois' .*outside torch.* write type: \"Proposal\" with"):
        caffe.to_torch(build(text, tmp_path))
