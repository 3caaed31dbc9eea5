"""AnnotatedData: SSD's images with boxes, their augmentation beside plain loops and beside what must hold of it."""

import cv2
import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe import CaffeError
from caffe.forks.augmentation import Augmentation, allowed, sampled
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import parse_text

BOXES = [
    [(1, 0, 0.125, 0.25, 0.5, 0.75, 0), (1, 1, 0.5, 0.5, 1, 1, 1), (7, 0, 0, 0, 0.25, 0.5, 0)],
    [],
    [(2, 0, 0.25, 0.25, 0.75, 0.5, 0)],
]
RNG = np.random.default_rng(4)
IMAGES = RNG.integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)


def record(image, boxes, encoded):
    made = caffe_pb2.AnnotatedDatum(type=caffe_pb2.AnnotatedDatum.BBOX)
    made.datum.encoded = encoded
    if encoded:
        made.datum.data = cv2.imencode(".png", image)[1].tobytes()
    else:
        made.datum.data = image.transpose(2, 0, 1).tobytes()
        made.datum.height, made.datum.width, made.datum.channels = image.shape
    for label in dict.fromkeys(box[0] for box in boxes):
        group = made.annotation_group.add(group_label=label)
        for _, instance, *corners, difficult in (box for box in boxes if box[0] == label):
            box = dict(zip(("xmin", "ymin", "xmax", "ymax"), corners), difficult=bool(difficult))
            group.annotation.add(instance_id=instance, bbox=caffe_pb2.NormalizedBBox(**box))
    return made.SerializeToString()


@pytest.fixture
def source(tmp_path):
    def write(values, name="db"):
        with lmdb.open(str(tmp_path / name), map_size=2**20) as env, env.begin(write=True) as transaction:
            for k, value in enumerate(values):
                transaction.put(f"{k:08d}".encode(), value)
        return tmp_path / name

    return write


def net_of(path, transform="", own="", batch=3, phase=caffe.TRAIN, seed=1):
    text = f"""layer {{ name: "d" type: "AnnotatedData" top: "data" top: "label" transform_param {{ {transform} }}
        data_param {{ source: "{path}" batch_size: {batch} backend: LMDB }} annotated_data_param {{ {own} }} }}"""
    param = parse_text(text.encode(), caffe_pb2.NetParameter, "net")
    param.state.phase = phase
    return Net.from_proto(param, seed=seed)


@pytest.mark.parametrize("encoded", [False, True])
def test_reads_images_and_boxes(source, encoded):
    net = net_of(source(record(i, b, encoded) for i, b in zip(IMAGES, BOXES)), "mean_value: 3 scale: 0.5")
    net.forward()
    data, label = net.blobs["data"].data, net.blobs["label"].data
    np.testing.assert_array_equal(data, (IMAGES.transpose(0, 3, 1, 2).astype(np.float32) - 3) * np.float32(0.5))
    rows = [(0, *box) for box in BOXES[0]] + [(2, *BOXES[2][0])]
    np.testing.assert_array_equal(label, np.array(rows, np.float32)[None, None])


def test_no_boxes_at_all(source):
    net = net_of(source([record(IMAGES[0], [], False)]), batch=2)
    net.forward()
    np.testing.assert_array_equal(net.blobs["label"].data, np.full((1, 1, 1, 8), -1))


def test_mirrored_and_resized(source):
    own = "mirror: true resize_param { resize_mode: WARP height: 6 width: 10 interp_mode: NEAREST }"
    net = net_of(source([record(IMAGES[0], BOXES[0], False)]), own, batch=16)
    net.forward()
    small = cv2.resize(IMAGES[0], (10, 6), interpolation=cv2.INTER_NEAREST).transpose(2, 0, 1)
    seen = set()
    for item in range(16):
        image, rows = net.blobs["data"].data[item], net.blobs["label"].data[0, 0]
        rows, wanted = rows[rows[:, 0] == item][:, 1:], np.array(BOXES[0], np.float32)
        if not np.array_equal(image, small):
            image, seen = image[:, :, ::-1], seen | {"mirrored"}
            wanted[:, [2, 4]] = 1 - wanted[:, [4, 2]]
        else:
            seen |= {"as it was"}
        np.testing.assert_array_equal(image, small)
        np.testing.assert_allclose(rows, wanted, atol=1e-6)
    assert seen == {"mirrored", "as it was"}


def test_crop_moves_boxes(source):
    """In phase TEST the middle 4 x 8 of 8 x 16; of the boxes those whose centre lies there."""
    own = "crop_h: 4 crop_w: 8 emit_constraint { emit_type: CENTER }"
    net = net_of(source([record(IMAGES[0], BOXES[0], False)]), own, batch=1, phase=caffe.TEST)
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data[0], IMAGES[0].transpose(2, 0, 1)[:, 2:6, 4:12])
    # 0.25..0.75 on both axes; of the second box the centre is (0.75, 0.75), on the corner
    np.testing.assert_allclose(
        net.blobs["label"].data[0, 0], [[0, 1, 0, 0, 0, 0.5, 1, 0], [0, 1, 1, 0.5, 0.5, 1, 1, 1]]
    )


def test_padding_keeps_proportions(source):
    own = "resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 8 width: 8 pad_value: 9 interp_mode: NEAREST }"
    net = net_of(source([record(IMAGES[0], BOXES[0], False)]), own, batch=1)
    net.forward()
    image = net.blobs["data"].data[0]
    assert (image[:, :2] == 9).all() and (image[:, 6:] == 9).all() and image.shape == (3, 8, 8)
    np.testing.assert_array_equal(image[:, 2:6], cv2.resize(IMAGES[0], (8, 4), interpolation=0).transpose(2, 0, 1))
    np.testing.assert_allclose(net.blobs["label"].data[0, 0, 0, 3:7], [0.125, 0.375, 0.5, 0.625])


@pytest.mark.parametrize("height, width, size", [(4, 4, (4, 8)), (3, 4, (3, 6)), (5, 11, (5, 11)), (3, 9, (4, 9))])
def test_the_small_side_fits(height, width, size, source):
    """The image of 8 x 16 covers height x width, no side longer than needed; boxes are parts of it as before."""
    own = f"resize_param {{ resize_mode: FIT_SMALL_SIZE height: {height} width: {width} interp_mode: NEAREST }}"
    net = net_of(source([record(IMAGES[0], BOXES[0], False)]), own, batch=1)
    net.forward()
    wanted = cv2.resize(IMAGES[0], size[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(net.blobs["data"].data[0], wanted.transpose(2, 0, 1))
    np.testing.assert_array_equal(net.blobs["label"].data[0, 0, 0, 3:7], [0.125, 0.25, 0.5, 0.75])


def augmentation(text):
    transform, own = caffe_pb2.TransformationParameter(), caffe_pb2.AnnotatedDataParameter()
    before, _, after = text.partition("|")
    text_format.Merge(before, transform)
    text_format.Merge(after, own)

    def fail(words):
        raise CaffeError(words)

    return Augmentation(transform, own, fail)


def test_expansion_keeps_the_image():
    """The image lies whole in a larger one that the mean fills, where its box says."""
    image, whole = np.full((10, 20, 3), 200, np.uint8), np.array([[1, 0, 0, 0, 1, 1, 0]], np.float32)
    expand = augmentation(
        "expand_param { prob: 1 max_expand_ratio: 3 } mean_value: 104 mean_value: 117 mean_value: 123"
    )
    for seed in range(5):
        large, boxes = expand(image, whole, np.random.default_rng(seed))
        h, w = large.shape[:2]
        left, top, right, bottom = np.rint(boxes[0, 2:6] * [w, h, w, h]).astype(int)
        assert (large[top:bottom, left:right] == 200).all() and (bottom - top, right - left) == (10, 20)
        large[top:bottom, left:right] = [104, 117, 123]
        assert (large == [104, 117, 123]).all() and 10 <= h <= 30 and 20 <= w <= 60
    never = augmentation("expand_param { prob: 0 max_expand_ratio: 3 }")
    assert never(image, whole, np.random.default_rng(0))[0] is image


def test_distortion():
    image = RNG.integers(60, 190, (6, 7, 3), dtype=np.uint8)
    none = np.zeros((0, 7), np.float32)
    same = augmentation("distort_param { }")(image, none, np.random.default_rng(0))[0]
    np.testing.assert_array_equal(same, image)
    rng = np.random.default_rng(1)
    brighter = augmentation("distort_param { brightness_prob: 1 brightness_delta: 32 }")(image, none, rng)[0]
    steps = np.unique(brighter.astype(int) - image)
    assert len(steps) == 1 and 0 < abs(steps[0]) <= 32
    harder = "distort_param { contrast_prob: 1 contrast_lower: 0.5 contrast_upper: 0.6 }"
    ratio = augmentation(harder)(image, none, rng)[0] / image
    assert 0.48 < ratio.min() and ratio.max() < 0.62
    grey = augmentation("distort_param { saturation_prob: 1 }")(image, none, rng)[0].astype(int)
    assert np.ptp(grey, axis=2).max() == 0 and (grey.max(2) == image.max(2)).all()  # of saturation 0
    turned = augmentation("distort_param { hue_prob: 1 hue_delta: 18 }")(image, none, rng)[0].astype(int)
    assert abs(turned.max(2) - image.max(2)).max() <= 1 and (turned != image).any()
    mixed = augmentation("distort_param { random_order_prob: 1 }")(image, none, np.random.default_rng(3))[0]
    np.testing.assert_array_equal(np.sort(mixed, 2), np.sort(image, 2))


def test_samples_meet_their_constraint():
    text = """sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }
        sample_constraint { min_jaccard_overlap: 0.5 } max_sample: 4 max_trials: 400"""
    sampler = text_format.Parse(text, caffe_pb2.BatchSampler())
    corners = np.array([[0.1, 0.1, 0.6, 0.7], [0.8, 0.8, 0.9, 0.9]], np.float32)
    windows = sampled(sampler, corners, np.random.default_rng(0))
    assert len(windows) == 4
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= 1.000001 and 0 <= y1 < y2 <= 1.000001
        assert 0.5 <= (x2 - x1) / (y2 - y1) <= 2.00001 and 0.09 <= (x2 - x1) * (y2 - y1) <= 1.00001
        common = (min(x2, 0.6) - max(x1, 0.1)) * (min(y2, 0.7) - max(y1, 0.1))
        assert common / ((x2 - x1) * (y2 - y1) + 0.3 - common) >= 0.4999
    assert not sampled(sampler, corners[:0], np.random.default_rng(0))  # nothing to overlap with


@pytest.mark.parametrize(
    "bound, good",
    [
        ("min_jaccard_overlap: 0.25", True),
        ("min_jaccard_overlap: 0.26", False),
        ("max_jaccard_overlap: 0.2", False),
        ("min_sample_coverage: 0.24 max_sample_coverage: 0.26", True),
        ("min_sample_coverage: 0.3", False),
        ("min_object_coverage: 1", True),
        ("max_object_coverage: 0.9", False),
        ("", True),
    ],
)
def test_constraint(bound, good):
    constraint = text_format.Parse(bound, caffe_pb2.SampleConstraint())
    box, window = np.array([[0.25, 0.25, 0.5, 0.5]], np.float32), np.array([0, 0, 0.5, 0.5], np.float32)
    assert allowed(constraint, window[None], box).tolist() == [good]


def test_whole_of_ssd_learns_and_repeats(source):
    """What SSD's own train.prototxt says; the same seed gives the same batches."""
    path = source([record(i, b, True) for i, b in zip(IMAGES, BOXES)])
    transform = """mirror: true mean_value: 104 mean_value: 117 mean_value: 123
      resize_param { prob: 1 resize_mode: WARP height: 24 width: 24 interp_mode: LINEAR interp_mode: AREA
        interp_mode: NEAREST interp_mode: CUBIC interp_mode: LANCZOS4 }
      emit_constraint { emit_type: CENTER }
      distort_param { brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5 contrast_lower: 0.5
        contrast_upper: 1.5 hue_prob: 0.5 hue_delta: 18 saturation_prob: 0.5 saturation_lower: 0.5
        saturation_upper: 1.5 random_order_prob: 0 }
      expand_param { prob: 0.5 max_expand_ratio: 4 }"""
    samplers = "batch_sampler { max_sample: 1 max_trials: 1 }" + "".join(
        "batch_sampler { sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } "
        f"sample_constraint {{ min_jaccard_overlap: {lap} }} max_sample: 1 max_trials: 50 }}"
        for lap in (0.1, 0.5, 0.9)
    )
    nets = [net_of(path, transform, samplers + 'label_map_file: "labelmap.prototxt"') for _ in range(2)]
    for _ in range(3):
        for net in nets:
            net.forward()
        data, label = nets[0].blobs["data"].data, nets[0].blobs["label"].data[0, 0]
        assert data.shape == (3, 3, 24, 24) and np.isfinite(data).all()
        kept = label[label[:, 0] >= 0]
        assert ((kept[:, 3:7] >= 0) & (kept[:, 3:7] <= 1)).all() and (kept[:, 5:7] > kept[:, 3:5]).all()
        np.testing.assert_array_equal(data, nets[1].blobs["data"].data)
        np.testing.assert_array_equal(nets[0].blobs["label"].data, nets[1].blobs["label"].data)


@pytest.mark.parametrize(
    "transform, own, words",
    [
        ("resize_param { height: 4 width: 4 height_scale: 4 width_scale: 4 }", "", "give height and width alone"),
        ("resize_param { height: 4 }", "", "give height and width"),
        ("resize_param { height: 4 width: 4 pad_mode: MIRRORED }", "", "MIRRORED is not here"),
        ("distort_param { hue_prob: 2 }", "", "hue_prob is 2; wanted at least 0, and at most 1"),
        ("distort_param { contrast_lower: 2 contrast_upper: 1 }", "", "contrast_upper is below"),
        ("expand_param { max_expand_ratio: 0.5 }", "", "max_expand_ratio is 0.5"),
        ("", "batch_sampler { use_original_image: false }", "use_original_image: false is not here"),
        ("", "batch_sampler { sampler { min_scale: 0 } }", "wanted 0 < min_scale"),
        ("", "batch_sampler { max_trials: 4000000000 }", "max_trials is 4000000000"),
        ("distort_param { contrast_prob: nan }", "", "contrast_prob is nan"),
        ("distort_param { brightness_prob: 1 brightness_delta: inf }", "", "brightness_delta is inf; wanted .* finite"),
        ("expand_param { max_expand_ratio: 1e9 }", "", "max_expand_ratio is 1e\\+09; wanted 1 to 100"),
        ("expand_param { max_expand_ratio: nan }", "", "max_expand_ratio is nan"),
        ("resize_param { height: 2 width: 3000000000 }", "", "width 3000000000; wanted at most 32767"),
        ("crop_h: 4", "", "crop_h is 4, crop_w 0; wanted both"),
        ("crop_size: 9", "", "crop_size is 9; an image has shape"),
    ],
)
def test_what_is_refused(source, transform, own, words):
    path = source([record(IMAGES[0], BOXES[0], False)])
    with pytest.raises(CaffeError, match=words):
        net_of(path, transform, own)


def test_other_records_and_other_layers(source):
    plain = source([caffe_pb2.Datum(channels=1, height=1, width=1, data=b"x").SerializeToString()])
    with pytest.raises(CaffeError, match="is no AnnotatedDatum"):
        net_of(plain)
    text = f"""layer {{ name: "d" type: "Data" top: "data" transform_param {{ expand_param {{ prob: 1 }} }}
        data_param {{ source: "{plain}" batch_size: 1 backend: LMDB }} }}"""
    with pytest.raises(CaffeError, match="expand_param is for images with boxes, in layers of type AnnotatedData"):
        Net.from_proto(parse_text(text.encode(), caffe_pb2.NetParameter, "net"))
