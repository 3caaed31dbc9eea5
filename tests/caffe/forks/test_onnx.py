"""Layers of detection as ONNX: onnxruntime gives the rows that the layers give, in their order."""

import numpy as np
import pytest

import caffe
from tests.caffe.forks import nets
from tests.caffe.forks.test_detection import scene

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.medium


def exported(text, folder):
    """The net of the prototxt `text`, and onnxruntime's session of what it becomes."""
    (folder / "net.prototxt").write_text(text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    net.save(str(folder / "net.caffemodel"))
    assert caffe.to_onnx(folder / "net.prototxt", folder / "net.caffemodel", folder / "net.onnx") <= 1e-5
    return net, onnxruntime.InferenceSession(str(folder / "net.onnx"))


def same(net, session, **fed):
    """The tops of both, on inputs of any shape; the net's."""
    for name, value in fed.items():
        net.blobs[name].reshape(*value.shape)
        net.blobs[name].data[...] = value
    wanted = net.forward()
    names = [put.name for put in session.get_outputs()]
    assert names == list(net.outputs)
    for name, got in zip(names, session.run(None, {put.name: fed[put.name] for put in session.get_inputs()})):
        assert got.shape == wanted[name].shape, name
        np.testing.assert_allclose(got, wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)  # exp of another library
    return {name: value.copy() for name, value in wanted.items()}


# name: options, locations of a prior
DETECTIONS = {
    "plain": ("code_type: CENTER_SIZE nms_param { nms_threshold: 0.4 top_k: 6 } keep_top_k: 5", 1),
    "threshold": ("code_type: CENTER_SIZE confidence_threshold: 0.3 nms_param { nms_threshold: 0.6 }", 1),
    "corner": ("nms_param { nms_threshold: 0.4 } keep_top_k: 7 confidence_threshold: 0.1", 1),
    "corner_size": ("code_type: CORNER_SIZE confidence_threshold: 0.2 clip: true nms_param { top_k: 100 }", 1),
    "in_target": ("code_type: CENTER_SIZE variance_encoded_in_target: true keep_top_k: 200", 1),
    "no_background": ("code_type: CENTER_SIZE background_label_id: -1 nms_param { nms_threshold: 2 }", 1),
    "other_background": ("code_type: CENTER_SIZE background_label_id: 2 nms_param { nms_threshold: 0 }", 1),
    "each_class": ("share_location: false code_type: CENTER_SIZE confidence_threshold: 0.2 keep_top_k: 6", 3),
    "nothing": ("confidence_threshold: 1.5", 1),
}


@pytest.mark.parametrize("places", [1, 3])
def test_detection_output(places, tmp_path):
    chosen = {name: own for name, (own, count) in DETECTIONS.items() if count == places}
    shapes = {name: value.shape for name, value in zip(("loc", "conf", "priors"), scene(1, 12, places=places))}
    text = "".join(nets.data(name, *shape) for name, shape in shapes.items())
    for name, own in chosen.items():
        own = f"detection_output_param {{ num_classes: 3 {own} }}"
        text += nets.layer("DetectionOutput", name, "loc conf priors", own)
    net, session = exported(text, tmp_path)
    rng, counts = np.random.default_rng(3), []
    for items in (1, 2, 3):
        loc, conf, priors = scene(items, 12, places=places, rng=rng)
        if places == 1 and items == 2:
            loc = 12 * loc  # as corners: many boxes inside out
        if items == 3:
            conf = np.round(conf, 1)  # equal scores: the first prior comes first
        tops = same(net, session, loc=loc, conf=conf, priors=priors)
        counts.append({name: value.shape[2] for name, value in tops.items()})
        if places == 1:
            wanted = [[n, *(-1,) * 6] for n in range(items)]
            np.testing.assert_array_equal(tops["nothing"][0, 0], wanted)
            assert min(value.shape[2] for name, value in tops.items() if name != "nothing") > items
    assert counts[0] != counts[1]


def test_some_images_without_detections(tmp_path):
    loc, conf, priors = scene(3, 9)
    conf[1] = np.tile([0.9, 0.05, 0.05], 9)  # background
    text = "".join(nets.data(n, 1, *v.shape[1:]) for n, v in {"loc": loc, "conf": conf, "priors": priors}.items())
    own = "detection_output_param { num_classes: 3 confidence_threshold: 0.2 code_type: CENTER_SIZE }"
    net, session = exported(text + nets.layer("DetectionOutput", "out", "loc conf priors", own), tmp_path)
    top = same(net, session, loc=loc, conf=conf, priors=priors)["out"]
    assert set(top[0, 0, :, 0]) == {0, 2}


def test_proposals_and_what_follows_them(tmp_path):
    """R-FCN's and Faster R-CNN's heads on the regions that the net proposes."""
    own = "feat_stride: 8 base_size: 8 ratio: 0.5 ratio: 1 ratio: 2 scale: 1 scale: 2 min_size: 9 nms_thresh: 0.5 "
    text = nets.data("prob", 1, 12, 4, 6) + nets.data("codes", 1, 24, 4, 6) + nets.data("im_info", 1, 3)
    text += nets.data("maps", 1, 12, 4, 6)
    for name, more in (("few", "pre_nms_topn: 40 post_nms_topn: 9"), ("all", "pre_nms_topn: 0 post_nms_topn: 0")):
        tops = f"{name} {name}_scores"
        text += nets.layer("Proposal", name, "prob codes im_info", f"proposal_param {{ {own} {more} }}", tops)
        own_pool = "psroi_pooling_param { spatial_scale: 0.125 output_dim: 3 group_size: 2 }"
        text += nets.layer("PSROIPooling", f"psroi_{name}", f"maps {name}", own_pool)
        text += nets.pool(f"ave_{name}", f"psroi_{name}", "pool: AVE kernel_size: 2 stride: 2")
        text += nets.layer("Softmax", f"soft_{name}", f"ave_{name}")
        rows = "reshape_param { shape { dim: -1 dim: 3 } }"
        text += nets.layer("Reshape", f"cls_{name}", f"soft_{name}", rows)
        own_pool = "roi_pooling_param { pooled_w: 3 pooled_h: 2 spatial_scale: 0.125 }"
        text += nets.layer("ROIPooling", f"roi_{name}", f"maps {name}", own_pool)
        fc = f"inner_product_param {{ num_output: 4 {nets.XAVIER} }}"
        text += nets.layer("InnerProduct", f"fc_{name}", f"roi_{name}", fc)
    net, session = exported(text, tmp_path)
    rng, counts = np.random.default_rng(5), set()
    for scale in (1, 0.7, 30):
        prob = rng.permutation(12 * 24).reshape(1, 12, 4, 6).astype(np.float32) / 300
        codes = rng.normal(0, 0.3, (1, 24, 4, 6)).astype(np.float32)
        maps = rng.normal(size=(1, 12, 4, 6)).astype(np.float32)
        fed = {"prob": prob, "codes": codes, "maps": maps, "im_info": np.array([[30, 45, scale]], np.float32)}
        tops = same(net, session, **fed)
        counts.add((len(tops["few_scores"]), len(tops["all_scores"])))
    assert (0, 0) in counts and any(few == 9 < whole for few, whole in counts)  # 30: no box is large enough


@pytest.mark.parametrize("kind", ["roi", "psroi"])
def test_pooled_regions_round_as_the_layers_do(kind, tmp_path):
    """Corners on halves, outside of the map, points, and boxes inside out."""
    own = "pooled_h: 3 pooled_w: 2 spatial_scale: 0.25" if kind == "roi" else ""
    own = own or "spatial_scale: 0.25 output_dim: 2 group_size: 3"
    layer = {"roi": "ROIPooling", "psroi": "PSROIPooling"}[kind]
    text = nets.data("maps", 1, 18, 9, 7) + nets.data("rois", 4, 5)
    net, session = exported(text + nets.layer(layer, "t", "maps rois", f"{kind}_pooling_param {{ {own} }}"), tmp_path)
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(2, 18, 9, 7)).astype(np.float32)
    corners = rng.integers(-20, 80, (300, 4)) / 2
    corners[::2] = np.sort(corners[::2].reshape(-1, 2, 2), 1).reshape(-1, 4)
    corners[:40, 2:] = corners[:40, :2]
    rois = np.hstack([rng.integers(0, 2, (300, 1)), corners]).astype(np.float32)
    top = same(net, session, maps=maps, rois=rois)["t"]
    assert 0.1 < (top == 0).mean() < 0.9


@pytest.mark.parametrize(
    "kind, bottoms, own, words",
    [
        (
            "DetectionOutput",
            "loc conf priors",
            "detection_output_param { num_classes: 3 nms_param { eta: 0.9 } }",
            r"'out' \(DetectionOutput\) cannot be written as ONNX: its nms_param has eta 0.9, .* the outputs loc,conf,",
        ),
        (
            "MultiBoxLoss",
            "loc conf priors gt",
            "multibox_loss_param { num_classes: 3 }",
            r"'out' \(MultiBoxLoss\) cannot be written as ONNX: it is a loss",
        ),
    ],
)
def test_what_cannot_become_onnx(kind, bottoms, own, words, tmp_path):
    shapes = {name: value.shape for name, value in zip(("loc", "conf", "priors"), scene(2, 9))}
    text = "".join(nets.data(name, *shape) for name, shape in {**shapes, "gt": (1, 1, 2, 8)}.items())
    with pytest.raises(caffe.CaffeError, match=words):
        exported(text + nets.layer(kind, "out", bottoms, own), tmp_path)
    assert not (tmp_path / "net.onnx").exists()
