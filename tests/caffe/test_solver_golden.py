"""Thirty iterations with every update rule, lr policy and option, against the numbers of BVLC Caffe."""

from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.glog import init_log

pytestmark = pytest.mark.usefixtures("either_memory")

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "solver"
CASES = sorted(p.stem for p in GOLDEN.glob("*.npz") if not p.stem.startswith("gaitnet"))
ITERATIONS = 30


def close(got, want, what):
    """The golden data's rule; Caffe with another BLAS kernel differs by 2e-6 of the largest value."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max() + 1e-6, err_msg=what)


def params(net):
    return {f"{name}/{i}": blob for name, blobs in net.params.items() for i, blob in enumerate(blobs)}


def check_params(net, z, moment, noise=()):
    for key, blob in params(net).items():
        if f"{moment}/{key}" in noise:
            assert np.abs(blob.data).max() < 1e-5
        else:
            close(blob.data, z[f"{moment}/{key}"], f"{moment}/{key}")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """(golden arrays, the solver with its initial parameters) of a case."""

    def solver_of(case):
        z = np.load(GOLDEN / f"{case}.npz", allow_pickle=False)
        monkeypatch.chdir(tmp_path)
        Path("net.prototxt").write_text(str(z["net_prototxt"]))
        Path("solver.prototxt").write_text(str(z["solver_prototxt"]))
        solver = caffe.get_solver("solver.prototxt")
        for key, blob in params(solver.net).items():
            blob.data[...] = z[f"init/{key}"]
        return z, solver

    return solver_of


def feed(net, z, prefix, at=()):
    for name in net.inputs:
        net.blobs[name].data[...] = z[f"{prefix}/{name}"][at]


def one_iteration(solver, z, t):
    """Feed iteration t and take one step; the loss. With iter_size, the passes that `step` makes are made singly."""
    if int(z["iter_size"]) == 1:
        feed(solver.net, z, "feed", t)
        solver.step(1)
        return float(solver.net.blobs["loss"].data)
    losses = []
    solver.net.clear_param_diffs()
    for j in range(int(z["iter_size"])):
        feed(solver.net, z, "feed", (t, j))
        losses.append(float(solver.net.forward()["loss"]))
        solver.net.backward()
    close(losses, z["loss_sub"][t], f"sub-passes of iteration {t}")
    solver.apply_update()
    return np.mean(losses)


@pytest.mark.parametrize("case", CASES)
def test_thirty_iterations(case, make):
    z, solver = make(case)
    assert solver.type == str(z["type"])
    noise = str(z["noise"]).split()
    if "test_feed/data" in z:
        feed(solver.test_nets[0], z, "test_feed")
    losses, test_losses = [], {}
    for t in range(ITERATIONS):
        assert solver.iter == t
        losses.append(one_iteration(solver, z, t))
        if "test_iters" in z and t in z["test_iters"]:
            test_losses[t] = float(solver.test_nets[0].blobs["loss"].data)
        for i in range(3 if "bn_traj/0" in z else 0):
            close(solver.net.params["bn"][i].data, z[f"bn_traj/{i}"][t], f"bn {i} after iteration {t}")
        if t == 0:
            check_params(solver.net, z, "after1", noise)
            for key, blob in params(solver.net).items():
                if f"diff_after1/{key}" in noise:
                    assert np.abs(blob.diff).max() < 1e-5
                else:
                    close(blob.diff, z[f"diff_after1/{key}"], f"diff_after1/{key}")
        if t == 9:
            check_params(solver.net, z, "after10", noise)
    check_params(solver.net, z, "final", noise)
    close(losses, z["loss"], "losses")
    if "test_iters" in z:
        close([test_losses[t] for t in z["test_iters"]], z["test_loss"], "test losses")


@pytest.mark.parametrize("case", CASES)
def test_log_of_rates_and_clipping(case, make, capfd, monkeypatch):
    """The printed learning rates are those of the formulas; clipping is told with the norm Caffe found."""
    z, solver = make(case)
    if "test_feed/data" in z:
        feed(solver.test_nets[0], z, "test_feed")
    monkeypatch.setattr("caffe.glog._level", 2)
    solver.param.display = 1
    init_log()
    for t in range(ITERATIONS):
        one_iteration(solver, z, t)
    lines = capfd.readouterr().err.splitlines()
    rates = [float(line.split("lr = ")[1]) for line in lines if ", lr = " in line]
    np.testing.assert_allclose(rates, z["lr_log"], rtol=1e-5)  # six digits are printed
    np.testing.assert_allclose(rates, z["lr"], rtol=1e-5)
    norms = [float(line.split("L2 norm ")[1].split(" ")[0]) for line in lines if "Gradient clipping" in line]
    if "clipped" in z:
        assert len(norms) == int(z["clipped"])
        np.testing.assert_allclose(norms, z["clipped_norms"], rtol=1e-4)
    else:
        assert not norms


def test_step_makes_the_passes_of_iter_size(make):
    """step(1) is clear_param_diffs, iter_size forward and backward passes on what the net is fed, apply_update."""
    z, solver = make("sgd_itersize")
    passes = []

    def feed_next(layer):
        if layer == 0:
            feed(solver.net, z, "feed", (0, len(passes)))
            passes.append(layer)

    solver.net.before_forward(feed_next)
    solver.step(1)
    assert len(passes) == 2
    check_params(solver.net, z, "after1")
