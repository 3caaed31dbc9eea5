"""Trees, labels, splits and protocols of the datasets."""

import re
from pathlib import Path

import numpy as np
import pytest

from layers.data_layers import training_sequences
from layers.datasets import DATASETS, Dataset, Protocol, data_root
from layers.params import parse
from layers.sources import open_frames
from tests.layers.trees import write_sequence, write_walkers
from tools import check_data, pack_frames


def test_published_splits():
    splits = {name: (d.train_num, d.num_subjects) for name, d in DATASETS.items()}
    assert splits == {"casiab": (74, 124), "outdoor": (69, 138), "szu": (49, 99), "walkers": (60, 100)}


def test_casiab_tree(tmp_path):
    root = write_walkers(tmp_path, subjects=2) / "crop-im"
    (root / ".hidden").mkdir()
    (root / "notes.txt").touch()
    casiab = DATASETS["casiab"]
    assert casiab.subjects(root) == ["001", "002"]
    sequences = casiab.sequences(root, ["002"])
    assert [seq.path for seq in sequences] == [
        "002/bg-01/000",
        "002/bg-01/090",
        "002/nm-01/000",
        "002/nm-01/090",
        "002/nm-02/000",
        "002/nm-02/090",
    ]
    seq = sequences[3]
    assert (seq.subject, seq.label, seq.condition, seq.view) == ("002", 1, "nm-01", "090")
    assert [seq.condition for seq in sequences if casiab.trains(seq)] == ["nm-01", "nm-01", "nm-02", "nm-02"]


def test_casiab_label_is_the_number_of_the_subject(tmp_path):
    rng = np.random.default_rng(0)
    for subject in ("003", "007"):
        write_sequence(tmp_path, f"{subject}/nm-01/018", 1, rng)
    sequences = DATASETS["casiab"].sequences(tmp_path / "crop-im", ["003", "007"])
    assert [seq.label for seq in sequences] == [2, 6]


def test_other_labels_are_indices(tmp_path):
    rng = np.random.default_rng(0)
    for path in ("017/017_scene1_nm_L_090_1", "017/017_2_bg_L_090_3", "204/204_scene3_cl_L_090_2", "204/calibration"):
        write_sequence(tmp_path, path, 1, rng, im_dir="im", gt_dir="seg")
    outdoor = DATASETS["outdoor"]
    sequences = outdoor.sequences(tmp_path / "im", ["017", "204"])
    assert [seq.label for seq in sequences] == [0, 0, 1, 1]
    assert all(outdoor.trains(seq) for seq in sequences)  # every folder under the id
    table = [(seq.condition, outdoor.protocol.role(seq), outdoor.protocol.group(seq)) for seq in sequences]
    assert table == [
        ("017_2_bg_L_090_3", "probe", "bg"),
        ("017_scene1_nm_L_090_1", "gallery", "nm"),
        ("204_scene3_cl_L_090_2", "gallery", "cl"),
        ("calibration", None, None),
    ]


@pytest.mark.parametrize(
    "path, role, covariate",
    [
        ("090/nm-04/018", "gallery", None),
        ("090/nm-05/018", "probe", "NM"),
        ("090/bg-02/018", None, "BG"),
        ("090/cl-01/018", None, "CL"),
    ],
)
def test_cross_view_protocol(tmp_path, path, role, covariate):
    write_sequence(tmp_path, path, 1, np.random.default_rng(0))
    protocol = DATASETS["casiab"].protocol
    (seq,) = DATASETS["casiab"].sequences(tmp_path / "crop-im", ["090"])
    assert (protocol.role(seq), protocol.group(seq), protocol.covariate(seq)) == (role, "018", covariate)


def test_szu_protocol(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(1, 9):
        write_sequence(tmp_path, f"05/{n}", 1, rng)
    szu = DATASETS["szu"]
    sequences = szu.sequences(tmp_path / "crop-im", ["05"])
    assert [szu.protocol.role(seq) for seq in sequences] == ["gallery"] * 4 + ["probe"] * 4
    assert {szu.protocol.group(seq) for seq in sequences} == {"all"}
    assert {seq.view for seq in sequences} == {""}


def test_split():
    casiab = DATASETS["casiab"]
    ids = [f"{i:03d}" for i in range(124, 0, -1)]
    training, test = casiab.split(ids)
    assert (training[0], training[-1], test[0], test[-1]) == ("001", "074", "075", "124")
    assert len(casiab.split(ids, 62)[0]) == 62
    with pytest.raises(ValueError, match="train_num is 125, but 124 subjects"):
        casiab.split(ids, 125)
    with pytest.raises(ValueError, match="casiab: no subjects were found; CASIA-B: by application"):
        casiab.split([])  # advice such as 1..0 would be none


def test_a_stray_folder_of_casiab_is_named(tmp_path):
    write_sequence(tmp_path, "backup/nm-01/000", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="'backup' should be the number of a subject"):
        DATASETS["casiab"].sequences(tmp_path / "crop-im", ["backup"])


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("GAITNET_DATA")
    assert data_root().name == "data" and (data_root().parent / "layers").is_dir()


@pytest.fixture
def corridor(monkeypatch):
    """The entry that data/README.md shows."""
    page = (Path(__file__).parents[2] / "data" / "README.md").read_text()
    (entry,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    dataset = eval(entry, {"Dataset": Dataset, "Protocol": Protocol})  # our own page
    monkeypatch.setitem(DATASETS, dataset.name, dataset)
    return dataset


def test_a_dataset_of_ones_own(corridor, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("carl", "anna", "bert"):
        for recording in ("morning", "evening"):
            write_sequence(tmp_path / "Corridor", f"{name}/{recording}", 12, rng)
    root = tmp_path / "Corridor" / "crop-im"
    training, test = corridor.split(corridor.subjects(root))
    assert (training, test) == (["anna", "bert"], ["carl"])
    sequences = corridor.sequences(root, test)
    assert [(seq.label, corridor.protocol.role(seq)) for seq in sequences] == [(2, "probe"), (2, "gallery")]

    # The tools and the data layers know it as they know the others.
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    assert check_data.main(["corridor"]) == 0
    assert pack_frames.main(["corridor"]) == 0
    params = parse(f"{{'dataset': 'corridor', 'batch_size': 2, 'im_path': {root.parent}/pack}}", "GaitNet")
    used, lengths = training_sequences(params, open_frames(params.im_path))
    assert {seq.subject for seq in used} == {"anna", "bert"} and lengths == [12] * 4
