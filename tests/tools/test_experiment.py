"""What is found before training starts: nets that cannot be built, weights that other people trained."""

import re
import sys
from pathlib import Path

import pytest

import caffe
from layers import people
from models.gaitnet import Variant
from tools import experiment, make_prototxt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "layers"))
from trees import write_walkers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An experiment on 3 of 4 subjects, four clips a batch, and the data, where GAITNET_DATA says."""
    write_walkers(tmp_path / "data/CASIA-B", subjects=4, conditions=("nm-01",), views=("090",))
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path, Variant(3, 4))
    return tmp_path / "experiments/casiab"


def write(root, variant):
    for path, text in make_prototxt.step_texts("experiments/casiab", "casiab", variant).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def edit(folder, pattern, new, steps=("seg", "rec", "joint", "sia"), count=0):
    for step in steps:
        path = folder / f"gaitnet-{step}.prototxt"
        text, changes = re.subn(pattern, new, path.read_text(), count=count)
        assert changes or step == "seg"
        path.write_text(text)


def check(folder, capsys, *steps):
    status = experiment.main(["check", str(folder), *steps])
    told = capsys.readouterr().err
    assert told.count("\n") == status
    return told


@pytest.mark.medium
def test_whole_experiments_pass(folder, capsys):
    assert check(folder, capsys) == ""
    assert experiment.main(["show", str(folder)]) == 0
    assert capsys.readouterr().out == "dataset=casiab\nfolder=CASIA-B\ntrain_num=3\nsteps=seg rec joint sia\n"


@pytest.mark.medium
def test_batch_size_alone_is_found_before_the_first_step(folder, capsys):
    edit(folder, "'batch_size': 4", "'batch_size': 6", ("seg", "rec", "joint"))
    told = check(folder, capsys)
    assert "gaitnet-rec.prototxt: layer make_pair of phase TRAIN has slice_point 4, 8, 12, 16, 20" in told
    assert "with batch_size 6 wanted 6, 12, 18, 24, 30" in told
    assert check(folder, capsys, "seg", "sia") == ""
    edit(folder, "'batch_size': 2", "'batch_size': 3", ("sia",))
    assert "make_pair of phase TRAIN" in check(folder, capsys, "sia")
    assert "with batch_size 3 pairs wanted 6, 12, 18, 24, 30" in check(folder, capsys, "sia")


@pytest.mark.medium
def test_any_other_mistake_in_a_later_net_is_found_too(folder, capsys):
    edit(folder, 'bottom: "pool11"', 'bottom: "pool12"', ("joint",), count=1)
    told = check(folder, capsys)
    assert "gaitnet-joint.prototxt: " in told and "pool12" in told
    write(folder.parent.parent, Variant(3, 4))
    edit(folder, "num_output: 3\n", "num_output: 2\n", ("rec",))
    assert "fc_id has num_output 2, but the data layer of phase TRAIN gives 3 people" in check(folder, capsys)


@pytest.mark.medium
def test_steps_on_other_people(folder, capsys):
    edit(folder, "'train_num': 3", "'train_num': 2", ("rec", "joint", "sia"))
    assert "gaitnet-rec.prototxt trains 2 people of casiab, gaitnet-seg.prototxt 3" in check(folder, capsys)


def weights_of(folder, step, iteration=None):
    """Weights of a step's net, as if trained to the end."""
    last = iteration or {"seg": 70000, "rec": 60000}[step]
    path = folder / f"gaitnet-{step}_iter_{last}.caffemodel"
    net = experiment.fed(experiment.read_step(folder, step).net)
    net.state.phase = caffe.TRAIN
    caffe.Net.from_proto(net).save(str(path))
    return path


@pytest.mark.medium
def test_weights_that_other_people_trained(folder, capsys):
    seg = weights_of(folder, "seg")
    people.write(seg, {"casiab": ["001", "002", "003"]})
    assert check(folder, capsys) == ""
    edit(folder, "'train_num': 3", "'train_num': 2")
    edit(folder, "num_output: 3\n", "num_output: 2\n", ("rec", "joint", "sia"))
    told = check(folder, capsys)
    assert f"{seg} was trained on 3 people of casiab (001 .. 003)" in told
    assert "now 2 people of casiab (001 .. 002) would train; sh train_net.sh experiments/casiab --fresh" in told
    assert check(folder, capsys, "rec", "joint", "sia") == ""  # asked for alone; the record tells evaluation


@pytest.mark.medium
def test_weights_without_a_record_are_known_by_their_identity_layer(folder, capsys):
    weights_of(folder, "rec", 100)
    edit(folder, "num_output: 3\n", "num_output: 4\n", ("rec", "joint", "sia"))
    told = check(folder, capsys)
    assert (
        "gaitnet-rec_iter_100.caffemodel tells 3 people apart, fc_id of gaitnet-rec.prototxt has num_output 4" in told
    )
    assert "--fresh" in told


@pytest.mark.medium
def test_snapshots_of_another_caffe_are_recorded(folder, capsys):
    seg, old = weights_of(folder, "seg"), weights_of(folder, "seg", 5)
    people.write(seg, {"casiab": ["004"]})
    rec = weights_of(folder, "rec")
    arguments = ["rec", "--new", rec.name, "--started-from", seg.name]
    assert experiment.main(["record", str(folder), *arguments]) == 0
    assert people.read(rec) == people.People(
        {"casiab": ["001", "002", "003"]}, {"casiab": ["001", "002", "003", "004"]}
    )
    experiment.main(["record", str(folder), "seg", "--new", seg.name])
    assert people.read(old) is None and people.read(seg).here == {"casiab": ["004"]}
