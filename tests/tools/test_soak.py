"""tools/soak.py on a net of microseconds: what it calls flat and equal, and that it sees what is not."""

import re
from pathlib import Path

import pytest

from caffe.proto import caffe_pb2
from caffe.read import read_net_file, read_text
from tools import soak

NET = """
layer { name: "x" type: "DummyData" top: "x"
        dummy_data_param { shape { dim: 4 dim: 5 } data_filler { type: "gaussian" } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "y" type: "DummyData" top: "y"
        dummy_data_param { shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
ITERATIONS = 1000


def write_training(folder):
    folder.mkdir(parents=True)
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: {ITERATIONS} display: 1 '
        'snapshot: 20 snapshot_prefix: "run" random_seed: 5 solver_mode: CPU test_interval: 10 test_iter: 2'
    )


@pytest.mark.medium
def test_pieces_are_compared_with_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "LOOK_EVERY", 0.02)  # a third of so short a run is over in less than the usual 0.2 s
    for run in ("whole", "pieces"):
        write_training(tmp_path / run)
    told = soak.soak(tmp_path, ITERATIONS, 3, 0.2)
    assert told["equal"] and told["pieces"] == 3 and told["values_logged"] > 2 * ITERATIONS
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "soak.json").exists()
    whole, pieces = soak.Run(tmp_path / "whole"), soak.Run(tmp_path / "pieces")
    whole.log, pieces.pieces = tmp_path / "whole" / "1.log", 3
    assert len(pieces.snapshots()) == soak.NEWEST
    log = tmp_path / "pieces" / "1.log"
    text = log.read_text()
    before, name, value = text.partition("Train net output #0: loss = ")
    log.write_text(before + name + re.sub(r"^\S+", "123", value))
    again = soak.compare(whole, pieces, ITERATIONS)
    assert not again["equal"] and again["values_differing"] == 1 and again["first_differing"][0][4] == 123
    log.write_text(text)
    state = Path(tmp_path / "pieces" / f"run_iter_{ITERATIONS}.solverstate")
    state.write_bytes(state.read_bytes()[:-1])
    assert not soak.compare(whole, pieces, ITERATIONS)["equal"]


@pytest.mark.parametrize("name, grows", [("memory", 0.02), ("files", 1 / 300), ("threads", 1 / 300)])
def test_what_grows_is_not_flat(name, grows):
    rising = [(t, t, *(100 + grows * t * (column == name) for column in soak.COLUMNS[2:])) for t in range(0, 3600, 10)]
    found = soak.trends(rising)
    assert found.pop(name) == pytest.approx(3600 * grows) and 3600 * grows > soak.LIMITS[name]
    assert all(abs(trend) < 1e-6 for trend in found.values())


def test_what_it_trains_is_gaitnet_with_dropout(tmp_path):
    soak.write_training(tmp_path / "run", 5000)
    net = read_net_file(tmp_path / "run" / "net.prototxt")
    assert {"Python", "Dropout", "BatchNorm", "SoftmaxWithLoss"} <= {layer.type for layer in net.layer}
    solver = read_text(tmp_path / "run" / "solver.prototxt", caffe_pb2.SolverParameter)
    assert (solver.max_iter, solver.display, solver.snapshot, solver.test_interval) == (5000, 1, 100, 50)


@pytest.mark.parametrize("words", [["{new}", "--iterations", "10"], ["{here}", "--iterations", "5000"], []])
def test_wrong_words(words, tmp_path):
    with pytest.raises(SystemExit) as e:
        soak.main([word.format(new=tmp_path / "new", here=tmp_path) for word in words])
    assert e.value.code == 2
