"""Python layers written as people have published them (public_layers.py) run as they stand: in plain iterations, where
graphs are captured, frugal as in `caffe train`, and over a snapshot."""

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.cuda.graph import WARM_UP
from caffe.net import Net
from caffe.proto import caffe_pb2
from tests.caffe.cuda.recorder import Recorder
from tests.caffe.public_layers import CLASSES, IMAGES, picture


def python(name, layer, bottoms="", tops="", param_str="", more=""):
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    return (
        f'layer {{ name: "{name}" type: "Python"{ends} {more} python_param {{ module: "tests.caffe.public_layers" '
        f'layer: "{layer}" param_str: "{param_str}" }} }}\n'
    )


def conv(name, bottom, outputs):
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {outputs} kernel_size: 1 "
        'weight_filler { type: "gaussian" std: 0.001 } } }\n'
    )


def shared(name, bottom):
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" param {{ name: "w" }} '
        f'param {{ name: "b" }} inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}\n'
    )


def end(kind, bottoms, more=""):
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split())
    return f'layer {{ name: "loss" type: "{kind}"{ends} top: "loss" {more} }}\n'


SEGMENTATION = (
    python(
        "data", "SegDataLayer", tops="data label", param_str="{'split': 'SPLIT', 'mean': (104, 116, 122), 'seed': 3}"
    )
    + conv("score", "data", CLASSES)
    + end("SoftmaxWithLoss", "score label", "loss_param { ignore_label: 255 }")
)
REGIONS = (
    python("input-data", "RegionDataLayer", tops="data im_info gt_boxes", param_str="{'num_classes': 2}")
    + conv("score", "data", 2)
    + python("targets", "AnchorTargets", "score gt_boxes im_info", "labels", "{'feat_stride': 1}")
    + end(
        "SoftmaxWithLoss", "score labels", "propagate_down: true propagate_down: false loss_param { ignore_label: -1 }"
    )
)
MULTILABEL = (
    python("data", "MultilabelDataLayer", tops="data label", param_str="{'batch_size': 3, 'im_shape': [7, 8]}")
    + 'layer { name: "score" type: "InnerProduct" bottom: "data" top: "score" inner_product_param { num_output: 4 '
    'weight_filler { type: "gaussian" std: 0.0001 } } }\n' + end("SigmoidCrossEntropyLoss", "score label")
)
TRIPLETS = (
    python("sampler", "TripletSampler", tops="a p n", param_str="{'batch': 4, 'name': 'triplets'}")
    + "".join(shared(f"f{name}", name) for name in "apn")
    + python("loss", "TripletLoss", "fa fp fn", "loss", "{'margin': 30.0}", "loss_weight: 1")
)
NETS = {
    "segmentation": SEGMENTATION.replace("SPLIT", "train"),
    "segmentation in order": SEGMENTATION.replace("SPLIT", "val"),
    "regions": REGIONS,
    "several labels": MULTILABEL,
    "triplets": TRIPLETS,
}


def solver_of(net, folder, **fields):
    param = caffe_pb2.SolverParameter(base_lr=1e-6, lr_policy="fixed", momentum=0.9, random_seed=3, max_iter=99)
    param.snapshot_prefix = str(folder / "s")
    text_format.Parse(net, param.train_net_param)
    solver = caffe.get_solver(param)
    if net is REGIONS:  # as such scripts do
        boxes = np.array([[1, 2, 6, 5]])
        images = [picture(i)[0][None] for i in range(IMAGES)]
        roidb = []
        for i, x in enumerate(images):
            roidb.append({"data": x, "im_info": np.array([[*x.shape[2:], 1.0]]), "gt_boxes": boxes + i})
        np.random.seed(3)
        solver.net.layers[0].set_roidb(roidb)
    return solver


@pytest.mark.parametrize("name", NETS)
def test_runs_as_it_stands(name, tmp_path):
    runs = []
    for way in ("plain", "frugal", "captured"):
        solver = solver_of(NETS[name], tmp_path)
        if way == "frugal":
            solver.frugal()
        if way == "captured":
            solver.capture_with(Recorder(sync=True))
        losses = []
        for _ in range(WARM_UP + 3):
            solver.step(1)
            losses.append(float(solver.smoothed_loss))
        assert np.isfinite(losses).all() and len(set(losses)) > 1
        solver.snapshot()
        solver.restore(str(tmp_path / f"s_iter_{solver.iter}.solverstate"))
        solver.step(1)
        runs.append(losses)
    if name != "several labels":  # it shuffles by the module's own random numbers
        assert runs[0] == runs[1] == runs[2]


def test_a_layer_sees_its_images_in_order_and_whole():
    param = text_format.Parse(NETS["segmentation in order"], caffe_pb2.NetParameter())
    param.state.phase = caffe.TEST
    net = Net.from_proto(param)
    for index in (*range(IMAGES), 0):
        net.forward()
        image, label = picture(index)
        np.testing.assert_allclose(net.blobs["data"].data[0], image - np.reshape([104, 116, 122], (3, 1, 1)), rtol=1e-5)
        np.testing.assert_array_equal(net.blobs["label"].data[0], label)
        assert net.blobs["score"].data.shape == (1, CLASSES, *label.shape[1:])


@pytest.mark.parametrize("propagate", ["", "propagate_down: false propagate_down: true"])
def test_a_loss_in_numpy_equals_caffes(propagate):
    found = []
    for loss in (
        end("EuclideanLoss", "fa fb", f"loss_weight: 1 {propagate}"),
        python("loss", "EuclideanLossLayer", "fa fb", "loss", more=f"loss_weight: 1 {propagate}"),
    ):
        inputs = 'layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 dim: 5 } } }\n'
        param = text_format.Parse(inputs + shared("fa", "a") + shared("fb", "b") + loss, caffe_pb2.NetParameter())
        param.state.phase = caffe.TRAIN
        net = Net.from_proto(param, seed=5)
        rng = np.random.RandomState(2)
        for name in "ab":
            net.blobs[name].data[...] = rng.randn(4, 5)
        net.forward()
        net.backward()
        found.append([net.blobs["loss"].data.sum(), net.params["fa"][0].diff.copy(), net.params["fa"][1].diff.copy()])
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)  # sums of float32 in another order
