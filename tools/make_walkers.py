"""Render walkers: people of random body and gait, walking past eleven cameras, as pictures and masks.

    python tools/make_walkers.py                                      # data/Walkers, what `sh train_net.sh` trains on
    python tools/make_walkers.py --conditions nm-05 bg-01 cl-01 --contact-sheet walkers.png
    python tools/make_walkers.py --tree outdoor --subjects 5 --out /tmp/Outdoor-Gait
    python tools/make_walkers.py --tree casiab --uncropped --subjects 2 --frames 25 --out /tmp/DatasetB

Who walks is told by the shape of the body and by the way of walking, never by colour: clothes, skin, room, light and
noise are drawn anew for every sequence. The pixels of a sequence depend only on seed, subject, condition, view, number
of frames and size, so a part of the dataset is the same alone as in the whole. A sequence appears when it is complete;
killed and started again, the tool goes on with the missing ones.

With --scene other, rooms, clothes and cameras are of a kind that has nothing in common with the usual one. With --looks
own, each subject keeps one room, light and outfit in all walks; with swapped, the gallery's walks do, and in the others
two subjects have changed places: 001 and 002, 003 and 004, ... So one can tell a feature of gait from one of looks.

With --uncropped: 320x240 pictures as the datasets' owners hand them out, which tools/crop.py reads, that is
videos/<id>-<condition>-<view>.avi and silhouettes/<id>/<condition>/<view>/ for casiab and walkers, folders of pictures
for the others, and the person's box [left, top, width, height] in every frame in boxes/*.json.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from eval.ending import exit_status
from eval.progress import Progress
from layers.bundled import regular, whole
from layers.datasets import DATASETS, SIZE, data_root
from tools.one_run import only_run
from tools.walkers.card import card
from tools.walkers.gait import FPS
from tools.walkers.scene import SCENES
from tools.walkers.sequence import render_sequence
from tools.walkers.trees import LOOKS, TREES, UNFINISHED, Store, looks_of
from tools.workers import in_order, processes

MANIFEST = "walkers.json"  # the options that the pixels depend on
VERSION = 3  # of the renderer: raised when the same options give other pixels
MAX_FRAMES = int(3 * FPS)  # after more than three seconds the fastest would walk into the camera
SHEET_ROWS, SHEET_COLUMNS = 12, 12


def main(argv=None):
    return exit_status(make_walkers, parse_args(argv), errors=(FolderError,))


def make_walkers(args):
    tree = TREES[args.tree]
    walks = tree.walks(args.subjects, args.conditions, args.views)
    render = partial(
        render_walk,
        seed=args.seed,
        frames=args.frames,
        size=args.size,
        full=args.uncropped,
        scene=args.scene,
        looks=args.looks,
    )
    store = Store(args.out, tree, args.uncropped)
    with only_run(store.folder):
        claim(store, args)
        make(walks, store, render, args.jobs)
        write_card(store.folder, args, len(walks))
    if args.contact_sheet:
        write_sheet(Path(args.contact_sheet), walks, render)
    print(f"{store.folder}: {len(walks)} sequences of {args.frames} frames, {args.subjects} subjects")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", choices=TREES, default="walkers", help="whose folders to imitate (default: walkers)")
    parser.add_argument(
        "--out", help="folder (default: where data/README.md puts this dataset, plus -uncropped for full frames)"
    )
    parser.add_argument(
        "--subjects",
        type=positive,
        default=DATASETS["walkers"].num_subjects,
        help="001 to this one (default: %(default)s)",
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        metavar="C",
        help="nm-01 bg-02 cl-01 ... (default: what training and test need of each subject; casiab: nm-01 to nm-06; "
        "outdoor, szu: all)",
    )
    parser.add_argument("--views", nargs="+", metavar="V", help="000 018 ... 180 (default: all)")
    parser.add_argument("--frames", type=positive, default=12, help="of each, 25 in 3 seconds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another number, other people (default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--size", type=positive, default=SIZE, help="pixels of a crop's side (default: %(default)s)")
    parser.add_argument("--uncropped", action="store_true", help="full frames in place of crops")
    parser.add_argument("--scene", choices=SCENES, default="usual", help="where they walk (default: %(default)s)")
    parser.add_argument("--looks", choices=LOOKS, default="drawn", help="what they wear (default: %(default)s)")
    parser.add_argument("--contact-sheet", metavar="FILE.png", help="also draw some of the sequences side by side")
    args = parser.parse_args(argv)
    tree = TREES[args.tree]
    for option in ("conditions", "views"):
        wanted, known = getattr(args, option), getattr(tree, option)
        for name in wanted or ():
            if name not in known:
                parser.error(f"argument --{option}: {args.tree} has no {name!r} (known: {' '.join(known)})")
        setattr(args, option, wanted and list(dict.fromkeys(wanted)))
    if args.frames > MAX_FRAMES:
        parser.error(f"argument --frames: {args.frames} is more than {MAX_FRAMES}, the camera would be run over")
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed} is negative; take 0 or more")
    args.out = args.out or data_root() / (DATASETS[args.tree].folder + "-uncropped" * args.uncropped)
    return args


def positive(text):
    if not text.isdecimal() or not 0 < int(text) < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 999")
    return int(text)


class FolderError(Exception):
    pass


def claim(store, args):
    """Mark the folder with the options of its pixels, or see that it was made with the same ones."""
    options = {"version": VERSION} | {
        key: getattr(args, key) for key in ("tree", "seed", "frames", "size", "uncropped", "scene", "looks")
    }
    file = store.folder / MANIFEST
    if file.exists():
        try:
            before = {"scene": "usual", "looks": "drawn"}  # of a record from when there were no others
            found = before | json.loads(regular.read_text(file))
            differing = [f"{k} {found.get(k)} there, {v} wanted" for k, v in options.items() if found.get(k) != v]
        except (ValueError, TypeError) as e:
            raise FolderError(f"{file}: not the record of an earlier run; remove {store.folder} or change --out") from e
        if differing:
            raise FolderError(
                f"{store.folder}: holds other walkers ({'; '.join(differing)}); remove it or choose another --out"
            )
        return
    if any((store.folder / part).exists() for part in (store.frames, store.masks)):
        raise FolderError(
            f"{store.folder}: holds sequences but no {MANIFEST}, so this tool did not make them; "
            "remove the folder or choose another --out"
        )
    whole.make_folder(store.folder)
    whole.write(file, json.dumps(options, indent=1))


def write_card(folder, args, sequences):
    """README.md of the folder, unless there is one."""
    path = folder / "README.md"
    if not path.exists():
        options = {"people": args.subjects, "seed": args.seed, "frames": args.frames, "size": args.size}
        whole.write(path, card(options, sequences))


def make(walks, store, render, jobs):
    """Render the walks that are not there yet."""
    todo = [walk for walk in walks if walk not in store]
    if len(todo) < len(walks):
        print(f"{store.folder}: {len(walks) - len(todo)} of {len(walks)} sequences are there already", file=sys.stderr)
    if not todo:
        return
    work = partial(make_walk, store=store, render=render)
    with Progress(len(todo), "sequences", "rendering") as progress:
        for _ in in_order(work, todo, min(jobs, len(todo)), processes):
            progress.update()
    shutil.rmtree(store.folder / UNFINISHED, ignore_errors=True)


def make_walk(walk, store, render):
    rendered = render(walk)
    store.write(walk, rendered.frames, rendered.masks)


def render_walk(walk, seed, frames, size, full, scene, looks):
    return render_sequence(
        seed, walk.subject, walk.condition, walk.kind, int(walk.view), frames, size, full, scene, looks_of(walk, looks)
    )


def write_sheet(file, walks, render):
    """Some of the walks, spread over all: a row of pictures and a row of masks each."""
    rows = []
    for i in np.unique(np.linspace(0, len(walks) - 1, SHEET_ROWS).round().astype(int)):
        walk = render(walks[i])
        step = max(1, len(walk.frames) // SHEET_COLUMNS)
        masks = np.repeat(walk.masks[..., None], 3, -1)
        rows += [np.hstack(list(pictures[::step][:SHEET_COLUMNS])) for pictures in (walk.frames, masks)]
    whole.write(file, cv2.imencode(".png", np.vstack(rows))[1].tobytes())


if __name__ == "__main__":
    sys.exit(program.run(main))
