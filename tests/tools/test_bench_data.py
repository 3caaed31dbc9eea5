"""The figures of the feed come out, for a small tree."""

import pytest

from tests.layers.trees import write_walkers
from tools import bench_data


@pytest.mark.medium
def test_measure(tmp_path, monkeypatch):
    write_walkers(tmp_path / "Walkers", subjects=2)
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    result = bench_data.measure("walkers", *bench_data.trees_of("walkers"), turns=1, seconds=0.05)
    assert result["sizes"] == ["13x20"] * 3
    assert min(result["batch_ms"].values()) > 0
    assert set(result["frames_a_second"]) == {"loop", "tree", "pack"}
    assert min(result["frames_a_second"].values()) > 0
    assert result["packing"]["frames"] == 144


@pytest.mark.slow
def test_scale(tmp_path, monkeypatch):
    write_walkers(tmp_path / "Walkers", subjects=2)
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    monkeypatch.setattr(bench_data.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(bench_data, "SEQUENCE", 11)
    # 75 subjects of 110 sequences: the first 74 train, with their 66 nm sequences each
    result = bench_data.measure_scale("walkers", 75 * 110 * 11)
    assert result["training_sequences"] == 74 * 66
