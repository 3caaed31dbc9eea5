"""One result of the study: one arm trained from one seed, and scored. It runs in a process of its own.

<folder>/seed-1/joint/    net.prototxt, solver.prototxt, snapshots, log.txt, and at last result.json
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caffe import cli
from caffe.errors import CaffeError
from caffe.text import message_to_text
from eval import provenance
from eval.tables import write_text
from layers.bundled import program, whole
from layers.frames import DataError
from tools.ablation import nets, people
from tools.ablation.plan import ARMS, REPORTED, VALIDATION, Size
from tools.ablation.scoring import Scorer, energies
from tools.workers import follow_parent

RESULT, LOG, SECONDS, MASKS, PLANES = "result.json", "log.txt", "seconds.json", "masks.npy", "people.npy"
STOPPED = 130  # exit status of one that was told to stop
BEAT = 5  # seconds: the time that a kill can hide


@dataclass(frozen=True)
class Unit:
    """One arm and one seed of the study in `root`."""

    root: Path
    arm: str
    seed: int
    size: Size
    validation: bool = False
    gpu: int | None = None

    @property
    def folder(self):
        return self.root / f"seed-{self.seed}" / self.arm

    def of(self, arm):
        return replace(self, arm=arm)

    @property
    def people_seed(self):
        return VALIDATION if self.validation else REPORTED

    def result(self):
        """What was found, or None."""
        return read(self.folder / RESULT) if (self.folder / RESULT).exists() else None


def read(file):
    """The result in `file`."""
    try:
        return json.loads(file.read_text())
    except ValueError:
        raise ValueError(f"{file}: not a result of the study; remove it, and it will be made anew") from None


def run(unit):
    """Train and score, from where it was left; the process's exit status."""
    follow_parent(people.end_tools)
    whole.make_folder(unit.folder)
    with open(unit.folder / LOG, "a") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    os.chdir(unit.folder)
    try:
        program.listen()
        finish(unit)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except (CaffeError, DataError, ValueError, OSError) as e:
        print(f"error: {e}", flush=True)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def finish(unit):
    clock = Clock(unit.folder / SECONDS)
    with clock("data"):
        data = people.training(unit.root / f"seed-{unit.seed}" / "people", unit.people_seed + unit.seed, unit.size)
        planes = people.planes(unit.root / PLANES, unit.people_seed, unit.size)
    net, spec = nets.ready(unit.arm, unit.size, unit.seed, data)
    with clock("training"):
        weights = train(unit, net, spec)
    with clock("scoring"):
        found, frames, clips = score(unit, weights, Scorer(unit.size, planes, unit.gpu))
    a_frame, a_clip = nets.forward_flop()
    found |= {
        "arm": unit.arm,
        "seed": unit.seed,
        "weights": weights.name,
        "iterations": spec.max_iter,
        "tflop": {
            "training": round(spec.max_iter * nets.iteration_flop(net) / 1e12, 3),
            "scoring": round((frames * a_frame + clips * a_clip) / 1e12, 3),
        },
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
        "device": provenance.device(unit.gpu),
    }
    write_text(unit.folder / RESULT, json.dumps(found))
    tidy(unit, weights)


def train(unit, net, spec):
    """The weights of the last iteration, by `caffe train` from the newest snapshot."""
    weights = unit.folder / f"{unit.arm}_iter_{spec.max_iter}.caffemodel"
    if weights.exists():
        return weights
    spec.solver_mode = spec.CPU if unit.gpu is None else spec.GPU
    write_text("net.prototxt", message_to_text(net))
    write_text("solver.prototxt", message_to_text(spec))
    command = ["train", "--solver=solver.prototxt"]
    if unit.gpu is not None:
        command.append(f"--gpu={unit.gpu}")
    states = {int(re.findall(r"\d+", path.name)[-1]): path.name for path in unit.folder.glob("*_iter_*.solverstate")}
    if states:
        command.append(f"--snapshot={states[max(states)]}")
    elif before := ARMS[unit.arm].after:
        start = unit.of(before)
        command.append(f"--weights={start.folder / start.result()['weights']}")
    handler = signal.getsignal(signal.SIGINT)
    status = cli.main(command)
    signal.signal(signal.SIGINT, handler)
    if status:
        raise ValueError(f"caffe train ended with exit status {status}")
    if not weights.exists():
        raise KeyboardInterrupt
    return weights


def score(unit, weights, scorer):
    """(figures, frames that were segmented, clips that were described)"""
    arm = ARMS[unit.arm]
    usual = len(scorer.chosen("usual"))
    walks = len(scorer.walks) if arm.elsewhere or shared_by(unit.arm) else usual
    masks, frames = masks_of(unit, weights, scorer, walks)
    found: dict = {"iou": None if arm.masks == "true" else scorer.iou(masks, "usual")}
    if unit.arm == "seg":  # which describes nobody: energy images do
        described = {"gei": masks[:usual], "gei-true": scorer.true(usual)}
        found["figures"] = {name: scorer.figures(energies(given)) for name, given in described.items()}
        return found, frames, 0
    vectors = scorer.features(weights, masks)
    found["figures"] = {unit.arm: scorer.figures(vectors)}
    if arm.elsewhere:
        found["elsewhere"] = scorer.elsewhere(vectors, masks)
    return found, frames, walks * scorer.windows


def masks_of(unit, weights, scorer, walks):
    """(masks of the first so many walks, frames that were segmented for them): each frame once for all arms."""
    owner = ARMS[unit.arm].masks or unit.arm
    if owner == "true":
        return scorer.true(walks), 0
    file = unit.of(owner).folder / MASKS
    if file.exists():
        return np.load(file, mmap_mode="r")[:walks], 0
    if owner == unit.arm and not shared_by(owner):
        return scorer.predicted(weights, walks), walks * unit.size.frames
    masks = scorer.predicted(weights, len(scorer.walks))
    with whole.atomic_path(file) as temporary, open(temporary, "wb") as draft:
        np.save(draft, masks)
    return masks[:walks], len(masks) * unit.size.frames


def shared_by(arm):
    """The arms that are scored on the masks of `arm`, because they leave its segmentation as it is."""
    return [name for name, other in ARMS.items() if other.masks == arm]


def tidy(unit, weights):
    """What is done needs its last weights alone; masks go when all have used them."""
    for path in unit.folder.glob("*_iter_*"):
        if path.name != weights.name:
            path.unlink()
    for owner in ARMS:
        if shared_by(owner) and all(unit.of(arm).result() for arm in shared_by(owner)):
            (unit.of(owner).folder / MASKS).unlink(missing_ok=True)


class Clock:
    """Adds up the seconds of what is done, over restarts too: with clock("training"): ..."""

    def __init__(self, file):
        self.file = file
        with contextlib.suppress(FileNotFoundError):
            self.seconds = json.loads(file.read_text())
            return
        self.seconds = {}

    @contextlib.contextmanager
    def __call__(self, name):
        before, began, done = self.seconds.get(name, 0), time.monotonic(), threading.Event()

        def look():
            self.seconds[name] = before + time.monotonic() - began
            write_text(self.file, json.dumps(self.seconds))

        def beat():
            while not done.wait(BEAT):
                look()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            look()
