import sys

import cv2
import lmdb
import numpy as np
import pytest

from caffe.errors import CaffeError
from caffe.ops.records import Records
from caffe.proto import caffe_pb2
from tests.caffe.ops.test_inputs import forward, net_of

RNG = np.random.default_rng(4)
IMAGES = RNG.integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)


def datum(image, label, **fields):
    channels, height, width = image.shape
    fields = fields or {"data": image.tobytes()}
    return caffe_pb2.Datum(channels=channels, height=height, width=width, label=label, **fields)


def encoded(image, label):
    return caffe_pb2.Datum(encoded=True, label=label, data=cv2.imencode(".png", image.transpose(1, 2, 0))[1].tobytes())


def write(path, datums):
    with lmdb.open(str(path), map_size=2**20) as env, env.begin(write=True) as txn:
        for i, d in enumerate(datums):
            txn.put(f"{i:08}".encode(), d if isinstance(d, bytes) else d.SerializeToString())
    return path


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "db", [datum(image, 10 + i) for i, image in enumerate(IMAGES)])


def layer(source, extra="", batch=2, tops='top: "data" top: "label"', transform=""):
    return f"""layer {{ name: "d" type: "Data" {tops} transform_param {{ {transform} }}
               data_param {{ source: "{source}" batch_size: {batch} backend: LMDB {extra} }} }}"""


def labels(net, batches):
    return [[int(v) for v in forward(net, "label")[0]] for _ in range(batches)]


def test_batches_go_on_across_the_end(source):
    net = net_of(layer(source))
    assert net.blobs["data"].shape == (2, 3, 4, 6) and net.blobs["label"].shape == (2,)
    x, y = forward(net, "data", "label")
    np.testing.assert_array_equal(x, IMAGES[:2])
    np.testing.assert_array_equal(y, [10, 11])
    assert labels(net, 4) == [[12, 13], [14, 10], [11, 12], [13, 14]]


def test_seek_continues_where_an_unbroken_run_would_be(source):
    text = layer(source, transform="crop_size: 3 mirror: true")
    unbroken = net_of(text)
    want = [forward(unbroken, "data", "label") for _ in range(6)]
    resumed = net_of(text)
    resumed.seek(4)
    for x, y in want[4:]:
        np.testing.assert_array_equal(forward(resumed, "data")[0], x)
        np.testing.assert_array_equal(resumed.blobs["label"].data, y)


def test_two_nets_read_one_lmdb(source):
    first, second = net_of(layer(source)), net_of(layer(source, batch=3))
    assert labels(first, 1) == [[10, 11]] and labels(second, 1) == [[10, 11, 12]]
    assert labels(first, 1) == [[12, 13]]


def test_one_top(source):
    net = net_of(layer(source, tops='top: "data"'))
    np.testing.assert_array_equal(forward(net, "data")[0], IMAGES[:2])


def test_float_and_encoded_datums(tmp_path):
    values = RNG.normal(size=(3, 4, 6)).astype(np.float32)
    source = write(tmp_path / "db", [datum(values, 1, float_data=values.ravel()), encoded(IMAGES[1], 2)])
    (x,) = forward(net_of(layer(source)), "data")
    np.testing.assert_array_equal(x, [values, IMAGES[1]])


def test_forced_colour_of_encoded_datums(tmp_path):
    source = write(tmp_path / "db", [encoded(image, 0) for image in IMAGES])
    (grey,) = forward(net_of(layer(source, transform="force_gray: true")), "data")
    assert grey.shape == (2, 1, 4, 6)
    want = cv2.imdecode(cv2.imencode(".png", IMAGES[0].transpose(1, 2, 0))[1], cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(grey[0, 0], want)
    grey_source = write(tmp_path / "grey", [encoded(image[:1], 0) for image in IMAGES])
    assert net_of(layer(grey_source)).blobs["data"].shape == (2, 1, 4, 6)
    assert net_of(layer(grey_source, "force_encoded_color: true")).blobs["data"].shape == (2, 3, 4, 6)


def test_the_batch_takes_the_size_of_its_images(tmp_path):
    sizes = [(3, 4), (5, 2)]
    source = write(tmp_path / "db", [datum(np.zeros((1, *s), np.uint8), 0) for s in sizes])
    net = net_of(layer(source, batch=1))
    assert [forward(net, "data")[0].shape for _ in range(2)] == [(1, 1, 3, 4), (1, 1, 5, 2)]
    with pytest.raises(
        CaffeError, match=r"record '00000001' has shape \(1, 5, 2\), but record '00000000' .* \(1, 3, 4\)"
    ):
        net_of(layer(source))


def test_solvers_that_train_together_share_the_records(source, monkeypatch):
    monkeypatch.setattr("caffe.ops.batches.solver_count", lambda: 2)
    seen = []
    for rank in range(2):
        monkeypatch.setattr("caffe.ops.batches.solver_rank", lambda rank=rank: rank)
        seen.append(labels(net_of(layer(source)), 3))
    assert seen == [[[10, 12], [14, 11], [13, 10]], [[11, 13], [10, 12], [14, 11]]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size: 2": ""}, "batch_size is 0"),
        ({"/db": "/nowhere"}, "cannot read LMDB '.*/nowhere': .*No such file"),
    ],
)
def test_parameters_that_do_not_fit(source, change, message):
    text = layer(source)
    for old, new in change.items():
        text = text.replace(old, new)
    with pytest.raises(CaffeError, match=message):
        net_of(text)


@pytest.mark.parametrize(
    "value, message",
    [
        (b"\xff\xff", "record '00000000' of .* is no Datum"),
        (datum(IMAGES[0], 0, data=b"123"), r"holds 3 values for shape \(3, 4, 6\)"),
        (caffe_pb2.Datum(encoded=True, data=b"no image"), "Could not decode datum"),
    ],
)
def test_damaged_records(tmp_path, value, message):
    with pytest.raises(CaffeError, match=message):
        net_of(layer(write(tmp_path / "db", [value])))


def test_empty_lmdb(tmp_path):
    with pytest.raises(CaffeError, match="is empty"):
        net_of(layer(write(tmp_path / "db", [])))


# ---- LevelDB


@pytest.fixture
def level_source(tmp_path):
    plyvel = pytest.importorskip("plyvel")
    database = plyvel.DB(str(tmp_path / "level"), create_if_missing=True)
    for i, image in enumerate(IMAGES):
        database.put(f"{i:08}".encode(), datum(image, 10 + i).SerializeToString())
    database.close()
    return tmp_path / "level"


def test_leveldb_is_read_like_lmdb_and_is_the_default_backend(source, level_source):
    for backend in ("backend: LEVELDB", ""):
        net = net_of(layer(level_source).replace("backend: LMDB", backend))
        wanted = net_of(layer(source))
        for _ in range(7):  # beyond the end, where the number of records becomes known
            np.testing.assert_array_equal(*(forward(n, "data")[0] for n in (net, wanted)))
            np.testing.assert_array_equal(net.blobs["label"].data, wanted.blobs["label"].data)
        net.seek(23)
        assert labels(net, 1) == [[11, 12]]


def test_two_nets_read_one_leveldb(level_source):
    text = layer(level_source).replace("LMDB", "LEVELDB")
    first, second = net_of(text), net_of(text)
    assert labels(first, 2) == [[10, 11], [12, 13]] and labels(second, 1) == [[10, 11]]


def test_no_leveldb_there(tmp_path):
    pytest.importorskip("plyvel")
    with pytest.raises(CaffeError, match="cannot read LEVELDB '.*/none': there is no LevelDB"):
        net_of(layer(tmp_path / "none").replace("LMDB", "LEVELDB"))
    assert not (tmp_path / "none").exists()


def test_leveldb_without_its_package(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "plyvel", None)  # importing it fails
    with pytest.raises(CaffeError, match="LEVELDB, which is the default backend, needs the package plyvel: `pip"):
        net_of(layer(source).replace("backend: LMDB", ""))


@pytest.mark.parametrize("damage", ["cut off", "zeros", "leads nowhere"])
def test_a_damaged_lmdb_is_a_sentence_and_ends_no_process(tmp_path, damage):
    """LMDB itself would end it with a bus error, or read whatever lies there."""
    images = RNG.integers(0, 256, (40, 3, 40, 60), dtype=np.uint8)  # each record has pages of its own
    source = write(tmp_path / "db", [datum(image, i) for i, image in enumerate(images)])
    net, file = net_of(layer(source)), source / "data.mdb"
    whole = bytearray(file.read_bytes())
    if damage == "cut off":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "zeros":
        file.write_bytes(bytes(len(whole)))
    else:
        for number in range(20, 40):  # of pages
            whole = whole.replace(number.to_bytes(8, "little"), (2**40).to_bytes(8, "little"))
        file.write_bytes(whole)
    told = r"data\.mdb: .*(cut off|no LMDB|points to)|is no Datum|damaged"
    with pytest.raises(CaffeError, match=told):
        for _ in range(30):
            forward(net, "label")
    with pytest.raises(CaffeError, match="cannot read|damaged|cut off"):
        net_of(layer(source, batch=40))


def test_damage_is_found_again_and_not_taken_for_the_end(tmp_path):
    images = RNG.integers(0, 256, (9, 3, 40, 60), dtype=np.uint8)
    source = write(tmp_path / "db", [datum(image, i) for i, image in enumerate(images)])
    records, file = Records(source, "LMDB"), source / "data.mdb"
    file.write_bytes(file.read_bytes()[:-5000])
    for k in (8, 8, 17):
        with pytest.raises(CaffeError, match="cut off"):
            records[k]
    assert records[0] == records[9]
