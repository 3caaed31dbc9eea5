#!/usr/bin/env python3
"""Training step of the four GaitNet nets: the bundled runtime against a plain PyTorch loop, in one run.

    python tools/bench_train.py                       # seg rec joint sia at batch 8, 16, 32
    python tools/bench_train.py --steps joint --batches 16 --iterations 10

Each pair is timed in turns (A B A B ...), in processes of their own, so that both meet the same machine; the ratio is
that of the medians. Ours runs silent and, a third process, with a log of every iteration.
Ours is `caffe train`'s own step: Python data layer, forward, backward, update. The plain loop gets its
batches ready-made in memory.
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
import re
import statistics
import subprocess
import time

from caffe.process import LARGE_PAGES


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="example: bench_train.py --steps rec")
    parser.add_argument("--steps", nargs="+", default=["seg", "rec", "joint", "sia"], help="(default: all)")
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 16, 32], help="clips a batch (sia: both halves)")
    parser.add_argument("--iterations", type=int, default=3, help="timed iterations a turn (default: 3)")
    parser.add_argument("--turns", type=int, default=3, help="of both loops; the median counts (default: 3)")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(args.worker[0], args.worker[1], int(args.worker[2]))
        return
    rows = measure(args.steps, args.batches, args.iterations, args.turns)
    print(json.dumps(rows, indent=1))


def measure(steps=("seg", "rec", "joint", "sia"), batches=(8, 16, 32), iterations=3, turns=3):
    """A row for each step and batch: seconds of both (median), their ratio, and peak memory of both in MB."""
    rows = []
    for step in steps:
        for batch in batches:
            times: dict[str, list[float]] = {"ours": [], "logging": [], "plain": []}
            memory = {}
            workers = {kind: start(kind, step, batch) for kind in times}
            for _ in range(turns):
                for kind, worker in workers.items():
                    times[kind] += worker.ask(iterations)
            for kind, worker in workers.items():
                memory[kind] = worker.close()
            ours, logging, plain = (statistics.median(times[k]) for k in ("ours", "logging", "plain"))
            rows.append(
                {
                    "step": step,
                    "batch": batch,
                    "ours_s": round(ours, 4),
                    "logging_s": round(logging, 4),
                    "plain_s": round(plain, 4),
                    "ratio": round(ours / plain, 3),
                    "ours_mb": memory["ours"],
                    "plain_mb": memory["plain"],
                    "memory_ratio": round(memory["ours"] / memory["plain"], 3),
                }
            )
            print(f"# {step} batch {batch}: ours / plain = {rows[-1]['ratio']}", file=sys.stderr)
    return rows


class Worker:
    """A benchmark's process, this script's own by default, which builds something at its start; it runs when told and
    idles otherwise. Both ways go lines: what to do, and the answer in JSON."""

    def __init__(self, words, environment, script=__file__, stderr=None):
        self.process = process = subprocess.Popen(
            [sys.executable, script, "--worker", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            stderr=stderr,
        )
        assert process.stdin and process.stdout  # pipes, as asked for
        self.stdin, self.stdout = process.stdin, process.stdout
        self._answer()  # built and warm

    def ask(self, told):
        self.stdin.write(f"{told}\n")
        self.stdin.flush()
        return self._answer()

    def close(self):
        """What it says at its end."""
        answer = self.ask("end")
        self.process.wait()
        return answer

    def _answer(self):
        line = self.stdout.readline()
        if not line:
            raise SystemExit(f"error: the benchmark's process ended with status {self.process.wait()}")
        return json.loads(line)


def start(kind, step, batch):
    """The Worker of one of the loops."""
    environment = os.environ if kind == "plain" else {**os.environ, **LARGE_PAGES}  # as `caffe` has it
    return Worker([kind, step, str(batch)], environment, stderr=subprocess.DEVNULL if kind == "logging" else None)


def _work(kind, step, batch):
    run = _plain(step, batch) if kind == "plain" else _ours(step, batch, kind == "logging")
    run()
    run()
    print("true", flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            print(peak_memory(), flush=True)
            return
        times = []
        run()  # the others have had the caches meanwhile
        for _ in range(int(line)):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        print(json.dumps(times), flush=True)


def peak_memory():
    """MB of memory that this process has had at most. Linux counts it from the start of the program, where what
    `getrusage` tells begins with the memory of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) // 1024


def _ours(step, batch, logging):
    """The step of `caffe train`, fed by a Python layer that copies ready-made frames; `logging`: it tells of each."""
    from caffe import glog
    from caffe.process import tune_allocator
    from caffe.solver import Solver
    from models.gaitnet import solver

    tune_allocator()
    param = solver("casiab", step)
    param.ClearField("net")
    param.ClearField("test_iter")
    param.ClearField("test_interval")
    param.snapshot, param.random_seed = 0, 1
    param.display = int(logging)
    if logging:
        glog.init_log()
    param.train_net_param.CopyFrom(_train_net(step, batch))
    made = Solver(param)
    made.frugal()
    return lambda: made.step(1)


def _train_net(step, clips):
    """The training net of CASIA-B at another batch size, its data layer replaced by one that needs no data set."""
    from models.gaitnet import gaitnet

    net = gaitnet("casiab", step)
    published = 128
    for layer in list(net.layer):
        if any(rule.phase == 1 for rule in layer.include):
            net.layer.remove(layer)
    for layer in net.layer:
        if layer.type == "Python":
            layer.python_param.module, layer.python_param.layer = "bench_layers", "ReadyMade"
            layer.python_param.param_str = json.dumps({"clips": clips, "step": step})
        points = layer.slice_param.slice_point
        points[:] = [p * clips // published for p in points]
    return net


def _plain(step, batch):
    from tools.bench_plain import PlainGaitNet

    return PlainGaitNet(step, batch).step


if __name__ == "__main__":
    sys.exit(program.run(main))
