#!/usr/bin/env python3
"""What the arithmetic and the memory traffic of a training step allow, counted from the nets: FLOP, bytes, seconds.

    python tools/roofline.py                  # the four steps at the published batch on one H200
    python tools/roofline.py --layers joint   # layer by layer

Counted are the products with weights and the traffic of each layer, as `caffe.costs` does, and the update. A layer
takes at least the longer of both; a step takes the sum over its layers. Nothing is measured here.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

import argparse
import json
from dataclasses import dataclass

from caffe import costs
from caffe.layer import TRAIN
from caffe.net import Net
from models.gaitnet import STEPS, gaitnet, solver
from models.summary import fed

H200_FLOPS = {"float32": 67e12, "tf32": 495e12, "bf16": 990e12}  # NVIDIA's data sheet, dense
H200_BYTES = 4.8e12  # a second
UPDATE = 5  # passes over the parameters: read weight, gradient, history; write weight, history


@dataclass
class Cost:
    """FLOP and bytes of one layer in one training iteration."""

    name: str
    flop: int
    bytes: int

    def seconds(self, precision):
        """Least time on the H200; only products with weights run at reduced precision, blobs stay float32."""
        return max(self.flop / H200_FLOPS[precision], self.bytes / H200_BYTES)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="example: roofline.py --layers joint")
    parser.add_argument("--layers", choices=STEPS, metavar="STEP", help="show every layer of one step")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    args = parser.parse_args(argv)
    if args.layers:
        for cost in step_costs(args.layers):
            print(
                f"{cost.name:16} {cost.flop / 1e9:10.2f} GFLOP {cost.bytes / 1e6:10.1f} MB "
                f"{1e6 * cost.seconds('tf32'):9.1f} us (tf32)"
            )
        return
    rows = [summary(step) for step in STEPS]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    names = [name for name in rows[0] if name != "step"]
    print("| step | " + " | ".join(name.replace("_", " ") for name in names) + " |")
    print("|---|" + "---|" * len(names))
    for row in rows:
        print(f"| {row['step']} | " + " | ".join(f"{row[name]:,}" for name in names) + " |")


def summary(step, dataset="casiab"):
    """The figures of one step: an iteration at the published batch, and all its iterations on one H200."""
    layers, iterations = step_costs(step, dataset), solver(dataset, step).max_iter
    work = sum(c.flop for c in layers)
    row = {
        "step": step,
        "GFLOP": round(work / 1e9),
        "MB": round(sum(c.bytes for c in layers) / 1e6),
        "iterations": iterations,
        "PFLOP_in_all": round(work * iterations / 1e15, 1),
    }
    for precision in H200_FLOPS:
        least = sum(c.seconds(precision) for c in layers)
        row[f"{precision}_ms"] = round(1e3 * least, 2)
        row[f"{precision}_min"] = round(least * iterations / 60, 1)
    return row


def step_costs(step, dataset="casiab"):
    """The Cost of every layer, forward and backward, and of the update."""
    return net_costs(gaitnet(dataset, step))


def net_costs(param):
    """The same of the NetParameter of any net that GaitNet's data layers feed."""
    param = fed(param)
    param.state.phase = TRAIN
    net = Net.from_proto(param)
    learned = sum(b.count for b, lr in zip(net.learnable_params, net.params_lr) if lr)
    layers = [layer_cost(node) for node in net.nodes if node.type not in costs.VIEWS]
    return [*layers, Cost("update", 0, UPDATE * costs.FLOAT * learned)]


def layer_cost(node):
    """Forward and backward."""
    passes = costs.forward(node), costs.backward(node)
    return Cost(node.name, sum(p.flop for p in passes), sum(p.bytes for p in passes))


if __name__ == "__main__":
    sys.exit(program.run(main))
