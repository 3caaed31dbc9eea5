"""Every layer type of a fork has a gradient checked by finite differences here, or is known to have none."""

import numpy as np
import pytest

from caffe.layer import REGISTRY
from caffe.torch_layer import TorchLayer
from tests.caffe.ops.checks import check_gradients, forward, layer_net
from tests.caffe.ops.test_all_types import GAUSSIAN, LABELS, OTHER, ROWS, spread

pytestmark = pytest.mark.usefixtures("either_memory")

WITHOUT_BACKWARD = {"AnnotatedData", "BoxAnnotatorOHEM", "DetectionEvaluate", "DetectionOutput", "PriorBox", "Proposal"}
ELSEWHERE = {"CenterLoss", "MultiBoxLoss", "SpatialDropout"}  # no derivatives, or need ground truth or luck

X = spread(2, 4, 3, 4)
ROIS = np.array([[0, 0, 0, 3, 2], [1, 1, 0, 6, 3], [1, 2, 1, 2, 1]], np.float32)
MASK = np.random.default_rng(2).permuted(np.tile(np.arange(24), (2, 3, 1)), axis=2)[:, :, :6].reshape(2, 3, 2, 3)
ONES = "scale_filler { value: 0.7 } shift_filler { value: 0.3 }"
SLOPES = "slope_filler { value: 0.7 } bias_filler { value: 0.3 }"

CASES = {  # type, or type and a word: (parameters, bottoms, the bottoms that get a gradient)
    "Axpy": ("", [spread(2, 4), X, spread(2, 4, 3, 4, seed=1)], (0, 1, 2)),
    "BN SegNet": (f"bn_param {{ {ONES} }}", [X], (0,)),
    "BN SegNet inference": (f"bn_param {{ {ONES} bn_mode: INFERENCE }}", [X], (0,)),
    "BN frozen": (f"bn_param {{ {SLOPES} frozen: true }}", [X], (0,)),
    "ConvolutionDepthwise": (f"convolution_param {{ kernel_size: 2 {GAUSSIAN} }}", [X], (0,)),
    "DepthwiseConvolution": (f"convolution_param {{ num_output: 8 group: 4 kernel_size: 2 {GAUSSIAN} }}", [X], (0,)),
    "Interp": ("interp_param { height: 5 width: 6 }", [X], (0,)),
    "Normalize": ("norm_param { scale_filler { value: 1.5 } }", [X], (0,)),
    "Normalize each place": ("norm_param { across_spatial: false channel_shared: false }", [X], (0,)),
    "PSROIPooling": ("psroi_pooling_param { spatial_scale: 0.5 output_dim: 1 group_size: 2 }", [X, ROIS], (0,)),
    "Permute": ("permute_param { order: 0 order: 2 order: 3 order: 1 }", [X], (0,)),
    "ROIPooling": ("roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }", [X, ROIS], (0,)),
    "ReLU6": ("relu6_param { n: 1.5 negative_slope: 0.1 }", [X], (0,)),
    "Reorg": ("reorg_param { stride: 2 }", [spread(2, 4, 2, 4)], (0,)),
    "Reorg reverse": ("reorg_param { stride: 2 reverse: true }", [spread(2, 4, 2, 3)], (0,)),
    "Reverse": ("reverse_param { axis: 2 }", [X], (0,)),
    "ShuffleChannel": ("shuffle_channel_param { group: 2 }", [X], (0,)),
    "SmoothL1Loss": ("loss_weight: 1 smooth_l1_loss_param { sigma: 1.5 }", [ROWS, OTHER], (0, 1)),
    "SmoothL1Loss weighted": ("loss_weight: 1", [ROWS, OTHER, np.full((4, 5), 0.5), np.abs(ROWS)], (0, 1)),
    "Transpose": ("transpose_param { dim: 1 dim: 0 dim: 3 dim: 2 }", [X], (0,)),
    "Upsample": ("upsample_param { scale: 2 }", [spread(2, 3, 2, 3), MASK], (0,)),
    "Upsample nearest": ("upsample_param { scale: 2 }", [spread(2, 3, 2, 3)], (0,)),
}


def test_every_type_is_here():
    forks = {name for name, cls in REGISTRY.items() if cls.__module__.startswith("caffe.forks.")}
    assert {case.split()[0] for case in CASES} | WITHOUT_BACKWARD | ELSEWHERE == forks
    without = {name for name in forks if not (issubclass(REGISTRY[name], TorchLayer) and REGISTRY[name].differentiable)}
    assert without == WITHOUT_BACKWARD


@pytest.mark.parametrize("case", CASES)
def test_gradient(case):
    params, bottoms, wrt = CASES[case]
    net = layer_net(f'type: "{case.split()[0]}" {params}', *(np.shape(b) for b in bottoms))
    check_gradients(net, *bottoms, wrt=wrt, params="frozen" not in case, tolerance=4e-3)


def test_bn_of_pspnet_in_training():
    """Its statistics change with every pass, which finite differences of the parameters would take for theirs."""
    net = layer_net(f'type: "BN" bn_param {{ {SLOPES} }}', X.shape)
    check_gradients(net, X, params=False, tolerance=4e-3)


def test_center_loss():
    """The centres' gradient is a rule of its own: sum of (c - x) / (1 + number), not scaled by the top's diff."""
    own = "center_loss_param { num_output: 5 center_filler { type: 'gaussian' } }"
    net = layer_net(f'type: "CenterLoss" {own}', (4, 5), (4,))
    check_gradients(net, ROWS, LABELS, params=False)
    centers = net.params["layer"][0]
    loss = sum(((x - centers.data[int(y)]) ** 2).sum() for x, y in zip(ROWS, LABELS)) / (2 * len(ROWS))
    np.testing.assert_allclose(forward(net, ROWS, LABELS)[0], loss, rtol=1e-5)
    net.blobs["t0"].diff[...] = 3
    centers.diff[...] = 0
    net.backward()
    c = centers.data
    np.testing.assert_allclose(net.blobs["b0"].diff, 3 * (ROWS - c[LABELS.astype(int)]) / 4, rtol=1e-5)
    wanted = np.zeros_like(c)
    for j in range(5):
        rows = ROWS[LABELS == j]
        wanted[j] = (c[j] - rows).sum(0) / (1 + len(rows))
    np.testing.assert_allclose(centers.diff, wanted, rtol=1e-5, atol=1e-6)
