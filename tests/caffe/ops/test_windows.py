import os

import cv2
import numpy as np
import pytest

from caffe.errors import CaffeError
from tests.caffe.ops.test_inputs import forward, net_of

RNG = np.random.default_rng(10)
HEIGHT, WIDTH = 9, 12
IMAGE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    return tmp_path


def layer(folder, windows, rest="", transform="crop_size: 4", batch=4):
    """A WindowData layer on a.png with these windows: (class, overlap, x1, y1, x2, y2)."""
    lines = ["# 0", "a.png", "3", str(HEIGHT), str(WIDTH), str(len(windows))]
    lines += [" ".join(map(str, window)) for window in windows]
    (folder / "windows.txt").write_text("\n".join(lines) + "\n")
    return f"""layer {{ name: "w" type: "WindowData" top: "data" top: "label" transform_param {{ {transform} }}
               window_data_param {{ source: "{folder}/windows.txt" root_folder: "{folder}" batch_size: {batch} {rest} }}
               }}"""


def one(folder, window, rest="", transform="crop_size: 4"):
    """The crop of this window, (3, crop, crop)."""
    text = layer(folder, [(1, 1.0, *window)], f"fg_fraction: 1 {rest}", transform, batch=1)
    return forward(net_of(text), "data")[0][0]


def test_background_first_then_foreground(folder):
    windows = [(5, 0.9, 0, 0, 3, 3), (6, 0.5, 4, 4, 7, 7), (7, 0.3, 8, 4, 11, 7), (8, 0.45, 0, 4, 3, 7)]
    net = net_of(layer(folder, windows, "fg_fraction: 0.4 bg_threshold: 0.4", batch=5))
    crops = {label: IMAGE[y : y + 4, x : x + 4].transpose(2, 0, 1) for label, x, y in ((5, 0, 0), (6, 4, 4), (0, 8, 4))}
    seen = set()
    for _ in range(10):
        data, labels = forward(net, "data", "label")
        assert data.shape == (5, 3, 4, 4) and (labels[:3] == 0).all() and (labels[3:] > 0).all()
        for crop, label in zip(data, labels):
            np.testing.assert_array_equal(crop, crops[label])  # 4 x 4 pixels: nothing to warp
        seen |= set(labels)
    assert seen == {0, 5, 6}  # the window between both thresholds is never drawn


def test_warp(folder):
    want = cv2.resize(IMAGE[2:9, 1:4], (4, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(one(folder, (1, 2, 3, 8)), want)


def test_context_inside_the_image(folder):
    # 2 x 2 pixels in the middle of a crop of 4 with 1 pixel of context: scale 2, so 2 pixels to each side of the center
    # (5, 4), the last one included: x 3..7, y 2..6.
    want = cv2.resize(IMAGE[2:7, 3:8], (4, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(one(folder, (4, 3, 5, 4), "context_pad: 1"), want)


def test_context_beyond_the_image_is_zero(folder):
    # Center (1, 1): x and y -1..3 of which 0..3 exist; 5 -> 4 pixels: one of padding (0.8), 3 of image (3.2).
    crop = one(folder, (0, 0, 1, 1), "context_pad: 1")
    assert (crop[:, 0] == 0).all() and (crop[:, :, 0] == 0).all()
    np.testing.assert_array_equal(crop[:, 1:, 1:], cv2.resize(IMAGE[:4, :4], (3, 3)).transpose(2, 0, 1))


def test_mirror_takes_the_padding_along(folder):
    text = layer(folder, [(1, 1.0, 0, 3, 1, 4)], "fg_fraction: 1 context_pad: 1", "crop_size: 4 mirror: true", batch=16)
    crops = forward(net_of(text), "data")[0]
    plain = one(folder, (0, 3, 1, 4), "context_pad: 1")
    assert (plain[:, :, 0] == 0).all() and (plain[:, :, 3] != 0).any()
    mirrored = np.zeros_like(plain)  # its image part moves to the right padding: none there, so it starts at column 0
    mirrored[:, :, :3] = plain[:, :, :0:-1]
    kinds = [np.array_equal(crop, plain) + 2 * np.array_equal(crop, mirrored) for crop in crops]
    assert set(kinds) == {1, 2}


def test_square_extends_the_shorter_side(folder):
    # 2 wide, 6 high around the center (5, 5): half sides 3: x and y 2..8.
    want = cv2.resize(IMAGE[2:9, 2:9], (4, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(one(folder, (4, 2, 5, 7), 'crop_mode: "square"'), want)


def test_mean_and_scale(folder):
    raw = one(folder, (0, 0, 3, 3))
    transform = "crop_size: 4 mean_value: 1 mean_value: 2 mean_value: 3"
    found = one(folder, (0, 0, 3, 3), "scale: 0.5", transform=transform)
    np.testing.assert_array_equal(found, (raw - np.array([1, 2, 3])[:, None, None]) / 2)


def test_the_scale_of_transform_param_is_ignored(folder, capfd):
    raw = one(folder, (0, 0, 3, 3))
    assert not capfd.readouterr().err
    np.testing.assert_array_equal(one(folder, (0, 0, 3, 3), transform="crop_size: 4 scale: 0.5"), raw)
    assert "transform_param.scale is ignored" in capfd.readouterr().err


def test_the_same_batches_after_seek(folder):
    text = layer(folder, [(1, 0.9, i, 0, i + 3, 3) for i in range(8)], "fg_fraction: 1", "crop_size: 4 mirror: true")
    unbroken, resumed = net_of(text), net_of(text)
    want = [forward(unbroken, "data")[0] for _ in range(4)]
    resumed.seek(2)
    np.testing.assert_array_equal(forward(resumed, "data")[0], want[2])
    assert (want[2] != want[3]).any()


@pytest.mark.parametrize("cache", ["true", "false"])
def test_cached_images_survive_their_file(folder, cache):
    net = net_of(layer(folder, [(1, 0.9, 0, 0, 3, 3)], f"fg_fraction: 1 cache_images: {cache}"))
    (folder / "a.png").unlink()
    if cache == "true":
        assert forward(net, "data")[0].any()
    else:
        with pytest.raises(CaffeError, match="Could not open or find file .*a.png"):
            net.forward()


GOOD = (1, 0.9, 0, 0, 3, 3)


@pytest.mark.parametrize(
    "windows, rest, transform, message",
    [
        ([GOOD], "", "", "transform_param.crop_size is not set"),
        ([GOOD], "context_pad: 2", "crop_size: 4", "context_pad 2 on each side leaves nothing of crop_size 4"),
        ([GOOD], 'crop_mode: "round"', "crop_size: 4", "crop_mode is 'round'; wanted 'warp' or 'square'"),
        ([GOOD], "", "crop_size: 4", "has no background window, but a batch wants 3"),
        ([(1, 0.1, 0, 0, 3, 3)], "", "crop_size: 4", "has no foreground window, but a batch wants 1"),
        ([(0, 0.9, 0, 0, 3, 3)], "", "crop_size: 4", "foreground .* of class 0; wanted 1 or more"),
        ([(1, 0.9, 3, 0, 2, 3)], "", "crop_size: 4", r"window \(3, 0, 2, 3\) has no pixel"),
        ([(1, 0.9, 0, 0, 3)], "", "crop_size: 4", "image number 0: .*y2"),
        ([(1, 0.9, 40, 0, 43, 3)], "fg_fraction: 1", "crop_size: 4", r"window \(40, 0, 43, 3\) lies outside of"),
    ],
)
def test_parameters_that_do_not_fit(folder, windows, rest, transform, message):
    with pytest.raises(CaffeError, match=message):
        net_of(layer(folder, windows, rest, transform))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("a.png\n", "image number 0: an image starts with a line '# index', not 'a.png'"),
        ("# 0\na.png\n3\n9\n12\n2\n1 0.9 0 0 3 3\n", "ends within image number 0"),
        ("# 0\na.png\nthree\n", "image number 0: .*three"),
        ("# 0\na.png\n1\n9\n12\n1\n1 0.9 0 0 3 3\n", "a.png has 3 channels, the window file says 1"),
        ("# 0\nb.png\n3\n9\n12\n1\n1 0.9 0 0 3 3\n", "Could not open or find file .*b.png"),
        ("# 0\nwindows.txt\n3\n9\n12\n1\n1 0.9 0 0 3 3\n", "windows.txt is no image"),
    ],
)
def test_damaged_window_files(folder, text, message):
    prototxt = layer(folder, [GOOD], "fg_fraction: 1")
    (folder / "windows.txt").write_text(text)
    with pytest.raises(CaffeError, match=message):
        net_of(prototxt)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_an_image_that_is_no_file(folder, kind):
    (folder / "a.png").unlink()
    if kind == "pipe":
        os.mkfifo(folder / "a.png")
    else:
        (folder / "a.png").symlink_to("/dev/zero")
    with pytest.raises(CaffeError, match="Could not open or find file .*a.png: it is no regular file"):
        one(folder, (0, 0, 3, 3))


@pytest.mark.parametrize(
    "transform, batch, message",
    [
        ("crop_size: 4", 2000000000, "blob size exceeds INT_MAX"),
        ("crop_size: 1", 2**21, "batch_size is 2097152; wanted at least 1 and at most 1048576"),
        ("crop_size: 2000000000", 1, "blob size exceeds INT_MAX"),
        ("crop_size: 20000", 1, "not enough memory .* 13.4 GiB; 8.0 GiB are free"),
    ],
)
def test_batches_that_no_memory_holds(folder, monkeypatch, transform, batch, message):
    monkeypatch.setattr("caffe.blob._free_memory", lambda: 2**33)
    with pytest.raises(CaffeError, match=f"layer 'w' .WindowData.: {message}"):
        net_of(layer(folder, [(1, 1.0, 0, 0, 3, 3)], "fg_fraction: 1", transform, batch))


@pytest.mark.parametrize("channels", ["-1", "999999999"])
def test_channels_that_no_image_has(folder, channels):
    text = layer(folder, [(1, 1.0, 0, 0, 3, 3)], "fg_fraction: 1")
    file = folder / "windows.txt"
    file.write_text(file.read_text().replace("\n3\n", f"\n{channels}\n", 1))
    with pytest.raises(CaffeError, match="image number 0: it has -1 channels" if channels == "-1" else "INT_MAX"):
        net_of(text)
