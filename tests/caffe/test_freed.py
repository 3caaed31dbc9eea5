"""Nets and solvers go with their last reference, as in BVLC Caffe: no cycles, so that no collector has to come."""

import gc
import weakref

import pytest
from google.protobuf import text_format

import caffe
from caffe.layer import REGISTRY
from caffe.net import Net
from caffe.proto import caffe_pb2
from tests.caffe.cuda.recorder import Recorder

NET = """
layer { name: "data" type: "Python" top: "data" top: "label"
        python_param { module: "tests.caffe.cuda.test_graph" layer: "Batches" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: STOCHASTIC kernel_size: 2 } }
layer { name: "lrn" type: "LRN" bottom: "pool" top: "lrn" }
layer { name: "drop" type: "Dropout" bottom: "lrn" top: "drop" }
layer { name: "clip" type: "Clip" bottom: "drop" top: "drop" clip_param { min: -1 max: 1 } }
layer { name: "flat" type: "Flatten" bottom: "drop" top: "flat" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "mine" type: "Python" bottom: "ip" top: "mine"
        python_param { module: "tests.caffe.cuda.test_graph" layer: "Twice" } }
layer { name: "sigmoid" type: "Sigmoid" bottom: "mine" top: "sigmoid" }
layer { name: "also" type: "EuclideanLoss" bottom: "sigmoid" bottom: "label" top: "also" }
layer { name: "loss" type: "EuclideanLoss" bottom: "mine" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def net_of(text=NET, phase=caffe.TRAIN):
    param = text_format.Parse(text, caffe_pb2.NetParameter())
    param.state.phase = phase
    return Net.from_proto(param, seed=5)


def solver_of(net=NET):
    param = caffe_pb2.SolverParameter(base_lr=0.001, lr_policy="fixed", momentum=0.9, random_seed=3, max_iter=9)
    text_format.Parse(net, param.train_net_param)
    param.test_net_param.add().CopyFrom(param.train_net_param)
    param.test_iter.append(1)
    param.test_interval = 2
    return caffe.get_solver(param)


@pytest.mark.parametrize("used", ["built", "forward", "backward", "looked at", "frugal", "called back"])
def test_nets(used):
    net = net_of()
    if used == "frugal":
        net.frugal()
    if used == "called back":
        calls = []
        net.after_forward(calls.append)
        net.before_backward(calls.append)
    if used != "built":
        net.forward()
    if used not in ("built", "forward"):
        net.backward()
    if used == "looked at":
        [(b.data, b.diff) for b in net.blobs.values()]
        net.backward()
    gone = [weakref.ref(thing) for thing in (net, net.blobs["conv"], *net.layers)]
    del net
    assert not any(ref() for ref in gone)


@pytest.mark.parametrize("engine", [None, Recorder])
@pytest.mark.parametrize("frugal", [False, True])
def test_solvers(engine, frugal):
    captured = NET[: NET.index('layer { name: "mine"')] + (
        'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    solver = solver_of(captured if engine else NET)
    if frugal:
        solver.frugal()
    if engine:
        solver.capture_with(engine())
    solver.add_callback(lambda: None, lambda: None)
    solver.step(6)
    if engine:
        assert solver.iteration.engine.replays > 0
    nets = [solver.net, *solver.test_nets]
    gone = [weakref.ref(thing) for thing in (solver, *nets, *(layer for net in nets for layer in net.layers))]
    del solver, nets
    assert not any(ref() for ref in gone)


def test_layers_that_a_module_is_made_of():
    text = NET[: NET.index('layer { name: "mine"')]
    net = net_of(text)
    module = caffe.to_torch(net)
    gone = [weakref.ref(net), weakref.ref(module), *map(weakref.ref, net.layers)]
    del net, module
    assert not any(ref() for ref in gone)


def test_every_layer_type_lets_go_of_itself():
    """None holds itself by a function or a property of its own."""
    for kind in REGISTRY.values():
        layer = kind(caffe_pb2.LayerParameter())
        gone = weakref.ref(layer)
        del layer
        assert gone() is None, kind
