"""What `caffe train` says of data, nets and weights that do not fit: one sentence, and an exit status that is not 0."""

import os
import re
import shutil
import signal

import cv2
import numpy as np
import pytest

from caffe import cli
from layers import data_layers
from tests.layers.trees import write_walkers

NET = """
layer { name: "data" type: "Python" %(tops)s
  python_param { module: "layers" layer: "GaitNet" param_str: "%(param_str)s" } }
layer { name: "fc_id" type: "InnerProduct" bottom: "im0" top: "fc_id"
  inner_product_param { num_output: %(num_output)d weight_filler { type: "xavier" } } }
layer { name: "loss" type: "%(loss)s" bottom: "fc_id" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 1e-6 lr_policy: "fixed" max_iter: 6 display: 0 snapshot_prefix: "tiny"
random_seed: 1
"""


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return write_walkers(tmp_path_factory.mktemp("walkers"), subjects=3, conditions=("nm-01",), views=("000", "090"))


@pytest.fixture
def root(trees, tmp_path, monkeypatch):
    """Trees that a test may spoil, in the current folder."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr("caffe.glog._level", 1)
    monkeypatch.chdir(tmp_path)
    yield shutil.copytree(trees, tmp_path / "trees")
    for number, handler in handlers.items():
        signal.signal(number, handler)


def train(capfd, root, *flags, num_output=3, loss="SoftmaxWithLoss", solver="", **changes):
    """(exit status, what went to stderr) of `caffe train` on a small net of these trees."""
    params = {
        "dataset": "walkers",
        "batch_size": 12,
        "train_num": 3,
        "seed": 1,
        "im_path": str(root / "crop-im"),
        "gt_path": str(root / "crop-seg"),
        **changes,
    }
    param_str = str({key: value for key, value in params.items() if value is not None})
    tops = " ".join(f'top: "{top}"' for top in data_layers.GaitNet.tops)
    (root.parent / "net.prototxt").write_text(NET % locals())
    (root.parent / "solver.prototxt").write_text(f"{SOLVER} {solver}")
    capfd.readouterr()
    status = cli.main(["train", "--solver=solver.prototxt", *flags])
    return status, capfd.readouterr().err


def test_good_data_train(capfd, root):
    status, log = train(capfd, root)
    assert status == 0 and "Optimization Done." in log


def assert_refused(status, log, message):
    """One line has the message, nothing else looks like an error, no snapshot was written."""
    assert status != 0
    errors = [line for line in log.splitlines() if line.startswith(("error:", "F"))]
    assert len(errors) == 1 and re.search(message, errors[0]), log
    assert "Traceback" not in log and not [name for name in os.listdir() if name.startswith("tiny_iter")]


# ---- files. Every batch has two clips of each of the six sequences, and frames 3 to 6 are in every clip of 11 to 13.

FRAME, MASK = "crop-im/002/nm-01/090/006.png", "crop-seg/002/nm-01/090/006.png"


def truncated(root):
    os.truncate(root / FRAME, os.path.getsize(root / FRAME) - 40)
    return rf"{FRAME}: is not a whole image \(\d+ bytes\)"


def zero_bytes(root):
    os.truncate(root / FRAME, 0)
    return rf"{FRAME}: is not a whole image \(0 bytes\)"


def no_picture(root):
    (root / FRAME).write_text("<html>404</html>")
    return rf"{FRAME}: is not a whole image \(16 bytes\)"


def flipped_byte(root):
    content = bytearray((root / FRAME).read_bytes())
    content[len(content) // 2] ^= 8
    (root / FRAME).write_bytes(content)
    return rf"{FRAME}: is not a whole image"


def truncated_mask(root):
    os.truncate(root / MASK, 50)
    return rf"{MASK}: is not a whole image \(50 bytes\)"


def mask_of_another_size(root):
    cv2.imwrite(str(root / MASK), np.ones((5, 7), np.uint8))
    return rf"{MASK}: the mask is 7x5, its frame 13x20"


def folder_in_place_of_an_image(root):
    os.remove(root / FRAME)
    os.mkdir(root / FRAME)
    return rf"{FRAME}: cannot be read \(Is a directory\)"


def not_an_image(root):
    (root / "crop-im/002/nm-01/090/notes.txt").write_text("to do")
    return r"crop-im/002/nm-01/090/notes.txt: is not an image"


def too_short(root):
    for folder in root.glob("*/*/*/*"):
        for file in list(folder.iterdir())[10:]:
            os.remove(file)
    return "crop-im: none of its 6 training sequences has 11 frames or more"


def stray_subject(root):
    os.mkdir(root / "crop-im/backup")
    return "the folder 'backup' should be the number of a subject"


@pytest.mark.parametrize(
    "spoil",
    [
        truncated,
        zero_bytes,
        no_picture,
        flipped_byte,
        truncated_mask,
        mask_of_another_size,
        folder_in_place_of_an_image,
        not_an_image,
        too_short,
        stray_subject,
    ],
)
def test_broken_files(capfd, root, spoil):
    message = spoil(root)
    assert_refused(*train(capfd, root), message)


@pytest.mark.parametrize("gone", ["crop-im", "crop-seg"])
def test_a_folder_that_vanishes_during_training(capfd, root, monkeypatch, gone):
    listed = data_layers.training_sequences

    def then_vanish(*args):
        sequences = listed(*args)
        shutil.rmtree(root / gone / "002/nm-01/090")
        return sequences

    monkeypatch.setattr(data_layers, "training_sequences", then_vanish)
    assert_refused(*train(capfd, root), f"{gone}/002/nm-01/090: (cannot be listed|the folder of masks is gone)")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_permission_denied(capfd, root, monkeypatch, what):
    """Simulated, for tests may run as root, who is denied nothing."""
    denied = str(root / FRAME) if what == "file" else str((root / FRAME).parent)

    def deny(call):
        def asked(path, *args):
            if str(path) == denied:
                raise PermissionError(13, "Permission denied", denied)
            return call(path, *args)

        return asked

    target = (np, "fromfile") if what == "file" else (os, "scandir")
    monkeypatch.setattr(*target, deny(getattr(*target)))
    assert_refused(*train(capfd, root), rf"{denied}: cannot be (read|listed) \(Permission denied\)")


# ---- param_str, nets, weights


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"im_path": "/nowhere/crop-im"}, "im_path /nowhere/crop-im: no such folder"),
        ({"gt_path": "/nowhere/crop-seg"}, "gt_path /nowhere/crop-seg: no such folder"),
        ({"im_path": None}, "param_str has no 'im_path'; add it"),
        ({"imm_path": "trees"}, "unknown key 'imm_path' .known: dataset, batch_size, im_path"),
        ({"train_num": 4}, "train_num is 4, but 3 subjects were found; set train_num to 1..3"),
        ({"train_num": 1}, "are of one subject, 001; identification needs two or more"),
        ({"num_output": 2}, r"layer 'loss' .*: a label in bottom.1. is 2; wanted 0\.\.1"),
        ({"loss": "SoftmaxLossy"}, "Unknown layer type: SoftmaxLossy"),
        ({"solver": "max_itr: 9"}, "max_itr"),
    ],
)
def test_what_does_not_fit(capfd, root, changes, message):
    assert_refused(*train(capfd, root, **changes), message)


def test_weights_of_another_shape(capfd, root):
    assert train(capfd, root, solver="snapshot_after_train: true")[0] == 0
    os.rename("tiny_iter_6.caffemodel", "three.caffemodel")
    os.remove("tiny_iter_6.solverstate")
    os.remove("tiny_iter_6.people.json")
    refused = train(capfd, root, "--weights=three.caffemodel", num_output=4)
    assert_refused(*refused, "three.caffemodel.*'fc_id'; shape mismatch. Source param shape is 3 12288")
