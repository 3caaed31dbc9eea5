"""The four training nets, the test phase and the deploy net against what real Caffe computed with them.

Tolerances are a few times what Caffe itself differs by with other BLAS kernels or thread counts (in parentheses):
losses 1e-5 relative (9e-7), blobs 1e-4 of the largest value (3e-6) and samples 1e-4 of rms (9e-6), gradients 1e-3 of
rms (1e-4). Over eight iterations of training: 1e-3 relative (4e-5).

A gradient jumps where a value is so close to a ReLU's or a pooling's switch that rounding decides. The golden nets were
chosen such that all ways of computing with matrix products, as Caffe does, fall on one side. So they are compared with
convolutions as matrix products ("plain"), and once more with the kernels that users get ("fast"), whose rounding takes
the other side at one unit of conv4_0 in joint: there, samples of gradients are compared together, not each alone.
"""

import numpy as np
import pytest
import torch

import caffe
from models.gaitnet import deploy
from tests.models import golden

pytestmark = pytest.mark.medium  # the nets are built and run at several clips


@pytest.fixture(scope="module", params=["plain", "fast"])
def kernels(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", request.param == "fast")
        yield request.param


@pytest.fixture(scope="module", params=["seg", "rec", "joint", "sia", "joint_test"])
def case(request, kernels, tmp_path_factory):
    """(golden data, net after forward and, in phase TRAIN, backward, what was fed)."""
    z = golden.load(f"gaitnet/{request.param}")
    clips, phase = int(z["clips"]), str(z["phase"])
    param = golden.fed_net(str(z["stage"]), clips, phase)
    net = _net(param, tmp_path_factory.mktemp("net"), getattr(caffe, phase))
    golden.set_params(net, z)
    fed = golden.inputs(list(net.blobs), int(z["input_seed"]), clips)
    for name, value in fed.items():
        net.blobs[name].data[...] = value
    net.forward()
    if phase == "TRAIN":
        net.backward()
    return z, net, fed


def test_inputs_blobs_and_layers_are_those_of_the_original(case):
    z, net, fed = case
    assert list(net.blobs) == str(z["blob_names"]).split("\n")
    assert sorted(net.outputs) == sorted(str(z["outputs"]).split("\n"))
    for name in ("label", "sim"):
        if name in fed:
            assert np.array_equal(fed[name], z[f"in/{name}"])
    for name in set(fed) - {"label", "sim"}:
        golden.check_summary(fed[name], z, f"insum/{name}", samples=0, norm=1e-6)


def test_losses_and_blobs(case):
    z, net, _ = case
    for name in str(z["outputs"]).split("\n"):
        np.testing.assert_allclose(net.blobs[name].data, z[f"out/{name}"], rtol=1e-5, err_msg=name)
    for key in z.files:
        if key.startswith("blob/"):
            _close(net.blobs[key[5:]].data, z[key], key)
        if key.startswith("bn_after/"):
            layer, i = key[9:].rsplit("/", 1)
            _close(net.params[layer][int(i)].data, z[key], key)
        if key.startswith("blobsum/") and key.endswith("/idx"):
            name = key[8:-4]
            golden.check_summary(net.blobs[name].data, z, f"blobsum/{name}", samples=1e-4, norm=1e-4)


def test_gradients(case, kernels):
    z, net, _ = case
    keys = [key[:-4] for key in z.files if key.startswith("grad/") and key.endswith("/idx")]
    noise = str(z["noise"]).split("\n") if "noise" in z else []
    for key in keys:
        layer, i = key[5:].rsplit("/", 1)
        diff = net.params[layer][int(i)].diff
        if key in noise:
            assert abs(diff).max() < 1e-5, key  # zero but for rounding
        elif kernels == "plain":
            golden.check_summary(diff, z, key, samples=1e-3, norm=1e-3)
        else:
            off = np.linalg.norm(diff.flat[z[f"{key}/idx"]] - z[f"{key}/val"])
            assert off <= 1e-2 * np.linalg.norm(z[f"{key}/val"]) + 1e-12, key
            np.testing.assert_allclose(np.linalg.norm(diff.astype(np.float64)), z[f"{key}/l2"], rtol=1e-3, err_msg=key)
    assert bool(keys) == (str(z["phase"]) == "TRAIN")


@pytest.mark.parametrize("clip", ["clip0", "clip1"])
def test_deploy(clip, tmp_path):
    z = golden.load("gaitnet/deploy")
    net = _net(deploy(), tmp_path, caffe.TEST)
    golden.set_params(net, z)
    assert net.inputs == str(z["inputs"]).split("\n")
    assert net.outputs == str(z["outputs"]).split("\n")
    assert list(net.blobs) == str(z["blob_names"]).split("\n")
    for name, value in golden.inputs(net.inputs, int(z[f"{clip}/input_seed"]), 1).items():
        golden.check_summary(value, z, f"{clip}/insum/{name}", samples=0, norm=1e-6)
        net.blobs[name].data[...] = value
    feature = net.forward()["fc_fea"]
    assert feature.shape == (1, 256)
    for key in z.files:
        if key.startswith(f"{clip}/blob/"):
            _close(net.blobs[key.split("/")[2]].data, z[key], key)
        if key.startswith(f"{clip}/blobsum/") and key.endswith("/idx"):
            golden.check_summary(net.blobs[key.split("/")[2]].data, z, key[:-4], samples=1e-4, norm=1e-4)


def test_deploy_takes_several_clips(tmp_path):
    one, three = (_net(deploy(clips), tmp_path, caffe.TEST) for clips in (1, 3))
    shapes = {name: [blob.data.shape for blob in blobs] for name, blobs in one.params.items()}
    for name, blobs in golden.weights(list(shapes), shapes, 5).items():
        for net in (one, three):
            for i, value in enumerate(blobs):
                net.params[name][i].data[...] = value
    fed = golden.inputs(three.inputs, 3, 3)
    together = three.forward(**fed)["fc_fea"].copy()
    for i in range(3):
        alone = one.forward(**{name: value[i : i + 1] for name, value in fed.items()})["fc_fea"]
        _close(together[i : i + 1], alone, f"clip {i}")


@pytest.mark.medium
def test_eight_iterations_of_joint_training(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # two clips a batch are chaotic: a switch is felt
    z = golden.load("solver/gaitnet_joint_traj")
    clips = int(z["clips"])
    (tmp_path / "net.prototxt").write_text(str(golden.fed_net("joint", clips)))
    spec = str(z["solver_prototxt"]).replace('"net.prototxt"', f'"{tmp_path}/net.prototxt"')
    (tmp_path / "solver.prototxt").write_text(spec)
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    golden.set_params(solver.net, z)
    for t, seed in enumerate(z["input_seeds"]):
        for name, value in golden.inputs(list(solver.net.blobs), int(seed), clips).items():
            solver.net.blobs[name].data[...] = value
        solver.step(1)
        for name in ("loss_seg", "loss_gait", "accuracy"):
            np.testing.assert_allclose(
                solver.net.blobs[name].data, z[name][t], rtol=1e-3, err_msg=f"{name}, iteration {t}"
            )
        if t == 0:
            _check_params(solver.net, z, "after1")
    _check_params(solver.net, z, "final")
    for key in [key for key in z.files if key.startswith("bn_final/")]:
        layer, i = key.removeprefix("bn_final/").rsplit("/", 1)
        np.testing.assert_allclose(solver.net.params[layer][int(i)].data, z[key], rtol=0, atol=1e-3 * abs(z[key]).max())


def _check_params(net, z, prefix):
    keys = [key[:-4] for key in z.files if key.startswith(f"{prefix}/") and key.endswith("/idx")]
    assert keys
    for key in keys:
        layer, i = key.removeprefix(f"{prefix}/").rsplit("/", 1)
        golden.check_summary(net.params[layer][int(i)].data, z, key, samples=1e-3, norm=1e-3)


def _net(param, folder, phase):
    path = folder / f"net{len(list(folder.iterdir()))}.prototxt"
    path.write_text(str(param))
    return caffe.Net(str(path), phase)


def _close(got, want, what):
    assert got.shape == want.shape, what
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * abs(want).max() + 1e-7, err_msg=what)
