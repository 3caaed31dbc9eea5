"""What the definition says, where the golden values cannot see it: phases, rates, fillers, batch sizes, solvers."""

import ast
from dataclasses import replace

import pytest

from caffe.proto import caffe_pb2
from layers.datasets import DATASETS
from models.gaitnet import RECIPES, STEPS, WALKERS, deploy, gaitnet, solver

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
PUBLISHED = ["casiab", "outdoor", "szu"]
FRAMES = [f"im{i}" for i in range(6)]
TOPS = FRAMES + [f"gt{i}" for i in range(6)]
SEG_PARAMS = [f"conv{k}_0" for k in range(1, 9)]
EVERY = [(dataset, step) for dataset in RECIPES for step in STEPS]


def layer(net, name, phase=TRAIN):
    found = [x for x in net.layer if x.name == name and (not x.include or x.include[0].phase == phase)]
    return found[0]


@pytest.mark.parametrize("phase, batch", [(TRAIN, (128, 64)), (TEST, (10, 5))])
@pytest.mark.parametrize("dataset", PUBLISHED)
def test_data_layers(dataset, phase, batch):
    tops = {"seg": TOPS, "rec": [*TOPS, "label"], "joint": [*TOPS, "label"], "sia": [*TOPS, "label", "sim"]}
    layers = {"seg": "GaitNet_Seg", "rec": "GaitNet", "joint": "GaitNet", "sia": "GaitNet_Sia"}
    for step in STEPS:
        data = layer(gaitnet(dataset, step), "data", phase)
        assert (data.type, list(data.top)) == ("Python", tops[step])
        assert (data.python_param.module, data.python_param.layer) == ("layers", layers[step])
        settings = ast.literal_eval(data.python_param.param_str)
        assert settings == {
            "dataset": dataset,
            "batch_size": batch[step == "sia"],
            "train_num": {"casiab": 74, "outdoor": 69, "szu": 49}[dataset],
            "im_path": f"../../data/{DATASETS[dataset].folder}/{DATASETS[dataset].im_dir}",
            "gt_path": f"../../data/{DATASETS[dataset].folder}/{DATASETS[dataset].gt_dir}",
            "mode": "TRAIN" if phase == TRAIN else "TEST",
        }


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_slices_follow_the_batch(dataset):
    for step, clips in (("rec", 128), ("joint", 128), ("sia", 128)):
        net = gaitnet(dataset, step)
        assert list(layer(net, "make_pair", TRAIN).slice_param.slice_point) == [clips * i for i in range(1, 6)]
        assert list(layer(net, "make_pair", TEST).slice_param.slice_point) == [10 * i for i in range(1, 6)]
    halves = [x for x in gaitnet(dataset, "sia").layer if x.name == "make_pair" and "feature1" in x.top]
    assert [(x.include[0].phase, list(x.slice_param.slice_point)) for x in halves] == [(TRAIN, [64]), (TEST, [5])]


@pytest.mark.parametrize("dataset", PUBLISHED)
@pytest.mark.parametrize("step, lr", [("seg", 1), ("rec", 0), ("joint", 1), ("sia", 1)])
def test_published_rates_and_fillers(dataset, step, lr):
    net = gaitnet(dataset, step)
    for name in SEG_PARAMS:
        conv = layer(net, name)
        assert [p.lr_mult for p in conv.param] == [lr, lr]
        assert (conv.convolution_param.weight_filler.type, conv.convolution_param.bias_filler.value) == ("xavier", 0)
    if step == "seg":
        return
    for x in net.layer:
        if x.type == "BatchNorm":
            assert [(p.lr_mult, p.decay_mult) for p in x.param] == [(0, 0)] * 3
            assert x.batch_norm_param.HasField("use_global_stats") and not x.batch_norm_param.use_global_stats
        if x.type == "Convolution" and x.name not in SEG_PARAMS:
            assert [p.lr_mult for p in x.param] == [1, 2]
    for name, rates, std, bias in (("fc_fea", (1, 2), 0.005, 0.1), ("fc_id", (1, 1), 0.01, 0)):
        fc = layer(net, name)
        assert [(p.lr_mult, p.decay_mult) for p in fc.param] == [(rates[0], 1), (rates[1], 0)]
        assert (fc.inner_product_param.weight_filler.type, fc.inner_product_param.bias_filler.type) == (
            "gaussian",
            "constant",
        )
        assert fc.inner_product_param.weight_filler.std == pytest.approx(std)
        assert fc.inner_product_param.bias_filler.value == pytest.approx(bias)
    assert layer(net, "fc_id").inner_product_param.num_output == DATASETS[dataset].train_num


def test_published_losses():
    for step, seg in (("seg", 1), ("rec", 0), ("joint", 0.01), ("sia", 0.01)):
        assert list(layer(gaitnet("casiab", step), "loss_seg").loss_weight) == pytest.approx([seg])
    siamese = layer(gaitnet("casiab", "sia"), "loss_siamese")
    assert list(siamese.bottom) == ["feature1", "feature2", "sim"]
    assert (siamese.contrastive_loss_param.margin, list(siamese.loss_weight)) == (10, pytest.approx([0.01]))


def test_published_dropout_is_half_in_three_places():
    dropout = {
        x.name: (list(x.bottom), list(x.top), x.dropout_param.dropout_ratio)
        for x in gaitnet("szu", "sia").layer
        if x.type == "Dropout"
    }
    assert dropout == {
        "drop6_0": (["conv6_0"], ["conv6_0"], 0.5),
        "drop7_0": (["conv7_0"], ["conv7_0"], 0.5),
        "drop13": (["fc_fea"], ["fc_fea"], 0.5),
    }


@pytest.mark.parametrize("dataset", PUBLISHED)
@pytest.mark.parametrize(
    "step, base_lr, stepsize, max_iter",
    [
        ("seg", 1e-4, 60000, 70000),
        ("rec", 1e-2, 20000, 60000),
        ("joint", 1e-2, 10000, 30000),
        ("sia", 1e-3, 10000, 30000),
    ],
)
def test_published_solvers(dataset, step, base_lr, stepsize, max_iter):
    got = solver(dataset, step)
    want = caffe_pb2.SolverParameter(
        net=f"./gaitnet-{step}.prototxt",
        base_lr=base_lr,
        stepsize=stepsize,
        max_iter=max_iter,
        lr_policy="step",
        gamma=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        test_iter=[10],
        test_interval=1000,
        display=10,
        snapshot=10000,
        snapshot_prefix=f"gaitnet-{step}",
        solver_mode=caffe_pb2.SolverParameter.GPU,
    )
    assert got == want


@pytest.mark.parametrize("dataset, step", EVERY)
def test_walkers_differ_in_numbers_only(dataset, step):
    """Same names, blobs and parameter shapes for every dataset, so that weights and tools are shared."""

    def outline(net):
        return [
            (
                x.name,
                x.type,
                list(x.bottom),
                list(x.top),
                x.convolution_param.num_output,
                list(x.convolution_param.kernel_size),
            )
            for x in net.layer
            if x.type != "Dropout"
        ]

    assert outline(gaitnet(dataset, step)) == outline(gaitnet("casiab", step))


def test_a_seed_makes_walkers_repeatable():
    for step in STEPS:
        net = gaitnet("walkers", step)
        for phase in (TRAIN, TEST):
            assert ast.literal_eval(layer(net, "data", phase).python_param.param_str)["seed"] == 1
        assert solver("walkers", step).random_seed == 1


def test_walkers_first_layer_learns_as_if_inputs_were_scaled(monkeypatch):
    """Weights are 64 times smaller; Adam's step has the size of the rate, SGD's goes with the larger gradient."""

    def share(step):
        rates = {
            name: [p.lr_mult for p in layer(gaitnet("walkers", step), name).param] for name in ("conv1_0", "conv2_0")
        }
        assert rates["conv1_0"][1] == rates["conv2_0"][1]
        return rates["conv1_0"][0] / rates["conv2_0"][0]

    assert solver("walkers", "seg").type == solver("walkers", "joint").type == "Adam"
    assert share("seg") == pytest.approx(1 / 64) and share("joint") == pytest.approx(1 / 64)
    by_sgd = replace(WALKERS.steps["joint"], solver=dict(max_iter=1))
    monkeypatch.setitem(WALKERS.steps, "joint", by_sgd)
    assert solver("walkers", "joint").type == "SGD"
    assert share("joint") == pytest.approx(1 / 64**2)


def test_walkers_frames_are_scattered_where_step_seg_learns():
    told = {
        (step, phase): ast.literal_eval(layer(gaitnet("walkers", step), "data", phase).python_param.param_str)
        for step in STEPS
        for phase in (TRAIN, TEST)
    }
    assert [where for where, params in told.items() if params.get("scattered")] == [("seg", TRAIN)]


def test_deploy_is_the_recognition_half_alone():
    net = deploy()
    assert list(net.input) == FRAMES and list(net.input_dim) == [1, 3, 64, 64] * 6
    assert list(layer(net, "make_pair").slice_param.slice_point) == [1, 2, 3, 4, 5]
    assert net.layer[-1].name == "relu13"
    assert all(x.batch_norm_param.use_global_stats for x in net.layer if x.type == "BatchNorm")
    assert not {"fc_id", "drop13", "gt_cube", "loss_seg"} & {x.name for x in net.layer}
    for k in (6, 7):  # as in the original, though they do nothing in phase TEST
        drop = layer(net, f"drop{k}_0")
        assert drop.bottom == drop.top == [f"conv{k}_0"] and drop.dropout_param.dropout_ratio == 0.5
