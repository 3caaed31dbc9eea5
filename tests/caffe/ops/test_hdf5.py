import os
import random

import h5py
import numpy as np
import pytest

from caffe.errors import CaffeError
from tests.caffe.ops.test_inputs import forward, net_of

RNG = np.random.default_rng(6)
ROWS = (3, 4)  # of the two files


def write(path, **data):
    with h5py.File(path, "w") as f:
        for name, values in data.items():
            f[name] = values
    return path


@pytest.fixture
def source(tmp_path):
    """A list of two files; row r of all has x = (r, r + 0.5) and y = 100 + r."""
    start, paths = 0, []
    for i, rows in enumerate(ROWS):
        r = np.arange(start, start + rows, dtype=np.float64)
        paths.append(write(tmp_path / f"{i}.h5", x=np.stack([r, r + 0.5], 1), y=100 + r.astype(np.int32)))
        start += rows
    (tmp_path / "list.txt").write_text("".join(f"{p}\n" for p in paths))
    return tmp_path / "list.txt"


def layer(source, rest="batch_size: 2", more=""):
    return f"""layer {{ name: "h" type: "HDF5Data" top: "x" top: "y" {more}
               hdf5_data_param {{ source: "{source}" {rest} }} }}"""


def rows(net, batches):
    """Numbers of the rows in the next batches; x and y must agree on them."""
    found = []
    for _ in range(batches):
        x, y = forward(net, "x", "y")
        np.testing.assert_array_equal(x, np.stack([y - 100, y - 99.5], 1))
        found.append([int(v) - 100 for v in y])
    return found


def test_batches_go_on_across_files_and_epochs(source):
    net = net_of(layer(source))
    assert net.blobs["x"].shape == (2, 2) and net.blobs["y"].shape == (2,)
    assert rows(net, 5) == [[0, 1], [2, 3], [4, 5], [6, 0], [1, 2]]


def test_seek(source):
    net = net_of(layer(source))
    net.seek(3)
    assert rows(net, 1) == [[6, 0]]


def test_shuffle_by_file_and_within_it(source):
    def epochs(seed):
        return rows(net_of(layer(source, "batch_size: 7 shuffle: true"), seed=seed), 20)

    found = epochs(1)
    first_files = set()
    for epoch in found:
        assert sorted(epoch) == list(range(7))
        split = 3 if epoch[0] < 3 else 4
        first_files.add(split)
        assert {row < 3 for row in epoch[:split]} == {split == 3}  # a file at a time
    assert first_files == {3, 4} and len(set(map(tuple, found))) > 10
    assert epochs(1) == found and epochs(2) != found


def test_shuffled_run_resumes(source):
    text = layer(source, "batch_size: 3 shuffle: true")
    want = rows(net_of(text), 9)
    net = net_of(text)
    net.seek(5)
    assert rows(net, 4) == want[5:]


def test_layers_in_place_leave_the_file_alone(source):
    net = net_of(
        layer(source, "batch_size: 7")
        + 'layer { name: "r" type: "Power" bottom: "x" top: "x" power_param { scale: 0 } }'
    )
    for _ in range(2):
        (y,) = forward(net, "y")
        np.testing.assert_array_equal(y, np.arange(100, 107))
        assert (net.blobs["x"].data == 0).all()


@pytest.mark.parametrize(
    "data, message",
    [
        ({"x": np.zeros((2, 2))}, "Failed to find HDF5 dataset y .* it holds x"),
        ({"x": np.zeros((2, 2)), "y": np.zeros(3)}, "same number of rows.*'x': 2, 'y': 3"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "at least 1"),
        ({"x": np.zeros(()), "y": np.zeros(())}, "at least 1"),
        ({"x": np.zeros((1, 2)), "y": np.array([b"text"])}, "dataset y of numbers"),
    ],
)
def test_files_that_do_not_fit(tmp_path, data, message):
    (tmp_path / "list.txt").write_text(f"{write(tmp_path / 'a.h5', **data)}\n")
    with pytest.raises(CaffeError, match=message):
        net_of(layer(tmp_path / "list.txt"))


def test_sources_that_cannot_be_read(tmp_path, source):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "wrong.txt").write_text(f"{source}\n")
    uneven = [write(tmp_path / f"{n}.h5", x=np.zeros((1, n)), y=[0]) for n in (2, 3)]
    (tmp_path / "rows.txt").write_text(f"{uneven[0]}\n{uneven[1]}\n")
    for text, message in [
        (layer(tmp_path / "empty.txt"), "empty.txt' is empty"),
        (layer(tmp_path / "absent.txt"), "cannot read source .*No such file"),
        (layer(tmp_path / "wrong.txt"), "Failed opening HDF5 file"),
        (layer(tmp_path / "rows.txt"), "differ in shape"),
        (layer(source, ""), "batch_size is 0"),
        (layer(source, more="transform_param { scale: 2 }"), "HDF5Data does not transform data"),
    ]:
        with pytest.raises(CaffeError, match=message):
            net_of(text)


def test_a_file_that_claims_much_is_not_read(tmp_path, monkeypatch):
    """Rows that were never written take no place: 22 GB in 2 kB."""
    monkeypatch.setattr("caffe.blob._free_memory", lambda: 2**33)
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("x", (2**29, 2), "f4", chunks=(1000, 2))
        f.create_dataset("y", (2**29,), "f4", chunks=(1000,))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.h5\n")
    with pytest.raises(CaffeError, match="layer 'h' .HDF5Data.: not enough memory .* 12.0 GiB; 8.0 GiB are free"):
        net_of(layer(tmp_path / "list.txt"))


def test_a_batch_that_is_too_large(source):
    with pytest.raises(CaffeError, match="batch_size is 2000000000; wanted at least 1 and at most 1048576"):
        net_of(layer(source, "batch_size: 2000000000"))


def test_a_file_that_is_a_pipe(tmp_path, source):
    os.mkfifo(tmp_path / "pipe")
    source.write_text(f"{tmp_path}/pipe\n")
    with pytest.raises(CaffeError, match="Failed opening HDF5 file: .*pipe: .*it is no regular file"):
        net_of(layer(source))


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_damaged_files_are_refused_or_read(tmp_path, source, version):
    """200 files: a byte overwritten, or cut off. h5py raises nearly any exception."""
    with h5py.File(tmp_path / "whole.h5", "w", libver=version) as f:
        f.create_dataset("x", data=RNG.normal(size=(6, 2)), chunks=(2, 2), compression="gzip")
        f["y"] = np.zeros(6)
    whole, rng, taken = (tmp_path / "whole.h5").read_bytes(), random.Random(3), 0
    source.write_text(f"{tmp_path}/damaged.h5\n")
    for n in range(200):
        data = bytearray(whole)
        data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "damaged.h5").write_bytes(data[: rng.randrange(len(data))] if n % 5 == 0 else data)
        try:
            taken += forward(net_of(layer(source)), "x")[0].shape == (2, 2)
        except CaffeError as e:
            assert "damaged.h5" in str(e) or "INT_MAX" in str(e) or "not enough memory" in str(e)
    assert 50 < taken < 195


def output_net(path, label_rows=2):
    return net_of(
        f"""layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 4 }} }} }}
            layer {{ name: "lab" type: "Input" top: "y" input_param {{ shape {{ dim: {label_rows} }} }} }}
            layer {{ name: "out" type: "HDF5Output" bottom: "x" bottom: "y"
                     hdf5_output_param {{ file_name: "{path}" }} }}"""
    )


def test_output_appends_every_batch(tmp_path):
    path = write(tmp_path / "out.h5", old=[1])
    net = output_net(path)
    x, y = RNG.normal(size=(3, 2, 3, 4)).astype(np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    for i in range(3):
        net.blobs["x"].data[...], net.blobs["y"].data[...] = x[i], y[i]
        net.forward()
    with h5py.File(path) as f:
        assert set(f) == {"data", "label"}  # made anew
        np.testing.assert_array_equal(f["data"], x.reshape(6, 3, 4, 1))
        np.testing.assert_array_equal(f["label"], y.reshape(6, 1, 1, 1))


def test_output_that_cannot_be_written(tmp_path):
    with pytest.raises(CaffeError, match="Failed to open HDF5 file"):
        output_net(tmp_path / "absent" / "out.h5")
    with pytest.raises(CaffeError, match=r"\(2, 3, 4\) and \(5,\); wanted the same first dimension"):
        output_net(tmp_path / "out.h5", label_rows=5)
    net = output_net(tmp_path / "out.h5")
    net.forward()
    net.blobs["x"].reshape(2, 5, 4)
    with pytest.raises(CaffeError, match=r"holds rows of shape \(3, 4, 1\) in 'data'; now they are \(5, 4, 1\)"):
        net.forward()


def test_a_file_that_is_no_hdf5_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CaffeError, match="layer 'out' .HDF5Output.: Failed to open HDF5 file '.*notes.txt'"):
        output_net(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "new").touch()  # as tempfile makes a name
    output_net(tmp_path / "new").forward()


def test_a_pipe_is_not_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaffeError, match="Failed to open HDF5 file '.*pipe'") as e:
        output_net(tmp_path / "pipe")
    assert "\n" not in str(e.value)


def test_an_older_file_lasts_until_the_first_batch(tmp_path):
    net = output_net(write(tmp_path / "out.h5", old=[1]))
    with h5py.File(tmp_path / "out.h5") as f:
        assert set(f) == {"old"}
    net.forward()
    with h5py.File(tmp_path / "out.h5") as f:
        assert set(f) == {"data", "label"}
