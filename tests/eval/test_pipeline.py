"""From frames and weights to tables: the whole of an evaluation on a small tree, by its command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe import revision
from eval import provenance, walks
from eval.cli import parse, run
from eval.deploy import DeployNet, literal_features
from eval.extract import random_starts, window_sums
from eval.features import Features, read_cache
from eval.runtime import load_caffe
from eval.walks import Source, features_of
from layers.datasets import DATASETS
from layers.sources import open_frames

pytestmark = pytest.mark.medium
ROOT = Path(__file__).resolve().parents[2]
TRAIN_NUM = 3


@pytest.fixture(scope="module")
def source(small_casiab, weights, tmp_path_factory):
    return Source(
        DATASETS["casiab"],
        TRAIN_NUM,
        small_casiab / "crop-im",
        small_casiab / "crop-seg",
        ROOT / "eval" / "deploy_gaitnet.prototxt",
        weights,
        cache=tmp_path_factory.mktemp("feat"),
    )


WATCH = """
import os, sys
log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def watch(event, args):
    mode = args[1] if event == "open" else None  # of open(); os.open, which it may call, has none
    if mode is not None and isinstance(args[0], (str, os.PathLike)):
        os.write(log, os.fsencode(args[0]) + b"\\n")

sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A file that names, a line each, what the process of `evaluated` has opened; Python reads sitecustomize first."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder / "opened"


@pytest.fixture(scope="module")
def evaluated(small_casiab, weights, source, opened, tmp_path_factory):
    """Standard output, and the folder of results, of one complete run."""
    out = tmp_path_factory.mktemp("results")
    done = command(
        small_casiab,
        "--weights",
        weights,
        "--train-num",
        TRAIN_NUM,
        "--cache",
        source.cache,
        "--baselines",
        "--report",
        "--out",
        out,
        PYTHONPATH=str(opened.parent),
        OPENED=str(opened),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, out


def command(data, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "eval/eval-casiab.py"), *map(str, arguments)],
        text=True,
        capture_output=True,
        timeout=300,
        env=os.environ | {"GAITNET_DATA": str(data.parent)} | environment,
    )


def test_features_are_those_of_the_original_procedure(source, deploy_net, small_casiab):
    features, _, _ = features_of(source)
    frames = open_frames(small_casiab / "crop-im")
    for number in (0, 7, len(features) - 1):
        length = frames.length(features.names[number])
        planes = frames.read(features.names[number], 0, np.empty((length, 4, 64, 64), np.uint8))
        want = literal_features(deploy_net, planes, random_starts(source.seed)(number, length)).mean(axis=0)
        # float32 through 13 layers, summed in another order: 1e-5 of the largest value
        np.testing.assert_allclose(features.vectors[number], want, atol=1e-5 * np.abs(want).max())


def test_who_takes_part(source):
    features, extras, key = features_of(source)
    assert {name.split("/")[0] for name in features.names} == {"004", "005", "006"}
    assert len(features.gallery) == 3 * 4 * 2
    assert len(features.probe) == 3 * 2 * 2 - 1  # 006/nm-06/090 has 10 frames: left out
    assert set(features.covariates) == {"", "NM", "BG", "CL"}
    assert set(features.gallery.labels) == {3, 4, 5}
    assert extras["frames"].tolist() == [13 - int(name[:3]) % 2 for name in features.names]
    training, _, _ = features_of(source, "train")
    assert {name.split("/")[0] for name in training.names} == {"001", "002", "003"}
    assert all("nm-" in name for name in training.names)
    assert key["ground_truth"] is True


def test_a_cache_serves_only_what_it_was_made_from(source, small_casiab, weights, tmp_path, monkeypatch):
    made = []

    def compute(_source, _frames, chosen, key):
        made.append(key)
        number, text = np.full(len(chosen), len(made)), np.full(len(chosen), "")
        vectors = np.full((len(chosen), 2), len(made), np.float32)
        return Features(vectors, number, number, text, text, text), key, {}

    monkeypatch.setattr(walks, "compute", compute)
    data = tmp_path / "copy"
    shutil.copytree(small_casiab, data)
    base = vars(source) | {"im_path": data / "crop-im", "gt_path": data / "crop-seg", "cache": tmp_path / "feat"}

    def served(**changes):
        return features_of(Source(**base | changes))[0].vectors[0, 0]

    assert [served(), served()] == [1, 1]
    other_weights = tmp_path / "other.caffemodel"
    other_weights.write_bytes(weights.read_bytes() + b"\x9a\x3e\x00")
    changes = [{"seed": 1}, {"clips": "all"}, {"train_num": 4}, {"gt_path": None}, {"weights": other_weights}]
    assert [served(**change) for change in changes] == [2, 3, 4, 5, 6]
    assert served(clips="all", seed=5) == 3  # every window: the seed plays no part
    assert served() == 1

    frame = data / "crop-im/005/nm-02/000/03.png"
    frame.write_bytes(frame.read_bytes() + b"x")
    assert served() == 7
    os.utime(data / "crop-seg/005/nm-02/000/03.png", (1, 1))
    assert served() == 8
    (data / "crop-im/001/nm-02/000/03.png").unlink()  # of a subject that trains
    assert served() == 8


def test_the_weights_are_opened_once(evaluated, opened, weights):
    """Features of the tested and, for the baselines, of the training people, the hash, the card: from one reading."""
    names = opened.read_text().splitlines()
    assert names.count(str(weights)) == 1
    assert any(name.endswith("deploy_gaitnet.prototxt") for name in names)  # the watch sees


def test_tables(evaluated):
    stdout, out = evaluated
    assert re.fullmatch(r"mean rank-1 \d+\.\d{3} \(without identical view \d+\.\d{3}\)", stdout.splitlines()[-1])
    result = json.loads((out / "metrics.json").read_text())
    assert result["baselines"].keys() == {
        f"GEI{kind}, {masks} masks" for kind in ("", "+PCA+LDA") for masks in ("predicted", "true")
    }
    assert result["covariates"].keys() == {"NM", "BG", "CL"}
    assert result["covariates"]["NM"] == result["identification"]
    # what a silhouette shows, width and stride, is all that tells these figures apart
    assert result["baselines"]["GEI, true masks"]["identification"]["with_identical"]["rank1"] == 1
    assert 0 < result["segmentation"]["iou"] < 1 and "segmentation of" in stdout
    origin = result["provenance"]
    assert len(origin["weights_sha256"]) == 64 and origin["train_num"] == TRAIN_NUM and origin["versions"]["python"]
    assert origin["command"].startswith("eval/eval-casiab.py ") and "--report" in origin["command"]
    assert origin["device"].startswith("cpu (") and len(origin["data_sha256"]) >= 64
    if (provenance.ROOT / ".git").exists():
        assert origin["versions"]["commit"].removesuffix("+changes") == revision.commit().removesuffix("+changes")
    table = (out / "casiab_cross_view_results_tr3.txt").read_text().splitlines()
    assert len(table) == 12 and table[0].startswith("Prob\\Gallery\t000\t018")
    assert (out / "metrics.csv").read_text().startswith("protocol,average,measure,value,low_95,high_95\n")


def test_report_needs_no_network(evaluated):
    page = (evaluated[1] / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"](?!data:)", page) and "<script" not in page
    assert "url(" not in page and "@import" not in page
    for title in ("Rank-1 by view", "Means and baselines", "Masks of test subjects", "Retrieval", "By subject"):
        assert f"<h2>{title}</h2>" in page
    for told in ("command", "commit", "versions", "seed", "device", "data_sha256"):
        assert f"&quot;{told}&quot;" in page or (told == "commit" and not (provenance.ROOT / ".git").exists())
    assert page.count("<figure") == 12 + 6 * page.count("<div class='row'>") and page.count("<div class='row'>") == 8
    assert "class='right'" in page and "GEI+PCA+LDA" in page


def test_features_of_a_run_can_be_scored_again(evaluated, source, small_casiab, tmp_path):
    (file,) = source.cache.glob("casiab-tr3-test-*.npz")
    done = command(small_casiab, "--features", file, "--train-num", TRAIN_NUM, "--out", tmp_path / "again")
    assert done.stdout.splitlines()[-1] == evaluated[0].splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--weights", "nowhere.caffemodel"], "error: nowhere.caffemodel: no such file of weights; see --weights"),
        (["--im-path", "nowhere"], "error: nowhere: no such folder; get CASIA-B"),
        (["--train-num", "7"], "train_num is 7, but 6 subjects were found"),
        (
            ["--train-num", "6"],
            "0 test subjects, and no gallery or probe walk among them; check --im-path and --train-num",
        ),
        (["--train-num", "3", "--model", str(ROOT / "LICENSE")], "LICENSE: not a prototxt"),
    ],
)
def test_bad_input_gives_one_line(small_casiab, weights, tmp_path, arguments, message):
    if "--weights" not in arguments:
        arguments = [*arguments, "--weights", weights]
    done = command(small_casiab, *arguments, "--cache", tmp_path)
    *remarks, error = done.stderr.splitlines()
    assert done.returncode == 1 and error.startswith("error: ") and message in error
    assert all(line.startswith(("weights ", "left out: ", "warning: ", "Caffe 1.0.0, bundled: ")) for line in remarks)


def test_silhouettes_alone_are_tested_as_they_are(small_casiab, weights, tmp_path):
    """True masks take the place of predicted ones: features are those of their sums."""
    walk = "004/nm-05/000"
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("006/bg-01\n")
    done = run(
        DATASETS["casiab"],
        parse(
            DATASETS["casiab"],
            [
                "--silhouettes",
                "--gt-path",
                str(small_casiab / "crop-seg"),
                "--weights",
                str(weights),
                "--clips",
                "all",
                "--train-num",
                "3",
                "--cache",
                str(tmp_path),
                "--out",
                str(tmp_path / "out"),
                "--excluded",
                str(excluded),
            ],
        ),
        "eval",
    )
    assert done["provenance"]["masks"] == "true" and "segmentation" not in done
    features, _, _ = read_cache(next(tmp_path.glob("casiab-tr3-test-*.npz")))
    names = features.names.tolist()
    assert not any(name.startswith("006/bg-01") for name in names) and "005/bg-01/000" in names
    planes = open_frames(None, small_casiab / "crop-seg").read(walk, 0, np.empty((13, 4, 64, 64), np.uint8))
    sums = window_sums(planes[:, 3].astype(np.float32) / 255)
    net = DeployNet(load_caffe(None), ROOT / "eval/deploy_gaitnet.prototxt", weights, parts=("recognition",))
    np.testing.assert_allclose(
        features.vectors[names.index(walk)], net.features(sums).mean(axis=0), rtol=1e-4, atol=1e-5
    )
