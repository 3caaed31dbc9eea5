import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.data_transformer import Transformer
from caffe.errors import CaffeError
from caffe.io import planes
from caffe.proto import caffe_pb2

PIXELS = np.random.default_rng(2).integers(0, 256, (3, 6, 7), dtype=np.uint8)


def transformer(text="", phase=caffe.TEST):
    def fail(message):
        raise CaffeError(message)

    return Transformer(text_format.Parse(text, caffe_pb2.TransformationParameter()), phase, fail)


def transform(text, phase=caffe.TEST, seed=0, pixels=PIXELS):
    return transformer(text, phase)(pixels, np.random.default_rng(seed))


def write_mean(path, values):
    proto = caffe_pb2.BlobProto(num=1, channels=3, height=6, width=7, data=values.reshape(-1).tolist())
    path.write_bytes(proto.SerializeToString())
    return f'mean_file: "{path}"'


def test_plain_pixels_become_floats():
    out = transform("")
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, PIXELS)


def test_scale_after_mean():
    want = (PIXELS.astype(np.float32) - np.array([10, 20, 30], np.float32)[:, None, None]) * np.float32(0.5)
    np.testing.assert_array_equal(transform("scale: 0.5 mean_value: 10 mean_value: 20 mean_value: 30"), want)
    np.testing.assert_array_equal(transform("mean_value: 10"), PIXELS.astype(np.float32) - 10)


def test_test_phase_crops_the_middle():
    np.testing.assert_array_equal(transform("crop_size: 3"), PIXELS[:, 1:4, 2:5])


def test_train_phase_crops_anywhere():
    seen = set()
    for seed in range(200):
        out = transform("crop_size: 5", caffe.TRAIN, seed)
        seen |= {(h, w) for h, w in np.ndindex(2, 3) if np.array_equal(out, PIXELS[:, h : h + 5, w : w + 5])}
    assert seen == set(np.ndindex(2, 3))  # all positions, both ends included


def test_mean_image_is_cropped_with_the_image(tmp_path):
    mean = np.random.default_rng(3).normal(size=(3, 6, 7)).astype(np.float32)
    text = write_mean(tmp_path / "mean.binaryproto", mean)
    np.testing.assert_array_equal(transform(text), PIXELS - mean)
    np.testing.assert_array_equal(transform(text + " crop_size: 3"), (PIXELS - mean)[:, 1:4, 2:5])


def test_mirror_half_of_the_time():
    mirrored = [np.array_equal(transform("mirror: true", seed=s), PIXELS[:, :, ::-1]) for s in range(60)]
    plain = [np.array_equal(transform("mirror: true", seed=s), PIXELS) for s in range(60)]
    assert all(a != b for a, b in zip(mirrored, plain))
    assert 15 < sum(mirrored) < 45  # four standard deviations around 30


def test_colour_of_encoded_pixels():
    assert transformer().color == cv2.IMREAD_UNCHANGED
    assert transformer("force_color: true").color == cv2.IMREAD_COLOR
    assert transformer("force_gray: true").color == cv2.IMREAD_GRAYSCALE


def test_planes():
    assert planes(np.zeros((4, 5))).shape == (1, 4, 5)
    assert planes(np.zeros((4, 5, 3))).shape == (3, 4, 5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("force_color: true force_gray: true", "cannot set both force_color and force_gray"),
        ('mean_file: "m" mean_value: 1', "Cannot specify mean_file and mean_value"),
        ("mean_value: 1 mean_value: 2", "Specify either 1 mean_value or as many as channels: 2 values, 3 channels"),
        ("crop_size: 7", r"crop_size is 7; an image has shape \(3, 6, 7\)"),
        ('mean_file: "/nowhere/mean.binaryproto"', "File not found: /nowhere/mean.binaryproto"),
    ],
)
def test_parameters_that_do_not_fit(text, message):
    with pytest.raises(CaffeError, match=message):
        transform(text)


def test_mean_image_of_another_size(tmp_path):
    text = write_mean(tmp_path / "mean.binaryproto", np.zeros((3, 6, 7)))
    with pytest.raises(CaffeError, match=r"has shape \(3, 6, 7\), an image \(3, 5, 7\)"):
        transform(text, pixels=PIXELS[:, :5])
