"""caffe.io: arrays to messages and back, images, Transformer."""

import io

import cv2
import numpy as np
import pytest

import caffe.io
from caffe import CaffeError
from caffe.proto import caffe_pb2


@pytest.fixture
def rng():
    return np.random.RandomState(1)


# ---- messages


def test_blobproto_round_trip(rng):
    data, diff = rng.randn(2, 3, 1).astype(np.float32), rng.randn(2, 3, 1).astype(np.float32)
    blob = caffe.io.array_to_blobproto(data, diff)
    blob = caffe_pb2.BlobProto.FromString(blob.SerializeToString())
    assert caffe.io.blobproto_to_array(blob).dtype == np.float32
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), data)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), diff)


def test_blobproto_shapes():
    old = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=5, data=range(10))
    assert caffe.io.blobproto_to_array(old).shape == (1, 1, 2, 5)
    scalar = caffe_pb2.BlobProto(data=[123])
    assert caffe.io.blobproto_to_array(scalar).shape == () and caffe.io.blobproto_to_array(scalar) == 123
    with pytest.raises(ValueError):
        caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=range(10)))
    double = caffe_pb2.BlobProto(double_data=[1 / 3], shape=caffe_pb2.BlobShape(dim=[1]))
    assert caffe.io.blobproto_to_array(double)[0] == 1 / 3


def test_blobprotovector_round_trip(rng):
    arrays = [rng.randn(2, 3).astype(np.float32), rng.randn(4).astype(np.float32)]
    data = caffe.io.arraylist_to_blobprotovector_str(arrays)
    assert isinstance(data, bytes)
    for want, got in zip(arrays, caffe.io.blobprotovector_str_to_arraylist(data)):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_datum_round_trip(kind, rng):
    pixels = (rng.rand(3, 2, 4) * 255).astype(kind)
    datum = caffe.io.array_to_datum(pixels, label=7)
    assert datum.label == 7 and bool(datum.data) == (kind is np.uint8)
    got = caffe.io.datum_to_array(datum)
    assert got.dtype == kind
    np.testing.assert_array_equal(got, pixels)
    got += 1  # the array is the caller's own


def test_datum_details(rng):
    pixels = np.ones((10, 10, 3))
    with_label, without = caffe.io.array_to_datum(pixels, label=1), caffe.io.array_to_datum(pixels)
    assert len(with_label.SerializeToString()) > len(without.SerializeToString())
    with pytest.raises(ValueError, match="Incorrect array shape"):
        caffe.io.array_to_datum(np.ones((2, 3)))
    bgr = rng.randint(0, 256, (5, 4, 3), np.uint8)
    encoded = caffe_pb2.Datum(encoded=True, data=cv2.imencode(".png", bgr)[1].tobytes())
    np.testing.assert_array_equal(caffe.io.datum_to_array(encoded), bgr.transpose(2, 0, 1))
    for data in (b"", b"no image"):
        with pytest.raises(ValueError, match="Could not decode"):
            caffe.io.datum_to_array(caffe_pb2.Datum(encoded=True, data=data))


# ---- images


def test_load_image_is_rgb_in_0_to_1(tmp_path, rng):
    bgr = rng.randint(0, 256, (5, 4, 3), np.uint8)
    path = str(tmp_path / "Bild ä.png")  # cv2.imread fails on such names on some systems
    cv2.imencode(".png", bgr)[1].tofile(path)
    image = caffe.io.load_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, bgr[:, :, ::-1] / np.float32(255))
    grey = caffe.io.load_image(path, color=False)
    assert grey.shape == (5, 4, 1)
    np.testing.assert_allclose(grey[..., 0], image @ np.float32([0.2125, 0.7154, 0.0721]), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_load_image_of_other_kinds(tmp_path, rng, channels, kind):
    pixels = rng.randint(0, np.iinfo(kind).max, (5, 4, channels)).astype(kind)
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, pixels)
    image = caffe.io.load_image(path)
    assert image.shape == (5, 4, 3)
    want = pixels[:, :, 2::-1] if channels == 4 else np.tile(pixels, (1, 1, 3))
    np.testing.assert_allclose(image, want / np.iinfo(kind).max, rtol=1e-6)
    assert caffe.io.load_image(path, color=False).shape == (5, 4, 1)


@pytest.mark.parametrize("color", [True, False])
def test_load_image_takes_file_objects(tmp_path, rng, color):
    """As Caffe's web demo and others give it: the bytes of an upload, or an open file."""
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, (rng.rand(5, 4, 3) * 255).astype(np.uint8))
    want = caffe.io.load_image(path, color)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(caffe.io.load_image(io.BytesIO(file.read()), color), want)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(caffe.io.load_image(file, color), want)
    with pytest.raises(CaffeError, match="Could not decode image file: a BytesIO"):
        caffe.io.load_image(io.BytesIO(b""))
    with pytest.raises(CaffeError, match="a StringIO gives str; open it for reading bytes"):
        caffe.io.load_image(io.StringIO("x"))


def test_load_image_tells_what_is_wrong(tmp_path):
    with pytest.raises(CaffeError, match="^File not found: "):
        caffe.io.load_image(str(tmp_path / "absent.png"))
    for content in (b"", b"no image"):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(CaffeError, match="^Could not decode image file: .*bad.png$"):
            caffe.io.load_image(str(tmp_path / "bad.png"))


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_resize_is_bilinear_between_pixel_centers(channels, rng):
    image = rng.randn(4, 6, channels)
    got = caffe.io.resize_image(image, (8, 9))
    assert got.shape == (8, 9, channels) and got.dtype == np.float32
    y, x = 5, 4  # lies at ((y + 1/2) / 2 - 1/2, (x + 1/2) / 1.5 - 1/2) = (2.25, 2.5) of the original
    want = 0.75 * image[2, 2:4].mean(0) + 0.25 * image[3, 2:4].mean(0)
    np.testing.assert_allclose(got[y, x], want, rtol=1e-5, atol=1e-6)  # float32 weights
    np.testing.assert_array_equal(caffe.io.resize_image(np.full((3, 3, 1), 5), (7, 2)), np.full((7, 2, 1), 5))


def test_resize_orders():
    image = np.arange(4.0).reshape(2, 2, 1)
    nearest = caffe.io.resize_image(image, (4, 4), interp_order=0)
    np.testing.assert_array_equal(nearest[..., 0], np.kron(image[..., 0], np.ones((2, 2))))
    assert caffe.io.resize_image(image, (5, 5), interp_order=3).shape == (5, 5, 1)
    with pytest.raises(ValueError, match="interp_order is 2"):
        caffe.io.resize_image(image, (4, 4), interp_order=2)


def test_oversample_order(rng):
    images = rng.rand(2, 7, 6, 3).astype(np.float32)
    crops = caffe.io.oversample(list(images), (4, 3))
    assert crops.shape == (20, 4, 3, 3)
    second = images[1]
    want = [second[:4, :3], second[:4, 3:], second[3:, :3], second[3:, 3:], second[1:5, 1:4]]
    np.testing.assert_array_equal(crops[10:15], want)
    np.testing.assert_array_equal(crops[15:], [w[:, ::-1] for w in want])


# ---- Transformer


@pytest.fixture
def transformer():
    t = caffe.io.Transformer({"data": (1, 3, 4, 5)})
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 0, 1))
    t.set_raw_scale("data", 255)
    t.set_mean("data", np.array([1.0, 20.0, 100.0]))
    t.set_input_scale("data", 0.5)
    return t


def test_preprocess_does_each_step_in_order(transformer, rng):
    image = rng.rand(4, 5, 3).astype(np.float32)
    before = image.copy()
    got = transformer.preprocess("data", image)
    want = (image.transpose(2, 0, 1)[[2, 0, 1]] * 255 - np.array([1, 20, 100])[:, None, None]) * 0.5
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)  # float32 at values about 100
    np.testing.assert_array_equal(image, before)


def test_deprocess_undoes_preprocess(transformer, rng):
    image = rng.rand(4, 5, 3).astype(np.float32)
    back = transformer.deprocess("data", transformer.preprocess("data", image)[np.newaxis])
    np.testing.assert_allclose(back, image, atol=1e-6)


def test_preprocess_resizes(transformer, rng):
    image = rng.rand(8, 10, 3)
    got = transformer.preprocess("data", image)
    np.testing.assert_array_equal(got, transformer.preprocess("data", caffe.io.resize_image(image, (4, 5))))


def test_mean_images(rng):
    t = caffe.io.Transformer({"data": (1, 3, 4, 5), "grey": (1, 1, 4, 5)})
    mean = rng.rand(3, 4, 5)
    t.set_mean("data", mean)
    t.set_transpose("data", (2, 0, 1))
    np.testing.assert_allclose(t.preprocess("data", np.zeros((4, 5, 3))), -mean, rtol=1e-6)
    np.testing.assert_array_equal(t.mean["data"], mean)
    t.set_mean("data", rng.rand(3, 8, 10))
    assert t.mean["data"].shape == (3, 4, 5)
    t.set_mean("grey", rng.rand(4, 5))
    assert t.mean["grey"].shape == (1, 4, 5)


@pytest.mark.parametrize(
    "setter, value, words",
    [
        ("set_transpose", (1, 0), "Transpose order"),
        ("set_channel_swap", (1, 0), "Channel swap"),
        ("set_mean", np.ones(2), "Mean channels incompatible"),
        ("set_mean", np.ones((2, 4, 5)), "Mean shape incompatible"),
        ("set_mean", np.ones((1, 3, 4, 5)), "Mean shape invalid"),
    ],
)
def test_settings_that_do_not_fit(setter, value, words):
    t = caffe.io.Transformer({"data": (1, 3, 4, 5)})
    with pytest.raises(ValueError, match=words):
        getattr(t, setter)("data", value)
    with pytest.raises(ValueError, match="nothere is not one of the net inputs: data"):
        getattr(t, setter)("nothere", value)


GREY, COLOR = np.ones((4, 5), np.float32), np.ones((4, 5, 3), np.float32)


@pytest.mark.parametrize(
    "work, told",
    [
        (lambda io, t: io.load_image(GREY), "load_image wants a path or an open file, not a ndarray"),
        (lambda io, t: io.resize_image(GREY, (2, 2)), r"axes \(height, width, channels\); .* shape \(4, 5\)"),
        (lambda io, t: io.resize_image(COLOR, (2, 2, 3)), r"new_dims is \(2, 2, 3\); wanted \(height, width\)"),
        (lambda io, t: io.resize_image(COLOR, (0, 2)), "both at least 1"),
        (lambda io, t: io.oversample(COLOR, (2, 2)), r"shape \(5, 3\)"),
        (lambda io, t: io.oversample([COLOR], (6, 2)), "crops of 6 x 2 are larger than an image of 4 x 5"),
        (lambda io, t: io.oversample([COLOR, COLOR[:3]], (2, 2)), "wants images of one shape; found"),
        (lambda io, t: t.preprocess("data", GREY), r"shape \(4, 5\)"),
        (lambda io, t: t.preprocess("data", GREY[:, :, None]), r"channel swap \[2, 1, 0\] .* wants 3 channels, not 1"),
        (lambda io, t: io.array_to_datum(COLOR, label=1.5), "the label of a Datum is 1.5; wanted a whole number"),
    ],
)
def test_images_that_do_not_fit(work, told):
    t = caffe.io.Transformer({"data": (1, 3, 4, 5)})
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 1, 0))
    with pytest.raises((TypeError, ValueError), match=told):
        work(caffe.io, t)


def test_a_jpeg_of_hundreds_of_scans_is_not_decoded(capfd):
    """A hundred kB hold thousands, each over all pixels. Photographs have a dozen."""
    image = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert caffe.io.decode(image, cv2.IMREAD_COLOR).shape == (8, 8, 3)
    assert caffe.io.decode(image[:-2] + b"\xff\xda\0\x08" * 101 + image[-2:], cv2.IMREAD_COLOR) is None
    assert "a JPEG of 1" in capfd.readouterr().err
