"""Several runs in one table: whose features they are, who is best, and how sure that is."""

import csv
import json
import pickle
import re

import numpy as np
import pytest

from eval import cli, compare, metrics
from eval.features import FeatureFileError, read_embeddings, training_told, write_cache, write_embeddings
from eval.protocol import evaluate
from layers.datasets import DATASETS

CASIAB = DATASETS["casiab"]
VIEWS = CASIAB.protocol.groups
SUBJECTS, KINDS = ("075", "076", "077", "080"), ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "cl-02")


def opengait(noise, seed=0, parts=1, dim=6):
    """What a network gives: a dict of embeddings (N, C, P), labels, types, views."""
    rng = np.random.default_rng(seed)
    walks = [(s, t, v) for s in SUBJECTS for t in KINDS for v in VIEWS[:3]]
    person = {s: rng.random((dim, parts)) for s in SUBJECTS}
    vectors = np.stack([person[s] + noise * rng.random((dim, parts)) for s, _, _ in walks]).astype(np.float32)
    return {
        "embeddings": vectors,
        **{name: [walk[i] for walk in walks] for i, name in enumerate(("labels", "types", "views"))},
    }


def opengait_rank1(data, probes):
    """Its protocol, written out: rank-1 by probe view, the mean over the other views, in percent."""
    vectors, labels, types, views = (np.array(data[name]) for name in ("embeddings", "labels", "types", "views"))
    out = []
    for p_view in VIEWS[:3]:
        cells = []
        for g_view in VIEWS[:3]:
            p = np.flatnonzero(np.isin(types, probes) & (views == p_view))
            g = np.flatnonzero(np.isin(types, ["nm-01", "nm-02", "nm-03", "nm-04"]) & (views == g_view))
            hits = 0
            for i in p:
                apart = [
                    np.mean([np.linalg.norm(vectors[i, :, k] - vectors[j, :, k]) for k in range(vectors.shape[2])])
                    for j in g
                ]
                hits += labels[g[int(np.argmin(apart))]] == labels[i]
            if p_view != g_view:
                cells.append(100 * hits / len(p))
        out.append(np.mean(cells))
    return [*out, np.mean(out)]


def rows_of(out):
    return {row[0]: row[1:] for row in csv.reader((out / "compare.csv").read_text().splitlines())}


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_other_peoples_features_give_what_their_own_evaluation_gives(tmp_path, parts, form, capsys):
    data = opengait(1.5, parts=parts)
    file = tmp_path / f"features.{form}"
    if form == "npz":
        np.savez(file, **data)
    else:
        file.write_bytes(pickle.dumps(data))
    assert compare.main(["casiab", f"theirs={file}", "--out", str(tmp_path)]) == 0
    found = rows_of(tmp_path)
    for label, probes in (("NM#5-6", ["nm-05", "nm-06"]), ("BG#1-2", ["bg-01"]), ("CL#1-2", ["cl-02"])):
        want = opengait_rank1(data, probes)
        cells = found[f"{label} theirs"]
        assert [*cells[:3], cells[-1]] == [f"{x:.1f}" for x in want] and set(cells[3:-1]) == {"-"}
    assert len({row[-1] for row in found.values()}) > 2  # they differ


def test_our_features_go_there_and_back(tmp_path):
    np.savez(tmp_path / "a.npz", **opengait(1.5))
    features = read_embeddings(tmp_path / "a.npz", CASIAB)
    write_embeddings(tmp_path / "b.npz", features, CASIAB.tree, {})
    with np.load(tmp_path / "b.npz", allow_pickle=False) as arrays:
        assert arrays["embeddings"].shape == (len(features), 6, 1)
        assert (arrays["labels"][0], arrays["types"][0], arrays["views"][0]) == ("075", "nm-01", "000")
    again = read_embeddings(tmp_path / "b.npz", CASIAB)
    np.testing.assert_array_equal(again.vectors, features.vectors)
    for name in ("labels", "groups", "roles", "covariates", "names"):
        assert getattr(again, name).tolist() == getattr(features, name).tolist()


def test_its_rule_on_our_files_gives_our_table(tmp_path):
    """What an evaluation leaves in features.npz, scored by OpenGait's rule as its documentation has it."""
    data = opengait(2.0)
    features = read_embeddings_of(tmp_path, data)
    key = {
        "dataset": "casiab",
        "part": "test",
        "train_num": 74,
        "training": "unseen",
        "training_told": "whom training has not seen",
        "training_leaked": "",
    }
    write_cache(tmp_path / "cache.npz", features, key, {})
    assert cli.main("casiab", ["--features", str(tmp_path / "cache.npz"), "--out", str(tmp_path / "out")]) == 0
    shares = json.loads((tmp_path / "out/metrics.json").read_text())["by_probe"]
    with np.load(tmp_path / "out/features.npz", allow_pickle=False) as arrays:
        written = {name: arrays[name] for name in ("embeddings", "labels", "types", "views")}
    for kind, probes in (("NM", ["nm-05", "nm-06"]), ("BG", ["bg-01", "bg-02"]), ("CL", ["cl-01", "cl-02"])):
        want = opengait_rank1(written, probes)
        assert 0 < want[-1] < 100
        np.testing.assert_allclose(100 * np.array(shares[kind]["without_identical"][:3]), want[:-1], atol=1e-9)
    # Scored again from that file, it is the same table, and who trained is known.
    words = ["--features", str(tmp_path / "out/features.npz"), "--out", str(tmp_path / "again")]
    assert cli.main("casiab", words) == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["by_probe"] == shares and again["training"]["verdict"] == "unseen"


def test_who_trained_is_known_of_what_an_evaluation_left(tmp_path, capsys):
    """A leaked run stays leaked, and a clean one clean, also when its file travels alone."""
    features = read_embeddings_of(tmp_path, opengait(1.5))
    told = {"leaked": "LEAKED: 1 of 4 test people were trained on (075)", "unseen": "whom training has not seen"}
    for verdict, sentence in told.items():
        origin = {"training": verdict, "training_told": sentence, "training_leaked": "075" * (verdict == "leaked")}
        write_embeddings(tmp_path / f"{verdict}.npz", features, CASIAB.tree, origin)
    words = [f"{name}={tmp_path}/{name}.npz" for name in told]
    assert compare.main(["casiab", *words, f"theirs={tmp_path}/a.npz"]) == 0
    out = capsys.readouterr().out
    assert "† leaked: LEAKED: 1 of 4" in out and "leaked†" in out and "? theirs: UNKNOWN" in out
    assert "? unseen" not in out and "unseen†" not in out
    assert cli.main("casiab", ["--features", str(tmp_path / "leaked.npz"), "--out", str(tmp_path / "out")]) == 1
    assert "LEAKED: 1 of 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "told", ['{"training": "unseen"}', '{"training": "never", "training_told": "x"}', '{"training": ["unseen"]}', "{}"]
)
def test_a_file_that_tells_half_of_who_trained_does_not_tell(tmp_path, told):
    np.savez(tmp_path / "a.npz", embeddings=np.zeros((1, 2)), training=np.array(told))
    assert cli.training_of(training_told(tmp_path / "a.npz"))["verdict"] == "unknown"


def read_embeddings_of(tmp_path, data):
    np.savez(tmp_path / "a.npz", **data)
    return read_embeddings(tmp_path / "a.npz", CASIAB)


def test_best_in_bold_trainings_and_published(tmp_path, capsys):
    for i, noise in enumerate((0.05, 2.0, 2.5)):
        np.savez(tmp_path / f"{i}.npz", **opengait(noise, seed=i))
    words = ["casiab", f"good={tmp_path}/0.npz", f"poor={tmp_path}/1.npz,{tmp_path}/2.npz", "--published"]
    assert compare.main([*words, "--out", str(tmp_path)]) == 0
    found = rows_of(tmp_path)
    one, two = (opengait_rank1(opengait(noise, seed=i), ["nm-05", "nm-06"])[-1] for i, noise in ((1, 2.0), (2, 2.5)))
    assert found["NM#5-6 poor"][-1] == f"{(one + two) / 2:.1f} ± {abs(one - two) / 2**0.5:.1f}"
    assert found["NM#5-6 GaitSet, published"][-1] == "95.0" and found["BG#1-2 GaitPart, published"][-1] == "91.5"
    tex = (tmp_path / "compare.tex").read_text()
    assert r"NM\#5-6 good & \textbf{100.0}" in tex and tex.count(r"\midrule") == 3 and "AAAI 2019" in tex
    told = capsys.readouterr().out
    assert "poor minus good, NM#5-6: -" in told and "(95% interval -" in told


def test_means_that_cannot_be_compared_are_told(tmp_path, capsys):
    """Over some views only, on other walks, or with the identical view: none of it is bold without a word."""
    whole, part = opengait(1.5), opengait(1.5)
    some = np.array([t != "nm-06" for t in part["types"]])
    part = {name: np.array(values)[some] for name, values in part.items()}
    np.savez(tmp_path / "whole.npz", **whole)
    np.savez(tmp_path / "part.npz", **part)
    words = ["casiab", f"a={tmp_path}/whole.npz", f"b={tmp_path}/part.npz", f"c={tmp_path}/whole.npz", "--published"]
    assert compare.main([*words, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    probes = len(SUBJECTS) * 3
    other = f"{probes} probes, {2 * probes} gallery walks, not {2 * probes} probes, {2 * probes} gallery walks"
    assert f"NM#5-6 b was tested on other walks: {other} of the first run" in told
    assert "BG#1-2 b was" not in told and "NM#5-6 c was" not in told
    assert "NM#5-6 a: the mean is over 3 of 11 views; no walks to compare in 054 072" in told
    tex = (tmp_path / "compare.tex").read_text()
    assert r"\textbf{92.8}" not in tex and r"& 92.8 &" in tex  # the authors', with the identical view


def test_the_paired_interval_against_a_loop():
    rng = np.random.default_rng(5)
    subjects, groups = np.repeat(["a", "b", "c", "d", "e"], 4), np.tile([0, 1], 10)
    first, second = (rng.integers(0, 2, (20, 2)).astype(float) for _ in range(2))
    runs = [[compare.Scored({"NM": (hits, groups, subjects)}, {})] for hits in (first, second)]
    told = compare.difference("NM", *runs, num_groups=2, seed=3)
    draws = metrics.draws_of(5, np.random.default_rng(3))
    means = []
    for draw in draws:
        taken = np.concatenate([np.tile(np.flatnonzero(subjects == s), n) for s, n in zip("abcde", draw)]).astype(int)
        a, b = (np.mean([h[taken][groups[taken] == i][:, 1 - i].mean() for i in (0, 1)]) for h in (first, second))
        means.append(b - a)
    low, high = np.percentile(means, [2.5, 97.5])
    assert told.endswith(f"(95% interval {100 * low:+.1f} .. {100 * high:+.1f})")
    runs[1][0].cells["NM"] = (second, groups, np.where(subjects == "a", "z", subjects))
    assert "no interval" in compare.difference("NM", *runs, num_groups=2, seed=3)


def test_leaked_runs_are_marked_and_energy_images_are_a_baseline(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **opengait(1.5))
    features = read_embeddings(tmp_path / "a.npz", CASIAB)
    n = len(features)
    rng = np.random.default_rng(1)
    images = {name: rng.random((n, 64, 64)).astype(np.float16) for name in ("energy", "true_energy")}
    shown = dict(
        shown=np.zeros((1, 4, 64, 64), np.uint8),
        shown_mask=np.zeros((1, 64, 64), np.uint8),
        shown_walks=np.zeros(1, int),
        agreement=np.zeros((n, 3)),
        frames=np.full(n, 11),
    )
    key = {
        "dataset": "casiab",
        "part": "test",
        "train_num": 74,
        "training": "leaked",
        "training_told": "LEAKED: 1 of 4 test people were trained on (075)",
        "training_leaked": "075",
    }
    write_cache(tmp_path / "ours.npz", features, key, images | shown)
    words = [f"ours={tmp_path}/ours.npz", f"GEI=gei:{tmp_path}/ours.npz", f"theirs={tmp_path}/a.npz"]
    assert compare.main(["casiab", *words, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "† ours: LEAKED: 1 of 4" in told and "? theirs: UNKNOWN" in told
    found = rows_of(tmp_path)
    assert found["NM#5-6 ours†"] == found["NM#5-6 theirs"] != found["NM#5-6 GEI†"]
    want = evaluate(features.with_vectors(images["energy"].reshape(n, -1).astype(np.float32)), VIEWS)
    assert found["NM#5-6 GEI†"][-1] == f"{100 * want['covariates']['NM']['without_identical']['rank1']:.1f}"


@pytest.mark.parametrize(
    "change, told",
    [
        ({"views": None}, "has no views"),
        ({"labels": ["075"]}, "wanted embeddings"),
        ({"types": ["xx-01"] * 72}, "none of its 72 walks"),
        ({"views": ["000"] * 72}, "24 walks are there twice: 075/nm-01/000, .* and 19 more; leave one of each"),
        ({"embeddings": np.full((72, 2, 1), np.nan, np.float32)}, "not finite"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, told):
    data = {name: value for name, value in (opengait(1) | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **data)
    with pytest.raises(FeatureFileError, match=told):
        read_embeddings(tmp_path / "a.npz", CASIAB)


def test_runs_without_a_cell_have_no_difference(tmp_path, capsys):
    """Of one view alone nothing is left without the identical one."""
    data = opengait(1)
    np.savez(tmp_path / "all.npz", **data)
    one = np.array(data["views"]) == "018"
    np.savez(tmp_path / "one.npz", **{name: np.array(value)[one] for name, value in data.items()})
    assert compare.main(["casiab", f"all={tmp_path}/all.npz", f"one={tmp_path}/one.npz"]) == 0
    told = capsys.readouterr().out
    assert "nan" not in told and "one minus all" not in told and re.search("NM#5-6 one( +-){12}\n", told)


def test_wrong_usage_is_one_sentence(tmp_path, capsys):
    assert compare.main(["casiab", "a=nowhere.npz"]) == 1
    assert capsys.readouterr().err == "error: nowhere.npz: no such file\n"
    for words in (["a"], ["a=x", "a=y"]):
        with pytest.raises(SystemExit):
            compare.main(["casiab", *words])
