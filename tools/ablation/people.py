"""Walkers for the study: those who train, as a pack, and those who are scored, as one array."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eval.progress import Progress
from layers import pack
from layers.bundled import whole
from layers.frames import PLANES
from tools import make_walkers
from tools.ablation.plan import DATASET, GALLERY, LOOKS, PROBE
from tools.walkers.trees import TREES, Walk
from tools.workers import in_order, processes

TREE = TREES["walkers"]
TOOLS = Path(__file__).resolve().parents[1]
_at_work: list[subprocess.Popen] = []


@dataclass(frozen=True)
class Seen:
    """One walk that is scored: `looks` is "usual" or one of plan.LOOKS."""

    walk: Walk
    looks: str


def training(folder, seed, size):
    """The pack of the people who train, rendered where it is missing."""
    ready = folder / pack.FOLDER
    trees = [folder / name for name in (DATASET.im_dir, DATASET.gt_dir)]
    if not pack.is_pack(ready):
        some = ["--views", *size.training_views] if size.training_views else []
        tool("make_walkers.py", "--seed", seed, "--subjects", size.train_num, *some, "--out", folder, "--jobs", jobs())
        tool("pack_frames.py", DATASET.name, "--im-path", trees[0], "--gt-path", trees[1], "--jobs", jobs())
    for (
        tree
    ) in trees:  # the pack holds all of it; with half of it, as a kill leaves it here, the pack would count as old
        shutil.rmtree(tree, ignore_errors=True)
    return ready


def tool(name, *arguments):
    command = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as job:
        _at_work.append(job)
        try:
            _, said = job.communicate()
        finally:
            _at_work.remove(job)
    if job.returncode:
        raise ValueError(f"{name}: {(said.strip() or 'no word').splitlines()[-1].removeprefix('error: ')}")


def end_tools():
    """For who ends at once: a tool that went on would hold its folder against the next run."""
    for job in _at_work:
        job.kill()


def scored(size):
    """Every walk that is scored: the usual ones first, then those among other looks."""
    usual = TREE.walks(size.people, [*GALLERY, *PROBE], size.views)
    return [Seen(walk, "usual") for walk in usual] + [
        Seen(walk, name)
        for name, (_, _, conditions) in LOOKS.items()
        for walk in TREE.walks(size.people, conditions, size.looks_views)
    ]


def planes(file, seed, size):
    """uint8 (walks, frames, 4, 64, 64): the walks of `scored`, rendered where the file is missing."""
    if not file.exists():
        walks = scored(size)
        draft = file.with_name(f".{file.name}.partial")
        array = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(walks), size.frames, *PLANES))
        with Progress(len(walks), "walks", "rendering the people who are scored") as progress:
            for i, one in enumerate(in_order(partial(render, seed, size.frames), walks, jobs(), processes)):
                array[i] = one
                progress.update()
        array.flush()
        whole.put(draft, file)
    return np.load(file, mmap_mode="r")


def render(seed, frames, seen):
    """uint8 (frames, 4, 64, 64)"""
    scene, looks, _ = LOOKS.get(seen.looks, ("usual", "drawn", ()))
    done = make_walkers.render_walk(seen.walk, seed, frames, PLANES[-1], False, scene, looks)
    return np.concatenate([done.frames.transpose(0, 3, 1, 2), done.masks[:, None]], axis=1)


def jobs():
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
