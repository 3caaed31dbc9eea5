#!/usr/bin/env python
"""Writes the prototxts that models/gaitnet.py defines: experiments/ with its solvers, eval/deploy_gaitnet.prototxt.

    python tools/make_prototxt.py            write those that are committed
    python tools/make_prototxt.py --check    write nothing; exit status 1 when a file differs
    python tools/make_prototxt.py casiab --train-num 24 --batch 16 --iter-size 8 --out experiments/casiab-tr24

The last one makes an experiment of its own: another split, smaller batches. sh train_net.sh experiments/casiab-tr24
trains and evaluates it. --partition takes a split by ids, as OpenGait's files have it; --silhouettes makes one on masks
alone, which trains the recognition branch in step rec. A file that was edited by hand is never touched, unless --force
says so.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import hashlib
import re
import shlex

from caffe.text import message_to_text
from layers.bundled import whole
from layers.datasets import DATASETS, NUM_FRAMES
from layers.frames import DataError
from layers.split import read_excluded, read_partition
from models.gaitnet import PUBLISHED, RECIPES, Variant, deploy, gaitnet, recipe, solver

LEARNS = {
    "seg": "the segmentation branch",
    "rec": "the recognition branch; the segmentation branch is frozen (lr_mult: 0)",
    "joint": "both branches",
    "sia": "both branches, on pairs of clips",
}
WRITTEN = "Written by tools/make_prototxt.py from models/gaitnet.py"
OWN = ("--train-num", "--partition", "--excluded", "--batch", "--silhouettes")  # options of an experiment of its own
TRAIN_NET = """#!/bin/sh
# cd into this folder, then: sh train_net.sh [seg|rec|joint|sia ...]
cd -- "$(dirname -- "$0")" && . ../train_steps.sh
"""


def main(argv=None):
    args = parse(argv)
    wanted = experiment_texts(args) if args.dataset else texts()
    now = {path: (ROOT / path).read_text() if (ROOT / path).exists() else None for path in wanted}
    differing = [path for path, text in wanted.items() if now[path] != text]
    if args.check:
        if differing:
            names = ", ".join(differing)
            sys.exit(f"error: not as models/gaitnet.py defines them: {names}; run python tools/make_prototxt.py")
        return
    edited = [path for path in differing if now[path] is not None and is_edited(now[path])]
    if edited and not args.force and args.dataset:
        sys.exit(
            f"error: {', '.join(edited)}: there already, and edited by hand; nothing is written; "
            "say --force to write over them, or another --out"
        )
    for path in differing:
        if path in edited and not args.force:
            print(f"kept {path}: edited by hand; --force writes over it")
        else:
            write(ROOT / path, wanted[path])
            print(f"wrote {path}")
    if args.dataset:
        print(summary(args))
    else:
        print(f"{len(differing)} of {len(wanted)} files were out of date")


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="tools/make_prototxt.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that differ")
    parser.add_argument("--force", action="store_true", help="write over files that were edited by hand, too")
    own = parser.add_argument_group("an experiment of its own")
    own.add_argument("dataset", nargs="?", choices=sorted(DATASETS), help="the data set that it is on")
    own.add_argument("--out", metavar="DIR", help="its folder, in experiments/")
    own.add_argument("--train-num", type=positive, metavar="N", help="subjects that train (default: as published)")
    own.add_argument("--partition", metavar="FILE", help="who trains and who is tested: JSON, TRAIN_SET and TEST_SET")
    own.add_argument("--excluded", metavar="FILE", help="walks that take no part, one a line, such as 079/cl-02/090")
    own.add_argument(
        "--silhouettes",
        action="store_true",
        help="masks alone, no frames: true masks in place of predicted ones, step rec alone",
    )
    own.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="clips in a batch, which step sia makes N/2 pairs of (default: as published)",
    )
    own.add_argument(
        "--iter-size",
        type=positive,
        default=1,
        metavar="N",
        help="batches whose gradients make one update (default %(default)s)",
    )
    args = parser.parse_args(argv)
    if not args.dataset:
        if args.out or args.iter_size != 1 or any(getattr(args, name.strip("-").replace("-", "_")) for name in OWN):
            parser.error("these options want a data set first: " + ", ".join(sorted(DATASETS)))
        return args
    if not args.out:
        parser.error("argument --out: where is it to be? For instance --out experiments/" + f"{args.dataset}-mine")
    args.out = folder_of(parser, args.out)
    if args.batch and args.batch % 2:
        parser.error(f"argument --batch: {args.batch}: wanted an even number, of which step sia makes pairs")
    try:
        take_files(args)
    except DataError as e:
        parser.error(str(e))
    most = DATASETS[args.dataset].num_subjects - 1
    if args.train_num and args.train_num > most:
        parser.error(
            f"argument --train-num: {args.train_num}: {args.dataset} has {most + 1} subjects, and one at "
            f"least is to be tested; wanted 1 to {most}"
        )
    return args


def take_files(args):
    """Read the partition and the excluded walks; their paths become relative to the experiment's folder."""
    if args.partition:
        training = read_partition(args.partition)[0]
        if args.train_num not in (None, len(training)):
            raise DataError(f"{args.partition}: {len(training)} ids train; leave out --train-num {args.train_num}")
        args.train_num = len(training)
    if args.excluded:
        read_excluded(args.excluded)
    for name in ("partition", "excluded"):
        if given := getattr(args, name):
            setattr(args, name, os.path.relpath(given, ROOT / args.out))


def variant_of(args):
    return Variant(
        args.train_num, args.batch, args.iter_size, args.silhouettes, args.partition or "", args.excluded or ""
    )


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a number of at least 1")
    return number


def folder_of(parser, given):
    """experiments/NAME: the paths in its files begin there. Named from the current folder, or from the repository."""
    for start in (Path.cwd(), ROOT):
        path = Path(os.path.abspath(start / given))
        if path.parent == ROOT / "experiments" and re.fullmatch(r"[\w.+-]+", path.name):
            break
    else:
        parser.error(f"argument --out: {given}: wanted a folder in experiments/, such as experiments/casiab-tr24")
    if path.name in RECIPES:
        parser.error(f"argument --out: {given}: is kept for the published settings; choose another name")
    return f"experiments/{path.name}"


def texts():
    """{path below the repository: its text} of all committed files."""
    files = {"eval/deploy_gaitnet.prototxt": prototxt(deploy(), deploy_head())}
    for dataset in RECIPES:
        files |= step_texts(f"experiments/{dataset}", dataset, Variant())
    return files


def experiment_texts(args):
    """{path: text} of an experiment of its own."""
    variant = variant_of(args)
    return step_texts(args.out, args.dataset, variant, command_of(args)) | {f"{args.out}/train_net.sh": TRAIN_NET}


def step_texts(folder, dataset, variant, command=None):
    files = {}
    for step in variant.steps:
        made = [f"by: {command}"] if command else []
        net, how = gaitnet(dataset, step, variant), solver(dataset, step, variant)
        files[f"{folder}/gaitnet-{step}.prototxt"] = prototxt(net, net_head(dataset, step, variant) + made)
        told = [*update_told(dataset, step, variant)] if command else []
        files[f"{folder}/solver-{step}.prototxt"] = prototxt(
            how, solver_head(dataset, step, how, variant) + told + made
        )
    return files


def prototxt(message, head):
    """`message` as text below the comment `head`, which ends with a checksum of the whole."""
    text = message_to_text(message).replace(r"\'", "'")
    text = "".join(f"# {line}".rstrip() + "\n" for line in head) + text
    return signed(text)


def signed(text):
    """With a checksum of the rest in the line that tells who wrote it."""
    return text.replace(f"# {WRITTEN}.\n", f"# {WRITTEN}. Checksum {checksum(text)}\n", 1)


def checksum(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_edited(text):
    """Is it other than what this tool, in whatever version, once wrote there?"""
    if text == TRAIN_NET:
        return False
    found = re.search(rf"^# {re.escape(WRITTEN)}\. Checksum (\w+)\n", text, re.MULTILINE)
    return not found or checksum(text.replace(found[0], f"# {WRITTEN}.\n", 1)) != found[1]


def what_learns(step, variant):
    return "the recognition branch, from silhouettes alone" if variant.silhouettes else LEARNS[step]


def net_head(dataset, step, variant):
    return [
        f"GaitNet on {DATASETS[dataset].title}, step {step}: learns {what_learns(step, variant)}.",
        f"{WRITTEN}.",
        "Edit im_path and gt_path where your data lies elsewhere;",
        "for another split train_num, and num_output of fc_id.",
    ]


def solver_head(dataset, step, how, variant):
    used, steps = recipe(dataset), variant.steps
    before = steps[steps.index(step) - 1] if step != steps[0] else None
    start = f"gaitnet-{before}_iter_{used.steps[before].solver['max_iter']}.caffemodel" if before else None
    took = "The authors report about 24 hours on one Titan X." if used is PUBLISHED else used.steps[step].expect
    return [
        f"GaitNet on {DATASETS[dataset].title}, step {step}: learns {what_learns(step, variant)}.",
        f"Starts from {start or 'the fillers'}. {took}".rstrip(),
        f"    caffe train --solver=solver-{step}.prototxt" + (f" --weights={start}" if start else ""),
        f"{WRITTEN}.",
    ]


def update_told(dataset, step, variant):
    """Lines on what an update of an experiment sees, and how that differs from the recipe."""
    usual, now = recipe(dataset).steps[step], variant.step(recipe(dataset).steps[step], step)
    pairs = 2 if step == "sia" else 1
    batch, clips, before = pairs * now.batch, pairs * now.batch * variant.iter_size, pairs * usual.batch
    yield f"An update sees {batch} x {variant.iter_size} = {clips} clips, {NUM_FRAMES * clips} frames."
    if clips != before:
        yield f"The recipe's base_lr is for {before} clips: think of base_lr and max_iter."
    if batch != before and step != "seg":
        yield f"BatchNorm takes its statistics from {batch} clips at a time, not from {before}: iter_size does not"
        yield "change that, so the result is not that of one large batch."


def command_of(args):
    words = ["tools/make_prototxt.py", args.dataset]
    train_num = None if args.partition else args.train_num
    for name, value in (("--train-num", train_num), ("--batch", args.batch)):
        words += [name, str(value)] if value else []
    words += ["--silhouettes"] if args.silhouettes else []
    for name in ("partition", "excluded"):  # from the repository's folder
        path = getattr(args, name)
        words += [f"--{name}", os.path.normpath(os.path.join(args.out, path))] if path else []
    words += ["--iter-size", str(args.iter_size)] if args.iter_size != 1 else []
    return shlex.join([*words, "--out", args.out])


def summary(args):
    dataset, variant = DATASETS[args.dataset], variant_of(args)
    trained = args.train_num or dataset.train_num
    tested = dataset.num_subjects - trained
    if args.partition:
        tested = len(read_partition(ROOT / args.out / args.partition)[1])
    lines = [f"{args.out}: {dataset.title}, {trained} subjects train, {tested} are tested"]
    notes: dict[str, None] = {}
    for step in variant.steps:
        first, *more = update_told(args.dataset, step, variant)
        lines.append(f"  {step}: {first}")
        notes |= dict.fromkeys(more)
    return "\n".join([*lines, *notes, f"train and evaluate it: sh train_net.sh {args.out}"])


def deploy_head():
    return [
        "GaitNet in evaluation: six frames of a clip in, the gait feature fc_fea out.",
        f"{WRITTEN}.",
    ]


def write(path, text):
    whole.make_folder(path.parent)
    whole.write(path, text)


if __name__ == "__main__":
    sys.exit(program.run(main))
