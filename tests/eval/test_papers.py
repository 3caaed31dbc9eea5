"""Tables as papers print them, and what stands in a cell of which nothing is known."""

import csv
import json
import warnings

import numpy as np
import pytest

from eval import cli, papers
from eval.compare import PUBLISHED

VIEWS = 11


def test_means_by_probe_view_against_a_loop():
    rng = np.random.default_rng(2)
    table = rng.random((VIEWS, VIEWS))
    table[3, 4] = np.nan  # no gallery
    table[5] = np.nan  # no probes
    for identical in (True, False):
        for i in range(VIEWS):
            cells = [table[i, j] for j in range(VIEWS) if (identical or i != j) and not np.isnan(table[i, j])]
            found = papers.by_probe(table, identical)[i]
            assert np.isnan(found) if i == 5 else abs(found - sum(cells) / len(cells)) < 1e-12
    shown = papers.percents(papers.figures(table, True))
    assert shown[5] == "-" and len(shown) == VIEWS + 1
    others = [x for i, x in enumerate(papers.by_probe(table)) if i != 5]
    assert shown[-1] == f"{100 * sum(others) / 10:.1f}"


def test_formats():
    table = papers.Table(
        "CASIA-B: rank-1 (%)",
        "probes",
        ["000", "mean"],
        [("NM#5-6 a_b", ["1.0", "-"]), ("BG#1-2 50% ±", ["2.0", "3.0 ± 0.1"])],
        {(1, 0)},
        {1},
        ["a note"],
    )
    assert papers.latex(table).splitlines() == [
        "% CASIA-B: rank-1 (%)",
        "% a note",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"probes & 000 & mean \\",
        r"\midrule",
        r"NM\#5-6 a\_b & 1.0 & - \\",
        r"\midrule",
        r"BG\#1-2 50\% $\pm$ & \textbf{2.0} & 3.0 $\pm$ 0.1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert "| BG#1-2 50% ± | **2.0** | 3.0 ± 0.1 |" in papers.markdown(table)
    assert list(csv.reader(papers.comma_separated(table).splitlines()))[2] == ["BG#1-2 50% ±", "2.0", "3.0 ± 0.1"]
    assert papers.terminal(table).splitlines()[3].split() == ["BG#1-2", "50%", "±", "2.0*", "3.0", "±", "0.1"]


@pytest.mark.parametrize("name, rows", [("casiab", 11), ("outdoor", 3)])
def test_a_cell_without_gallery_or_probes_is_a_dash(tmp_path, original_arrays, python2_file, capsys, name, rows):
    arrays = original_arrays(rows, rows)
    arrays["gallery_valid"][1] = 0
    arrays["probe_valid"][2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = ["--features", str(python2_file(arrays)), "--out", str(tmp_path), "--report"]
        assert cli.main(name, words) == 0
    told = capsys.readouterr()
    page = (tmp_path / "report.html").read_text()
    assert "<td>-</td>" in page and ">nan" not in page
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    written = [path.read_text() for path in tmp_path.iterdir() if path.suffix in (".txt", ".csv", ".md", ".tex")]
    for text in [*written, told.out, told.err]:
        assert "nan" not in text.lower().replace("unanimous", "")
    table = list(csv.reader((tmp_path / "table.csv").read_text().splitlines()))
    if name == "casiab":
        assert table[0] == ["probes", *[f"{18 * i:03d}" for i in range(11)], "mean"]
        assert table[1][0] == "NM#5-6" and table[1][3] == "-" and table[1][1] != "-"
    else:
        assert [row[2] for row in table[1:4]] == ["-"] * 3 and table[3][1:] == ["-"] * 5
    file = {"casiab": "casiab_cross_view_results_tr74.txt"}.get(name, f"{name}_results_tr69.txt")
    lines = (tmp_path / file).read_text().splitlines()
    assert [line.split("\t")[2] for line in lines][1:] == ["-"] * rows


def test_means_with_the_identical_view_are_kept_too(tmp_path, original_arrays, python2_file):
    cli.main("casiab", ["--features", str(python2_file(original_arrays(11, 11))), "--out", str(tmp_path)])
    result = json.loads((tmp_path / "metrics.json").read_text())
    table = np.array(result["identification"]["rank1_table"])
    (means,) = result["by_probe"].values()
    np.testing.assert_allclose(means["with_identical"], table.mean(axis=1))
    np.testing.assert_allclose(means["without_identical"], (table.sum(axis=1) - table.diagonal()) / 10)


def test_published_numbers_have_a_source_and_the_stated_means():
    for row in json.loads(PUBLISHED.read_text()):
        assert len(row["source"]) > 20
        for probes, numbers in row["rank1"].items():
            assert len(numbers) == VIEWS
            if "mean" in row:
                assert abs(np.mean(numbers) - row["mean"][probes]) < 0.06  # both were rounded
