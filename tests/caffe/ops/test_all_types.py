"""Every registered layer type has a gradient checked by finite differences here, or is known to have none."""

import numpy as np
import pytest

import caffe
from caffe.layer import REGISTRY
from tests.caffe.ops.checks import check_gradients, layer_net

pytestmark = pytest.mark.usefixtures("either_memory")

# Inputs and data layers have no bottom to send a gradient to; their tests compare what they read.
SOURCES = {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "Parameter", "WindowData"}
SINKS = {"HDF5Output", "Silence"}  # no top; Silence sends zeros
WITHOUT_BACKWARD = {"Accuracy", "ArgMax", "Threshold"}


def spread(*shape, seed=0):
    """Values of -2..2 in random order, from each other and from 0 further apart than the step of the check: no step
    crosses a kink or changes which of them is the largest."""
    count = int(np.prod(shape))
    values = (np.arange(count) - (count - 1) // 2 - 0.5) * 4 / count
    assert count < 130  # 4 / 130 = 3 steps of 0.01
    return np.random.default_rng(seed).permutation(values).astype(np.float32).reshape(shape)


X = spread(2, 3, 4, 3)
ROWS, OTHER = spread(4, 5), spread(4, 5, seed=1)
POSITIVE = np.abs(ROWS) + 0.5
LABELS = np.array([0, 4, 2, 2], np.float32)
BOTH = (0, 1)
GAUSSIAN = "weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' }"
RECURRENT = f"recurrent_param {{ num_output: 3 {GAUSSIAN} }}"
STEPS = [spread(3, 2, 4), np.array([[0, 0], [1, 1], [1, 0]], np.float32)]

CASES = {  # type: (parameters, bottoms, the bottoms that get a gradient)
    "AbsVal": ("", [X], (0,)),
    "BNLL": ("", [X], (0,)),
    "BatchNorm": ("", [X], (0,)),
    "BatchReindex": ("", [ROWS, np.array([3, 0, 3], np.float32)], (0,)),
    "Bias": ("bias_param { axis: 0 }", [X, spread(2, 3)], BOTH),
    "Clip": ("clip_param { min: -1.5 max: 1 }", [X], (0,)),
    "Concat": ("concat_param { axis: 2 }", [X, spread(2, 3, 2, 3)], BOTH),
    "ContrastiveLoss": ("contrastive_loss_param { margin: 4 }", [ROWS, OTHER, LABELS > 1], BOTH),
    "Convolution": (f"convolution_param {{ num_output: 2 kernel_size: 2 {GAUSSIAN} }}", [X], (0,)),
    "Crop": ("crop_param { axis: 2 offset: 1 }", [X, spread(2, 3, 3, 2)], (0,)),
    "Deconvolution": (f"convolution_param {{ num_output: 2 kernel_size: 2 stride: 2 {GAUSSIAN} }}", [X], (0,)),
    "Dropout": ("", [X], (0,)),  # phase TEST; in TRAIN each pass has a mask of its own: test_neuron.py
    "ELU": ("elu_param { alpha: 0.5 }", [X], (0,)),
    "Eltwise": ("eltwise_param { operation: PROD }", [ROWS, OTHER], BOTH),
    "Embed": (f"embed_param {{ num_output: 3 input_dim: 5 {GAUSSIAN} }}", [LABELS], ()),
    "EuclideanLoss": ("", [ROWS, OTHER], BOTH),
    "Exp": ("", [X], (0,)),
    "Filter": ("", [ROWS, np.array([1, 0, 1, 1], np.float32)], (0,)),
    "Flatten": ("", [X], (0,)),
    "HingeLoss": ("hinge_loss_param { norm: L2 }", [ROWS, LABELS], (0,)),
    "Im2col": ("convolution_param { kernel_size: 2 pad: 1 }", [X], (0,)),
    "InfogainLoss": ("", [ROWS, LABELS, np.eye(5, dtype=np.float32) + 0.2], (0,)),
    "InnerProduct": (f"inner_product_param {{ num_output: 3 {GAUSSIAN} }}", [X], (0,)),
    "LRN": ("lrn_param { local_size: 3 alpha: 0.5 }", [X], (0,)),
    "LSTM": (RECURRENT, STEPS, (0,)),
    "LSTMUnit": ("", [spread(1, 2, 3), spread(1, 2, 12), np.array([[0, 1]], np.float32)], BOTH),
    "Log": ("", [POSITIVE], (0,)),
    "MVN": ("", [X], (0,)),
    "MultinomialLogisticLoss": ("", [POSITIVE, LABELS], (0,)),
    "PReLU": ("", [X], (0,)),
    "Pooling": ("pooling_param { kernel_size: 2 }", [X], (0,)),
    "Power": ("power_param { power: 2 scale: 0.5 shift: 0.3 }", [X], (0,)),
    "RNN": (RECURRENT, STEPS, (0,)),
    "ReLU": ("relu_param { negative_slope: 0.2 }", [X], (0,)),
    "Reduction": ("reduction_param { operation: SUMSQ axis: 1 }", [X], (0,)),
    "Reshape": ("reshape_param { shape { dim: 0 dim: -1 dim: 2 } }", [X], (0,)),
    "SPP": ("spp_param { pyramid_height: 2 }", [X], (0,)),
    "Scale": ("scale_param { axis: 0 bias_term: true }", [X, spread(2, 3)], BOTH),
    "Sigmoid": ("", [X], (0,)),
    "SigmoidCrossEntropyLoss": ("", [ROWS, np.abs(OTHER) / 2], (0,)),
    "Slice": ("slice_param { axis: 1 slice_point: 1 }", [X], (0,)),
    "Softmax": ("", [X], (0,)),
    "SoftmaxWithLoss": ("", [ROWS, LABELS], (0,)),
    "Split": ("", [X], (0,)),
    "Swish": ("swish_param { beta: 1.5 }", [X], (0,)),
    "TanH": ("", [X], (0,)),
    "Tile": ("tile_param { axis: 2 tiles: 2 }", [X], (0,)),
}
SEVERAL_TOPS = {"LSTMUnit", "Slice", "Split"}


def test_every_type_is_here_once():
    own = {name: cls for name, cls in REGISTRY.items() if cls.__module__.startswith("caffe.ops.")}
    assert sorted([*CASES, *SOURCES, *SINKS, *WITHOUT_BACKWARD]) == sorted(own)
    assert {name for name, cls in own.items() if not cls.differentiable} == WITHOUT_BACKWARD
    assert {name for name, cls in own.items() if cls.num_bottom == 0} == SOURCES


@pytest.mark.parametrize("kind", CASES)
def test_gradient(kind):
    params, bottoms, wrt = CASES[kind]
    phase = caffe.TEST if kind == "Dropout" else caffe.TRAIN
    tops = 2 if kind in SEVERAL_TOPS else 1
    net = layer_net(f'type: "{kind}" {params}', *(np.shape(b) for b in bottoms), tops=tops, phase=phase)
    assert not set(wrt) & set(net.layer_dict["layer"].no_gradient)
    check_gradients(net, *bottoms, wrt=wrt, params=kind != "BatchNorm")  # its blobs are statistics
