"""Nets of the arms: what learns, at which rates, for how long."""

import pytest

from models.gaitnet import gaitnet, solver
from tools.ablation import nets
from tools.ablation.plan import ARMS, QUICK, Size

SEGMENTATION = {"conv1_0", "conv2_0", "conv3_0", "conv4_0", "conv5_0", "conv6_0", "conv7_0", "conv8_0"}


def rates(net):
    return {layer.name: [param.lr_mult for param in layer.param] for layer in net.layer if layer.param}


def test_steps_are_those_that_are_trained():
    for name in ("seg", "rec", "joint", "sia"):
        net, spec = nets.training(name, Size())
        given = solver("walkers", name)
        assert (spec.max_iter, spec.base_lr, spec.type) == (given.max_iter, given.base_lr, given.type)
        assert rates(net) == rates(gaitnet("walkers", name)) and not spec.test_iter


def test_control_of_joint_differs_in_frozen_masks_alone():
    joint, spec = nets.training("joint", Size())
    control, same = nets.training("rec-more", Size())
    assert spec == same and nets.batch(joint) == nets.batch(control)
    for name, learned in rates(joint).items():
        assert rates(control)[name] == ([0] * len(learned) if name in SEGMENTATION else learned)
    weights = {layer.name: list(layer.loss_weight) for layer in control.layer}
    assert weights["loss_seg"] == [0] and weights["loss_gait"] == [1]


def test_control_of_sia_sees_as_many_clips_at_its_rates():
    sia, spec = nets.training("sia", Size())
    control, same = nets.training("joint-more", Size())
    assert spec == same and nets.batch(control) == 2 * nets.batch(sia)
    assert rates(control) == rates(sia)
    assert nets.data_layer(control).python_param.layer == "GaitNet"
    assert not any(layer.type == "ContrastiveLoss" for layer in control.layer)


def test_one_step_takes_the_arithmetic_of_three():
    spent = {
        arm: nets.iteration_flop(net) * spec.max_iter for arm in ARMS for net, spec in [nets.training(arm, Size())]
    }
    assert spent["one-step"] == pytest.approx(spent["seg"] + spent["rec"] + spent["joint"], rel=0.01)
    net, spec = nets.training("one-step", Size())
    of = {name: nets.training(name, Size()) for name in ("seg", "rec")}
    for name, learned in rates(net).items():
        other, its = of["seg" if name in SEGMENTATION else "rec"]
        wanted = [its.base_lr * x for x in rates(other)[name]]
        assert [spec.base_lr * x for x in learned] == pytest.approx(wanted, rel=1e-5)  # float32 in the files


def test_arithmetic_of_frozen_masks_is_forward_alone():
    free, frozen, true = (
        nets.iteration_flop(nets.training(arm, Size())[0]) for arm in ("joint", "rec-more", "true-more")
    )
    assert true < frozen < free / 2
    frame, clip = nets.forward_flop()
    clips = nets.batch(nets.training("rec-more", Size())[0])
    assert frozen - true == pytest.approx(6 * clips * frame)
    assert true == pytest.approx(3 * clips * clip, rel=0.05)  # conv9_0 needs no gradient of the masks; fc_id is new


def test_quick_cuts_batches_and_slices():
    for arm in ARMS:
        net, spec = nets.ready(arm, QUICK, 7, "pack")
        clips = nets.batch(net) * (2 if arm == "sia" else 1)
        assert clips <= 4 and nets.settings(net)["train_num"] == 3 and nets.settings(net)["seed"] == 7
        assert spec.random_seed == 7
        cuts = [list(layer.slice_param.slice_point) for layer in net.layer if layer.name == "make_pair"]
        assert cuts[:1] in ([], [[clips * i for i in range(1, 6)]])
        assert all(layer.inner_product_param.num_output == 3 for layer in net.layer if layer.name == "fc_id")


def test_digest_tells_one_recipe_from_another(monkeypatch):
    before = nets.digest(QUICK)
    assert before == nets.digest(QUICK) != nets.digest(Size())
    monkeypatch.setitem(nets.MAKERS, "sia", lambda size: nets.step("joint", size))
    assert nets.digest(QUICK) != before
