import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import cli
from eval.features import FeatureFileError, Features, write_cache
from layers.datasets import DATASETS

ROOT = Path(__file__).resolve().parents[2]


def evaluate(name, *arguments, folder):
    """Run eval-<name>.py from another folder, as a user may."""
    return subprocess.run(
        [sys.executable, str(ROOT / "eval" / f"eval-{name}.py"), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def brute_force(arrays, rows):
    """Rank-1 in percent by the original's double loop."""
    table = np.zeros((rows, rows))
    for i in range(rows):
        for j in range(rows):
            probes, items = arrays["probe_valid"][i], arrays["gallery_valid"][j]
            for p in range(probes):
                similarity = [
                    np.exp(
                        -(
                            np.linalg.norm(
                                (arrays["probe_features"][i, p] - arrays["gallery_features"][j, g]) / np.float32(256)
                            )
                            ** 2
                        )
                    )
                    for g in range(items)
                ]
                label = arrays["gallery_labels"][j, int(np.argmax(similarity))]
                table[i, j] += 100 * (label == arrays["probe_labels"][i, p]) / probes
    return table


@pytest.mark.parametrize(
    "name, rows, filled, file_name, kind",
    [
        ("casiab", 11, 11, "casiab_cross_view_results_tr74.txt", "view"),
        ("outdoor", 3, 3, "outdoor_results_tr69.txt", "condition"),
        ("szu", 3, 1, "szu_results_tr49.txt", None),
    ],
)
@pytest.mark.medium
def test_scores_an_original_feature_file(tmp_path, original_arrays, python2_file, name, rows, filled, file_name, kind):
    arrays = original_arrays(rows, filled)
    done = evaluate(name, "--features", python2_file(arrays), "--out", tmp_path / "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    want = brute_force(arrays, filled)

    lines = (tmp_path / "out" / file_name).read_text().splitlines()
    assert lines[0].split("\t")[0] == "Prob\\Gallery" and len(lines) == 1 + filled
    assert lines[0].split("\t")[1:] == [line.split("\t")[0] for line in lines[1:]]
    cells = [line.split("\t")[1:] for line in lines[1:]]
    assert cells == [[f"{cell:.3f}" for cell in row] for row in want]
    assert 20 < want.mean() < 100

    closing = f"mean rank-1 {want.mean():.3f}"
    if kind:
        others = want[~np.eye(filled, dtype=bool)].mean()
        closing += f" (without identical {kind} {others:.3f})"
    assert done.stdout.splitlines()[-1] == closing

    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["provenance"]["features_sha256"] and result["provenance"]["versions"]["numpy"] == np.__version__
    for picture in ("rank1.png", "curves.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob("*.tmp"))


@pytest.mark.skipif(
    "GAITNET_RELEASED_FEATURES" not in os.environ,
    reason="set GAITNET_RELEASED_FEATURES to the folder of the authors' outdoor_fea_tr69",
)
@pytest.mark.parametrize("similarity", ["distance", "exp32"])
def test_the_authors_features_give_the_published_table(tmp_path, similarity):
    file = Path(os.environ["GAITNET_RELEASED_FEATURES"]) / "outdoor_fea_tr69"
    done = evaluate("outdoor", "--features", file, "--similarity", similarity, "--out", tmp_path, folder=tmp_path)
    assert done.stdout.splitlines()[-1] == "mean rank-1 77.904 (without identical condition 68.270)"
    rows = [line.split("\t")[1:] for line in (tmp_path / "outdoor_results_tr69.txt").read_text().splitlines()[1:]]
    want = [[98.55, 57.00, 91.30], [60.44, 96.60, 59.71], [87.65, 53.51, 96.37]]
    # one probe of 412 is 0.243; the published table is rounded to 0.005
    np.testing.assert_allclose(np.array(rows, float), want, atol=0.005 if similarity == "exp32" else 0.25)


@pytest.mark.medium
def test_expected_result(tmp_path, original_arrays, python2_file):
    arrays = original_arrays(3, 1)
    mean = brute_force(arrays, 1).mean()
    file = python2_file(arrays)
    met = evaluate("szu", "--features", file, "--out", tmp_path, "--expect", mean + 0.2, folder=tmp_path)
    missed = evaluate(
        "szu", "--features", file, "--out", tmp_path, "--expect", mean + 0.2, "--tol", 0.1, folder=tmp_path
    )
    assert (met.returncode, missed.returncode) == (0, 1)
    assert missed.stderr.startswith(f"error: mean rank-1 is {mean:.3f}, expected")


def test_a_dataset_of_your_own(tmp_path, monkeypatch, original_arrays, python2_file):
    monkeypatch.setitem(DATASETS, "corridor", replace(DATASETS["szu"], name="corridor"))
    assert cli.main("corridor", ["--features", str(python2_file(original_arrays(3, 1))), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "corridor_results_tr49.txt").is_file()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps({"gallery_features": Hostile()}, 2), "only NumPy arrays are admitted"),
        (b"no pickle", "not a feature file"),
    ],
)
@pytest.mark.medium
def test_a_bad_file_gives_one_line(tmp_path, content, message):
    (tmp_path / "bad").write_bytes(content)
    done = evaluate("outdoor", "--features", "bad", "--out", "out", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: bad: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


def features_file(path, key=(), extras=(), **changes):
    """Features of two walkers, one gallery walk and one probe each."""
    features = Features(
        np.eye(4, dtype=np.float32),
        np.array([1, 2, 1, 2]),
        np.zeros(4, int),
        np.repeat(["gallery", "probe"], 2),
        np.full(4, ""),
        np.full(4, "001/nm-01/000"),
    )
    key = {"dataset": "walkers", "part": "test", "train_num": 36} | dict(key)
    write_cache(path, replace(features, **changes), key, dict(extras))
    return path


@pytest.mark.parametrize(
    "train_num", ["x/../../../out", "36", 0, -1, True, 1.5, None, 10**400], ids=lambda value: str(value)[:20]
)
def test_the_number_of_training_subjects_is_one(tmp_path, train_num):
    """It becomes part of the names of the files that are written."""
    file = features_file(tmp_path / "features.npz", key={"train_num": train_num})
    with pytest.raises(FeatureFileError, match="features.npz: its train_num is .*, wanted 1 to 1000000"):
        cli.read_features(DATASETS["walkers"], file)


def test_features_that_the_dataset_does_not_have(tmp_path):
    def message(**changes):
        with pytest.raises(FeatureFileError) as e:
            cli.read_features(DATASETS["walkers"], features_file(tmp_path / "features.npz", **changes))
        return str(e.value)

    for groups in (77, -1):
        assert "wanted gallery and probe walks, of the groups 0..10" in message(groups=np.full(4, groups))
    assert "wanted gallery and probe walks" in message(roles=np.full(4, "probe"))
    assert "has no agreement, energy, shown, " in message(extras={"frames": np.full(4, 11)})
    assert "has no agreement, energy, frames, " in message(key={"ground_truth": True})
    features, extras, origin = cli.read_features(DATASETS["walkers"], features_file(tmp_path / "features.npz"))
    assert len(features) == 4 and not extras and origin["train_num"] == 36


def test_a_missing_file(tmp_path):
    done = evaluate("szu", "--features", "nowhere", folder=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "error: nowhere: No such file or directory; --features wants an existing feature file\n",
    )


@pytest.mark.medium
def test_usage(tmp_path):
    assert evaluate("outdoor", "--similarity", "cosine", folder=tmp_path).returncode == 2
    assert evaluate("outdoor", "--features", "x", "--weights", "y", folder=tmp_path).returncode == 2
    assert evaluate("outdoor", "--seed", "-1", folder=tmp_path).returncode == 2
    assert evaluate("outdoor", "--train-num", "0", folder=tmp_path).returncode == 2
    helped = evaluate("outdoor", "--help", folder=tmp_path)
    assert helped.returncode == 0 and "examples:" in helped.stdout


@pytest.mark.medium
def test_the_caffe_that_is_asked_for_is_the_one(small_casiab, weights, tmp_path):
    """Nothing imports the bundled one before CAFFE_ROOT has been looked at."""
    other = tmp_path / "python" / "caffe"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('the other Caffe')")
    words = ["--im-path", small_casiab / "crop-im", "--train-num", 3, "--weights", weights, "--cache", tmp_path]
    command = [sys.executable, str(ROOT / "eval/eval-casiab.py"), *map(str, words)]
    for root, told in ((tmp_path, "the other Caffe"), (tmp_path / "gone", "gone, which has no folder python/caffe")):
        environment = {**os.environ, "CAFFE_ROOT": str(root)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
        assert done.returncode == 1 and told in done.stderr


@pytest.mark.medium
def test_ctrl_c_is_one_line(small_casiab, weights, tmp_path):
    words = [
        "--im-path",
        small_casiab / "crop-im",
        "--train-num",
        3,
        "--weights",
        weights,
        "--cache",
        tmp_path / "feat",
    ]
    command = [sys.executable, str(ROOT / "eval/eval-casiab.py"), *map(str, words), "--out", str(tmp_path / "out")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    told = ""
    while "Caffe " not in told:  # the nets are built, and frames read, from here on
        told += running.stderr.readline()
    os.killpg(running.pid, signal.SIGINT)
    told += running.communicate(timeout=60)[1]
    assert running.returncode == 130
    last = told.splitlines()[-1]  # while PyTorch is being imported the command ends at once, and says nothing
    assert "Traceback (most" not in told and (last == "stopped; the same command begins anew" or "Caffe 1.0.0" in last)
    assert not list(tmp_path.iterdir())
