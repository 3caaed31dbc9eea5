#!/usr/bin/env python3
"""GaitNet's published training steps on this machine's GPU, data included: seconds, precision, waits of the host.

    python tools/bench_gpu.py                               # four steps in tf32, 2,000 iterations each
    python tools/bench_gpu.py --precisions float32 tf32 bf16 --iterations 200
    python tools/bench_gpu.py --trace trace.json            # and a profile, for chrome://tracing

Clips come from the walkers where they are made and packed, through the data layer that training uses, else ready-made
from memory. With --device cpu and small numbers the same code runs without a GPU; that measures nothing of interest.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

import argparse
import json
import math
import time

WARM_UP = 20  # iterations, among them those before a CUDA graph is captured
COMPARED = 100  # iterations of the joint step whose losses are compared between precisions
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def main(argv=None) -> int:
    from caffe.precision import PRECISIONS
    from models.gaitnet import STEPS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="(default: all)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["tf32"], help="(default: tf32)")
    parser.add_argument("--iterations", type=int, default=2000, help="timed iterations of each step (default: 2000)")
    parser.add_argument("--clips", type=int, default=128, help="clips a batch; step sia: both halves (default: 128)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: cuda)")
    parser.add_argument("--trace", metavar="FILE", help="write a profile of 10 joint iterations")
    args = parser.parse_args(argv)
    if not set_device(args.device):
        print("error: torch finds no CUDA device; run this on a machine with a GPU", file=sys.stderr)
        return 1
    figures = measure(args.steps, args.precisions, args.iterations, args.clips)
    if args.trace:
        figures["waits"] = profile(args.precisions[0], args.clips, args.trace)
    print(json.dumps(figures, indent=1))
    return 0


def set_device(name):
    """Compute there; False where it is not to be had."""
    import torch

    from caffe import device

    if name == "cuda":
        if not torch.cuda.is_available():
            return False
        device.set_mode_gpu()
    return True


def measure(steps, precisions, iterations, clips):
    """Seconds an iteration for each precision and step; what each precision costs in accuracy, against float32."""
    rows = [{"precision": p, "step": s, **timed(s, p, iterations, clips)} for p in precisions for s in steps]
    figures = {"clips": clips, "iterations": iterations, "rows": rows}
    others = [p for p in precisions if p != "float32"]
    if others:
        reference = trajectory("float32", clips)
        figures["accuracy"] = {p: distance(trajectory(p, clips), reference) for p in others}
    return figures


def timed(step, precision, iterations, clips):
    solver = make_solver(step, precision, clips)
    solver.step(WARM_UP if iterations > WARM_UP else 1)
    synchronize()
    before = allocated()
    begin = time.perf_counter()
    solver.step(iterations)
    synchronize()
    return {"seconds": (time.perf_counter() - begin) / iterations, "grown_bytes": allocated() - before}


def trajectory(precision, clips):
    """Losses of the joint step, and the weights that it ends with; the same start and data for every precision."""
    solver = make_solver("joint", precision, clips, ready_made=True)
    losses = []
    for _ in range(COMPARED if clips > 8 else 3):
        solver.step(1)
        losses.append(float(solver.smoothed_loss))
    return losses, [b.tensor().to("cpu", copy=True) for b in solver.net.learnable_params]


def distance(one, reference):
    """Largest relative difference of a loss, and the distance of the weights in units of their norm."""
    losses = max(abs(a - b) / abs(b) for a, b in zip(one[0], reference[0]))
    apart = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(one[1], reference[1])))
    return {"loss": losses, "weights": apart / math.sqrt(sum(float(b.square().sum()) for b in reference[1]))}


def profile(precision, clips, file, iterations=10):
    """Write the trace of some joint iterations; the calls, an iteration, in which the host waited for the GPU."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    solver = make_solver("joint", precision, clips, ready_made=True)
    solver.step(WARM_UP if iterations > 1 else 1)
    synchronize()
    with profiled(activities=[ProfilerActivity.CPU, *cuda_activity()]) as record:
        solver.step(iterations)
    record.export_chrome_trace(str(file))
    counts = {e.key: e.count for e in record.key_averages() if e.key in WAITS}
    return {name: count / iterations for name, count in counts.items() if count >= iterations}  # fewer: the profiler's


def make_solver(step, precision, clips, ready_made=False):
    """The published solver of `step` as `caffe train` runs it, silent and without tests and snapshots."""
    from caffe import device
    from caffe import precision as exactness
    from caffe.solver import Solver
    from layers.datasets import data_root
    from models.gaitnet import solver
    from tools.bench_train import _train_net

    exactness.choose(precision, device.current)
    param = solver("casiab", step)
    for field in ("net", "test_iter", "test_interval", "snapshot", "display"):
        param.ClearField(field)
    param.snapshot_after_train, param.random_seed = False, 1
    net = _train_net(step, clips)
    walkers = data_root() / "Walkers"
    if (walkers / "crop-im").is_dir() and not ready_made:
        walk(net, step, clips, walkers)
    param.train_net_param.CopyFrom(net)
    made = Solver(param)
    made.frugal()
    return made


def walk(net, step, clips, walkers):
    """Let the data layer of `net` draw from the walkers."""
    from layers.datasets import DATASETS

    data = next(layer for layer in net.layer if layer.type == "Python")
    data.python_param.module = "layers"
    data.python_param.layer = {"seg": "GaitNet_Seg", "sia": "GaitNet_Sia"}.get(step, "GaitNet")
    data.python_param.param_str = str(
        {
            "dataset": "walkers",
            "batch_size": clips // 2 if step == "sia" else clips,
            "mode": "TRAIN",
            "seed": 1,
            "train_num": DATASETS["walkers"].train_num,
            "im_path": str(walkers / "crop-im"),
            "gt_path": str(walkers / "crop-seg"),
        }
    )


def synchronize():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def allocated():
    """Bytes of GPU memory in use: what a training run must not let grow."""
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def cuda_activity():
    import torch
    from torch.profiler import ProfilerActivity

    return [ProfilerActivity.CUDA] if torch.cuda.is_available() else []


if __name__ == "__main__":
    sys.exit(program.run(main))
