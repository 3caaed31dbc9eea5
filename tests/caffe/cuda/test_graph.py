"""Captured iterations against plain ones, bit by bit, with an engine that records on the CPU (recorder.py)."""

import weakref

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.cuda.graph import WARM_UP, why_not
from caffe.errors import CaffeError
from caffe.iteration import Iteration
from caffe.layer import TRAIN
from caffe.net import Net
from caffe.proto import caffe_pb2
from tests.caffe.cuda.recorder import Recorder

pytestmark = pytest.mark.usefixtures("either_memory")

DATA = """
layer { name: "data" type: "Python" top: "data" top: "label"
        python_param { module: "tests.caffe.cuda.test_graph" layer: "LAYER" } }
"""
BODY = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
RECURRENT = """
layer { name: "go" type: "DummyData" top: "go"
        dummy_data_param { shape { dim: 5 dim: 3 } data_filler { type: "constant" value: 1 } } }
layer { name: "steps" type: "Reshape" bottom: "label" top: "steps" reshape_param { shape { dim: 5 dim: 3 dim: 1 } } }
layer { name: "lstm" type: "LSTM" bottom: "steps" bottom: "go" top: "ip"
        recurrent_param { num_output: 1 weight_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "steps" top: "loss" }
layer { name: "unused" type: "Silence" bottom: "data" }
"""
LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }'
SPP = 'layer { name: "spp" type: "SPP" bottom: "drop" top: "spp" spp_param { pyramid_height: 2 pool: STOCHASTIC } }\n'
PYRAMID = (
    BODY.replace('layer { name: "ip"', SPP + 'layer { name: "ip"').replace(
        'bottom: "drop" top: "ip"', 'bottom: "spp" top: "ip"'
    )
    + LOSS
)
FILTER = 'layer { name: "filter" type: "Filter" bottom: "ip" bottom: "keep" top: "some" }'
MIDDLE = """layer { name: "middle" type: "Python" bottom: "ip" top: "twice"
        python_param { module: "tests.caffe.cuda.test_graph" layer: "Twice" } }"""


class Batches(caffe.Layer):
    """Batch n is a function of n; the batch size changes where `sizes` says so."""

    sizes: dict = {}

    def setup(self, bottom, top):
        self.number = -1

    def reshape(self, bottom, top):
        rng = np.random.default_rng(self.number + 1)
        self.number += 1
        self.images = rng.integers(0, 256, (self.sizes.get(self.number, 5), 2, 6, 7), dtype=np.uint8)
        self.labels = rng.standard_normal((len(self.images), 3)).astype(np.float32)
        top[0].reshape(*self.images.shape)
        top[1].reshape(*self.labels.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.images / np.float32(255)
        top[1].data[...] = self.labels

    def backward(self, top, propagate_down, bottom):
        pass


class Changing(Batches):
    sizes = dict.fromkeys(range(7, 12), 3)


class Packed(Batches):
    """The same batches, the images as they are."""

    def __caffe_pack__(self):
        return [self.images, self.labels]

    @staticmethod
    def __caffe_unpack__(images, labels):
        return images / np.float32(255), labels


class PackedChanging(Packed):
    """All tops are made anew on the device; none is a tensor that came by wire."""

    sizes = Changing.sizes

    @staticmethod
    def __caffe_unpack__(images, labels):
        return images / np.float32(255), labels * 1


class Twice(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff


def solver(net=BODY + LOSS, layer="Batches", engine=None, frugal=False, **fields):
    param = caffe_pb2.SolverParameter(
        base_lr=0.01,
        lr_policy="inv",
        gamma=0.1,
        power=0.75,
        momentum=0.9,
        weight_decay=0.01,
        random_seed=3,
        average_loss=3,
        max_iter=100,
    )
    for name, value in fields.items():
        setattr(param, name, value)
    text_format.Parse(DATA.replace("LAYER", layer) + net, param.train_net_param)
    made = caffe.get_solver(param)
    if frugal:
        made.frugal()
    if engine:
        made.capture_with(engine)
    return made


def plain(**settings):
    """A solver on the same way, with nothing captured."""
    made = solver(engine=Recorder(), **settings)
    made.iteration.refused = "told so"
    return made


def assert_equal(a, b):
    for name in a.net.blobs:
        for moment in ("data", "diff"):
            x, y = (getattr(s.net.blobs[name], moment) for s in (a, b))
            np.testing.assert_array_equal(x, y, err_msg=f"{name} {moment}")
    for name in a.net.params:
        for i, (x, y) in enumerate(zip(a.net.params[name], b.net.params[name])):
            np.testing.assert_array_equal(x.data, y.data, err_msg=f"{name} {i}")
            np.testing.assert_array_equal(x.diff, y.diff, err_msg=f"diff of {name} {i}")
    assert float(a.smoothed_loss) == float(b.smoothed_loss)


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
@pytest.mark.parametrize("frugal", [False, True])
def test_same_trajectory(kind, frugal):
    """Every rule, with a rate that changes in every iteration, dropout and statistics of BatchNorm."""
    rule = dict(type=kind, momentum=0.0 if kind in ("AdaGrad", "RMSProp") else 0.9, delta=1e-4)
    a, b = plain(frugal=frugal, **rule), solver(engine=(engine := Recorder()), frugal=frugal, **rule)
    for _ in range(WARM_UP + 5):
        a.step(1)
        b.step(1)
        assert float(a.smoothed_loss) == float(b.smoothed_loss)
    assert (engine.captures, engine.replays) == (2, 2 * 5)
    for x, y in zip(a.net.learnable_params, b.net.learnable_params):
        assert torch.equal(x.tensor(), y.tensor())
    if not frugal:
        assert_equal(a, b)


def test_without_an_engine_the_numbers_are_the_same():
    """Rates as tensors and data by wire: nothing that the CPU's own way does otherwise."""
    a, b = solver(), solver(engine=Recorder())
    a.step(8)
    b.step(8)
    assert_equal(a, b)


def test_packed_batches_give_the_same_tops():
    a, b = solver(), solver(layer="Packed", engine=(engine := Recorder()))
    a.step(7)
    b.step(7)
    assert engine.replays == 2 * 4
    assert b.iteration.feed._sent[0][0].dtype == torch.uint8
    assert_equal(a, b)


@pytest.mark.parametrize("layer", ["Batches", "Packed"])
@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize(
    "seen", [["label", "data"], ["data", "data"], ["conv", "data", "ip", "diff"], ["loss", "diff"]]
)
def test_to_look_changes_nothing(layer, frugal, seen):
    """What was read is not taken for what was written: the next batch counts, not the one that was looked at."""
    losses = []
    for s in (plain(layer=layer, frugal=frugal), solver(layer=layer, frugal=frugal, engine=Recorder())):
        for _ in range(WARM_UP + 5):
            s.step(1)
            losses.append(float(s.smoothed_loss))
            for name, moment in zip(seen[::2], seen[1::2]):
                getattr(s.net.blobs[name], moment).sum()
    assert losses[: WARM_UP + 5] == losses[WARM_UP + 5 :] and len(set(losses)) == WARM_UP + 5


def test_the_diff_of_a_sum_can_be_looked_at():
    """It is one number for all places, until somebody may write into one of them."""
    sums = 'layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }'
    s = solver(BODY + sums + 'layer { name: "unused" type: "Silence" bottom: "label" }', engine=Recorder())
    for _ in range(WARM_UP + 3):
        s.step(1)
        for _ in range(2):
            assert (s.net.blobs["ip"].diff == 1).all()


@pytest.mark.parametrize("written", ["array", "file"])
@pytest.mark.parametrize("moment", [WARM_UP, WARM_UP + 2])
def test_new_weights_count(written, moment, tmp_path):
    """Also in the iteration that is captured, in which convolutions lay new weights out anew."""
    a, b = plain(frugal=True), solver(engine=(engine := Recorder()), frugal=True)
    a.net.save(str(tmp_path / "w.caffemodel"))
    for s in (a, b):
        s.step(moment)
        if written == "file":
            s.net.copy_from(str(tmp_path / "w.caffemodel"))
        else:
            s.net.params["conv"][0].data[...] *= 0.5
        s.step(5)
    assert engine.replays > 0
    for x, y in zip(a.net.learnable_params, b.net.learnable_params):
        np.testing.assert_array_equal(x.data, y.data)


@pytest.mark.parametrize("net", [RECURRENT, PYRAMID], ids=["a recurrent state", "several random poolings in one layer"])
def test_what_a_layer_carries_on(net):
    a, b = plain(net=net), solver(net=net, engine=(engine := Recorder()))
    a.step(WARM_UP + 5)
    b.step(WARM_UP + 5)
    assert engine.replays == 2 * 5
    assert_equal(a, b)


OVERWRITTEN = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "conv" top: "tanh" }
layer { name: "drop" type: "Dropout" bottom: "tanh" top: "tanh" }
layer { name: "elu" type: "ELU" bottom: "tanh" top: "tanh" }
layer { name: "scale" type: "Scale" bottom: "tanh" top: "tanh" scale_param { filler { value: -2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "tanh" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""


@pytest.mark.parametrize("frugal", [False, True])
def test_what_is_written_over_a_top_counts_in_a_graph(frugal):
    """Backward reads it there (tests/caffe/test_overwritten.py), also in iterations that keep only what is needed."""
    net = OVERWRITTEN + LOSS
    a, b = plain(net=net, frugal=frugal), solver(net=net, engine=(engine := Recorder()), frugal=frugal)
    derivative = solver(net=net)
    for node in derivative.net.nodes:
        node.duty.rereads = False
    for s in (a, b, derivative):
        s.step(WARM_UP + 5)
    assert engine.replays == 2 * 5
    for x, y in zip(a.net.learnable_params, b.net.learnable_params):
        assert torch.equal(x.tensor(), y.tensor())
    assert float(a.smoothed_loss) == float(b.smoothed_loss) != float(derivative.smoothed_loss)


def test_a_solver_that_goes_takes_its_graphs_along():
    s = solver(engine=Recorder())
    s.step(WARM_UP + 2)
    gone = weakref.ref(s)
    del s
    assert gone() is None


def test_what_the_user_writes_counts():
    a, b = plain(), solver(engine=(engine := Recorder()))
    for s in (a, b):
        s.step(WARM_UP + 2)
        seen = s.net.params["conv"][0].data
        s.step(1)
        seen[...] *= 0.5
        s.net.params["ip"][0].data[0] = 0.25
        s.net.blobs["loss"].diff[...] = 3
        s.step(2)
    assert engine.captures == 2
    assert_equal(a, b)


def test_forward_between_steps():
    a, b = plain(), solver(engine=(engine := Recorder()))
    for s in (a, b):
        s.step(WARM_UP + 2)
        s.net.forward()
        s.net.backward()
        s.step(2)
        s.net.backward()
    assert engine.captures == 2
    assert_equal(a, b)


@pytest.mark.parametrize("layer", ["Changing", "PackedChanging"])
def test_another_shape_is_captured_anew(layer):
    a, b = plain(layer=layer), solver(layer=layer, engine=(engine := Recorder()))
    a.step(17)
    b.step(17)
    assert engine.captures == 6  # 5 items, then 3, then 5 again
    assert_equal(a, b)


def test_restored_snapshot(tmp_path):
    settings = dict(snapshot_prefix=str(tmp_path / "s"))
    a, b = plain(**settings), solver(engine=(engine := Recorder()), **settings)
    for s in (a, b):
        s.step(WARM_UP + 1)
        s.snapshot()
        s.step(2)
        s.restore(str(tmp_path / f"s_iter_{WARM_UP + 1}.solverstate"))
        s.step(WARM_UP + 3)
    assert engine.captures > 2
    assert_equal(a, b)


@pytest.mark.parametrize("settings", [dict(clip_gradients=0.5), dict(display=2)])
def test_work_on_the_host_lies_between_the_graphs(settings):
    a, b = plain(**settings), solver(engine=(engine := Recorder()), **settings)
    a.step(8)
    b.step(8)
    assert engine.replays == 2 * (8 - WARM_UP)
    assert_equal(a, b)


def test_callbacks_of_the_solver_lie_between_the_graphs():
    """Where ranks average their gradients."""
    made = []
    for s in (plain(), solver(engine=(engine := Recorder()))):
        gradients = s.net.params["ip"][0]
        s.add_callback(lambda: None, lambda g=gradients: g.grad.tensor().mul_(0.5))
        s.step(8)
        made.append(s)
    assert engine.replays == 2 * (8 - WARM_UP)
    assert_equal(*made)


@pytest.mark.parametrize("settings", [dict(iter_size=2), dict(display=1, debug_info=True)])
def test_what_is_run_layer_by_layer(settings):
    a, b = solver(**settings), solver(engine=(engine := Recorder()), **settings)
    a.step(6)
    b.step(6)
    assert engine.captures == 0
    assert_equal(a, b)


def test_watched_layers_run_one_by_one():
    b = solver(engine=(engine := Recorder()))
    calls = []
    b.net.after_forward(calls.append)
    b.step(WARM_UP + 2)
    assert len(calls) == (WARM_UP + 2) * len(b.net.layers) and engine.captures == 0


def test_graphs_can_be_turned_off():
    b = solver(engine=(engine := Recorder()))
    b.graphs = False
    b.step(WARM_UP + 2)
    assert engine.captures == 0


def test_another_mode_goes_on_without_graphs():
    a, b = solver(), solver(engine=(engine := Recorder()))
    a.step(WARM_UP + 4)
    b.step(WARM_UP + 2)
    engine.device = "cuda"  # as if the mode had been GPU until now
    b.step(2)
    assert type(b.iteration) is Iteration and engine.replays == 2 * 2
    for x, y in zip(a.net.learnable_params, b.net.learnable_params):
        np.testing.assert_array_equal(x.data, y.data)


def test_python_layer_in_the_middle():
    net = BODY + MIDDLE + LOSS.replace('"ip"', '"twice"')
    a, b = solver(net), solver(net, engine=(engine := Recorder()))
    a.step(6)
    b.step(6)
    assert engine.captures == 0 and "layer 'middle' (Python) computes on the host" in b.iteration.refused
    assert_equal(a, b)


def test_shapes_that_depend_on_data():
    param = caffe_pb2.NetParameter()
    text_format.Parse(
        'layer { name: "in" type: "Input" top: "ip" top: "keep" input_param { shape { dim: 3 dim: 2 } '
        "shape { dim: 3 } } }" + FILTER,
        param,
    )
    param.state.phase = TRAIN
    assert "layer 'filter' (Filter)" in why_not(Net.from_proto(param))


def test_a_layer_that_reads_on_the_host_is_found_out():
    """SoftmaxWithLoss looks at the labels on the CPU; nothing is lost, and the iterations go on without a graph."""
    net = (
        BODY
        + """layer { name: "max" type: "ArgMax" bottom: "label" top: "class" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "class" top: "loss" }"""
    )
    a, b = solver(net), solver(net, engine=(engine := Recorder()))
    a.step(7)
    b.step(7)
    assert (engine.captures, engine.replays) == (1, 0) and "not permitted" in b.iteration.refused
    assert_equal(a, b)


def test_errors_of_layers_stay_what_they_are():
    b = solver(engine=Recorder())
    b.step(1)

    def broken(bottom, top):
        raise CaffeError("no more data")

    b.net.layers[0].forward = broken
    with pytest.raises(CaffeError, match="no more data"):
        b.step(1)
