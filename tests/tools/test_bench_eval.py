import pytest

from tools.bench_eval import measure, scores

pytestmark = pytest.mark.medium


def test_measure():
    found = measure(walks=2, frames=[12, 13], probes=7, gallery=500)
    assert [row["frames_a_walk"] for row in found["features"]] == [12, 13]
    for row in found["features"]:
        assert row["ratio"] > 0 and row["cpu_ratio"] > 0 and row["largest_difference"] < 1e-5
    assert found["search"]["as_exact_search"] and found["search"]["peak_mb"] > 0


def test_scoring_is_far_faster_than_the_loop():
    # measured: 140 times on a busy machine; the loop is Python, so a tenth of that is safe on any
    assert scores(probes=200, gallery=300, looped=5)["ratio"] > 14
