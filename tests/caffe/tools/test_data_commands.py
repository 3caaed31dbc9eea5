"""convert_imageset, compute_image_mean, extract_features, classify: from pictures to databases, means and scores."""

import cv2
import lmdb
import numpy as np
import pytest

import caffe
from caffe.io import datum_to_array
from caffe.proto import caffe_pb2
from caffe.tools import classify, compute_image_mean, convert_imageset, extract_features
from caffe.weights import read_array


@pytest.fixture
def images(tmp_path):
    """Three pictures of noise, 5 x 4, 6 x 7 and 5 x 4, and their list."""
    rng = np.random.default_rng(1)
    (tmp_path / "im" / "a b").mkdir(parents=True)
    names = ["x.png", "a b/y.png", "z.png"]
    pictures = {}
    for name, size in zip(names, [(5, 4), (6, 7), (5, 4)]):
        pictures[name] = rng.integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "im" / name), pictures[name])
    (tmp_path / "list.txt").write_text("".join(f"{name} {k}\n" for k, name in enumerate(names)))
    return tmp_path, pictures


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(k).decode(), caffe_pb2.Datum.FromString(v)) for k, v in transaction.cursor()]


def convert(folder, *flags):
    return convert_imageset.main([*flags, f"{folder / 'im'}/", str(folder / "list.txt"), str(folder / "db")])


def test_images_become_records(images):
    folder, pictures = images
    assert convert(folder) == 0
    found = records(folder / "db")
    assert [key for key, _ in found] == ["00000000_x.png", "00000001_a b/y.png", "00000002_z.png"]
    for label, ((_, datum), picture) in enumerate(zip(found, pictures.values())):
        assert datum.label == label and not datum.encoded
        np.testing.assert_array_equal(datum_to_array(datum), picture.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "flags, shape",
    [
        (["-gray"], (1, 5, 4)),
        (["--gray=true", "--resize_width=3", "-resize_height", "2"], (1, 2, 3)),
        (["--nogray", "--encoded"], (3, 5, 4)),
        (["--encode_type=jpg", "--check_size", "--resize_width=8", "--resize_height=9"], (3, 9, 8)),
    ],
)
def test_flags(images, flags, shape):
    folder, pictures = images
    assert convert(folder, *flags) == 0
    _, datum = records(folder / "db")[0]
    assert datum.encoded == any("enc" in flag for flag in flags)
    assert datum_to_array(datum).shape == shape
    if "--encoded" in flags:
        assert datum.data == (folder / "im/x.png").read_bytes()


def test_one_side_alone_resizes_nothing_and_is_told(images, capfd):
    folder, pictures = images
    assert convert(folder, "-resize_height", "8") == 0
    assert "--resize_width and --resize_height change nothing but together" in capfd.readouterr().err
    assert datum_to_array(records(folder / "db")[0][1]).shape == (3, 5, 4)


def test_shuffling_keeps_labels(images):
    folder, pictures = images
    assert convert(folder, "--shuffle", "--seed=3") == 0
    found = records(folder / "db")
    assert sorted(key.split("_")[1] for key, _ in found) == sorted(pictures)
    for key, datum in found:
        np.testing.assert_array_equal(datum_to_array(datum), pictures[key.split("_", 1)[1]].transpose(2, 0, 1))


def test_what_cannot_be_read_is_told(images, capfd):
    folder, _ = images
    (folder / "im/x.png").write_bytes(b"no picture")
    assert convert(folder) == 0
    assert [key for key, _ in records(folder / "db")] == ["00000001_a b/y.png", "00000002_z.png"]
    told = capfd.readouterr().err
    assert "x.png: left out" in told and "1 of 3 images were left out" in told


@pytest.mark.parametrize(
    "text, flags, words",
    [
        ("x.png one\n", [], "line 1: 'x.png one'; wanted a path, a blank and a label"),
        ("", [], "names no images"),
        ("gone.png 1\n", [], "none of its 1 images can be read"),
        ("x.png 0\na b/y.png 1\n", ["--check_size"], "a b/y.png has 126 values, the images before it 60"),
        ("x.png 0\n", ["--backend=sqlite"], "unknown backend 'sqlite' (known: lmdb, leveldb)"),
        ("x.png 0\n", ["--encode_type=what"], "cannot be encoded as 'what'"),
    ],
)
def test_nothing_half_is_written(images, text, flags, words, capfd):
    folder, _ = images
    (folder / "list.txt").write_text(text)
    before = sorted(folder.iterdir())
    assert convert(folder, *flags) == 1
    assert words in capfd.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_database_is_not_written_over(images, capfd):
    folder, _ = images
    assert convert(folder) == 0 and convert(folder, "--gray") == 1
    assert "is there already" in capfd.readouterr().err
    assert records(folder / "db")[0][1].channels == 3


def test_mean(images, capfd):
    folder, pictures = images
    assert convert(folder, "--resize_width=3", "--resize_height=2") == 0
    assert compute_image_mean.main([str(folder / "db"), str(folder / "mean.binaryproto")]) == 0
    wanted = np.mean([cv2.resize(p, (3, 2)).transpose(2, 0, 1) for p in pictures.values()], 0)
    found = read_array(folder / "mean.binaryproto")
    assert found.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-6)  # float32 of a float64 mean
    assert "mean_value channel [2]" in capfd.readouterr().err


def test_a_mean_of_unequal_images_is_refused(images, capfd):
    folder, _ = images
    convert(folder)
    assert compute_image_mean.main([str(folder / "db"), str(folder / "mean")]) == 1
    assert "image (3, 6, 7), those before it (3, 5, 4)" in capfd.readouterr().err
    assert not (folder / "mean").exists()


NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{db}" batch_size: 2 backend: LMDB }} transform_param {{ scale: 0.5 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 5
  weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
"""


def test_features(images, capfd):
    folder, pictures = images
    convert(folder, "--resize_width=3", "--resize_height=2")
    (folder / "net.prototxt").write_text(NET.format(db=folder / "db"))
    caffe.Net(str(folder / "net.prototxt"), caffe.TEST).save(str(folder / "w.caffemodel"))
    words = [str(folder / "w.caffemodel"), str(folder / "net.prototxt"), "data,ip"]
    out = f"{folder / 'd'},{folder / 'f'}"
    assert extract_features.main([*words, out, "2", "lmdb"]) == 0
    d, f = records(folder / "d"), records(folder / "f")
    assert [key for key, _ in f] == [f"{k:010d}" for k in range(4)]
    np.testing.assert_array_equal(
        datum_to_array(d[1][1]), 0.5 * cv2.resize(pictures["a b/y.png"], (3, 2)).transpose(2, 0, 1)
    )
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST, weights=words[0])
    np.testing.assert_array_equal(datum_to_array(f[0][1]), net.forward()["ip"][0][:, None, None])
    assert extract_features.main([*words[:2], "what", str(folder / "g"), "2", "lmdb"]) == 1
    assert "has no blob 'what' (it has: data, label, ip)" in capfd.readouterr().err


DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def test_classes(images, capsys):
    folder, _ = images
    (folder / "deploy.prototxt").write_text(DEPLOY)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "w.caffemodel"))
    net = ["--model_def", str(folder / "deploy.prototxt"), "--pretrained_model", str(folder / "w.caffemodel")]
    (folder / "labels.txt").write_text("cat\ndog\nowl\n")
    words = [*net, "--ext", "png", "--images_dim", "6,6"]
    assert classify.main([str(folder / "im"), str(folder / "s.npy"), *words]) == 0
    scores = np.load(folder / "s.npy")
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)  # the mean of ten softmaxes
    capsys.readouterr()
    assert classify.main([str(folder / "im/x.png"), "-", "--labels", str(folder / "labels.txt"), *words]) == 0
    best = ["cat", "dog", "owl"][int(scores[0].argmax())]
    assert f'{scores[0].max():.4f} - "{best}"' in capsys.readouterr().out.splitlines()[1]
    assert classify.main([str(folder / "list.txt"), "-", *words]) == 1
    np.save(folder / "two.npy", np.zeros((2, 5, 5, 2)))
    for mistake, told in (
        ([str(folder / "im"), "-", *words, "--images_dim", "12"], "--images_dim is 12; wanted height,width"),
        ([str(folder / "im"), "-", *words, "--images_dim", "0,4"], "--images_dim is 0,4; wanted height,width"),
        ([str(folder / "two.npy"), "-", *words], "deploy.prototxt: "),  # of two channels
    ):
        capsys.readouterr()
        assert classify.main(mistake) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: ") and told in last
