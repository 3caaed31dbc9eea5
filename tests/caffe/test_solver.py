"""Solvers: pycaffe's surface, tests and displays where they are due, errors, and runs that resume exactly."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.lr_policy import learning_rate
from caffe.proto import caffe_pb2

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
        shape { dim: 4 dim: 2 dim: 6 dim: 6 } shape { dim: 4 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { use_global_stats: false } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" dropout_param { dropout_ratio: 0.4 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
"""

SOLVER = """net: "net.prototxt" base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv" gamma: 0.0001
power: 0.75 max_iter: 30 snapshot_after_train: false snapshot_prefix: "model" test_iter: 2 test_interval: 10
"""

CLASSES = {
    "SGD": caffe.SGDSolver,
    "Nesterov": caffe.NesterovSolver,
    "AdaGrad": caffe.AdaGradSolver,
    "RMSProp": caffe.RMSPropSolver,
    "AdaDelta": caffe.AdaDeltaSolver,
    "Adam": caffe.AdamSolver,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return tmp_path


def make(more="", replace=(), cls=caffe.get_solver):
    text = SOLVER + more
    for old, new in replace:
        assert old in text
        text = text.replace(old, new)
    Path("solver.prototxt").write_text(text)
    return cls("solver.prototxt")


def params(net):
    return {f"{name}/{i}": blob.data.copy() for name, blobs in net.params.items() for i, blob in enumerate(blobs)}


def assert_equal(a, b):
    assert list(a) == list(b)
    for key in a:
        assert np.array_equal(a[key], b[key]), key


# ---- pycaffe's surface


def test_solve():
    solver = make()
    assert solver.iter == 0
    solver.solve()
    assert solver.iter == 30
    solver.step(5)
    assert solver.iter == 35


@pytest.mark.parametrize("kind", CLASSES)
def test_six_classes_and_get_solver(kind):
    no_momentum = [("momentum: 0.9 ", "")] if kind in ("AdaGrad", "RMSProp") else []
    for solver in (make(f'type: "{kind}"', no_momentum), make(f'type: "{kind}"', no_momentum, CLASSES[kind])):
        assert solver.type == kind
        before = params(solver.net)
        solver.step(2)
        assert not np.array_equal(params(solver.net)["conv/0"], before["conv/0"])
    assert CLASSES["SGD"]("solver.prototxt" if kind == "SGD" else write_sgd()).type == "SGD"


def write_sgd():
    Path("sgd.prototxt").write_text(SOLVER)
    return "sgd.prototxt"


def test_apply_update():
    """The first update of plain SGD subtracts the learning rate times the diff (the decay of a zero weight is zero)."""
    solver = make()
    blob = solver.net.layer_dict["conv"].blobs[0]
    blob.data[...] = 0
    blob.diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(blob.data, -0.01, rtol=1e-6)
    np.testing.assert_allclose(blob.diff, 0.01, rtol=1e-6)
    assert solver.iter == 1


def test_nets_and_their_memory_outlive_the_solver():
    solver = make()
    nets = [solver.net, *solver.test_nets]
    assert len(nets) == 2
    del solver
    total = 0.0
    for net in nets:
        for blobs in net.params.values():
            total += sum(float(b.data.sum() + b.diff.sum()) for b in blobs)
        total += sum(float(b.data.sum() + b.diff.sum()) for b in net.blobs.values())
    assert np.isfinite(total)


def test_snapshot_names_the_iteration():
    solver = make()
    solver.step(3)
    solver.snapshot()
    assert {"model_iter_3.caffemodel", "model_iter_3.solverstate"} <= {p.name for p in Path().iterdir()}
    other = make()
    other.restore("model_iter_3.solverstate")
    assert other.iter == 3
    assert_equal(params(other.net), params(solver.net))


def test_param_and_solver_from_a_message():
    solver = make()
    assert (solver.param.max_iter, solver.param.display, solver.param.layer_wise_reduce) == (30, 0, True)
    assert solver.lr == pytest.approx(0.01)
    again = caffe.Solver(solver.param)
    assert again.param.snapshot_prefix == "model"


def test_share_weights():
    solver = make()
    net = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(net)
    solver.step(1)
    assert_equal(params(net), params(solver.net))


def test_callbacks_and_actions():
    solver, calls = make("snapshot: 100"), []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("gradients"))
    solver.step(2)
    assert calls == ["start", "gradients"] * 2
    asked = iter([0, 2, 0, 1])  # none, snapshot, none, stop
    solver.test_nets.clear()
    solver.set_action_function(lambda: next(asked))
    solver.step(10)
    assert solver.iter == 6 and Path("model_iter_4.solverstate").exists()


# ---- the test nets


def logged(capfd, monkeypatch, run):
    """What `run` writes into the log, without prefixes."""
    monkeypatch.setattr("caffe.glog._level", 0)
    capfd.readouterr()
    run()
    return [line.split("] ", 1)[1] for line in capfd.readouterr().err.splitlines()]


def test_tests_are_due_at_multiples_of_test_interval(capfd, monkeypatch):
    solver = make()
    lines = logged(capfd, monkeypatch, solver.solve)
    tested = [int(line.split()[1].rstrip(",")) for line in lines if "Testing net" in line]
    assert tested == [0, 10, 20, 30]
    solver = make("test_initialization: false test_compute_loss: true")
    lines = logged(capfd, monkeypatch, lambda: solver.step(11))
    assert [line for line in lines if "Testing" in line] == ["Iteration 10, Testing net (#0)"]
    assert any(line.startswith("Test loss: ") for line in lines)


def test_a_test_prints_the_mean_over_test_iter_batches(capfd, monkeypatch):
    solver = make(replace=[("test_iter: 2", "test_iter: 3")])
    seen = []
    net = solver.test_nets[0]
    net.after_forward(lambda i: i == len(net.layers) - 1 and seen.append(float(net.blobs["loss"].data)))
    lines = logged(capfd, monkeypatch, solver.test_all)
    printed = next(float(line.split(" loss = ")[1].split()[0]) for line in lines if " loss = " in line)
    assert len(seen) == 3 and printed == pytest.approx(np.mean(seen), rel=1e-5)  # six digits are printed


def test_several_test_nets_with_stages():
    Path("net.prototxt").write_text(
        NET + 'layer { name: "extra" type: "Softmax" bottom: "ip" top: "prob" include { phase: TEST stage: "full" } }'
    )
    solver = make('test_iter: 1 test_state { stage: "full" } test_state { level: 2 }')
    assert [net.outputs for net in solver.test_nets] == [["acc", "loss", "prob"], ["acc", "loss"]]
    assert solver.net.outputs == ["loss"]
    solver.step(1)


def test_separate_train_and_test_files():
    Path("train.prototxt").write_text(NET)
    Path("test.prototxt").write_text(NET.replace("dim: 4 dim: 2", "dim: 7 dim: 2").replace("{ dim: 4 }", "{ dim: 7 }"))
    solver = make('train_net: "train.prototxt" test_net: "test.prototxt"', [('net: "net.prototxt" ', "")])
    solver.step(1)
    assert solver.net.blobs["x"].data.shape[0] == 4 and solver.test_nets[0].blobs["x"].data.shape[0] == 7


# ---- display


def test_display_prints_the_mean_of_the_last_losses(capfd, monkeypatch):
    solver, losses = make("display: 1 average_loss: 4"), []
    last = len(solver.net.layers) - 1
    solver.net.after_forward(lambda i: i == last and losses.append(float(solver.net.blobs["loss"].data)))
    lines = logged(capfd, monkeypatch, lambda: solver.step(9))
    printed = [float(line.split(", loss = ")[1]) for line in lines if "iter/s" in line]
    want = [np.mean(losses[max(0, i - 3) : i + 1]) for i in range(9)]
    np.testing.assert_allclose(printed, want, rtol=1e-4)
    outputs = [float(line.split(" = ")[1].split()[0]) for line in lines if "Train net output #0" in line]
    np.testing.assert_allclose(outputs, losses, rtol=1e-5)
    assert f"(* 1 = {losses[-1]:g} loss)" in lines[-2]


# ---- learning-rate policies at the edges (their values: test_solver_golden.py)


def test_multistep_passes_one_boundary_a_query():
    param = caffe_pb2.SolverParameter(base_lr=1, gamma=0.5, lr_policy="multistep", stepvalue=[3, 4, 5])
    rate, step = learning_rate(param, 100, 0)
    assert (rate, step) == (0.5, 1)
    assert learning_rate(param, 100, step) == (0.25, 2)
    assert learning_rate(param, 2, 0) == (1, 0)


@pytest.mark.parametrize(
    "policy, rate",
    [
        (dict(lr_policy="sigmoid", gamma=1, stepsize=10_000), 0),
        (dict(lr_policy="exp", gamma=2), np.inf),
        (dict(lr_policy="step", gamma=10, stepsize=1), np.inf),
        (dict(lr_policy="inv", gamma=-1 / 2048, power=1), np.inf),
        (dict(lr_policy="poly", power=0.5, max_iter=1000), np.nan),
        (dict(lr_policy="poly", power=1), -np.inf),
    ],
)
def test_rates_beyond_all_numbers_are_those_of_c(policy, rate):
    assert learning_rate(caffe_pb2.SolverParameter(base_lr=1, **policy), 2048, 0)[0] == pytest.approx(rate, nan_ok=True)


@pytest.mark.parametrize(
    "more, replace, words",
    [
        ("", [('"inv"', '"nosuch"')], "Unknown learning rate policy: nosuch .known: fixed, step, exp"),
        (
            'type: "Nosuch"',
            [],
            "Unknown solver type: Nosuch .known types: AdaDelta, AdaGrad, Adam, Nesterov, RMSProp, SGD",
        ),
        ('type: "AdaGrad"', [], "Momentum cannot be used with AdaGrad"),
        ('type: "RMSProp"', [], "Momentum cannot be used with RMSProp"),
        ('type: "RMSProp" rms_decay: 1', [("momentum: 0.9", "")], "rms_decay should lie between 0 and 1"),
        ("iter_size: 0", [], "iter_size must be at least 1"),
        ('train_net: "net.prototxt"', [], "exactly one train net.*net, train_net are set"),
        ("", [('net: "net.prototxt"', "")], "exactly one train net.*none is set"),
        ("", [("test_interval: 10", "")], "test_interval must be positive"),
        ('test_net: "net.prototxt" test_net: "net.prototxt"', [], "test_iter must be specified for each test network"),
        ("test_state { } test_state { }", [], "test_state must be unspecified or specified once per test net"),
        ('regularization_type: "L3"', [], "Unknown regularization type: L3 .known: L1, L2"),
        ("snapshot: 5", [('"model"', '"nodir/model"')], "Cannot write to snapshot prefix 'nodir/model'"),
    ],
)
def test_bad_solvers_are_one_sentence(more, replace, words):
    with pytest.raises(caffe.CaffeError, match=words) as e:
        make(more, replace).step(1)
    assert "\n" not in str(e.value)


# ---- exact resume


@pytest.mark.parametrize("stop", [1, 7, 10, 13])
@pytest.mark.parametrize(
    "more, replace",
    [
        ("", [('"inv"', '"step"'), ("gamma: 0.0001", "gamma: 0.5 stepsize: 6")]),
        (
            "snapshot_format: HDF5 stepvalue: 5 stepvalue: 12",
            [('"inv"', '"multistep"'), ("gamma: 0.0001", "gamma: 0.1")],
        ),
        ('type: "Adam" iter_size: 2 random_seed: 17', []),
        ('type: "AdaDelta" delta: 1e-6 snapshot_format: HDF5 test_initialization: false', []),
    ],
)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(more, replace, stop, request):
    """With dropout, random data, BatchNorm that testing changes: weights, history and losses after 17 iterations."""
    whole = make(more, replace)
    losses = []
    for t in range(17):
        if t == stop:
            whole.snapshot()
        whole.step(1)
        losses.append(float(whole.net.blobs["loss"].data))
    caffe.set_random_seed(99)  # a new process starts from anywhere
    request.addfinalizer(lambda: setattr(caffe.random, "_seed", None))
    resumed = caffe.get_solver("solver.prototxt")
    resumed.restore(next(str(p) for p in Path().iterdir() if f"_iter_{stop}.solverstate" in p.name))
    again = []
    for _ in range(17 - stop):
        resumed.step(1)
        again.append(float(resumed.net.blobs["loss"].data))
    assert again == losses[stop:]
    assert_equal(params(resumed.net), params(whole.net))
    for a, b in zip(resumed.history, whole.history):
        assert np.array_equal(a.data, b.data)


def test_a_frugal_run_is_the_same_run():
    """Releasing what is no longer needed must not touch what is: labels written once, a Parameter layer's blob."""
    head, loss = NET.split('layer { name: "loss"')
    shift = """layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 4 dim: 3 } } }
               layer { name: "sum" type: "Eltwise" bottom: "ip" bottom: "p" top: "sum" }"""
    Path("net.prototxt").write_text(head + shift + 'layer { name: "loss"' + loss.replace('"ip"', '"sum"'))
    runs = []
    for frugal in (False, True):
        solver = make("random_seed: 5")
        if frugal:
            solver.frugal()
        solver.step(12)
        runs.append(params(solver.net))
    assert runs[0]["p/0"].any()
    for key, value in runs[0].items():  # another order of sums in a few layers
        np.testing.assert_allclose(runs[1][key], value, rtol=1e-5, atol=1e-6, err_msg=key)


CONVOLUTIONS = """
    layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {
            shape { dim: 7 dim: 3 dim: 9 dim: 11 } shape { dim: 7 dim: 5 dim: 2 dim: 3 }
            data_filler { type: "gaussian" } data_filler { type: "gaussian" } } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
            convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
    layer { name: "point" type: "Convolution" bottom: "pool" top: "point"
            convolution_param { num_output: 6 kernel_size: 1 weight_filler { type: "xavier" } } }
    layer { name: "relu1" type: "ReLU" bottom: "point" top: "point" }
    layer { name: "sum" type: "Eltwise" bottom: "point" bottom: "pool" top: "sum" }
    layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
    layer { name: "next" type: "Convolution" bottom: "sum" top: "next"
            convolution_param { num_output: 5 kernel_size: 2 stride: 1 pad: 0 weight_filler { type: "xavier" } } }
    layer { name: "relu3" type: "ReLU" bottom: "next" top: "next" }
    layer { name: "cut" type: "Slice" bottom: "y" top: "y0" top: "y1" slice_param { axis: 3 slice_point: 2 } }
    layer { name: "cut1" type: "Crop" bottom: "next" bottom: "y0" top: "cropped" crop_param { axis: 2 } }
    layer { name: "silence" type: "Silence" bottom: "y1" }
    layer { name: "flat" type: "Reduction" bottom: "next" top: "mean" loss_weight: 1
            reduction_param { operation: MEAN } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "cropped" bottom: "y0" top: "loss" }"""


@pytest.mark.parametrize("looked_at", ["nothing", "weights", "diff", "history"])
@pytest.mark.parametrize("rule", ["SGD", "Adam", "RMSProp"])
def test_a_frugal_run_lays_arrays_out_as_it_likes_and_is_the_same_run(rule, looked_at):
    """Weights of convolutions lie channels-last, ReLU writes over diffs; an array that is shown is in Caffe's order."""
    Path("net.prototxt").write_text(CONVOLUTIONS)
    changed = [("momentum: 0.9", "momentum: 0")] if rule == "RMSProp" else []
    runs, shown = [], []
    for frugal in (False, True):
        solver = make(f'random_seed: 5 type: "{rule}"', changed)
        if frugal:
            solver.frugal()
        solver.step(3)
        blob = solver.net.params["conv"][0]
        if looked_at != "nothing":
            view = {"weights": blob, "history": solver.history[0]}.get(looked_at, blob)
            view = view.diff if looked_at == "diff" else view.data
            assert view.flags.c_contiguous
            shown.append(view.copy())
        solver.step(4)
        in_order = blob.memory.tensor().is_contiguous()
        assert in_order == (not frugal or looked_at == "weights")
        runs.append(params(solver.net) | {f"history/{i}": h.data.copy() for i, h in enumerate(solver.history)})
    for key, value in runs[0].items():  # another order of sums in a few layers
        np.testing.assert_allclose(runs[1][key], value, rtol=1e-4, atol=1e-6, err_msg=key)
    if looked_at in ("weights", "history"):
        np.testing.assert_allclose(shown[1], shown[0], rtol=1e-4, atol=1e-6)


def test_a_frugal_net_holds_no_tops_between_iterations():
    """What a layer has kept for its backward pass would stand beside the next iteration's arrays, at the worst time."""
    Path("net.prototxt").write_text("""
        layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 43 dim: 2 dim: 9 dim: 11 }
                data_filler { type: "gaussian" } } }
        layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
                convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
        layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
        layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
        layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
        layer { name: "loss" type: "Reduction" bottom: "pool" top: "loss" loss_weight: 1
                reduction_param { operation: SUMSQ } }""")
    solver = make("random_seed: 5")
    solver.frugal()
    solver.step(3)
    gc.collect()
    alive = [tuple(o.shape) for o in gc.get_objects() if type(o) is torch.Tensor and o.dim() == 4]
    assert (5, 2, 3, 3) in alive  # weights are found by this
    assert [shape for shape in alive if shape[0] == 43] == [(43, 2, 9, 11)] * 2  # the inputs of both nets, filled once


def test_the_same_seed_gives_the_same_run():
    runs = []
    for seed in (5, 5, 6):
        solver = make(f"random_seed: {seed}")
        solver.step(3)
        runs.append(params(solver.net))
    assert_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0]["ip/0"], runs[2]["ip/0"])
