#!/usr/bin/env python
"""What each step of training brings: the evaluations after steps rec, joint and sia side by side.

    python eval/steps.py results/walkers-tr60    # of that folder, and of after-rec/ and after-joint/ in it

Prints a table and draws steps.png in the folder. The evaluations are what eval-<dataset>.py wrote there (metrics.json).
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import json
from pathlib import Path

from eval import plots
from eval.ending import exit_status
from layers.bundled import regular

STEPS = {"rec": "after-rec", "joint": "after-joint", "sia": "."}  # step -> folder of its evaluation
COVARIATES = ("NM", "BG", "CL")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="results of the final weights")
    return exit_status(show, parser.parse_args(argv).folder, stopped="the same command begins anew")


def show(folder):
    results = {step: read(folder / place / "metrics.json") for step, place in STEPS.items()}
    print("\n".join(lines(results)))
    plots.write_png(folder / "steps.png", plots.steps(bars(results)))


def read(path):
    """The result in a metrics.json. ValueError: there is none, or none by covariates."""
    try:
        result = json.loads(regular.read_text(path))
        result["covariates"]["NM"]["without_identical"]["rank1_95"]
    except OSError as e:
        raise ValueError(f"{path}: {e.strerror}; evaluate the weights of that step with --out {path.parent}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path}: not an evaluation with NM probes; remove it and evaluate again") from e
    return result


def lines(results):
    """The table for the terminal: a line a step, percent."""
    yield "rank-1 (%)".ljust(13) + "with identical view".rjust(24) + "without identical view".rjust(40)
    names = [name.rjust(8) for name in COVARIATES]
    yield " " * 13 + "".join([*names, " " * 4, names[0], "95%".rjust(12), *names[1:]]) + "IoU".rjust(8)
    for step, result in results.items():
        yield f"after {step:7}" + "".join(cells(result))


def cells(result):
    of = result["covariates"]
    for name in COVARIATES:
        yield share(of, name, "with_identical")
    yield " " * 4
    for name in COVARIATES:
        yield share(of, name, "without_identical")
        if name == "NM":
            low, high = (100 * x for x in of[name]["without_identical"]["rank1_95"])
            yield f"{low:.1f}..{high:.1f}".rjust(12)
    yield f"{result['segmentation']['iou']:8.3f}" if "segmentation" in result else "-".rjust(8)


def share(of, name, average):
    return f"{100 * of[name][average]['rank1']:8.1f}" if name in of else "-".rjust(8)


def bars(results):
    """{covariate: [(step, rank-1, low, high)]} without the identical view, in percent."""
    return {
        name: [
            (step, *(100 * x for x in (part["rank1"], *part["rank1_95"])))
            for step, result in results.items()
            for part in [result["covariates"][name]["without_identical"]]
        ]
        for name in COVARIATES
        if all(name in result["covariates"] for result in results.values())
    }


if __name__ == "__main__":
    sys.exit(program.run(main))
