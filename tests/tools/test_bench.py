"""The benchmark makes rows from what it times; the roofline counts what is known by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from layers.datasets import DATASETS
from models.gaitnet import STEPS
from tests.layers.trees import write_walkers
from tools import bench, bench_gpu, roofline

REPO = Path(__file__).resolve().parents[2]

FAKE_CAFFE = """#!/bin/sh
echo "I1122 16:00:00.000000     1 caffe.cpp:412] Average Forward-Backward: 1250.5 ms." >&2
"""


@pytest.mark.medium
def test_command_writes_a_table_and_json(tmp_path):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    command = [sys.executable, str(REPO / "tools" / "bench.py"), "--quick", "--only", "forward", "--json", "out.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    assert [row["what"] for row in figures["rows"]] == ["deploy net, batch 1", "deploy net, batch 3"]
    for row in figures["rows"]:
        assert row["value"] > 0 and row["ratio"] == row["value"] / row["reference"]
        assert f"| {row['what']} | {row['value']:.4g} s |" in done.stdout
    assert figures["quick"] and figures["machine"]["cores"] == os.cpu_count()


@pytest.mark.medium
def test_passes_and_busy_parts():
    rows = [*bench.passes(quick=True), *bench.busy(quick=True)]
    assert [row.what for row in rows[:2]] == ["lenet:3, 1 thread: pycaffe", "lenet:3, 1 thread: caffe time"]
    assert [row.against for row in rows[2:4]] == ["quiet", "one thread beside them"] and len(rows) == 6
    assert all(row.value > 0 and row.reference > 0 for row in rows)


@pytest.mark.slow
def test_onnx_part():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    rows = list(bench.onnx(quick=True))
    assert [row.what.split(": ")[1] for row in rows[:3]] == [
        "forward",
        "memory of the process",
        "memory above the libraries",
    ]
    assert len(rows) == 6 and all(row.value > 0 and row.reference > 0 for row in rows)


@pytest.mark.medium
def test_data_part(tmp_path, monkeypatch):
    write_walkers(tmp_path / "Walkers", subjects=2)
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    *records, tree, packed = list(bench.data(quick=True))
    assert [row.what.split(",")[0] for row in records] == ["Data layer on an LMDB", "bare records of an LMDB"]
    assert all(row.value > 0 and row.reference > 0 and row.limit == 1.3 for row in records)
    assert [row.what for row in (tree, packed)] == ["data layer, from the tree", "data layer, from the pack"]
    assert tree.reference == packed.reference > 0 and tree.better == "above"


@pytest.mark.medium
def test_eval_part():
    rows = bench.evaluation(quick=True)
    assert [row.what for row in rows] == [
        "feature of a walk of 12 frames",
        "scores of 1239 x 1240",
        "search of 10 in 2000: arithmetic",
    ]
    assert all(row.value > 0 and row.reference > 0 for row in rows)


def test_a_part_that_fails_later_loses_no_earlier_figure(tmp_path, monkeypatch, capsys):
    def fails(quick):
        raise RuntimeError("no")

    row = bench.Row("start", "import caffe", 0.1, 0.2, "s", "import torch")
    monkeypatch.setattr(bench, "PARTS", {"start": lambda quick: [row], "eval": fails})
    with pytest.raises(RuntimeError):
        bench.main(["--json", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["ratio"] == 0.5
    assert "| start | import caffe | 0.1 s | import torch | 0.2 s | 0.5 | below 1 |" in capsys.readouterr().out


@pytest.mark.medium
def test_another_caffe_is_timed_beside_ours(tmp_path, monkeypatch):
    theirs = tmp_path / "build" / "tools" / "caffe"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(FAKE_CAFFE)
    theirs.chmod(0o755)
    monkeypatch.setenv("CAFFE_ROOT", str(tmp_path))
    monkeypatch.setattr(bench, "STEPS", ("seg",))
    (row,) = bench.caffe(quick=True)
    assert row.reference == 1250.5 and row.value > 0 and row.unit == "ms"


def test_what_cannot_be_measured_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAFFE_ROOT", str(tmp_path))
    assert bench.main(["--only", "caffe", "--json", str(tmp_path / "out.json")]) == 1
    assert "caffe: left out, " in capsys.readouterr().err
    assert "build/tools/caffe not found" in json.loads((tmp_path / "out.json").read_text())["left_out"]["caffe"]
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path / "nothing"))
    with pytest.raises(bench.CannotMeasure, match="make them with tools/make_walkers.py"):
        list(bench.data(quick=True))


def test_in_turns_calls_each_once_more_than_it_counts():
    calls = []
    times = bench.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == list("ababab") and len(times["a"]) == len(times["b"]) == 2


# ---- the roofline


@pytest.fixture(scope="module")
def costs():
    return {step: {cost.name: cost for cost in roofline.step_costs(step)} for step in STEPS}


def test_flop_of_convolutions(costs):
    frames = 6 * 128
    conv2 = 2 * frames * 128 * 26 * 26 * 48 * 5 * 5  # forward
    assert costs["joint"]["conv2_0"].flop == 3 * conv2  # and two gradients: of its bottom, of its weights
    assert costs["rec"]["conv2_0"].flop == conv2  # frozen
    conv1 = 2 * frames * 48 * 60 * 60 * 3 * 5 * 5
    assert costs["joint"]["conv1_0"].flop == 2 * conv1  # nobody wants the gradient of the images


def test_bytes(costs):
    frames, fc7 = 6 * 128, 1024 * 1024 + 1024
    top = frames * 1024
    forward, to_bottom, to_weights = 2 * top + fc7, 2 * top + fc7, 2 * top + fc7
    assert costs["joint"]["conv7_0"].bytes == 4 * (forward + to_bottom + to_weights)
    assert costs["rec"]["conv7_0"].bytes == 4 * forward
    assert costs["rec"]["update"].bytes < costs["joint"]["update"].bytes / 10


def test_time_is_that_of_the_scarcer_resource():
    assert roofline.Cost("", 67 * 10**12, 1).seconds("float32") == pytest.approx(1)
    assert roofline.Cost("", 1, 48 * 10**11).seconds("bf16") == pytest.approx(1)


def test_arithmetic_goes_with_the_batch():
    assert bench.arithmetic("sia", 16) == pytest.approx(16 / 128 * sum(c.flop for c in roofline.step_costs("sia")))


# ---- the GPU's part, where its code can run without one


def test_gpu_part_is_left_out_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(bench.CannotMeasure, match="no CUDA device"):
        bench.gpu(quick=True)
    assert bench_gpu.main([]) == 1
    assert "error: torch finds no CUDA device" in capsys.readouterr().err


@pytest.mark.medium
def test_gpu_steps_draw_walkers(tmp_path, monkeypatch):
    write_walkers(tmp_path / "Walkers", subjects=DATASETS["walkers"].train_num)
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    figures = bench_gpu.measure(["sia"], ["float32"], iterations=1, clips=4)
    (row,) = figures["rows"]
    assert row["step"] == "sia" and row["seconds"] > 0 and "accuracy" not in figures


def test_distance_of_trajectories():
    weights = [torch.tensor([3.0, 4.0])]
    got = bench_gpu.distance(([2.0, 5.0], [torch.tensor([3.0, 4.5])]), ([2.0, 4.0], weights))
    assert got == {"loss": 0.25, "weights": pytest.approx(0.1)}


@pytest.mark.medium
def test_gpu_profile_tells_of_waits(tmp_path):
    clips, trace = 2, tmp_path / "trace.json"
    assert bench_gpu.profile("float32", clips, trace, iterations=1) == {}  # nothing to wait for on a CPU
    assert json.loads(trace.read_text())["traceEvents"]


# ---- the start


@pytest.mark.medium
def test_memory_is_that_of_the_process_itself():
    code = "from tools.bench_train import peak_memory; print(peak_memory())"
    big = bytearray(400 * 2**20)
    told = int(bench.run([sys.executable, "-c", code]))
    assert len(big) and 5 < told < 200


def test_roofline_prints_the_layers_of_a_step_or_every_step(capsys):
    roofline.main(["--layers", "seg"])
    assert capsys.readouterr().out.startswith("im_cube")
    roofline.main(["--json"])
    assert [row["step"] for row in json.loads(capsys.readouterr().out)] == list(STEPS)
