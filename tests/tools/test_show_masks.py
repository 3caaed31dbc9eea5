"""show_masks: three rows a clip, frames above, predicted masks, true masks below, each pixel twice as large."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from tests.layers.trees import write_sequence
from tools import show_masks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def weights(tmp_path):
    """Of a net that takes every pixel for the background: the last bias is far below 0."""
    net = caffe.Net(str(ROOT / "eval" / "deploy_gaitnet.prototxt"), caffe.TEST)
    for layer in ("conv1_0", "conv8_0"):
        net.params[layer][0].data[...] = 0
    net.params["conv8_0"][1].data[...] = -20
    for layer in net.params:
        if layer.startswith("bn"):
            net.params[layer][1].data[...] = net.params[layer][2].data[...] = 1
    net.save(str(tmp_path / "w.caffemodel"))
    return str(tmp_path / "w.caffemodel")


@pytest.mark.medium
def test_the_sheet(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sequence(tmp_path, "001/nm-01/090", 12, np.random.default_rng(3), size=(64, 64))
    show_masks.main(["--weights", weights, "--data", ".", "--start", "2", "--out", "sheet.png", "001/nm-01/090"])
    rows = cv2.imread("sheet.png")[::2, ::2].reshape(3, 64, 6, 64, 3).swapaxes(1, 2)  # (row, frame, 64, 64, BGR)
    folders = (tmp_path / tree / "001/nm-01/090" for tree in ("crop-im", "crop-seg"))
    frames, masks = (np.stack([cv2.imread(str(folder / f"{i:03d}.png")) for i in range(3, 9)]) for folder in folders)
    assert np.array_equal(rows[0], frames) and np.array_equal(rows[2], masks)
    assert not rows[1].any()


@pytest.mark.medium
def test_mistakes(weights, tmp_path):
    write_sequence(tmp_path, "001/nm-01/090", 12, np.random.default_rng(3))
    asked = ["--weights", weights, "--data", str(tmp_path), "001/nm-01/090", "--out"]
    for args, told in (
        ([*asked, str(tmp_path / "absent" / "a.png")], "error: cannot write .*absent"),
        ([*asked, "a.png", "--start", "9"], "error: .*001/nm-01/090"),
        (["--weights", "absent.caffemodel", *asked[2:], "a.png"], "error: .*absent.caffemodel"),
    ):
        with pytest.raises(SystemExit, match=told):
            show_masks.main(args)
