"""From other forms of CASIA-B straight to a table: OpenGait's pickles with frames, and silhouettes alone.

What is trained and scored from them has to be what the same frames give as a tree of images, bit by bit; in the order
of channels, for instance, both would train and nothing would look wrong."""

import json
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from eval import cli
from eval.weights import read_weights
from layers.frames import Tree
from models.gaitnet import STEPS, Variant
from tools import experiment, make_prototxt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "layers"))
from trees import write_sequence

pytestmark = pytest.mark.medium
WALKS = [f"{n:03d}/{kind}/{view}" for n in (1, 2, 3, 4) for kind in ("nm-01", "nm-05") for view in ("000", "090")]
SIDE = 64  # so that a tree and pickles, which hold pictures of one size, give the same


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """CASIA-B/{crop-im,crop-seg}, and its walks in two kinds of pickles with frames, and silhouettes alone."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(4)
    for path in WALKS:
        write_sequence(root / "CASIA-B", path, 11, rng, (SIDE, SIDE))
    tree = Tree(str(root / "CASIA-B/crop-im"), str(root / "CASIA-B/crop-seg"))
    for path in WALKS:
        frames, masks = tree.clip(path, 0, 11)
        red_first, view = np.ascontiguousarray(frames[..., ::-1]), path.split("/")[-1]
        write(root / "CHW" / path / f"{view}-rgbs.pkl", np.ascontiguousarray(red_first.transpose(0, 3, 1, 2)))
        write(root / "HWC" / path / f"{view}-rgbs.pkl", red_first)
        for form in ("CHW", "HWC"):
            write(root / form / path / f"{view}-sils.pkl", masks)
            write(root / form / path / f"{view}-ratios.pkl", np.ones(11, np.float32))
        write(root / "silhouettes" / path / f"{view}.pkl", masks)
    return root


def write(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(array, 4))


def train(folder, im_path, gt_path, steps=None, **variant):
    """One iteration of the steps (None: all) of a small experiment, each from the one before; the last weights."""
    files = make_prototxt.step_texts(".", "casiab", Variant(train_num=2, batch=4, **variant))
    for name, text in files.items():
        for path, at in (("im_path", im_path), ("gt_path", gt_path)):
            text = re.sub(rf"'{path}': '[^']*'", f"'{path}': '{at}'", text)
        text = re.sub(r"max_iter: \d+", "max_iter: 1\nrandom_seed: 5\ntest_initialization: false", text).replace(
            "solver_mode: GPU", ""
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    os.chdir(folder)  # as train_net.sh does; the tests come back
    weights = None
    for step in steps or experiment.steps_of(folder):
        solver = caffe.get_solver(f"solver-{step}.prototxt")
        if weights:
            solver.net.copy_from(str(weights))
        solver.step(1)
        solver.snapshot()
        weights = folder / f"gaitnet-{step}_iter_1.caffemodel"
    return weights


def evaluate(folder, weights, *words):
    words = [
        "--weights",
        str(weights),
        "--train-num",
        "2",
        "--cache",
        str(folder),
        "--out",
        str(folder / "out"),
        *words,
    ]
    assert cli.main("casiab", [*map(str, words)]) == 0
    result = json.loads((folder / "out/metrics.json").read_text())
    with np.load(folder / "out/features.npz") as file:
        return result, file["embeddings"]


def same(first, second):
    first, second = (read_weights(file).blobs for file in (first, second))
    return first.keys() == second.keys() and all(
        np.array_equal(a, b) for name in first for a, b in zip(first[name], second[name], strict=True)
    )


@pytest.fixture(scope="module")
def by_images(trees, tmp_path_factory):
    """Weights, result and features by way of the tree of images."""
    folder, before = tmp_path_factory.mktemp("images"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(before)
        im_path, gt_path = trees / "CASIA-B/crop-im", trees / "CASIA-B/crop-seg"
        weights = train(folder, im_path, gt_path)
        assert experiment.main(["check", str(folder)]) == 0  # and training again would find it all done
        return weights, *evaluate(folder, weights, "--im-path", im_path, "--gt-path", gt_path)


@pytest.mark.parametrize("form, steps", [("CHW", STEPS), ("HWC", STEPS[:1])])
def test_frames_in_pickles_give_what_images_give(trees, by_images, tmp_path, monkeypatch, form, steps):
    monkeypatch.chdir(tmp_path)
    weights = train(tmp_path, trees / form, trees / form, steps)
    assert same(weights, by_images[0].with_name(weights.name))
    weights = by_images[0]
    result, features = evaluate(tmp_path, weights, "--im-path", trees / form)
    assert np.array_equal(features, by_images[2]) and len(features) == 8
    for part in ("identification", "segmentation", "training"):
        assert result[part] == by_images[1][part]
    assert result["training"]["verdict"] == "unseen"


def test_frames_of_the_other_order_would_be_noticed(trees, by_images, tmp_path):
    """Blue first in a pickle, which it must not be: other features."""
    for path in WALKS:
        view = path.split("/")[-1]
        red_first = np.load(trees / "HWC" / path / f"{view}-rgbs.pkl", allow_pickle=True)
        write(tmp_path / "bgr" / path / f"{view}-rgbs.pkl", np.ascontiguousarray(red_first[..., ::-1]))
    _, features = evaluate(tmp_path, by_images[0], "--im-path", tmp_path / "bgr")
    assert not np.allclose(features, by_images[2], rtol=1e-3)


def test_silhouettes_alone_from_training_to_a_table(trees, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for form, masks in (("pickles", trees / "silhouettes"), ("images", trees / "CASIA-B/crop-seg")):
        weights = train(tmp_path / form, "", masks, silhouettes=True)
        assert weights.name == "gaitnet-rec_iter_1.caffemodel" and "conv1_0" not in read_weights(weights).blobs
        result, features = evaluate(tmp_path / form, weights, "--silhouettes", "--gt-path", masks)
        assert result["provenance"]["masks"] == "true" and result["training"]["verdict"] == "unseen"
        found.append((weights, features, result["identification"]))
    assert same(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1]) and found[0][2] == found[1][2]
