#!/usr/bin/env python
"""Draws a net, with the shape of every blob and the number of parameters of every layer.

    tools/draw_net.py eval/deploy_gaitnet.prototxt deploy.svg

Needs pydot, and Graphviz for all formats but .dot. `python -m caffe.draw` draws the prototxt alone.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse

from caffe import draw
from caffe.errors import CaffeError
from caffe.files import write
from caffe.net import Net
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.read import read_net_file
from models.summary import fed


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Example: tools/draw_net.py --phase TRAIN experiments/casiab/gaitnet-joint.prototxt joint.svg",
    )
    parser.add_argument("prototxt", help="the net")
    parser.add_argument("picture", help="file to write; its ending says the format: .svg .png .pdf .dot")
    parser.add_argument("--phase", default="TEST", choices=["TRAIN", "TEST"], help="which phase's net")
    parser.add_argument("--rankdir", default="TB", choices=["TB", "LR", "BT", "RL"], help="where the graph grows")
    args = parser.parse_args(argv)
    try:
        graph = annotated(read_net_file(args.prototxt), caffe_pb2.Phase.Value(args.phase), args.rankdir)
        picture = draw.render(graph, Path(args.picture).suffix[1:] or "png")
        write(args.picture, picture)
    except CaffeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(args.picture)
    return 0


def annotated(param, phase, rankdir):
    """caffe.draw's graph of the NetParameter in `phase`, blobs labelled with shapes, layers with parameter counts."""
    param = fed(param, phase)
    param.state.phase = phase
    net = Net.from_proto(param)
    graph = draw.get_pydot_graph(filter_net(param), rankdir)
    shapes = {name: blob.shape for name, blob in net.blobs.items()}
    counts: dict[str, int] = {}
    for layer in net.nodes:
        counts.setdefault(f"{layer.name}_{layer.type}", sum(blob.count for blob in layer.layer.blobs))
    for node in graph.get_nodes():
        name = node.get_name().strip('"')
        label = node.get_label().strip('"')
        shape = shapes.get(name.removesuffix("_blob"))
        count = counts.get(name.rsplit("_", 1)[0], 0)
        if shape is not None and name.endswith("_blob"):
            node.set_label(f'"{label}\\n{" x ".join(map(str, shape)) or "1 number"}"')
        elif count:
            node.set_label(f'"{label}\\n{count:,} parameters"')
    return graph


if __name__ == "__main__":
    sys.exit(program.run(main))
