"""tools/validate.py: who is held out, what is scored, once, and what does not fit is told in a sentence."""

import json
import os
import shutil
import threading
import time

import numpy as np
import pytest

import caffe
from eval.deploy import PROTOTXT
from layers import people
from tests.eval.conftest import write_walk
from tools import validate

CONDITIONS, VIEWS, SUBJECTS = ("nm-01", "nm-02", "nm-05"), ("000", "090"), 6
NET = """
layer {{ name: "data" type: "Python" top: "im0" python_param {{ module: "layers" layer: "GaitNet" param_str:
  "{{'dataset': 'casiab', 'batch_size': 2, 'train_num': {train_num}, {paths}}}" }} }}
"""
PATHS = "'im_path': '../CASIA-B/crop-im', 'gt_path': '../CASIA-B/crop-seg'"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for subject in range(SUBJECTS):
        for condition in CONDITIONS:
            for view in VIEWS:
                seed = 100 * subject + 10 * CONDITIONS.index(condition) + VIEWS.index(view)
                write_walk(root / "CASIA-B", f"{subject + 1:03d}/{condition}/{view}", 11, subject, seed)
    return root


@pytest.fixture
def run(data, tmp_path, weights):
    """A run that trains on 001, with two snapshots of step joint and one of seg."""
    os.symlink(data / "CASIA-B", tmp_path / "CASIA-B")
    folder = tmp_path / "run"
    folder.mkdir()
    for step in ("seg", "rec", "joint", "sia"):
        (folder / f"gaitnet-{step}.prototxt").write_text(NET.format(train_num=1, paths=PATHS))
        (folder / f"solver-{step}.prototxt").write_text("max_iter: 20\n")
    for name in ("seg_iter_7", "joint_iter_10", "joint_iter_20"):
        snapshot(folder, name, weights)
    return folder


def snapshot(folder, name, weights):
    shutil.copy(weights, folder / f"gaitnet-{name}.caffemodel")
    (folder / f"gaitnet-{name}.solverstate").touch()


def validated(run, *args):
    status = validate.main([str(run), "--out", str(run / "out"), *map(str, args)])
    file = run / "out" / validate.RECORD
    return status, json.loads(file.read_text()) if file.exists() else None


@pytest.mark.medium
def test_each_snapshot_is_scored_once_on_people_held_out(run, weights, capsys, monkeypatch):
    monkeypatch.setitem(validate.DATASETS, "casiab", _with(validate.DATASETS["casiab"], train_num=4))
    status, record = validated(run)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert record["people"] == ["002", "003", "004"]  # 001 trained, 005 and 006 are reported
    assert [(one["step"], one["iteration"]) for one in record["scored"]] == [("seg", 7), ("joint", 10), ("joint", 20)]
    seg, first, second = record["scored"]
    assert seg["rank1"] is None and first["iou"] == pytest.approx(seg["iou"])  # the same weights
    assert 0 <= first["rank1"] <= 1 and first["rank1"] == second["rank1"]
    assert "best by rank-1: joint iteration 10" in said.out and "warning" not in said.err
    assert (run / "out" / validate.PICTURE).read_bytes().startswith(b"\x89PNG")

    scored = []
    real = validate.score
    monkeypatch.setattr(validate, "score", lambda *args: scored.append(args[0].name) or real(*args))
    assert validated(run) == (0, record) and not scored
    other(weights, run / "gaitnet-joint_iter_20.caffemodel")
    status, again = validated(run)
    assert status == 0 and scored == ["gaitnet-joint_iter_20.caffemodel"]
    assert [one["weights_sha256"] == two["weights_sha256"] for one, two in zip(record["scored"], again["scored"])] == [
        True,
        True,
        False,
    ]

    assert validated(run, "--subjects", "003-004")[0] == 1
    assert "scores of other people (002 003 004)" in capsys.readouterr().err


def _with(dataset, **values):
    from dataclasses import replace

    return replace(dataset, **values)


def other(weights, file):
    net = caffe.Net(str(PROTOTXT), caffe.TEST, weights=str(weights))
    net.params["fc_fea"][0].data[...] = np.random.default_rng(1).standard_normal(net.params["fc_fea"][0].data.shape)
    net.save(str(file))


@pytest.mark.medium
def test_without_people_of_its_own_test_people_are_taken_and_said(run, capsys):
    status, record = validated(run, "--steps", "seg", "--subjects", "005", "006")
    assert status == 0 and record["people"] == ["005", "006"] and "warning" not in capsys.readouterr().err
    people.write(run / "gaitnet-joint_iter_20.caffemodel", {"casiab": ["005"]})
    assert validated(run, "--subjects", "005")[0] == 1
    assert "--subjects: 005 trained; the first who did not: 002" in capsys.readouterr().err


def test_who_is_held_out(capsys):
    everybody = [f"{n:03d}" for n in range(1, 21)]
    trained, reported = set(everybody[:6]), set(everybody[8:])
    assert validate.held_out(everybody, trained, reported, None) == ["007", "008"]
    assert validate.held_out(everybody, set(), set(), None) == everybody
    assert validate.held_out(everybody, trained, reported, ["007-008", "007"]) == ["007", "008"]
    assert not capsys.readouterr().err
    assert validate.held_out(everybody, set(everybody[:8]), reported, None) == everybody[8:18]
    assert "009, 010, 011, ... are test people" in capsys.readouterr().err
    for wanted, told in ((["003"], "003 trained"), (["x"], "nobody is 'x'"), (["030-040"], "nobody is '030-040'")):
        with pytest.raises(ValueError, match=told):
            validate.held_out(everybody, trained, reported, wanted)


@pytest.mark.medium
def test_what_does_not_fit_is_one_sentence(run, weights, capsys):
    file = run / "gaitnet-joint_iter_10.caffemodel"
    net = caffe.Net(str(PROTOTXT), caffe.TEST, weights=str(weights))
    net.params["conv10_scale1"][0].reshape(16, 64, 3, 3)
    net.save(str(file))
    for content in (file.read_bytes(), b"nonsense", weights.read_bytes()[:-1000]):
        file.write_bytes(content)
        assert validated(run, "--steps", "joint")[0] == 1
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert len(said) == 1 and str(file) in said[0] and "does not fit" in said[0]


@pytest.mark.medium
def test_follows_a_training(run, weights, data, capsys):
    (run / "gaitnet-joint_iter_20.caffemodel").unlink()

    def train():
        time.sleep(1)
        snapshot(run, "joint_iter_20", weights)

    threading.Thread(target=train).start()
    status, record = validated(run, "--steps", "joint", "--follow", "--every", "0.2", "--subjects", "002-003")
    assert status == 0 and [one["iteration"] for one in record["scored"]] == [10, 20]


def test_folders_that_are_no_run(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for args, told in (
        ([tmp_path / "empty"], "no gaitnet-<step>.prototxt"),
        ([run, "--steps", "sia"], "no snapshot gaitnet-<step>_iter_<n>.caffemodel of sia"),
        ([run, "--data", tmp_path / "none"], "no such folder of frames"),
        ([run, "--data", tmp_path / "CASIA-B"], "is what the run trains on"),
    ):
        assert validate.main([*map(str, args), "--out", str(tmp_path / "out")]) == 1
        said = capsys.readouterr().err.splitlines()
        assert told in said[-1] and said[-1].startswith("error: ")
    (tmp_path / "out" / validate.RECORD).write_text("{}")
    assert validate.main([str(run), "--out", str(tmp_path / "out")]) == 1
    assert "not a record of this tool" in capsys.readouterr().err
