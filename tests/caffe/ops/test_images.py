import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from caffe.errors import CaffeError
from tests.caffe.ops.test_inputs import forward, net_of

RNG = np.random.default_rng(8)
IMAGES = RNG.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)  # height 4, width 6, BGR


@pytest.fixture
def folder(tmp_path):
    """Five images, one with a blank in its name, and list.txt with labels 10 .. 14."""
    names = ["a.png", "b c.png", "d.png", "e.png", "f.png"]
    for name, image in zip(names, IMAGES):
        cv2.imwrite(str(tmp_path / name), image)
    (tmp_path / "list.txt").write_text("".join(f"{name} {10 + i}\n" for i, name in enumerate(names)))
    return tmp_path


def layer(folder, rest="batch_size: 2", transform="", listed="list.txt"):
    return f"""layer {{ name: "i" type: "ImageData" top: "data" top: "label" transform_param {{ {transform} }}
               image_data_param {{ source: "{folder}/{listed}" root_folder: "{folder}/" {rest} }} }}"""


def labels(net, batches):
    return [[int(v) for v in forward(net, "label")[0]] for _ in range(batches)]


def test_batches_go_on_across_the_end(folder):
    net = net_of(layer(folder))
    assert net.blobs["data"].shape == (2, 3, 4, 6) and net.blobs["label"].shape == (2,)
    x, y = forward(net, "data", "label")
    np.testing.assert_array_equal(x, IMAGES[:2].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(y, [10, 11])
    assert labels(net, 3) == [[12, 13], [14, 10], [11, 12]]


def test_a_list_as_editors_on_windows_write_it(folder):
    text = (folder / "list.txt").read_bytes()
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert labels(net_of(layer(folder)), 3) == [[10, 11], [12, 13], [14, 10]]


def test_resize_and_grey(folder):
    (x,) = forward(net_of(layer(folder, "batch_size: 1 new_height: 3 new_width: 8 is_color: false")), "data")
    grey = cv2.imread(str(folder / "a.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(x, cv2.resize(grey, (8, 3))[None, None])


def test_transform(folder):
    (x,) = forward(net_of(layer(folder, transform="mean_value: 100 scale: 0.5")), "data")
    np.testing.assert_array_equal(x, (IMAGES[:2].transpose(0, 3, 1, 2).astype(np.float32) - 100) / 2)


def test_shuffle_anew_each_epoch(folder):
    def epochs(seed):
        return labels(net_of(layer(folder, "batch_size: 5 shuffle: true"), seed=seed), 8)

    found = epochs(1)
    assert all(sorted(epoch) == [10, 11, 12, 13, 14] for epoch in found)
    assert len(set(map(tuple, found))) > 4
    assert epochs(1) == found and epochs(2) != found


def test_shuffled_run_resumes(folder):
    text = layer(folder, "batch_size: 2 shuffle: true", "crop_size: 3 mirror: true")
    unbroken, resumed = net_of(text), net_of(text)
    want = [forward(unbroken, "data", "label") for _ in range(8)]
    resumed.seek(5)
    for x, y in want[5:]:
        found_x, found_y = forward(resumed, "data", "label")
        np.testing.assert_array_equal(found_x, x)
        np.testing.assert_array_equal(found_y, y)


def test_rand_skip_starts_somewhere(folder):
    starts = {labels(net_of(layer(folder, "batch_size: 1 rand_skip: 3"), seed=s), 2)[0][0] for s in range(20)}
    assert starts == {10, 11, 12}
    with pytest.raises(CaffeError, match="Not enough points to skip: rand_skip is 5"):
        net_of(layer(folder, "batch_size: 1 rand_skip: 5"))


@pytest.mark.parametrize(
    "line, rest, message",
    [
        ("absent.png 3", "", "Could not open or find file .*absent.png"),
        ("list.txt 3", "", "Could not open or find file .*list.txt"),
        ("a.png", "", "line 'a.png' of .*wanted a path, a space and a number"),
        ("a.png three", "", "line 'a.png three'"),
        ("", "", "is empty"),
        ("a.png 3", "new_height: 5", "requires new_height and new_width to be set at the same time"),
        ("a.png 3", "batch_size: 0", "batch_size is 0"),
    ],
)
def test_lists_that_do_not_fit(folder, line, rest, message):
    (folder / "bad.txt").write_text(line + "\n")
    with pytest.raises(CaffeError, match=message):
        net_of(layer(folder, rest, listed="bad.txt"))


def test_images_of_several_sizes_want_one(folder):
    cv2.imwrite(str(folder / "small.png"), IMAGES[0, :3])
    (folder / "mixed.txt").write_text("a.png 1\nsmall.png 2\n")
    with pytest.raises(CaffeError, match=r"small.png has shape \(3, 3, 6\), but a.png .* \(3, 4, 6\); set crop_size"):
        net_of(layer(folder, listed="mixed.txt"))
    assert net_of(layer(folder, transform="crop_size: 3", listed="mixed.txt")).blobs["data"].shape == (2, 3, 3, 3)


@pytest.mark.parametrize(
    "rest, transform, message",
    [
        ("batch_size: 2000000000", "", "batch_size is 2000000000; wanted at least 1 and at most 1048576"),
        ("batch_size: 2 new_height: 60000 new_width: 60000", "", "blob size exceeds INT_MAX"),
        ("batch_size: 1 new_height: 40000 new_width: 30000", "", r"not enough memory .* 13.4 GiB; 8.0 GiB are free"),
        ("batch_size: 100000 new_height: 80 new_width: 80", "", r"not enough memory .*\(100000, 3, 80, 80\)"),
    ],
)
def test_batches_that_no_memory_holds(folder, monkeypatch, rest, transform, message):
    """Refused before more than one image is read."""
    monkeypatch.setattr("caffe.blob._free_memory", lambda: 2**33)
    with pytest.raises(CaffeError, match=f"layer 'i' .ImageData.: {message}"):
        net_of(layer(folder, rest, transform))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_list_that_is_no_file(folder, kind):
    if kind == "pipe":
        os.mkfifo(folder / "endless.txt")
    else:
        (folder / "endless.txt").symlink_to("/dev/zero")
    with pytest.raises(CaffeError, match="cannot read source .*endless.txt': it is no regular file"):
        net_of(layer(folder, listed="endless.txt"))


@pytest.mark.parametrize("content", ["png of 60000x60000", "pipe", "device", "sparse", "folder", "nothing"])
def test_an_image_that_attacks_is_named(folder, content):
    """A PNG whose head claims 10 GB, a pipe that nobody writes to: refused at once."""
    bad = folder / "bad.png"
    if content == "pipe":
        os.mkfifo(bad)
    elif content == "device":
        bad.symlink_to("/dev/zero")
    elif content == "sparse":
        bad.touch()
        os.truncate(bad, 2**40)
    elif content == "folder":
        bad.mkdir()
    else:
        head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")] if "60000" in content else []
        data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
        bad.write_bytes((b"\x89PNG\r\n\x1a\n" if data else b"") + data)
    (folder / "hostile.txt").write_text("bad.png 0\n")
    with pytest.raises(CaffeError, match="Could not open or find file .*bad.png"):
        forward(net_of(layer(folder, listed="hostile.txt", rest="batch_size: 1")), "data")
