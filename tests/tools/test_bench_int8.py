"""What bench_int8.py measures of two models, here functions in their place."""

import json
from dataclasses import replace

import numpy as np
import pytest

from layers.datasets import DATASETS
from tests.layers.trees import write_walkers
from tools import bench_int8


@pytest.fixture
def walkers(tmp_path, monkeypatch):
    """Three people, two of whom are tested."""
    write_walkers(tmp_path / "Walkers", subjects=3, conditions=("nm-01", "nm-05"))
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    monkeypatch.setitem(DATASETS, "walkers", replace(DATASETS["walkers"], train_num=1))
    return tmp_path


def test_masks_and_ranks_of_both(walkers, monkeypatch, capsys):
    """One model paints everything, and takes everybody for the same; the other paints nothing."""
    seen = []

    def session(model):
        def run(given):
            assert sorted(given) == [f"im{i}" for i in range(6)]
            seen.append((model, np.stack(list(given.values()))))
            clips = len(given["im0"])
            return np.zeros((clips, 4)), np.full((6 * clips, 1, 64, 64), float(model == "all.onnx"))

        return run

    monkeypatch.setattr(bench_int8, "session", session)
    monkeypatch.chdir(walkers)
    for name, size in (("all.onnx", 3000), ("none.onnx", 1000)):
        (walkers / name).write_bytes(bytes(size))
    assert bench_int8.main(["walkers", "all.onnx", "none.onnx", "--clips", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["clips"] == 2 and 2 * told["walks"] == len(seen) > 0
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(seen[::2], seen[1::2]))  # the same clips for both
    assert told["all.onnx"]["mb"] == 0.003 and told["none.onnx"]["mb"] == 0.001
    assert told["none.onnx"]["iou"] == 0 < told["all.onnx"]["iou"] < 1
    assert told["all.onnx"]["rank1"] == told["none.onnx"]["rank1"] == 50  # the first of the gallery, for everybody


def test_what_is_no_model_is_one_sentence(walkers, capsys):
    pytest.importorskip("onnxruntime")
    (walkers / "bad.onnx").write_bytes(b"nonsense")
    for name in ("gone.onnx", "bad.onnx"):
        assert bench_int8.main(["walkers", str(walkers / name), str(walkers / name)]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"error: {walkers / name}: ONNX Runtime cannot read it (") and told.count("\n") == 1
