"""A table of a net: layers, shapes, parameters, floating point operations.

python -m models.gaitnet --summary joint
"""

import argparse
import sys

from caffe.costs import flop
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.upgrade import upgrade_net
from layers.datasets import DATASETS, SIZE
from layers.params import parse

SHAPES = {"im": (3, SIZE, SIZE), "gt": (1, SIZE, SIZE), "label": (), "sim": ()}  # of one item of a data layer's top


def main(steps, gaitnet, deploy, argv=None) -> int:
    """The command line of models.gaitnet, which gives its names."""
    parser = argparse.ArgumentParser(
        prog="python -m models.gaitnet",
        description="Tell of GaitNet's nets.",
        epilog="Example: python -m models.gaitnet --summary joint",
    )
    parser.add_argument("--summary", required=True, choices=[*steps, "deploy"], help="the net to make a table of")
    parser.add_argument("--dataset", default="casiab", choices=sorted(DATASETS), help="whose (default: casiab)")
    args = parser.parse_args(argv)
    try:
        print(table(deploy() if args.summary == "deploy" else gaitnet(args.dataset, args.summary)))
    except CaffeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def fed(param, phase=caffe_pb2.TRAIN):
    """The NetParameter with Input layers in place of GaitNet's data layers, so that it can be built without data."""
    result = caffe_pb2.NetParameter()
    result.CopyFrom(param)
    upgrade_net(result, param.name)  # `input:` fields become an Input layer
    given = [*result.layer]
    del result.layer[:]
    for layer in given:
        if layer.type != "Python" or layer.bottom or layer.python_param.module != "layers":
            result.layer.add().CopyFrom(layer)
            continue
        if any(rule.HasField("phase") and rule.phase != phase for rule in layer.include):
            continue
        batch = parse(layer.python_param.param_str, layer.name).batch_size
        clips = 2 * batch if layer.python_param.layer == "GaitNet_Sia" else batch
        for top in layer.top:
            source = result.layer.add(name=f"in_{top}", type="Input", top=[top])
            shape = SHAPES[top.rstrip("0123456789")]
            source.input_param.shape.add(dim=(batch if top == "sim" else clips, *shape))
    return result


def table(param, phase=caffe_pb2.TRAIN) -> str:
    """One line a layer of the NetParameter in `phase`: name, type, shapes of its tops, parameters, FLOP of a forward
    pass over the batch. A multiplication and an addition are two; layers that compute little count as 0."""
    param = fed(param, phase)
    param.state.phase = phase
    net = Net.from_proto(param)
    rows = [("layer", "type", "top shapes", "parameters", "FLOP")]
    counted, parameters, total = set(), 0, 0
    for node in net.nodes:
        own = [number for number in node.param_ids if number not in counted]
        counted.update(own)
        count, work = sum(net.learnable_params[number].count for number in own), flop(node)
        if node.type == "Split":
            continue
        parameters, total = parameters + count, total + work
        tops = sorted({blob.shape for blob in node.tops}, key=len)
        shapes = ", ".join(" x ".join(map(str, shape)) or "1" for shape in tops)
        if len(node.tops) > len(tops):
            shapes += f" ({len(node.tops)} times)"
        rows.append((node.name, node.type, shapes, f"{count:,}" if count else "", _short(work)))
    rows.append(("total", "", "", f"{parameters:,}", _short(total)))
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    lines = [
        "  ".join(c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths))) for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _short(number):
    """1234567 -> 1.23 M"""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number) if number else ""
