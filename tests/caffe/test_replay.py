"""A pass that is repeated as a flat list of calls gives what a net gives that is made anew for it."""

import numpy as np
import pytest

import caffe
from caffe import replay
from tests.caffe.test_prepared import NET, built, frames

AFTER = ["conv", "deep", "whole", "norm", "up", "ip"]


@pytest.fixture(autouse=True, params=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Each test also with blobs that are computed an item at a time, as large ones are."""
    if request.param == "in pieces":
        monkeypatch.setattr(replay, "LARGE", 0)
        monkeypatch.setattr(replay, "PIECE", 1)


def twin(net):
    """A net made anew, with the same parameters and shape of data."""
    other = built()
    other.blobs["data"].reshape(*net.blobs["data"].shape)
    for name, blobs in net.params.items():
        for blob, values in zip(other.params[name], blobs):
            blob.data[...] = values.data
    return other


def all_blobs(net, x, **end):
    net.blobs["data"].data[...] = x
    net.forward(**end)
    return {name: net.blobs[name].data.copy() for name in AFTER}


def replays(net):
    """Whether the next whole pass is a repetition."""
    return net.executor.replay is not None and net.executor.replay.stands(net.executor)


def ready():
    net = built()
    for seed in (1, 2):
        net.forward(data=frames(seed))
    assert replays(net)
    return net


def reshape_data(net):
    net.blobs["data"].reshape(2, 5, 9, 8)


def reshape_between(net):
    net.blobs["deep"].reshape(1, 1)  # the pass gives it its shape again


def pass_in_part(net):
    net.forward(end="bn")


def look_everywhere(net):
    for blob in net.blobs.values():
        assert blob.data.size


def hold_a_parameter(net):
    net.held = net.params["conv"][0].data
    net.held[...] *= 2


def write_a_parameter(net):
    net.params["bn"][0].data[...] += 1


def share_parameters(net):
    other = built()
    other.params["ip"][0].data[...] = 0.5
    net.share_with(other)


def load(net, tmp_path):
    other = built()
    other.params["up"][0].data[...] *= -1
    other.save(str(tmp_path / "other.caffemodel"))
    net.copy_from(str(tmp_path / "other.caffemodel"))


def be_called(net):
    net.calls = []
    net.after_forward(lambda index: net.calls.append(index))


@pytest.mark.parametrize(
    "change",
    [
        reshape_data,
        reshape_between,
        pass_in_part,
        look_everywhere,
        hold_a_parameter,
        write_a_parameter,
        share_parameters,
        load,
        be_called,
    ],
)
def test_whatever_happens_between_two_passes(change, tmp_path):
    net = ready()
    change(net, tmp_path) if change is load else change(net)
    for seed in (3, 4, 5):
        x = frames(seed, net.blobs["data"].shape)
        found, wanted = all_blobs(net, x), all_blobs(twin(net), x)
        for name in AFTER:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6, err_msg=f"{name} {seed}")
    if change is be_called:
        assert len(net.calls) == 3 * len(net.nodes)


def test_optimized_nets_replay_too_and_blobs_without_values_say_so():
    apart = NET.replace(
        'bottom: "conv" top: "conv" }\nlayer { name: "deep"', 'bottom: "conv" top: "relu" }\nlayer { name: "deep"'
    )
    apart = apart.replace(
        'name: "deep" type: "Convolution" bottom: "conv"', 'name: "deep" type: "Convolution" bottom: "relu"'
    )
    net = caffe.optimize(built(net=apart))
    first = net.forward(data=frames(1))["ip"].copy()
    assert replays(net)
    np.testing.assert_allclose(built(net=apart).forward(data=frames(1))["ip"], first, rtol=1e-4, atol=1e-5)
    net.forward(data=frames(2))
    np.testing.assert_array_equal(net.forward(data=frames(1))["ip"], first)
    with pytest.raises(caffe.CaffeError, match="blob 'conv' has no values"):
        net.blobs["conv"].data  # noqa: B018


def test_only_whole_passes_of_nets_that_only_compute():
    net = built(caffe.TRAIN)
    net.forward(data=frames())
    assert net.executor.replay is None
    net = ready()
    net.forward(end="bn")
    assert net.executor.replay is None
    text = NET + 'layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 2 }'
    net = built(net=text)
    net.forward(data=frames())
    assert net.executor.replay is None


def test_a_net_that_keeps_little_releases_as_much(monkeypatch):
    net, other = built(), built()
    net.frugal()
    for seed in (1, 2, 3):
        found, wanted = net.forward(data=frames(seed)), other.forward(data=frames(seed))
        np.testing.assert_array_equal(found["ip"], wanted["ip"])
        assert net.blobs["deep"].memory.is_zero
    assert replays(net)


def test_a_piece_is_computed_into_the_array_that_is_there(pieces, request):
    net = ready()
    before = net.blobs["conv"].memory.placed
    net.forward(data=frames(3))
    assert (net.blobs["conv"].memory.placed is before) == ("in pieces" in request.node.name)
    held = net.blobs["conv"].data
    net.forward(data=frames(4))
    assert np.array_equal(held, all_blobs(twin(net), frames(4))["conv"])
