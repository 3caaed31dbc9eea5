"""FLOP and bytes of layers, counted by hand."""

import pytest
from google.protobuf import text_format

from caffe import costs
from caffe.layer import TRAIN
from caffe.net import Net
from caffe.proto import caffe_pb2

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 6 dim: 5 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 4 group: 2 kernel_size: 3 } }
layer { name: "deep" type: "ConvolutionDepthwise" bottom: "conv" top: "deep" convolution_param { kernel_size: 1 } }
layer { name: "up" type: "Deconvolution" bottom: "deep" top: "up"
        convolution_param { num_output: 3 kernel_size: 2 bias_term: false } }
layer { name: "flat" type: "InnerProduct" bottom: "up" top: "flat"
        inner_product_param { num_output: 7 axis: 2 transpose: true } }
layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "loss" type: "Reduction" bottom: "flat" top: "loss" loss_weight: 1 }
layer { name: "rnn" type: "RNN" bottom: "flat" bottom: "cont" top: "rnn"
        recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


@pytest.fixture(scope="module")
def nodes():
    param = text_format.Parse(NET, caffe_pb2.NetParameter())
    param.state.phase = TRAIN
    return {node.name: node for node in Net.from_proto(param).nodes}


@pytest.mark.parametrize(
    "name, flop",
    [
        ("x", 0),
        ("conv", 2 * (2 * 4 * 3 * 2) * (3 * 3 * 3)),  # 48 values, each of 3 channels under 3 x 3
        ("deep", 2 * (2 * 4 * 3 * 2)),
        ("up", 2 * (2 * 4 * 3 * 2) * (3 * 2 * 2)),
        ("flat", 2 * (2 * 3) * (4 * 3) * 7),
        ("rnn", 2 * (2 * 3) * (5 * 7 + 5 * 5 + 5 * 5)),  # x, and h twice: into the state and out of it
    ],
)
def test_flop(nodes, name, flop):
    assert costs.flop(nodes[name]) == costs.forward(nodes[name]).flop == flop


def test_traffic_and_backward(nodes):
    bottom, weights, top = 2 * 6 * 5 * 4, 4 * 3 * 3 * 3 + 4, 2 * 4 * 3 * 2
    assert costs.forward(nodes["conv"]).bytes == 4 * (bottom + weights + top)
    # Nobody wants the gradient of the input: the weights' alone, of bottom and top.
    assert costs.backward(nodes["conv"]) == (costs.flop(nodes["conv"]), 4 * (top + bottom + weights))
    assert costs.backward(nodes["up"]).flop == 2 * costs.flop(nodes["up"])
    assert costs.backward(nodes["rnn"]) == (0, 0)  # no loss follows
