"""DetectionEvaluate, average precision, and a solver that tests by them."""

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe import CaffeError
from caffe.forks.evaluation import average_precision
from caffe.proto import caffe_pb2
from tests.caffe.forks import nets
from tests.caffe.ops.checks import forward, layer_net

# item, label, instance, xmin, ymin, xmax, ymax, difficult
TRUTH = np.array(
    [
        [0, 1, 0, 0.1, 0.1, 0.5, 0.5, 0],
        [0, 1, 1, 0.6, 0.6, 0.9, 0.9, 1],
        [0, 3, 0, 0.1, 0.5, 0.4, 0.9, 0],
        [1, 1, 0, 0.2, 0.2, 0.6, 0.8, 0],
    ],
    np.float32,
)
# image, label, score, xmin .. ymax
FOUND = np.array(
    [
        [0, 1, 0.7, 0.1, 0.1, 0.5, 0.5],  # taken already by the next
        [0, 1, 0.9, 0.12, 0.1, 0.5, 0.5],
        [0, 1, 0.6, 0.6, 0.6, 0.9, 0.92],  # the difficult one
        [0, 1, 0.5, 0.5, 0.5, 0.7, 0.7],  # overlaps too little
        [0, 2, 0.8, 0.1, 0.1, 0.5, 0.5],  # there is none of this class
        [1, 1, 0.4, 0.2, 0.2, 0.6, 0.8],
        [2, 3, 0.3, 0.1, 0.5, 0.4, 0.9],  # nothing is true in this image
    ],
    np.float32,
)


def evaluated(own="", found=FOUND, truth=TRUTH, classes=4):
    net = layer_net(
        f'type: "DetectionEvaluate" detection_evaluate_param {{ num_classes: {classes} {own} }}',
        (1, 1, len(found), 7),
        (1, 1, len(truth), 8),
        phase=caffe.TEST,
    )
    return forward(net, found[None, None], truth[None, None])[0][0, 0]


@pytest.mark.parametrize("difficult", [True, False])
def test_rows(difficult):
    rows = evaluated(f"evaluate_difficult_gt: {str(difficult).lower()}")
    hard = (1, 0) if difficult else (0, 0)
    wanted = [
        *((-1, 1, 2 + difficult, -1, -1), (-1, 2, 0, -1, -1), (-1, 3, 1, -1, -1)),
        *((0, 1, 0.9, 1, 0), (0, 1, 0.7, 0, 1), (0, 1, 0.6, *hard), (0, 1, 0.5, 0, 1), (0, 2, 0.8, 0, 1)),
        *((1, 1, 0.4, 1, 0), (2, 3, 0.3, 0, 1)),
    ]
    np.testing.assert_allclose(rows, wanted, rtol=1e-6)


def test_overlap_threshold_and_nothing_found():
    assert evaluated("overlap_threshold: 0.99").tolist()[3][3:] == [0, 1]  # 0.95 of the best true box
    rows = evaluated("background_label_id: 2", np.full((1, 7), -1, np.float32))
    np.testing.assert_array_equal(rows[:, 1:3], [[0, 0], [1, 3], [3, 1]])


@pytest.mark.parametrize(
    "own, found, words",
    [
        ("name_size_file: 'sizes.txt'", FOUND, "leave name_size_file and resize_param out"),
        ("background_label_id: 2", FOUND, "detection in bottom.0. has label 2; wanted one of 4 but the background's"),
        ("background_label_id: 3", FOUND[:4], "box in bottom.1. has label 3"),
    ],
)
def test_what_is_refused(own, found, words):
    with pytest.raises(CaffeError, match=words):
        evaluated(own, found)


def test_average_precision():
    scores, right = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0, 1, 1, 0, 1])
    # Of 4 true boxes: precision 0, 1/2, 2/3, 1/2, 3/5 at recall 0, 1/4, 1/2, 1/2, 3/4.
    shuffled = np.array([3, 1, 4, 0, 2])
    given = scores[shuffled], right[shuffled], 4
    assert average_precision(*given, "Integral") == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 4)
    assert average_precision(*given, "11point") == pytest.approx((6 * 2 / 3 + 2 * 3 / 5) / 11)  # 0 .. 0.5; .. 0.7
    assert average_precision(scores, np.ones(5), 5, "11point") == pytest.approx(1)
    assert (
        average_precision(scores, right, 0, "11point") == average_precision(scores[:0], right[:0], 3, "Integral") == 0
    )


def solver(tmp_path, more, layer="DetectionEvaluate"):
    net = nets.data("found", 1, 1, *FOUND.shape) + nets.data("truth", 1, 1, *TRUTH.shape)
    net += 'layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "truth" top: "mAP" include { phase: '
    net += "TEST } detection_evaluate_param { num_classes: 4 evaluate_difficult_gt: false } }"
    if layer != "DetectionEvaluate":
        net += 'layer { name: "sum" type: "Reduction" bottom: "found" top: "sum" }'
    param = caffe_pb2.SolverParameter(snapshot_after_train=False, test_iter=[2], test_interval=1, base_lr=0.1)
    text_format.Parse(more, param)
    param.lr_policy = "fixed"
    text_format.Parse(net, param.net_param)
    made = caffe.SGDSolver(param)
    for name, value in (("found", FOUND), ("truth", TRUTH)):
        made.test_nets[0].blobs[name].data[...] = value
    return made


def test_solver_tests_by_mean_average_precision(tmp_path, capfd):
    caffe.init_log(0)
    seen = []

    class Observer:
        def on_test(self, solver, index, means):
            seen.extend(means)

    made = solver(tmp_path, 'eval_type: "detection" ap_version: "11point" show_per_class_result: true')
    made.add_observer(Observer())
    made.test_all()
    # Class 1, of 2 true boxes in each pass: 0.9 right, 0.7 wrong, 0.5 wrong, 0.4 right; 2 and 3: nothing right.
    first = (6 * 1 + 5 * 0.5) / 11
    assert seen == [("mAP", pytest.approx(first / 3))]
    told = capfd.readouterr().err
    assert f"class1: {first:.6g}" in told and "class3: 0" in told
    assert f"    Test net output #0: mAP = {first / 3:.6g}" in told


@pytest.mark.parametrize(
    "more, layer, words",
    [
        ('eval_type: "detection"', "Reduction", r"output 'sum' has shape \(\); wanted DetectionEvaluate's"),
        ('eval_type: "detection" ap_version: "MaxIntegral"', "", "ap_version is 'MaxIntegral'; wanted 11point or Int"),
        ('eval_type: "segmentation"', "", "eval_type is 'segmentation'; wanted classification or detection"),
    ],
)
def test_solver_refuses(tmp_path, more, layer, words):
    with pytest.raises(CaffeError, match=words):
        solver(tmp_path, more, layer or "DetectionEvaluate").test_all()
