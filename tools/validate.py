#!/usr/bin/env python3
"""Score every snapshot of a training on people whom it has not seen, and name the best.

    python tools/validate.py experiments/casiab --gpu 0 --follow      # beside a training that runs
    python tools/validate.py experiments/casiab --subjects 065-074    # of one that trained on 001 to 064
    python tools/validate.py experiments/walkers --data data/Walkers-validation

The accuracy in a training's log is that of people who train. This one takes people who do not: rank-1 by the protocol
of the data set (every window of a walk) and IoU of the masks, of step seg the IoU alone. What was scored is not scored
again; with --follow the tool waits for further snapshots until the last one of the last step.

Who is scored, unless --subjects says it: those who neither trained nor are test people of the published split. So a
training that is to be watched leaves some of its people out: of CASIA-B's 74, train_num 64 leaves 065 to 074. Where
nobody is left (train_num 74), the first ten test people are taken and a warning says so: a snapshot that was chosen on
people must not be reported on them. Walkers have as many others as one likes: make_walkers.py --seed 2 --out DIR
renders them, and --data DIR scores all who are there.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from caffe.read import read_text
from eval import plots, provenance, tables
from eval.deploy import PARTS, open_net, read_net
from eval.ending import exit_status
from eval.extract import all_starts, extract, read_walk
from eval.protocol import identify
from eval.segmentation import THRESHOLD, agreement
from eval.walks import described
from eval.weights import read_weights
from layers import people
from layers.bundled import regular
from layers.datasets import DATASETS, MIN_FRAMES, Dataset
from layers.frames import expand
from layers.params import parse
from layers.sources import open_frames
from models.gaitnet import STEPS
from tools.experiment import snapshots_of
from tools.one_run import only_run

RECORD, PICTURE = "validation.json", "validation.png"
FALLBACK = 10  # test people
QUIET = 5  # seconds after which a file without a .solverstate beside it is whole
FEWEST = 2  # people


def main(argv=None):
    return exit_status(validate_alone, parse_args(argv))


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the training: prototxts and snapshots")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, metavar="S", help="default: all")
    parser.add_argument("--subjects", nargs="+", metavar="ID", help="whom to score: 065 066, or 065-074")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set of other people, or its pack")
    parser.add_argument("--gpu", type=int, metavar="N", help="run the net on this GPU (default: CPU)")
    parser.add_argument("--follow", action="store_true", help="wait for further snapshots")
    parser.add_argument("--every", type=float, default=60, metavar="SECONDS", help="... and look so often (default 60)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (default: results/<RUN>-validation)")
    args = parser.parse_args(argv)
    args.out = args.out or provenance.ROOT / "results" / f"{args.run.resolve().name}-validation"
    return args


def validate_alone(args):
    with only_run(args.out):
        return validate(args)


def validate(args):
    jury = choose(args)
    record = open_record(args.out / RECORD, jury)
    while True:
        found = snapshots(args.run, args.steps)
        if not found and not args.follow:
            raise ValueError(f"{args.run}: no snapshot gaitnet-<step>_iter_<n>.caffemodel of {' '.join(args.steps)}")
        for snapshot in found:
            if add(record, snapshot, jury, args.gpu):
                tables.write_text(args.out / RECORD, json.dumps(record, indent=1))
                plots.write_png(args.out / PICTURE, draw(record["scored"]))
        if not args.follow or ended(args.run, args.steps[-1], record):
            break
        time.sleep(args.every)
    for line in best_lines(record["scored"]):
        print(line)
    print(f"{args.out / RECORD}, {args.out / PICTURE}")
    return 0


@dataclass(frozen=True)
class Jury:
    """The people by whom snapshots are judged, and their walks."""

    dataset: Dataset
    subjects: list
    walks: list
    frames: Any
    has_masks: bool

    def key(self):
        told = [self.dataset.name, self.has_masks, *((walk.path, self.frames.length(walk.path)) for walk in self.walks)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def choose(args):
    """Who is scored, on what."""
    trained_with = training_data(args.run, args.steps)
    dataset = DATASETS[trained_with.dataset]
    if args.data:
        im_path, gt_path = args.data / dataset.im_dir, args.data / dataset.gt_dir
        if not im_path.is_dir():
            im_path = gt_path = args.data
    else:
        im_path, gt_path = Path(trained_with.im_path), Path(trained_with.gt_path)
    if not im_path.is_dir():
        raise ValueError(f"{im_path}: no such folder of frames; say where the people to score are: --data DIR")
    has_masks = gt_path.is_dir()
    frames = open_frames(im_path, gt_path if has_masks else None)
    if args.data and im_path.resolve() == Path(trained_with.im_path).resolve():
        raise ValueError(f"{args.data}: is what the run trains on; leave out --data, or name other people's")
    everybody = dataset.subjects(frames)
    trained, reported = (set(), set()) if args.data else known(args.run, args.steps, dataset, everybody, trained_with)
    subjects = held_out(everybody, trained, reported, args.subjects)
    protocol = dataset.protocol
    walks = [walk for walk in dataset.sequences(frames, subjects) if protocol.group(walk) and protocol.role(walk)]
    walks = [walk for walk in walks if frames.length(walk.path) >= MIN_FRAMES]  # as in the original: more than 10
    roles = {dataset.protocol.role(walk) for walk in walks}
    if len(subjects) < FEWEST or roles != {"gallery", "probe"}:
        raise ValueError(
            f"{im_path}: {len(subjects)} people with {' and '.join(sorted(roles)) or 'no'} walks; "
            f"wanted {FEWEST} or more people, gallery and probe walks"
        )
    print(f"{len(walks)} walks of {len(subjects)} people who did not train: {' '.join(subjects)}", file=sys.stderr)
    return Jury(dataset, subjects, walks, frames, has_masks)


def training_data(run, steps):
    """The parameters of the data layer of the run's first net that is there."""
    for step in steps:
        file = run / f"gaitnet-{step}.prototxt"
        if file.exists():
            for layer in read_net(file).layer:
                if layer.type == "Python":
                    parse(layer.python_param.param_str, layer.name)  # is it right?
                    given = yaml.safe_load(layer.python_param.param_str)
                    for key in ("im_path", "gt_path"):  # which start at the folder of the run; a pack has the first
                        given[key] = os.path.join(run.absolute(), expand(given.get(key) or given["im_path"]))
                    return parse(str(given), layer.name)
    raise ValueError(f"{run}: no gaitnet-<step>.prototxt with a data layer; wanted a folder such as experiments/casiab")


def known(run, steps, dataset, everybody, trained_with):
    """(people who train, test people of the published split), as prototxts and records beside snapshots tell."""
    trained = set(dataset.split(everybody, trained_with.train_num)[0])
    for _, _, weights in snapshots(run, steps):
        told = people.read_or_none(weights)
        trained |= set(told.all.get(dataset.name, ())) if told else set()
    return trained, set(everybody[dataset.train_num :])


def held_out(everybody, trained, reported, wanted):
    """The ids to score."""
    if wanted:
        chosen = [subject for word in wanted for subject in ids_of(word, everybody)]
        if seen := sorted(set(chosen) & trained):
            raise ValueError(
                f"--subjects: {', '.join(seen[:5])} trained; the first who did not: "
                f"{next(iter(sorted(set(everybody) - trained)), 'nobody')}"
            )
    else:
        free = [subject for subject in everybody if subject not in trained]
        chosen = [subject for subject in free if subject not in reported] or free[:FALLBACK]
    if both := sorted(set(chosen) & reported):
        print(
            f"warning: {', '.join(both[:3])}{', ...' if len(both) > 3 else ''} are test people of the published split: "
            "a snapshot chosen on them must not be reported on them; --help says how to leave others out",
            file=sys.stderr,
        )
    return sorted(set(chosen))


def ids_of(word, everybody):
    """065-074 -> the ids from 065 to 074"""
    if word in everybody:
        return [word]
    first, dash, last = word.partition("-")
    found = [subject for subject in everybody if dash and first <= subject <= last]
    if not found:
        raise ValueError(f"--subjects: nobody is {word!r}; ids go from {everybody[0]} to {everybody[-1]}")
    return found


def snapshots(run, steps):
    """[(step, iteration, file)] of all that are whole, in the order of training."""
    return [
        (step, iteration, file)
        for step in sorted(set(steps), key=STEPS.index)
        for iteration, file in sorted(snapshots_of(run, step).items())
        if whole(file)
    ]


def whole(file):
    """Caffe writes the state after the weights; BVLC's writes both bit by bit."""
    state = file.with_name(file.name.replace(".caffemodel", ".solverstate"))
    try:
        return state.exists() or time.time() - file.stat().st_mtime > QUIET
    except FileNotFoundError:  # pruned just now
        return False


def ended(run, step, record):
    """Is the last snapshot of the step scored?"""
    last = read_text(str(run / f"solver-{step}.prototxt"), caffe_pb2.SolverParameter).max_iter
    return any(one["step"] == step and one["iteration"] >= last for one in record["scored"])


def open_record(file, jury):
    """What was scored before by the same people."""
    fresh = {"people": jury.subjects, "walks": jury.key(), "scored": []}
    if not file.exists():
        return fresh
    try:
        found = json.loads(regular.read_text(file))
        theirs = found["people"], found["walks"], found["scored"]
        for one in found["scored"]:
            float(one["iteration"]), one["step"], one["weights_sha256"], one["rank1"], one["iou"]
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{file}: not a record of this tool ({type(e).__name__}); remove it") from e
    if theirs[:2] != (jury.subjects, jury.key()):
        raise ValueError(f"{file}: scores of other people ({' '.join(map(str, theirs[0]))}); remove it, or say --out")
    return found


def add(record, snapshot, jury, gpu):
    """Score a snapshot that the record lacks; was there anything to do?"""
    step, iteration, weights = snapshot
    try:
        digest = read_weights(weights).sha256
        before = [one for one in record["scored"] if (one["step"], one["iteration"]) == (step, iteration)]
        if before and before[0]["weights_sha256"] == digest:
            return False
        found = score(weights, step, jury, gpu)
    except FileNotFoundError:
        return False  # pruned just now
    except Exception as e:
        if not isinstance(e, (ValueError, CaffeError)):
            raise
        told = " ".join(str(e).split()).removeprefix(f"{weights}: ")
        raise ValueError(f"{weights}: does not fit eval/deploy_gaitnet.prototxt: {told}") from e
    record["scored"] = [one for one in record["scored"] if one not in before]
    added = {"step": step, "iteration": iteration, "weights_sha256": digest} | found
    record["scored"].append(added)
    record["scored"].sort(key=lambda one: (STEPS.index(one["step"]), one["iteration"]))
    print(line_of(added), flush=True)
    return True


def score(weights, step, jury, gpu):
    """{"rank1": share right, without identical views where there are several, "rank1_95": [low, high], "iou": ...};
    None where there is no such thing."""
    parts = PARTS[:1] if step == "seg" else PARTS
    net = open_net(weights, gpu, parts)
    paths = [walk.path for walk in jury.walks]
    if step == "seg":
        return {"rank1": None, "rank1_95": None, "iou": mask_iou(net, jury, paths) if jury.has_masks else None}
    found = extract(net, jury.frames, paths, all_starts, weights.stem)
    part = identify(described(found, jury.dataset, jury.walks), jury.dataset.protocol.groups)["identification"]
    mean = part.get("without_identical", part["with_identical"])
    iou = np.average(found.agreement[:, 0], weights=found.frames) if jury.has_masks else None
    return {"rank1": mean["rank1"], "rank1_95": mean["rank1_95"], "iou": None if iou is None else float(iou)}


def mask_iou(net, jury, paths):
    values = []
    for path in paths:
        planes = read_walk(jury.frames, path, jury.frames.length(path))
        values.append(agreement(net.masks(planes) > THRESHOLD, planes[:, 3] > 127)[:, 0])
    return float(np.concatenate(values).mean())


def line_of(one):
    told = []
    if one["rank1"] is not None:
        low, high = (100 * x for x in one["rank1_95"])
        told.append(f"rank-1 {100 * one['rank1']:.2f} ({low:.1f} .. {high:.1f})")
    if one["iou"] is not None:
        told.append(f"IoU {one['iou']:.3f}")
    return f"{one['step']} iteration {one['iteration']}: {', '.join(told)}"


def best_lines(scored):
    for measure, name in (("rank1", "rank-1"), ("iou", "IoU")):
        having = [one for one in scored if one[measure] is not None]
        if having:
            yield f"best by {name}: {line_of(max(having, key=lambda one: one[measure]))}"


def draw(scored):
    """Rank-1 and IoU over the iterations, a line for each step."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, measure, name in zip(figure.subplots(1, 2), ("rank1", "iou"), ("rank-1 (%)", "IoU (%)")):
        for colour, step in enumerate(STEPS):
            some = [one for one in scored if one["step"] == step and one[measure] is not None]
            if some:
                x, y = [one["iteration"] for one in some], [100 * one[measure] for one in some]
                axes.plot(x, y, "o-", color=f"C{colour}", label=step, markersize=3)
                if measure == "rank1":
                    axes.fill_between(
                        x, *(100 * np.array([one["rank1_95"] for one in some])).T, color=f"C{colour}", alpha=0.15
                    )
        axes.set(xlabel="iteration", ylabel=name, title="people who did not train")
        plots.finish(axes)
    return figure


if __name__ == "__main__":
    sys.exit(program.run(main))
