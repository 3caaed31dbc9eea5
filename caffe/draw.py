"""Drawing a net as a graph: layers are boxes, blobs octagons (pycaffe's `caffe.draw`).

    python -m caffe.draw net.prototxt net.svg

Needs the package pydot, and for all formats but .dot the program `dot` of Graphviz.
"""

import argparse
import os
import sys

from caffe.errors import CaffeError
from caffe.files import write
from caffe.proto import caffe_pb2
from caffe.read import read_net_file

LAYER_STYLE_DEFAULT = {"shape": "box", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "box", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}
COLORS = {"Convolution": "#FF5050", "Deconvolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}

LEARNING = ("Convolution", "Deconvolution", "InnerProduct")


def get_pooling_types_dict():
    """Names of the pooling methods by number: {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}"""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer):
    """What to write at the edge from a layer to its top: the number of outputs or the batch size, '""' for none."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return layer.convolution_param.num_output
    if layer.type == "InnerProduct":
        return layer.inner_product_param.num_output
    return '""'


def get_layer_lr_mult(layer):
    """Learning rate multipliers (weights, biases) of a Convolution, Deconvolution or InnerProduct layer."""
    if layer.type not in LEARNING:
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier")
    if len(layer.param) > 2:
        raise ValueError(
            f"Could not parse the learning rate multipliers of layer {layer.name}: "
            f"{len(layer.param)} params, at most 2 are known"
        )
    multipliers = [param.lr_mult for param in layer.param]
    return tuple(multipliers + [1.0] * (2 - len(multipliers)))


def get_layer_label(layer, rankdir, display_lrm=False):
    """The text of a layer's box: name, type, kernel, stride, pad and, when asked for, learning rate multipliers."""
    separator = " " if rankdir in ("TB", "BT") else r"\n"  # height is scarce in a tall graph, width in a wide one
    words = [layer.name]
    if layer.type == "Pooling":
        p = layer.pooling_param
        words += [f"(Pooling {get_pooling_types_dict()[p.pool]})", *_spatial(p.kernel_size, p.stride, p.pad)]
    else:
        words.append(f"({layer.type})")
    if layer.type in ("Convolution", "Deconvolution"):
        p = layer.convolution_param
        words += _spatial(
            *(values[0] if values else default for values, default in ((p.kernel_size, 1), (p.stride, 1), (p.pad, 0)))
        )
    if display_lrm and layer.type in LEARNING:
        weights, biases = get_layer_lr_mult(layer)
        words.append(f"lrm: {weights:g}/{biases:g}")
    return f'"{separator.join(map(_escaped, words))}"'  # dot needs the quotes where a name holds a colon


def choose_color_by_layertype(layertype):
    """Fill color of a layer's box."""
    return COLORS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def get_pydot_graph(caffe_net, rankdir, label_edges=True, phase=None, display_lrm=False):
    """The graph of a NetParameter as pydot.Dot.

    rankdir      TB, LR, BT or RL: where the graph grows
    phase        caffe_pb2.TRAIN or TEST: layers of the other one are left out
    display_lrm  show learning rate multipliers
    """
    pydot = _pydot()
    graph = pydot.Dot(_quoted(caffe_net.name or "Net"), graph_type="digraph", rankdir=rankdir)
    blobs, edges = {}, []
    for index, layer in enumerate(caffe_net.layer):
        if phase is not None and not _in_phase(layer, phase):
            continue
        in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
        style = (
            dict(NEURON_LAYER_STYLE)
            if in_place
            else dict(LAYER_STYLE_DEFAULT, fillcolor=choose_color_by_layertype(layer.type))
        )
        node = _quoted(f"{layer.name}_{layer.type}_{index}")  # two layers may carry one name
        graph.add_node(pydot.Node(node, label=get_layer_label(layer, rankdir, display_lrm), **style))
        for name in [*layer.bottom, *layer.top]:
            blobs[name] = _quoted(f"{name}_blob")
        weight = 1 if in_place else 9  # in-place layers stand aside, and the others in a straight line
        edges += [(blobs[bottom], node, '""', weight) for bottom in layer.bottom]
        label = get_edge_label(layer) if label_edges else '""'
        edges += [(node, blobs[top], label, weight) for top in layer.top]
    for name, node in blobs.items():
        graph.add_node(pydot.Node(node, label=_quoted(name), **BLOB_STYLE))
    for source, target, label, weight in edges:
        graph.add_edge(pydot.Edge(source, target, label=label, weight=weight))
    return graph


def draw_net(caffe_net, rankdir, ext="png", phase=None, display_lrm=False):
    """The picture of a NetParameter as bytes. `ext`: png, svg, pdf, dot, ... (what Graphviz writes)."""
    return render(get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm), ext)


def render(graph, ext):
    """The picture of a pydot graph as bytes."""
    if ext in ("dot", "raw"):
        return graph.to_string().encode()
    try:
        return graph.create(format=ext)
    except FileNotFoundError as e:
        raise CaffeError(
            f"drawing as {ext} needs the program `dot` of Graphviz, which is not installed; "
            "install Graphviz, or draw to a .dot file"
        ) from e
    except AssertionError as e:  # pydot's way to say that `dot` failed; it has printed why
        raise CaffeError(f"Graphviz could not draw the net as {ext}") from e


def draw_net_to_file(caffe_net, filename, rankdir="LR", phase=None, display_lrm=False):
    """Draw a NetParameter into `filename`; its ending says the format."""
    ext = os.path.splitext(filename)[1][1:] or "png"
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    write(filename, picture)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.draw",
        description="Draw a net. Example: python -m caffe.draw --rankdir TB --phase TRAIN net.prototxt net.svg",
    )
    parser.add_argument("input_net_proto_file", help="prototxt of the net")
    parser.add_argument("output_image_file", help="picture; its ending says the format: .png .svg .pdf .dot")
    parser.add_argument("--rankdir", default="LR", choices=["TB", "LR", "BT", "RL"], help="where the graph grows")
    parser.add_argument("--phase", default="ALL", choices=["TRAIN", "TEST", "ALL"], help="layers to draw")
    parser.add_argument("--display-lrm", "--display_lrm", action="store_true", help="show learning rate multipliers")
    args = parser.parse_args(argv)
    phase = None if args.phase == "ALL" else caffe_pb2.Phase.Value(args.phase)
    try:
        net = read_net_file(args.input_net_proto_file)
        draw_net_to_file(net, args.output_image_file, args.rankdir, phase, args.display_lrm)
    except CaffeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(f"Drew {args.input_net_proto_file} to {args.output_image_file}")
    return 0


def _spatial(kernel, stride, pad):
    return [f"kernel size: {kernel}", f"stride: {stride}", f"pad: {pad}"]


def _in_phase(layer, phase):
    """True when the rules of the layer, as far as they speak of phases, let it into `phase`."""
    included = not layer.include or any(not r.HasField("phase") or r.phase == phase for r in layer.include)
    excluded = any(r.HasField("phase") and r.phase == phase for r in layer.exclude)
    return included and not excluded


def _quoted(text):
    return f'"{_escaped(text)}"'


def _escaped(text):
    return text.replace("\\", "\\\\").replace('"', r"\"")


def _pydot():
    try:
        import pydot
    except ImportError as e:
        raise CaffeError("drawing nets needs the package pydot: pip install pydot") from e
    return pydot


if __name__ == "__main__":
    sys.exit(main())
