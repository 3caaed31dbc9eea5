#!/usr/bin/env python
"""Draws what Caffe logs tell of training: losses, accuracies and learning rate, several runs in one picture.

    tools/plot_log.py experiments/casiab/gaitnet-joint-*.log --output joint.png

Reads the logs of BVLC Caffe and of the one here. A run that was resumed may be given as its logs joined by `+`
(first.log+second.log): one line from them all.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
from itertools import chain

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.tools import parse_log


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Example: tools/plot_log.py a.log b.log --output runs.png"
    )
    parser.add_argument("logs", nargs="+", metavar="LOG", help="log of a run; resumed: FIRST.log+SECOND.log")
    parser.add_argument("--output", default="log.png", help="picture to write, .png, .svg or .pdf (default: log.png)")
    args = parser.parse_args(argv)
    try:
        runs = {}
        for name in args.logs:
            curves = read(name)
            if curves:
                runs[name] = curves
            else:
                print(f"warning: {name}: left out, no line of it tells of an iteration", file=sys.stderr)
        if not runs:
            raise CaffeError("no log tells of an iteration; wanted the log of a Caffe training (its stderr)")
        draw(runs, args.output)
    except CaffeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(args.output)
    return 0


def read(name):
    """{(quantity, "train" or "test"): {iteration: value}} of a log, or of several joined by `+`.

    Quantities are the printed loss (smoothed, "loss (mean)"), "lr", and the outputs of the nets by name."""
    curves: dict = {}
    for told in chain.from_iterable(parse_log.read(path) for path in name.split("+")):
        quantity = "loss (mean)" if told.printed and told.name == "loss" else told.name
        phase, _, test_net = told.phase.partition(" ")
        curve = curves.setdefault((f"{quantity} ({test_net})" if test_net else quantity, phase), {})
        curve[told.iteration] = told.value
    return curves


def draw(runs, path):
    """A panel for each quantity; a color for each run; training solid, testing dashed with dots."""
    quantities = sorted({quantity for curves in runs.values() for quantity, _ in curves}, key=_place)
    columns = min(len(quantities), 3)
    rows = -(-len(quantities) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 3.4 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(quantities) :]:
        axis.set_axis_off()
    for axis, quantity in zip(axes.flat, quantities):
        for color, (name, curves) in enumerate(runs.items()):
            for phase, style in (("train", "-"), ("test", "o--")):
                points = sorted(curves.get((quantity, phase), {}).items())
                if points:
                    axis.plot(
                        *zip(*points),
                        style if len(points) > 1 else "o",
                        color=f"C{color}",
                        label=_label(name, phase),
                        markersize=3,
                        lw=1.2,
                    )
        axis.set_title(quantity)
        axis.set_xlabel("iteration")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    kind = Path(path).suffix[1:] or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise CaffeError(f"{path}: cannot draw .{kind}; name the picture .png, .svg or .pdf")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=120)
    plt.close(figure)


def _place(quantity):
    """The loss first, then the other losses, accuracies, the rest, and the learning rate last."""
    return (
        quantity == "lr",
        not quantity.startswith("loss (mean)"),
        "loss" not in quantity,
        "acc" not in quantity,
        quantity,
    )


def _label(name, phase):
    first, *others = name.split("+")
    return f"{Path(first).stem}{f' (+{len(others)})' if others else ''} {phase}"


if __name__ == "__main__":
    sys.exit(program.run(main))
