"""Net and solver of every arm, made from those of models/gaitnet.py: the study follows what is trained there."""

import hashlib
from collections.abc import Callable
from functools import partial

import yaml

from caffe.costs import flop
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.text import message_to_text
from layers.datasets import NUM_FRAMES
from models.gaitnet import STEPS, deploy, gaitnet, solver
from models.summary import fed
from tools.ablation.plan import ARMS, DATASET
from tools.roofline import net_costs

FRAMES = [f"im{i}" for i in range(NUM_FRAMES)]


def training(arm, size):
    """(NetParameter, SolverParameter) of an arm, with the data still to be named."""
    net, spec = MAKERS[arm](size)
    if arm not in STEPS:
        net.name = f"gaitnet-{arm}"
    return net, spec


def step(name, size):
    """A step as published for walkers: its net in phase TRAIN, its solver without tests."""
    net, spec = gaitnet(DATASET.name, name), solver(DATASET.name, name)
    kept = [layer for layer in net.layer if not any(rule.phase == caffe_pb2.TEST for rule in layer.include)]
    del net.layer[:]
    net.layer.extend(kept)
    for field in ("test_iter", "test_interval", "solver_mode"):
        spec.ClearField(field)
    spec.max_iter = min(spec.max_iter, size.most_iterations)
    spec.snapshot = min(spec.snapshot, max(spec.max_iter // 2, 1))
    most = size.most_clips // 2 if name == "sia" else size.most_clips
    if batch(net) > most:
        set_batch(net, most)
    return net, spec


def more_rec(size):
    """Joint's net, rates and batches with the segmentation frozen."""
    net, spec = step("joint", size)
    segmentation = {layer.name for layer in step("seg", size)[0].layer if layer.param}
    for layer in net.layer:
        if layer.name in segmentation:
            for param in layer.param:
                param.lr_mult = 0
        elif layer.name == "loss_seg":
            layer.loss_weight[:] = [0]
    return net, spec


def more_joint(size):
    """Joint's net at the rates of sia, on as many clips."""
    net, (sia, spec) = step("joint", size)[0], step("sia", size)
    set_rates(net, sia)
    set_batch(net, 2 * batch(sia))
    return net, spec


def one_step(size):
    """Joint's net from the fillers, for the arithmetic of seg, rec and joint together.

    Each branch learns at the rates of the step that otherwise begins with it, under the solver of seg."""
    before = {name: step(name, size) for name in ("seg", "rec", "joint")}
    net, spec = before["joint"][0], before["seg"][1]
    share = before["rec"][1].base_lr / spec.base_lr
    arithmetic = sum(iteration_flop(net) * spec.max_iter for net, spec in before.values())
    set_rates(net, before["rec"][0], share)
    set_rates(net, before["seg"][0])
    spec.max_iter = max(round(arithmetic / iteration_flop(net)), 1)
    return net, spec


def on_true_masks(make, size):
    """The net that `make` gives with the true masks in place of its segmentation branch."""
    net, spec = make(size)
    branch = {layer.name for layer in step("seg", size)[0].layer} - {"data", "gt_cube"}
    kept = [layer for layer in net.layer if layer.name not in branch]
    del net.layer[:]
    net.layer.extend(kept)
    for layer in net.layer:
        layer.bottom[:] = ["gt_cube" if name == "conv8_0" else name for name in layer.bottom]
    net.layer.add(name="unseen", type="Silence", bottom=FRAMES)
    return net, spec


MAKERS: dict[str, Callable] = {
    **{name: partial(step, name) for name in STEPS},
    "rec-more": more_rec,
    "joint-more": more_joint,
    "one-step": one_step,
    "true-rec": partial(on_true_masks, partial(step, "rec")),
    "true-more": partial(on_true_masks, more_rec),
}


def set_rates(net, other, factor=1.0):
    """The rates of the layers that `other` has too, times `factor`."""
    theirs = {layer.name: layer.param for layer in other.layer if layer.param}
    for layer in net.layer:
        for param, given in zip(layer.param, theirs.get(layer.name, ())):
            param.lr_mult = given.lr_mult * factor


def batch(net):
    return settings(net)["batch_size"]


def set_batch(net, number):
    """`number` clips, or pairs, a batch."""
    clips = 2 * number if data_layer(net).python_param.layer == "GaitNet_Sia" else number
    put(net, batch_size=number)
    points = iter([[clips * i for i in range(1, NUM_FRAMES)], [number]])  # of frames, and in step sia of halves
    for layer in net.layer:
        if layer.name == "make_pair":
            layer.slice_param.slice_point[:] = next(points)


def data_layer(net):
    return next(layer for layer in net.layer if layer.type == "Python")


def settings(net):
    return yaml.safe_load(data_layer(net).python_param.param_str)


def put(net, **values):
    """Say something else in `param_str` of the data layer."""
    data_layer(net).python_param.param_str = str(settings(net) | values)


def ready(arm, size, seed, data):
    """(net, solver) of an arm that draw everything from `seed` and read the pack `data`."""
    net, spec = training(arm, size)
    put(net, im_path=str(data), gt_path=str(data), train_num=size.train_num, seed=seed)
    for layer in net.layer:
        if layer.name == "fc_id":
            layer.inner_product_param.num_output = size.train_num
    spec.net, spec.snapshot_prefix, spec.random_seed = "net.prototxt", arm, seed
    return net, spec


def iteration_flop(net):
    """Floating point operations of the products with weights in one iteration, backward too."""
    single = caffe_pb2.NetParameter()
    single.CopyFrom(net)
    clips = batch(net)
    set_batch(single, 1)  # all of it is proportional to the batch, and so it takes no memory
    return clips * sum(cost.flop for cost in net_costs(single))


def forward_flop():
    """(of a frame in the segmentation branch, of a clip in the recognition branch), as evaluation runs them."""
    single = fed(deploy())
    single.state.phase = caffe_pb2.TEST
    nodes = Net.from_proto(single).nodes
    cut = [node.name for node in nodes].index("temporal_fusion")
    return sum(map(flop, nodes[:cut])) / NUM_FRAMES, sum(map(flop, nodes[cut:]))


def digest(size):
    """16 hexadecimal digits that tell this way of training, all arms of it, from another."""
    texts = [message_to_text(message) for arm in ARMS for message in training(arm, size)]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
