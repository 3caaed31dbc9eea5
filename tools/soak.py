#!/usr/bin/env python
"""Soak: train and test GaitNet on walkers for long; do memory, open files and threads stay flat, does resuming change
anything?

    python tools/soak.py DIR --iterations 10000

Two equal trainings run side by side. DIR/whole is never stopped, and what its process holds is sampled. DIR/pieces is
stopped nine times, in turn by Ctrl-C (which saves) and by SIGKILL (back to the snapshot before), and each time goes on
from its newest snapshot. At the end, whatever the ten logs say of an iteration must be what the one log says of it, and
the last snapshots must be equal, byte for byte.

Flat means: over the last half of the run, the least-squares trend of the process's own memory, of its open files and
of its threads stays within LIMITS. Memory is RssAnon; pages of the mapped pack are shown beside it, since the system
takes those back at will. DIR gets soak.csv, soak.png and soak.json; the exit status is 1 when something is not so.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import csv
import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.text import message_to_text
from layers.datasets import DATASETS, data_root
from models import gaitnet
from tools.plot_log import read as read_log

LIMITS = {"memory": 10, "files": 1, "threads": 1}  # MB, files, threads: an hour
COLUMNS = ("seconds", "iteration", "memory", "mapped", "files", "threads")
CLIPS = 2  # a batch; small, so that an hour holds thousands of iterations
LOOK_EVERY = 0.2  # seconds
NEWEST = 2  # snapshots kept of each run


def main(argv=None) -> int:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which ends the two trainings as well
    try:
        for run in ("whole", "pieces"):
            write_training(args.folder / run, args.iterations)
        told = soak(args.folder, args.iterations, args.pieces, args.sample_every)
    except (CaffeError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(json.dumps(told, indent=1))
    return 0 if told["flat"] and told["equal"] else 1


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="new folder for logs, snapshots and results")
    parser.add_argument("--iterations", type=int, required=True, help="of training, with a test every hundredth part")
    parser.add_argument("--pieces", type=int, default=10, help="of the run that is stopped (default %(default)s)")
    parser.add_argument("--sample-every", type=float, default=10, metavar="SECONDS", help="default %(default)s")
    args = parser.parse_args(argv)
    if args.pieces < 2 or args.iterations < 100 * args.pieces:
        parser.error("wanted two pieces or more, of a hundred iterations or more")
    if args.folder.exists():
        parser.error(f"{args.folder}: exists already; name a new folder")
    return args


def write_training(folder, iterations):
    """net.prototxt and solver.prototxt in `folder`: both branches of GaitNet from the fillers, with dropout."""
    recipe = gaitnet.RECIPES["walkers"]
    step = replace(recipe.steps["joint"], batch=CLIPS, test_batch=CLIPS)
    dropout = {key: value for key, value in recipe.net.items() if not key.endswith("dropout")}
    gaitnet.RECIPES["walkers"] = replace(recipe, steps={**recipe.steps, "joint": step}, net=dropout)
    net, solver = gaitnet.gaitnet("walkers", "joint"), gaitnet.solver("walkers", "joint")
    gaitnet.RECIPES["walkers"] = recipe
    dataset = DATASETS["walkers"]
    for layer in net.layer:
        if layer.type == "Python":
            param = layer.python_param
            param.param_str = param.param_str.replace(f"../../data/{dataset.folder}", str(data_root() / dataset.folder))
    solver.net, solver.snapshot_prefix = "net.prototxt", "run"
    solver.max_iter, solver.display = iterations, 1
    solver.snapshot, solver.test_interval = iterations // 50, iterations // 100
    solver.solver_mode = solver.CPU
    folder.mkdir(parents=True)
    for name, message in (("net", net), ("solver", solver)):
        (folder / f"{name}.prototxt").write_text(message_to_text(message))


def soak(folder, iterations, pieces, sample_every):
    """Train in `folder`/whole and `folder`/pieces, which hold solver.prototxt; what came out, for soak.json."""
    whole, broken = Run(folder / "whole"), Run(folder / "pieces")
    stops = [iterations * k // pieces for k in range(1, pieces)]
    begin, due, samples = time.monotonic(), 0, []
    with whole, broken, open(folder / "soak.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        while whole.running() or broken.running():
            if time.monotonic() - begin >= due and whole.iteration() is not None and whole.running():
                due += sample_every
                if found := held(whole.job.pid):
                    samples.append((round(time.monotonic() - begin, 1), whole.iteration(), *found))
                    table.writerow(samples[-1])
                    file.flush()
            if stops and (broken.iteration() or 0) >= stops[0]:
                broken.stop(signal.SIGINT if len(stops) % 2 else signal.SIGKILL)
                stops.pop(0)
                broken.start()
            for run in (whole, broken):
                run.prune()
            time.sleep(LOOK_EVERY)
    for run in (whole, broken):
        if run.job.returncode:
            raise CaffeError(f"{run.log}: caffe train ended with exit status {run.job.returncode}")
    draw(samples, folder / "soak.png")
    told = {
        "iterations": iterations,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "pieces": broken.pieces,
        "trend_an_hour": trends(samples),
        "limits_an_hour": LIMITS,
        "last_half": {name: spread(samples, name) for name in COLUMNS[2:]},
        **compare(whole, broken, iterations),
    }
    told["flat"] = all(told["trend_an_hour"][name] <= limit for name, limit in LIMITS.items())
    with atomic_path(folder / "soak.json") as temporary:
        Path(temporary).write_text(json.dumps(told, indent=1) + "\n")
    return told


class Run:
    """`caffe train` in a folder, in one piece or several, each with a log of its own."""

    def __init__(self, folder):
        self.folder, self.pieces = folder, 0
        self.job: Any = None  # the subprocess.Popen of the newest piece

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.job.kill()  # nothing trains on when this tool is interrupted

    def start(self):
        """From the newest snapshot, where there is one."""
        self.pieces += 1
        self.log = self.folder / f"{self.pieces}.log"
        command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt"]
        command += [f"--snapshot={self.snapshots()[-1].name}"] if self.snapshots() else []
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}
        with open(self.log, "w") as log:
            self.job = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=log)
        self._read, self._iteration = 0, None

    def running(self):
        return self.job.poll() is None

    def stop(self, number):
        self.job.send_signal(number)
        self.job.wait()

    def iteration(self):
        """The last one that the log of this piece names; None before the first."""
        with open(self.log, "rb") as log:
            log.seek(self._read)
            found = re.findall(rb"\] Iteration (\d+).* loss = ", text := log.read())
            self._read += len(text.rpartition(b"\n")[0])
        if found:
            self._iteration = int(found[-1])
        return self._iteration

    def snapshots(self):
        """Solver states, the newest last."""
        return sorted(self.folder.glob("*.solverstate"), key=lambda path: int(path.stem.rpartition("_")[2]))

    def prune(self):
        for state in self.snapshots()[:-NEWEST]:
            state.unlink()
            state.with_suffix(".caffemodel").unlink()


def held(pid):
    """(own memory in MB, mapped files' memory in MB, open files, threads) of a process; None where it is ending."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    if "RssAnon" not in status:
        return None
    own, mapped = (round(int(status[key].split()[0]) / 1024, 2) for key in ("RssAnon", "RssFile"))
    return own, mapped, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


def column(samples, name):
    """Times in hours and values of the last half of the run."""
    half = [sample for sample in samples if sample[0] >= samples[-1][0] / 2]
    return np.array([s[0] / 3600 for s in half]), np.array([s[COLUMNS.index(name)] for s in half], float)


def trends(samples):
    """{name: least-squares slope over the last half, an hour}"""
    columns = {name: column(samples, name) for name in LIMITS}
    return {name: round(float(np.polyfit(hours, values, 1)[0]), 3) for name, (hours, values) in columns.items()}


def spread(samples, name):
    _, values = column(samples, name)
    return [values.min(), values.max()]


def compare(whole, broken, iterations):
    """Is all that the pieces' logs say what the one log says, nothing missing, and the end the same, byte for byte?"""
    wanted = flat(read_log(str(whole.log)))
    differing: list[tuple] = []
    said: dict = {}
    for piece in range(1, broken.pieces + 1):
        told = flat(read_log(str(broken.folder / f"{piece}.log")))
        differing += [(piece, *key, value, wanted.get(key)) for key, value in told.items() if wanted.get(key) != value]
        said |= told
    ends = [f"run_iter_{iterations}.{kind}" for kind in ("caffemodel", "solverstate")]
    same = [(whole.folder / name).read_bytes() == (broken.folder / name).read_bytes() for name in ends]
    return {
        "values_logged": len(wanted),
        "values_missing_in_pieces": len(wanted.keys() - said.keys()),
        "values_differing": len(differing),
        "first_differing": differing[:1],
        "last_snapshots_equal": dict(zip(ends, same)),
        "equal": not differing and wanted.keys() == said.keys() and all(same),
    }


def flat(curves):
    return {(*curve, iteration): value for curve, points in curves.items() for iteration, value in points.items()}


def draw(samples, path):
    seconds = np.array([sample[0] for sample in samples]) / 60
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for axis, names, title in (
        (axes[0], ("memory", "mapped"), "MB: own memory, pages of mapped files"),
        (axes[1], ("files",), "open files"),
        (axes[2], ("threads",), "threads"),
    ):
        for name in names:
            axis.plot(seconds, [sample[COLUMNS.index(name)] for sample in samples], label=name, lw=1.2)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("minutes")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(program.run(main))
