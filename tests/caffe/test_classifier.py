"""Classifier and Detector: what reaches the net, and what comes out, against the same thing done by hand."""

import cv2
import numpy as np
import pytest

import caffe
from caffe import CaffeError, io
from caffe.classifier import Classifier
from caffe.detector import Detector

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
SETTINGS = dict(mean=np.array([10.0, 20.0, 30.0]), raw_scale=255, channel_swap=(2, 1, 0), input_scale=0.02)


@pytest.fixture
def files(tmp_path):
    """Prototxt and weights of a net with batches of four."""
    model, weights = str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")
    (tmp_path / "net.prototxt").write_text(NET)
    caffe.set_random_seed(3)
    caffe.Net(model, caffe.TEST).save(weights)
    return model, weights


def scores(net, images):
    """Softmax of the net's only weights, for RGB images (N, 6, 6, 3) in 0..1; the settings above applied by hand."""
    bgr = images.transpose(0, 3, 1, 2)[:, ::-1] * 255.0
    x = ((bgr - SETTINGS["mean"][:, None, None]) * 0.02).reshape(len(images), -1)
    z = x @ net.params["ip"][0].data.T + net.params["ip"][1].data
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_predict_the_center(files):
    net = Classifier(*files, image_dims=(8, 9), **SETTINGS)
    images = np.random.RandomState(0).rand(5, 8, 9, 3).astype(np.float32)  # more than one batch
    got = net.predict(list(images), oversample=False)
    assert got.shape == (5, 5)
    np.testing.assert_allclose(got, scores(net, images[:, 1:7, 1:7]), atol=1e-5)  # float32 sums of 108 products


def test_predict_the_mean_of_ten_crops(files):
    net = Classifier(*files, image_dims=(8, 9), **SETTINGS)
    images = np.random.RandomState(1).rand(2, 8, 9, 3).astype(np.float32)
    want = scores(net, io.oversample(images, (6, 6))).reshape(2, 10, 5).mean(1)
    np.testing.assert_allclose(net.predict(list(images)), want, atol=1e-5)


def test_images_are_scaled_first(files):
    net = Classifier(*files)
    image = np.random.RandomState(2).rand(11, 7, 3).astype(np.float32)
    np.testing.assert_array_equal(
        net.predict([image], oversample=False), net.predict([io.resize_image(image, (6, 6))], oversample=False)
    )


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.RandomState(4).randint(0, 256, (20, 30, 3), np.uint8)
    path = str(tmp_path / "picture.png")
    cv2.imwrite(path, pixels)
    return path


def test_detector_scores_each_window(files, picture):
    net = Detector(*files, **SETTINGS)
    windows = [(0, 0, 6, 6), (3, 4, 9, 16), (2, 2, 20, 30)]
    found = net.detect_windows([(picture, np.array(windows)), (picture, windows[:2])])
    assert [tuple(f["window"]) for f in found] == windows + windows[:2] and found[0]["filename"] == picture
    image = io.load_image(picture)
    crops = np.stack([io.resize_image(image[y0:y1, x0:x1], (6, 6)) for y0, x0, y1, x1 in windows])
    want = scores(net, crops)
    np.testing.assert_allclose([f["prediction"] for f in found], np.concatenate([want, want[:2]]), atol=1e-5)
    assert net.detect_windows([(picture, [])]) == []


def test_context_shows_the_surroundings_and_the_mean_outside(files, picture):
    net = Detector(*files, context_pad=1, **SETTINGS)
    image = io.load_image(picture)
    mean = np.array([30, 20, 10]) / 255  # the mean of BGR in 0..255, as RGB in 0..1
    inside = net.crop(image, np.array([8, 10, 11, 13]))  # 4 rows become 4 of 6, so the crop is the box one to one
    np.testing.assert_array_equal(inside.shape, (6, 6, 3))
    assert not np.isclose(inside, mean).all(axis=2).any()
    corner = net.crop(image, np.array([0, 0, 3, 3]))
    np.testing.assert_allclose(corner[0], np.tile(mean, (6, 1)), rtol=1e-6)
    np.testing.assert_allclose(corner[:, 0], np.tile(mean, (6, 1)), rtol=1e-6)
    assert not np.isclose(corner[1:, 1:], mean).all(axis=2).any()


def test_detector_tells_what_is_wrong(files, picture, tmp_path):
    net = Detector(*files, context_pad=1)
    with pytest.raises(CaffeError, match=r"^window \(50, 60, 55, 66\) lies outside the image, which has 20 rows"):
        net.detect_windows([(picture, [(50, 60, 55, 66)])])
    with pytest.raises(CaffeError, match="File not found"):
        net.detect_windows([(str(tmp_path / "absent.png"), [(0, 0, 2, 2)])])
    with pytest.raises(CaffeError, match="MATLAB"):
        net.detect_selective_search([picture])
    with pytest.raises(ValueError, match="Mean channels incompatible"):
        Classifier(*files, mean=np.ones(2))
