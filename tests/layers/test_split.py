"""Partitions by ids and excluded walks, in OpenGait's form."""

import json

import pytest

from layers.data_layers import training_sequences
from layers.datasets import DATASETS
from layers.frames import DataError
from layers.params import parse
from layers.sources import open_frames
from layers.split import read_excluded, read_partition, split_of
from tests.layers.trees import write_walkers

IDS = ["001", "002", "004", "006", "007"]
CASIAB = DATASETS["casiab"]


def partition(tmp_path, training, test):
    file = tmp_path / "partition.json"
    file.write_text(json.dumps({"TRAIN_SET": training, "TEST_SET": test}))
    return file


def test_a_partition_names_who_trains(tmp_path):
    split = split_of(CASIAB, IDS, partition=partition(tmp_path, ["007", "002", "005"], ["001", "006"]))
    assert (split.training, split.test) == (("002", "007"), ("001", "006"))
    assert split.absent == ("005",)
    # Labels count the ids of the file, whoever is there, so that fc_id has as many outputs as TRAIN_SET has ids.
    assert split.labels == {"002": 0, "005": 1, "007": 2, "001": 3, "006": 4} and split.num_labels == 3


def test_without_one_the_first_ids_train():
    split = split_of(CASIAB, IDS, 3)
    assert (split.training, split.test, split.num_labels) == (("001", "002", "004"), ("006", "007"), 3)
    assert split.labels["004"] == 3  # id - 1, as published


@pytest.mark.parametrize(
    "text, told",
    [
        ('{"TRAIN_SET": ["001"], "TEST_SET": ["002", "001"]}', "001 would train and be tested"),
        ('{"TRAIN_SET": ["001"]}', "is no partition; wanted"),
        ('{"TRAIN_SET": [1], "TEST_SET": ["002"]}', "TRAIN_SET is no list of ids in quotes"),
        ('{"TRAIN_SET": [], "TEST_SET": ["002"]}', "TRAIN_SET is no list of ids"),
        ("train: 001", "is not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, text, told):
    file = tmp_path / "partition.json"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        read_partition(file)


def test_a_partition_of_another_data_set(tmp_path):
    with pytest.raises(DataError, match="0 train and 0 are tested here, .* is it of another data set"):
        split_of(CASIAB, IDS, partition=partition(tmp_path, ["p1"], ["p2"]))


@pytest.mark.parametrize("text", ["# shaky\n079/cl-02/090\n081/  # gone\n\n", '["079/cl-02/090", "081"]'])
def test_excluded_walks(tmp_path, text):
    file = tmp_path / "excluded.txt"
    file.write_text(text)
    assert read_excluded(file) == ("079/cl-02/090", "081")
    split = split_of(CASIAB, IDS, 2, excluded=file)
    assert split.excludes("081/nm-01/000") and split.excludes("079/cl-02/090")
    assert not split.excludes("079/cl-02/0901") and not split.excludes("0811/nm-01/000")


def test_exclusions_that_leave_nothing_out_are_told(tmp_path, caplog, monkeypatch):
    write_walkers(tmp_path / "Walkers", subjects=2)
    file = tmp_path / "excluded.txt"
    file.write_text("001/nm-02/090\n001/nm-01\n001-bg-01-000\n001/nm-01/999\n077\n")
    monkeypatch.chdir(tmp_path)
    settings = {"dataset": "walkers", "batch_size": 2, "im_path": "Walkers/crop-im", "gt_path": "Walkers/crop-seg"}
    params = parse(str({**settings, "train_num": 2, "excluded": "excluded.txt"}), "GaitNet")
    training_sequences(params, frames := open_frames(params.im_path, params.gt_path))
    assert split_of(CASIAB, ["001", "002"], 1, excluded=file).idle(frames) == ["001-bg-01-000", "001/nm-01/999", "077"]
    assert "excluded.txt: 3 excluded walks are not there under such a name" in caplog.text


def test_training_draws_from_the_partition_alone(tmp_path):
    root = write_walkers(tmp_path / "Walkers", subjects=4)
    (tmp_path / "excluded.txt").write_text("004/nm-02\n")
    settings = {
        "dataset": "walkers",
        "batch_size": 2,
        "im_path": str(root / "crop-im"),
        "gt_path": str(root / "crop-seg"),
        "partition": str(partition(tmp_path, ["002", "004"], ["001"])),
        "excluded": str(tmp_path / "excluded.txt"),
    }
    params = parse(str(settings), "GaitNet")
    sequences, _ = training_sequences(params, open_frames(params.im_path, params.gt_path))
    assert {(seq.subject, seq.label, seq.condition) for seq in sequences} == {
        ("002", 0, "nm-01"),
        ("002", 0, "nm-02"),
        ("004", 1, "nm-01"),
    }
