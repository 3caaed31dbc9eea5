"""Docs are true: links lead somewhere, commands name files that exist and options that they have, the tour runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
SCRIPT = re.compile(r"(?<![\w/.-])((?:tools|eval|experiments|tests|docs)/[\w./-]+\.(?:py|sh)|train_net\.sh)\b(.*)")


def id_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_links(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{id_of(page)} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads], target


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_lines_are_short(page):
    """At most 120 characters a line, in tables a cell, targets of links aside there: no cell is a paragraph."""
    for line in page.read_text().splitlines():
        table = line.startswith("|")
        parts = re.sub(r"\]\([^)]*\)", "]", line).strip("|").split("|") if table else [line]
        assert all(len(part.strip()) <= 120 for part in parts), f"{id_of(page)}: {line}"


def test_the_drawing_names_what_there_is():
    drawing = re.search(r"```mermaid(.*?)```", (ROOT / "docs" / "ARCHITECTURE.md").read_text(), re.S)[1]
    files = re.findall(r"(?<!/)\b(\w+\.py)\b", drawing)
    assert len(files) > 10
    for name in files:
        assert (ROOT / "caffe" / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_scripts_and_their_options(page):
    """Every script named exists; every long option beside one occurs in the code that parses it."""
    for script, rest in SCRIPT.findall(page.read_text()):
        assert (ROOT / script).is_file(), f"{id_of(page)} names {script}"
        if not script.startswith(("tools/", "eval/")) or not script.endswith(".py"):
            continue
        source = (ROOT / script).read_text()
        if script.startswith("eval/"):
            source += (ROOT / "eval" / "cli.py").read_text()
        if "import add_trees" in source:
            source += (ROOT / "tools" / "trees.py").read_text()
        for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]+", re.split(r"[#`|]", rest)[0]):
            assert f'"{option}"' in source, f"{id_of(page)}: {script} has no option {option}"


@pytest.mark.medium
def test_the_tour(tmp_path):
    environment = dict(os.environ, GAITNET_DATA=str(tmp_path), TOUR_PICTURES=str(tmp_path), OMP_NUM_THREADS="1")
    environment["PYTHONPATH"] = str(ROOT)
    environment.pop("TOUR_WEIGHTS", None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "tour.py")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^fc_fea +\(1, 256\)$", done.stdout, re.M) and "clips of 3 subjects" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"masks.png", "features.png"}


def test_where_data_and_weights_are_is_told_everywhere():
    """The facts have one place, layers/datasets.py; the pages for readers repeat its links and extract codes."""
    from layers.datasets import DATASETS, RELEASED_WEIGHTS

    def words(text):
        return re.findall(r"https?://[^\s)(]+", text) + re.findall(r"extract code (\w+)", text)

    for page in ("README.md", "data/README.md"):
        text = (ROOT / page).read_text()
        for name in ("casiab", "outdoor", "szu"):
            assert words(DATASETS[name].source) and all(word in text for word in words(DATASETS[name].source)), page
    for page in ("README.md", "models/README.md"):
        assert all(word in (ROOT / page).read_text() for word in words(RELEASED_WEIGHTS)), page
