"""A Python layer's names are its own, but Caffe's; what is assigned wrongly, or missing, is told where it happens."""

import copy
import pickle

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.cuda.graph import WARM_UP
from caffe.proto import caffe_pb2
from tests.caffe.cuda.recorder import Recorder

TAKEN = {"blobs", "type", "setup", "reshape", "forward", "backward", "param_str", "phase"}
NAMES = """param random name propagate_down need_backward seek pack unpack seed no_gradient differentiable batch_loader
shape duty stream node fail error is_loss auto_top num_bottom num_top capturable saves_output gradient_checked weights
in_place keep keep_graph may_overwrite remember check_counts param_propagate_down layer index tops bottoms loss_weights
_blobs _record _graph data diff net memory grad""".split()
NET = """
layer { name: "data" type: "Python" top: "data" python_param { module: "tests.caffe.test_names" layer: "Data" } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }
"""
MIDDLE = """layer { name: "mine" type: "Python" bottom: "ip" top: "mine"
        python_param { module: "tests.caffe.test_names" layer: "KIND" } }"""


class Data(caffe.Layer):
    """As public data layers, which keep what they like where they like."""

    given: list = [True]
    names = NAMES

    def setup(self, bottom, top):
        for name in self.names:
            setattr(self, name, self.given[0])
        self.count = 0

    def reshape(self, bottom, top):
        self.count += 1
        top[0].reshape(3, 2)

    def forward(self, bottom, top):
        assert all(getattr(self, name) is self.given[0] for name in self.names)
        top[0].data[...] = self.count


class Double(Data):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        assert all(getattr(self, name) is self.given[0] for name in self.names)
        bottom[0].diff[...] = 2 * top[0].diff


class Misspelt(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forwrad(self, bottom, top):
        pass

    backword = forwrad


class OnlyForward(Misspelt):
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data


def solver_of(net=NET, **fields):
    param = caffe_pb2.SolverParameter(base_lr=0.01, lr_policy="fixed", random_seed=3, max_iter=99, **fields)
    text_format.Parse(net, param.train_net_param)
    return caffe.get_solver(param)


def middle_net(kind):
    """The data, an InnerProduct, the layer, the loss."""
    net = NET.replace('bottom: "ip" top: "loss"', 'bottom: "mine" top: "loss"')
    at = net.index('layer { name: "loss"')
    return net[:at] + MIDDLE.replace("KIND", kind) + net[at:]


@pytest.mark.parametrize("given", [True, None, {}, "text", lambda: 0], ids=["bool", "None", "dict", "text", "callable"])
@pytest.mark.parametrize("net", [NET, middle_net("Double")], ids=["data", "middle"])
def test_every_name_is_free(monkeypatch, given, net, tmp_path):
    """In plain iterations, where graphs are captured, and where snapshots are written and restored."""
    monkeypatch.setattr(Data, "given", [given])
    losses = []
    for engine in (None, Recorder()):
        solver = solver_of(net, snapshot_prefix=str(tmp_path / "s"))
        if engine:
            solver.capture_with(engine)
        for _ in range(WARM_UP + 3):
            solver.step(1)
            losses.append(float(solver.smoothed_loss))
        solver.snapshot()
        solver.restore(str(tmp_path / f"s_iter_{solver.iter}.solverstate"))
        solver.step(1)
    half = len(losses) // 2
    assert losses[:half] == losses[half:]
    if net is NET:
        assert engine.replays > 0


def test_caffes_names_are_those_of_bvlc():
    layer = caffe.Layer(caffe_pb2.LayerParameter())
    public = {name for name in dir(layer) if not name.startswith("_")}
    assert public - {"param_str_"} <= TAKEN and not hasattr(layer, "forward") and not hasattr(layer, "backward")
    with pytest.raises(AttributeError):
        layer.type = "Mine"
    with pytest.raises(AttributeError):
        layer.blobs = []


def test_a_layer_without_forward_or_backward_says_so():
    with pytest.raises(AttributeError, match="'Misspelt' object has no attribute 'forward'"):
        solver_of(middle_net("Misspelt")).step(1)
    solver = solver_of(middle_net("OnlyForward"))
    solver.net.forward()
    with pytest.raises(AttributeError, match="'OnlyForward' object has no attribute 'backward'"):
        solver.net.backward()


class Asked(caffe.Layer):
    """What the runtime offers beyond BVLC Caffe."""

    calls: list = []

    def __caffe_seed__(self, seed):
        self.calls.append(("seed", seed))

    def __caffe_seek__(self, batch):
        self.calls.append(("seek", batch))

    def __caffe_saved__(self, path, came_from):
        self.calls.append(("saved", path))

    def setup(self, bottom, top):
        self.calls.append(("setup", self.phase))

    def reshape(self, bottom, top):
        top[0].reshape(3, 2)

    def forward(self, bottom, top):
        top[0].data[...] = 1


def test_what_the_runtime_offers_is_asked_for(tmp_path):
    Asked.calls.clear()
    solver = solver_of(NET.replace('layer: "Data"', 'layer: "Asked"'), snapshot_prefix=str(tmp_path / "s"))
    assert [what for what, _ in Asked.calls] == ["seed", "setup"]
    solver.step(2)
    solver.snapshot()
    solver.restore(str(tmp_path / "s_iter_2.solverstate"))
    assert [what for what, _ in Asked.calls[2:]] == ["saved", "seed", "seek"]
    assert Asked.calls[3] == Asked.calls[0] and Asked.calls[4] == ("seek", 2)


def test_a_wrong_assignment_is_refused_where_it_happens():
    net = solver_of().net
    array = np.zeros((2, 2), np.float32)
    with pytest.raises(TypeError, match=r"ndarray.*blobs\[0\].data\[...\] = values"):
        net.params["ip"][0] = array
    with pytest.raises(TypeError, match=r"net.params\['ip'\] cannot be replaced"):
        net.params["ip"] = [array]
    with pytest.raises(TypeError, match=r"net.blobs\['ip'\] cannot be replaced"):
        net.blobs["ip"] = array
    with pytest.raises(AttributeError, match=r"blob.data\[...\] = values"):
        net.params["ip"][0].data = array
    with pytest.raises(AttributeError, match=r"blob.diff\[...\] = values"):
        net.blobs["ip"].diff = array
    with pytest.raises(TypeError, match="wants a caffe.Blob"):
        net.params["ip"].append(array)
    with pytest.raises(TypeError, match="wants a caffe.Blob"):
        net.params["ip"].extend([array])
    for change in ("pop", "clear", "reverse", "sort", "insert", "remove"):
        with pytest.raises(TypeError, match="parameters stay"):
            getattr(net.params["ip"], change)()
    with pytest.raises(TypeError, match="parameters stay"):
        del net.params["ip"][0]
    with pytest.raises(TypeError, match="parameters stay"):
        net.params["ip"] += [array]
    with pytest.raises(TypeError, match="parameters stay"):
        net.params["ip"] *= 2
    assert [blob.shape for blob in net.params["ip"]] == [(2, 2), (2,)] and net.params["ip"][-1] in net.params["ip"]
    assert list(net.blobs.copy()) == list(net.blobs)


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.deepcopy, copy.copy])
def test_nets_are_not_pickled(attempt):
    solver = solver_of()
    for thing, advice in ((solver, "solver.snapshot"), (solver.net, "net.save")):
        with pytest.raises(TypeError, match=f"not pickled or copied; {advice}"):
            attempt(thing)
    if attempt is pickle.dumps:
        with pytest.raises(TypeError, match="np.save"):
            attempt(solver.net.blobs["ip"])
    else:
        blob = solver.net.params["ip"][0]
        if attempt is copy.deepcopy:
            assert (attempt(blob).data == blob.data).all()
