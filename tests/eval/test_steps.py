"""The table of what each step brings, from the evaluations of three steps."""

import json

import cv2
import pytest

from eval import steps


def evaluation(nm, iou, bags=True):
    def part(value):
        return {"rank1": value, "rank1_95": [value - 0.05, value + 0.04]}

    names = {"NM": nm, "BG": nm - 0.1, "CL": nm - 0.2} if bags else {"NM": nm}
    return {
        "covariates": {
            name: {"with_identical": part(v + 0.02), "without_identical": part(v)} for name, v in names.items()
        },
        "segmentation": {"iou": iou},
    }


@pytest.fixture
def folder(tmp_path):
    for place, nm, iou in (("after-rec", 0.5, 0.86), ("after-joint", 0.55, 0.865), (".", 0.61, 0.87)):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "metrics.json").write_text(json.dumps(evaluation(nm, iou)))
    return tmp_path


def test_a_line_a_step(folder, capsys):
    assert steps.main([str(folder)]) == 0
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows == {
        ("after", "rec"): ["52.0", "42.0", "32.0", "50.0", "45.0..54.0", "40.0", "30.0", "0.860"],
        ("after", "joint"): ["57.0", "47.0", "37.0", "55.0", "50.0..59.0", "45.0", "35.0", "0.865"],
        ("after", "sia"): ["63.0", "53.0", "43.0", "61.0", "56.0..65.0", "51.0", "41.0", "0.870"],
    }
    assert cv2.imread(str(folder / "steps.png")).std() > 20


def test_without_bags_and_coats_a_dash(folder, capsys):
    (folder / "metrics.json").write_text(json.dumps(evaluation(0.6, 0.9, bags=False)))
    assert steps.main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[2:] == [
        "62.0",
        "-",
        "-",
        "60.0",
        "55.0..64.0",
        "-",
        "-",
        "0.900",
    ]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_what_is_no_evaluation_is_named(folder, capsys, text):
    (folder / "after-joint/metrics.json").write_text(text)
    assert steps.main([str(folder)]) == 1
    assert "after-joint/metrics.json: not an evaluation" in capsys.readouterr().err


def test_a_missing_evaluation_is_named(folder, capsys):
    (folder / "after-rec/metrics.json").unlink()
    assert steps.main([str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "after-rec/metrics.json: No such file" in said
