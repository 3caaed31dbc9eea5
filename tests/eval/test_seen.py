"""No result on people whom training has seen looks clean."""

import json
import re

import pytest

from eval import cli
from layers import people

pytestmark = pytest.mark.medium
TESTED = ["004", "005", "006"]


@pytest.fixture
def evaluate(small_casiab, weights, tmp_path, monkeypatch, capsys):
    """Evaluate weights of which `record` tells; gives exit status, stderr, stdout, metrics.json and the report."""
    monkeypatch.setenv("GAITNET_DATA", str(small_casiab.parent))
    mine = tmp_path / "mine.caffemodel"
    mine.write_bytes(weights.read_bytes())

    def run(record, *words):
        people.record_path(mine).unlink(missing_ok=True)
        if record is not None:
            people.write(mine, *record)
        out = tmp_path / "out"
        status = cli.main(
            "casiab",
            [
                "--weights",
                str(mine),
                "--train-num",
                "3",
                "--report",
                "--out",
                str(out),
                "--cache",
                str(tmp_path / "feat"),
                *words,
            ],
        )
        told = capsys.readouterr()
        if status:
            return status, told.err
        result = json.loads((out / "metrics.json").read_text())
        return told.out, result["training"], (out / "report.html").read_text()

    return run


def test_a_clean_result(evaluate):
    out, training, page = evaluate([{"casiab": ["001", "002", "003"], "szu": ["004"]}])
    assert training == {"verdict": "unseen", "told": "whom training has not seen", "leaked": []}
    assert "3 people whom training has not seen" in page and "class='warning'" not in page
    assert "test people" not in out and "frames of unseen subjects" in out


def test_leaked_people_stop_it_or_stand_in_the_headline(evaluate, tmp_path):
    before = [{"casiab": ["001", "002", "003", "004", "005"]}]
    status, told = evaluate(before)
    error = told.splitlines()[-1]
    assert status == 1 and error.startswith("error: ") and "Traceback" not in told
    assert "mine.caffemodel: LEAKED: 2 of 3 test people were trained on (004, 005)" in error
    assert "say --train-num 5 to test others, or say --leaked" in error
    assert not (tmp_path / "out").exists() and not (tmp_path / "feat").exists()

    out, training, page = evaluate(before, "--leaked")
    headline = "LEAKED: 2 of 3 test people were trained on (004, 005)"
    assert training["verdict"] == "leaked" and training["leaked"] == ["004", "005"]
    assert out.startswith(f"test people: {headline}")
    assert re.search(rf"</h1><p class='warning'>{re.escape(headline)}", page)
    assert "training has not seen" not in page and "frames of test subjects" in out

    for ending, row in (("csv", "NM#5-6†,"), ("md", "| NM#5-6† |"), ("tex", r"NM\#5-6$\dagger$ &")):
        assert row in (tmp_path / f"out/table.{ending}").read_text()  # also where a row is copied without the notes

    (features,) = (tmp_path / "feat").glob("*.npz")  # the features go on to tell
    for words in ([], ["--leaked"]):
        status = cli.main("casiab", ["--features", str(features), "--out", str(tmp_path / "again"), *words])
        assert status == (0 if words else 1)
    assert json.loads((tmp_path / "again/metrics.json").read_text())["training"]["leaked"] == ["004", "005"]


@pytest.mark.parametrize(
    "record, told",
    [
        (None, "who trained mine.caffemodel is not recorded"),
        ([{"casiab": ["001"]}, ["gone.caffemodel"]], "mine.caffemodel started from gone.caffemodel, and who trained"),
    ],
)
def test_what_is_not_known_stands_in_the_headline(evaluate, record, told):
    out, training, page = evaluate(record)
    assert training["verdict"] == "unknown" and told in training["told"]
    assert out.startswith("test people: UNKNOWN whether training has seen them: ")
    assert f"<p class='warning'>UNKNOWN whether training has seen them: {told}" in page
    assert "training has not seen" not in page
