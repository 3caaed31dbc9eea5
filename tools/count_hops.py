#!/usr/bin/env python
"""How many files of this repository some work goes through, and how often from one into another: what a reader follows.

    python tools/count_hops.py iteration     # one of step joint: forward, backward, update
    python tools/count_hops.py evaluation    # from PNGs to tables, of 2 people with 4 walks each

A hop is a call of a function by one of another file; imports do not count.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import contextlib
import io
import tempfile
import threading
from collections import Counter

import cv2
import numpy as np


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--pairs", action="store_true", help="list the hops, from file to file, most frequent first")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        files, hops = WORKS[args.work](Path(folder))
    print(f"{args.work}: {len(files)} files, {sum(hops.values()):,} hops")
    for (caller, called), count in hops.most_common() if args.pairs else ():
        print(f"{count:6}  {caller} -> {called}")
    return 0


def iteration(folder):
    from tools import bench_gpu

    solver = bench_gpu.make_solver("joint", "float32", 2, ready_made=True)
    solver.step(2)
    return counted(lambda: solver.step(1))


def evaluation(folder):
    import caffe
    from eval import cli
    from eval.deploy import PROTOTXT

    for walk in (f"{who}/{walk}/{view}" for who in ("001", "002", "003") for walk in WALKS for view in ("000", "090")):
        write_walk(folder / "CASIA-B", walk)
    caffe.Net(str(PROTOTXT), caffe.TEST).save(str(folder / "drawn.caffemodel"))
    words = ["--weights", folder / "drawn.caffemodel", "--train-num", 1, "--cache", folder, "--out", folder / "out"]
    words += ["--im-path", folder / "CASIA-B/crop-im", "--gt-path", folder / "CASIA-B/crop-seg"]
    with contextlib.redirect_stdout(io.StringIO()):
        return counted(lambda: cli.main("casiab", list(map(str, words))))


WORKS = {"iteration": iteration, "evaluation": evaluation}
WALKS = ("nm-01", "nm-05")  # gallery and probe


def write_walk(root, walk, frames=12):
    rng = np.random.default_rng(len(walk))
    for tree, shape in (("crop-im", (64, 64, 3)), ("crop-seg", (64, 64))):
        (root / tree / walk).mkdir(parents=True)
        for k in range(frames):
            cv2.imwrite(str(root / tree / walk / f"{k:02}.png"), 255 * rng.integers(0, 2, shape, np.uint8))


def counted(work):
    """(files, Counter of (caller's file, called file)) of what `work()` calls, in all threads."""
    files: set[str] = set()
    hops: Counter = Counter()
    places: dict[str, str | None] = {}

    def place(frame):
        name = frame.f_code.co_filename
        if name not in places:
            inside = name.startswith(f"{ROOT}{os.sep}") and ".venv" not in name and name != __file__
            places[name] = os.path.relpath(name, ROOT) if inside else None
        return places[name]

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_name != "<module>" and (called := place(frame)):
            files.add(called)
            caller = place(frame.f_back) if frame.f_back else None
            if caller not in (None, called):
                hops[caller, called] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return files, hops


if __name__ == "__main__":
    sys.exit(program.run(main))
