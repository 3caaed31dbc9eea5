"""export and import_weights: GaitNet in onnxruntime, in plain PyTorch, and back, with the golden data's weights."""

import os
import random
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.state_dict import state_dict
from models import gaitnet_torch
from tests.models import golden
from tools import export, import_weights

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "eval" / "deploy_gaitnet.prototxt"


def run(tool, *args, cwd):
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Golden weights for inputs of 0..255: the first layer's are smaller, so that no mask is saturated."""
    net = caffe.Net(str(DEPLOY), caffe.TEST)
    golden.set_params(net, golden.load("gaitnet/deploy"))
    net.params["conv1_0"][0].data[...] /= 64
    for layer in net.params:
        if layer.startswith("bn"):
            net.params[layer][2].data[...] = 2  # stored statistics are sums with a weight
    path = tmp_path_factory.mktemp("weights") / "deploy.caffemodel"
    net.save(str(path))
    return path


def frames(n, seed=0):
    return np.random.default_rng(seed).uniform(-127.5, 127.5, (n, 6, 3, 64, 64)).astype(np.float32)


def close(got, want):
    # Both are float32 and sum in another order; 1e-5 of the largest value is a few times what was measured (3e-6).
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def caffe_net(weights, clips):
    net = caffe.Net(str(DEPLOY), caffe.TEST, weights=str(weights))
    found = []
    for clip in clips:
        feature = net.forward(**{f"im{i}": clip[i][None] for i in range(6)})["fc_fea"]
        found.append((feature[0].copy(), net.blobs["conv8_0"].data.copy()))
    return [np.stack(values) for values in zip(*found)]


@pytest.mark.medium
def test_state_dict_in_plain_torch_and_back(weights, tmp_path):
    made = run("export.py", "--weights", weights, "--torch", "gaitnet.pt", cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "gaitnet.pt: 68 tensors\n"), made.stderr
    net, clips = gaitnet_torch.load(tmp_path / "gaitnet.pt"), frames(2)
    with torch.no_grad():
        feature, masks = net(torch.from_numpy(clips))
    for got, want in zip((feature, masks), caffe_net(weights, clips)):
        close(got.numpy(), want)

    back = run("import_weights.py", "gaitnet.pt", "back.caffemodel", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    for got, want in zip(caffe_net(tmp_path / "back.caffemodel", clips), caffe_net(weights, clips)):
        close(got, want)


@pytest.mark.medium
def test_safetensors_and_back(weights, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    made = run("export.py", "--weights", weights, "--safetensors", "g.safetensors", cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "g.safetensors: 68 tensors\n"), made.stderr
    found, wanted = safetensors.load_file(tmp_path / "g.safetensors"), state_dict(net_of(weights))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    back = run("import_weights.py", "g.safetensors", "back.caffemodel", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    for name, value in state_dict(net_of(tmp_path / "back.caffemodel")).items():
        close(value.numpy(), wanted[name].numpy())
    (tmp_path / "g.safetensors").write_bytes(b"\x00" * 20)
    refused = run("import_weights.py", "g.safetensors", "b.caffemodel", cwd=tmp_path)
    assert refused.returncode == 1 and "not a PyTorch state dict, or damaged" in refused.stderr


def net_of(weights):
    return caffe.Net(str(DEPLOY), caffe.TEST, weights=str(weights))


@pytest.mark.medium
def test_onnx_of_any_batch(weights, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = run("export.py", "--weights", weights, "--onnx", "g.onnx", "--outputs", "fc_fea,conv8_0", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "checked in onnxruntime" in made.stdout
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"))
    for n in (1, 3):
        clips = frames(n, seed=n)
        feature, masks = session.run(["fc_fea", "conv8_0"], {f"im{i}": clips[:, i] for i in range(6)})
        want_feature, want_masks = caffe_net(weights, clips)
        close(feature, want_feature)
        close(masks.reshape(6, n, 1, 64, 64).swapaxes(0, 1), want_masks)  # all first frames, then all second frames


SMALL = """layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {
  num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { type: "gaussian" } } }
"""


def test_any_net_with_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.prototxt").write_text(SMALL)
    net = caffe.Net("small.prototxt", caffe.TEST)
    net.save("small.caffemodel")
    model = ["--model", "small.prototxt"]
    assert export.main([*model, "--weights", "small.caffemodel", "--torch", "small.pt"]) == 0
    state = torch.load("small.pt", weights_only=True)
    assert set(state) == {"c.weight", "c.bias"}
    assert import_weights.main(["small.pt", "back.caffemodel", *model]) == 0
    back = caffe.Net("small.prototxt", caffe.TEST, weights="back.caffemodel")
    for blob, name, again in zip(net.params["c"], ("c.weight", "c.bias"), back.params["c"]):
        assert np.array_equal(blob.data, state[name].numpy()) and np.array_equal(blob.data, again.data)


@pytest.mark.parametrize(
    "name, value",
    [
        (1, lambda: torch.ones(1)),
        ("c.bias", lambda: torch.zeros(4).to_sparse()),
        ("c.bias", lambda: torch.zeros(4, device="meta")),
        ("c.bias", lambda: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)),
        ("c.bias", lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(1)])),
        ("c.bias", lambda: torch.zeros(4, dtype=torch.complex64)),
        ("c.bias", lambda: torch.tensor([0, 0, float("nan"), 0])),
        ("c.bias", lambda: torch.full((4,), 1e300, dtype=torch.float64)),
        ("c.bias", lambda: torch.ones(1).expand(10**15)),
        ("c.bias", lambda: [0.0] * 4),
    ],
    ids=["number", "sparse", "meta", "quantized", "nested", "complex", "nan", "too large", "expanded", "list"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of tensors that are rare
def test_states_that_are_no_weights(tmp_path, capsys, name, value):
    (tmp_path / "small.prototxt").write_text(SMALL)
    torch.save({"c.weight": torch.ones(4, 3, 3, 3), "c.bias": torch.zeros(4), name: value()}, tmp_path / "s.pt")
    words = [str(tmp_path / "s.pt"), str(tmp_path / "o.caffemodel"), "--model", str(tmp_path / "small.prototxt")]
    assert import_weights.main(words) == 1
    error = capsys.readouterr().err
    told = "holds no state dict" if name == 1 else "'c.bias' is no tensor of finite real numbers"
    assert error.startswith(f"error: {tmp_path}/s.pt: {told}") and error.count("\n") == 1
    assert not (tmp_path / "o.caffemodel").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_states_are_refused_or_read(tmp_path, zipped):
    """200 files: a bit flipped, or cut off."""
    torch.save({"c.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "s.pt", _use_new_zipfile_serialization=zipped)
    whole, rng, taken = (tmp_path / "s.pt").read_bytes(), random.Random(1), 0
    for n in range(200):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "s.pt").write_bytes(data[: rng.randrange(len(data))] if n % 2 else data)
        try:
            taken += len(import_weights.read_state(tmp_path / "s.pt"))
        except caffe.CaffeError as e:
            assert len(str(e)) < 1000
    assert 0 < taken < 120


def test_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.pt").write_bytes(b"no state dict")
    torch.save({"conv1_0.weight": torch.zeros(1)}, "short.pt")
    for args, told in (
        (("bad.pt", "o.caffemodel"), "error: bad.pt: not a PyTorch state dict, or damaged\n"),
        (("absent.pt", "o.caffemodel"), "error: absent.pt: No such file or directory\n"),
        (("short.pt", "o.caffemodel"), "error: short.pt lacks bn0.running_mean, "),
    ):
        assert import_weights.main(args) == 1
        assert capsys.readouterr().err.startswith(told)
    assert export.main(["--weights", "absent.caffemodel", "--torch", "a.pt"]) == 1
    assert re.match("error: .*absent.caffemodel", capsys.readouterr().err)
    with pytest.raises(SystemExit, match="2"):  # nothing to do
        export.main(["--weights", "w.caffemodel"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt", "short.pt"]  # nothing half-written


def test_a_net_that_the_weights_fill_in_part_is_not_exported(tmp_path, capsys):
    """As those of step seg do: the rest would come from the fillers."""
    net = tmp_path / "half.prototxt"
    one = 'layer { name: "%s" type: "InnerProduct" bottom: "x" top: "%s" inner_product_param { num_output: 2 } } '
    head = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } } '
    net.write_text(head + one % ("a", "a"))
    caffe.Net(str(net), caffe.TEST).save(str(tmp_path / "a.caffemodel"))
    net.write_text(head + one % ("a", "a") + one % ("b", "b"))
    words = ["--model", str(net), "--weights", str(tmp_path / "a.caffemodel"), "--torch", str(tmp_path / "o.pt")]
    assert export.main(words) == 1 and not (tmp_path / "o.pt").exists()
    assert f"a.caffemodel: no weights for b of {net}" in capsys.readouterr().err


@pytest.mark.medium
def test_int8_stays_near_and_wants_samples(tmp_path, monkeypatch, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    Path("small.prototxt").write_text(SMALL)
    net = caffe.Net("small.prototxt", caffe.TEST)
    net.save("small.caffemodel")
    x = np.random.default_rng(0).uniform(-1, 1, (40, 3, 7, 6)).astype(np.float32)
    np.savez("samples.npz", x=x)
    base = ["--model", "small.prototxt", "--weights", "small.caffemodel", "--int8", "small.onnx"]
    assert export.main([*base, "--calibrate", "samples.npz"]) == 0
    got = onnxruntime.InferenceSession("small.onnx").run(None, {"x": x[:2]})[0]
    want = net.forward(x=x[:2])["y"]
    difference = np.abs(got - want).max() / np.abs(want).max()
    assert 0 < difference < 0.05  # 8 bits of input and weights; float32 would be nearer than 1e-5
    np.savez("other.npz", z=x)
    assert export.main([*base, "--calibrate", "other.npz"]) == 1
    assert "other.npz: has no x; found z" in capsys.readouterr().err
    assert export.main([*base, "--calibrate", "walker"]) == 1
    assert "--calibrate walker: cannot be read" in capsys.readouterr().err
    np.save("array.npy", x)
    Path("cut.npz").write_bytes(Path("samples.npz").read_bytes()[:-30])
    np.savez("words.npz", x=np.array(["a"]))
    for file in ("array.npy", "cut.npz", "words.npz"):
        assert export.main([*base, "--calibrate", file]) == 1
        assert f"{file}: not an .npz file of numbers (" in capsys.readouterr().err
    assert export.main([*base, "--calibrate", "walkers"]) == 1
    assert "that is for nets with the inputs im0 .. im5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main(base)


def test_a_state_dict_that_unpacks_to_more_than_it_has_is_refused(tmp_path):
    torch.save({"w": torch.zeros(300_000)}, tmp_path / "plain.pt")
    assert set(import_weights.read_state(tmp_path / "plain.pt")) == {"w"}
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(caffe.CaffeError, match=r"packed.pt: has \d+ bytes and unpacks to 12\d+; wanted"):
        import_weights.read_state(tmp_path / "packed.pt")


@pytest.mark.medium
@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_a_full_disk_is_one_sentence(tmp_path, form):
    """Here no file may be longer than 100 bytes. What was there before stays."""
    pytest.importorskip("safetensors")
    net = 'input: "x" input_shape { dim: 1 dim: 9 } layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
    (tmp_path / "net.prototxt").write_text(net + "inner_product_param { num_output: 90 } }")
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    (tmp_path / "out").write_text("before")
    words = [sys.executable, ROOT / "tools/export.py", "--model", "net.prototxt", "--weights", "w.caffemodel"]
    done = subprocess.run(
        [*words, f"--{form}", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert (done.returncode, done.stderr) == (1, "error: cannot write out: File too large\n")
    assert sorted(os.listdir(tmp_path)) == ["net.prototxt", "out", "w.caffemodel"]
    assert (tmp_path / "out").read_text() == "before"
