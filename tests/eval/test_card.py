"""Cards of weights and of walkers, read as the Hugging Face hub reads them."""

import pytest

from eval.card import card, card_path, write_card
from layers import people
from layers.datasets import DATASETS
from tools.walkers.card import card as card_of_walkers
from tools.walkers.card import size

hub = pytest.importorskip("huggingface_hub")
RESULT = {
    "identification": {"with_identical": {"rank1": 0.7123}, "without_identical": {"rank1": 0.6}},
    "covariates": {"NM": {"with_identical": {"rank1": 0.8}}, "BG": {"with_identical": {"rank1": float("nan")}}},
    "segmentation": {"iou": 0.87654},
    "training": {"told": "whom training has not seen"},
    "provenance": {"command": "eval/eval-walkers.py"},
}


def test_figures_are_found_by_the_hub(tmp_path):
    weights = tmp_path / "gaitnet-sia_iter_60.caffemodel"
    weights.write_bytes(b"weights")
    people.write(weights, {"walkers": ["001", "002", "003"]}, [tmp_path / "gone.caffemodel"])
    path = write_card(weights, DATASETS["walkers"], RESULT)
    assert path == tmp_path / "gaitnet-sia_iter_60.md" == card_path(f"{weights}.h5")
    read = hub.ModelCard.load(path)
    read.data.to_dict()
    found = {result.metric_name: result.metric_value for result in read.data.eval_results}
    assert found == {
        "mean rank-1": 71.23,
        "mean rank-1 without identical": 60.0,
        "mean rank-1, NM probes": 80.0,
        "IoU of masks": 0.8765,
    }
    assert read.data.library_name == "gaitnet-caffe" and read.data.license == "mit"
    for words in ("3 of Walkers (001 to 003)", "who trained gone.caffemodel", "must not be used for", "pairs of walks"):
        assert words in read.text


def test_training_writes_one_without_figures(tmp_path):
    weights = tmp_path / "gaitnet-seg_iter_5.caffemodel"
    weights.write_bytes(b"weights")
    text = write_card(weights, DATASETS["casiab"]).read_text()
    assert hub.ModelCard(text).data.eval_results is None and hub.ModelCard(text).data.license is None
    assert "Not evaluated yet" in text and "People: not recorded" in text
    assert "1.00" not in card(weights, DATASETS["casiab"], RESULT | {"covariates": {}})


def test_a_text_of_somebody_else_stays(tmp_path):
    (tmp_path / "a.md").write_text("my notes")
    assert write_card(tmp_path / "a.caffemodel", DATASETS["szu"]) is None
    assert write_card(tmp_path / "gone" / "a.caffemodel", DATASETS["szu"]) is None
    assert (tmp_path / "a.md").read_text() == "my notes" and len(list(tmp_path.iterdir())) == 1


def test_walkers():
    text = card_of_walkers({"people": 4, "frames": 15}, 88)
    read = hub.DatasetCard(text)
    assert read.data.size_categories == ["1K<n<10K"] and read.data.license == "mit"
    assert "| people | 4 |" in read.text
    assert [size(n) for n in (10, 10**4, 10**8)] == ["n<1K", "10K<n<100K", "10M<n<100M"]
