#!/usr/bin/env python
"""Writes the prototxts that models/gaitnet.py defines: experiments/ with its solvers, eval/deploy_gaitnet.prototxt.

    python tools/make_prototxt.py            write them all
    python tools/make_prototxt.py --check    write nothing; exit status 1 when a file differs

They are committed, so that any Caffe can use them and an edit by hand is all that another split or path needs.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caffe.text import message_to_text
from layers.datasets import DATASETS
from models.gaitnet import PUBLISHED, RECIPES, STEPS, deploy, gaitnet, solver

LEARNS = {
    "seg": "the segmentation branch",
    "rec": "the recognition branch; the segmentation branch is frozen (lr_mult: 0)",
    "joint": "both branches",
    "sia": "both branches, on pairs of clips",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that differ")
    args = parser.parse_args()

    wanted = texts()
    differing = [
        path for path, text in wanted.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text
    ]
    if args.check:
        if differing:
            names = ", ".join(differing)
            sys.exit(f"error: not as models/gaitnet.py defines them: {names}; run python tools/make_prototxt.py")
        return
    for path in differing:
        write(ROOT / path, wanted[path])
        print(f"wrote {path}")
    print(f"{len(differing)} of {len(wanted)} files were out of date")


def texts():
    """{path below the repository: its text} of all generated files."""
    files = {"eval/deploy_gaitnet.prototxt": prototxt(deploy(), deploy_head())}
    for dataset in RECIPES:
        for step in STEPS:
            folder = f"experiments/{dataset}"
            files[f"{folder}/gaitnet-{step}.prototxt"] = prototxt(gaitnet(dataset, step), net_head(dataset, step))
            files[f"{folder}/solver-{step}.prototxt"] = prototxt(solver(dataset, step), solver_head(dataset, step))
    return files


def prototxt(message, head):
    """`message` as text below the comment `head`."""
    text = message_to_text(message).replace(r"\'", "'")
    return "".join(f"# {line}".rstrip() + "\n" for line in head) + text


def net_head(dataset, step):
    return [
        f"GaitNet on {DATASETS[dataset].title}, step {step}: learns {LEARNS[step]}.",
        "Written by tools/make_prototxt.py from models/gaitnet.py.",
        "Edit im_path and gt_path where your data lies elsewhere;",
        "for another split train_num, and num_output of fc_id.",
    ]


def solver_head(dataset, step):
    recipe = RECIPES[dataset]
    before = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else None
    start = f"gaitnet-{before}_iter_{recipe.steps[before].solver['max_iter']}.caffemodel" if before else None
    took = "The authors report about 24 hours on one Titan X." if recipe is PUBLISHED else recipe.steps[step].expect
    return [
        f"GaitNet on {DATASETS[dataset].title}, step {step}: learns {LEARNS[step]}.",
        f"Starts from {start or 'the fillers'}. {took}".rstrip(),
        f"    caffe train --solver=solver-{step}.prototxt" + (f" --weights={start}" if start else ""),
        "Written by tools/make_prototxt.py from models/gaitnet.py.",
    ]


def deploy_head():
    return [
        "GaitNet in evaluation: six frames of a clip in, the gait feature fc_fea out.",
        "Written by tools/make_prototxt.py from models/gaitnet.py.",
    ]


def write(path, text):
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


if __name__ == "__main__":
    main()
