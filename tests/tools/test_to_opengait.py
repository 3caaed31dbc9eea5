"""What leaves for other tools: pickles that plain pickle reads, features with their labels."""

import csv
import pickle
import pickletools

import numpy as np
import pytest

from eval.deploy import open_net
from eval.extract import read_walk
from eval.features import Features, training_told, write_cache
from layers.sources import open_frames
from layers.unpickle import load_array
from tests.layers.trees import write_walkers
from tools import to_opengait


@pytest.mark.medium
def test_masks_are_what_the_net_predicts(tmp_path, weights, capsys):
    root = write_walkers(tmp_path / "Walkers", subjects=1, conditions=("nm-01",))
    words = [
        "masks",
        "walkers",
        "--weights",
        str(weights),
        "--im-path",
        str(root / "crop-im"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert to_opengait.main(words) == 0
    file = tmp_path / "out/001/nm-01/090/090.pkl"
    with open(file, "rb") as opened:
        masks = pickle.load(opened)
    assert masks.dtype == np.uint8 and masks.shape == (12, 64, 64) and masks.flags.writeable
    assert np.array_equal(masks, load_array(file))
    net = open_net(weights)
    frames = open_frames(root / "crop-im")
    assert np.array_equal(masks, np.rint(255 * net.masks(read_walk(frames, "001/nm-01/090", 12))))
    asked = {str(argument) for code, argument, _ in pickletools.genops(file.read_bytes()) if code.name == "GLOBAL"}
    assert "numpy.core.multiarray _reconstruct" in asked  # which every version of NumPy has
    # As its loader takes them: every .pkl in <id>/<type>/<view>/, 64 high, ten columns cut off at each side, to 0..1.
    cutting = masks.shape[-1] // 64 * 10
    taken = masks[..., cutting:-cutting] / 255.0
    assert taken.shape == (12, 64, 44) and 0 <= taken.min() < taken.max() <= 1
    # Read back as silhouettes, they are what was written.
    _, found = open_frames(None, tmp_path / "out").clip("001/nm-01/090", 0, 12)
    assert np.array_equal(found, masks)
    time = file.stat().st_mtime_ns
    (tmp_path / "out/001/nm-01/000/000.pkl").unlink()
    assert to_opengait.main(words) == 0 and file.stat().st_mtime_ns == time
    assert (tmp_path / "out/001/nm-01/000/000.pkl").exists()


@pytest.fixture
def cache(tmp_path):
    names = np.array(["075/nm-05/000", "075/bg-01/018", "076/nm-01/090"])
    vectors = np.random.default_rng(1).random((3, 256), np.float32)
    features = Features(
        vectors,
        np.array([74, 74, 75]),
        np.array([0, 1, 5]),
        np.array(["probe", "", "gallery"]),
        np.array(["NM", "BG", ""]),
        names,
    )
    key = {"dataset": "casiab", "training": "unseen", "training_told": "whom training has not seen"}
    write_cache(tmp_path / "cache.npz", features, key, {})
    return tmp_path / "cache.npz", vectors


def test_features_as_npz(cache, tmp_path):
    assert to_opengait.main(["features", str(cache[0]), "--out", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as found:
        assert np.array_equal(found["embeddings"][:, :, 0], cache[1])
        assert found["labels"].tolist() == [75, 75, 76] and found["ids"].tolist() == ["075", "075", "076"]
        assert found["types"].tolist() == ["nm-05", "bg-01", "nm-01"] and found["views"].tolist() == [
            "000",
            "018",
            "090",
        ]


def test_who_trained_goes_along(cache, tmp_path):
    assert to_opengait.main(["features", str(cache[0]), "--out", str(tmp_path / "out.npz")]) == 0
    assert training_told(tmp_path / "out.npz") == {"training": "unseen", "training_told": "whom training has not seen"}


def test_what_is_in_its_form_already_is_one_sentence(cache, tmp_path, capsys):
    assert to_opengait.main(["features", str(cache[0]), "--out", str(tmp_path / "out.npz")]) == 0
    assert to_opengait.main(["features", str(tmp_path / "out.npz"), "--out", str(tmp_path / "again.npz")]) == 1
    told = capsys.readouterr().err
    assert told == f"error: {tmp_path}/out.npz: is in OpenGait's form already; this takes what lies in eval/feat/\n"
    (tmp_path / "other.npz").write_bytes(b"not a zip")
    assert to_opengait.main(["features", str(tmp_path / "other.npz"), "--out", str(tmp_path / "again.npz")]) == 1
    told = capsys.readouterr().err
    assert "other.npz: not a feature file of this project" in told and "delete" not in told  # it is not ours to delete


def test_weights_that_are_not_there_leave_no_folder(tmp_path, capsys):
    root = write_walkers(tmp_path / "Walkers", subjects=1, conditions=("nm-01",))
    words = ["masks", "walkers", "--weights", "/nowhere", "--im-path", str(root / "crop-im")]
    assert to_opengait.main([*words, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: /nowhere: no such file of weights; see --weights")
    assert not (tmp_path / "out").exists()


def test_features_as_csv(cache, tmp_path):
    assert to_opengait.main(["features", str(cache[0]), "--out", str(tmp_path / "out.csv")]) == 0
    with open(tmp_path / "out.csv", newline="") as rows:
        head, *found = csv.reader(rows)
    assert head[:4] == ["id", "condition", "view", "f0"] and found[1][:3] == ["075", "bg-01", "018"]
    assert np.array_equal(np.array(found)[:, 3:].astype(np.float32), cache[1])


def test_other_endings_are_refused(cache, tmp_path, capsys):
    assert to_opengait.main(["features", str(cache[0]), "--out", str(tmp_path / "out.txt")]) == 1
    assert "wanted a name that ends in .npz or .csv" in capsys.readouterr().err
