#!/usr/bin/env python
"""Writes a trained net as ONNX, and its weights as a PyTorch state dict or as safetensors.

    tools/export.py --weights gaitnet-sia_iter_30000.caffemodel --onnx gaitnet.onnx --torch gaitnet.pt

The ONNX file takes a batch of any size: the deploy net is written for one clip, its Slice points included, so a Slice
along the batch that cuts into equal parts is exported as "into equal parts". Regions of interest, an input of
ROIPooling or PSROIPooling, may be any number, too. What onnxruntime computes from the file is compared with the Caffe
net, on random input, before the file gets its name. `models/gaitnet_torch.py` loads the state
dict.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from layers.bundled import program

program.guard(__name__)

import argparse
import importlib
import logging
import os
import tempfile
import warnings

import numpy as np
import torch

import caffe
from caffe.files import atomic_path
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import read_net_file
from caffe.state_dict import state_dict
from caffe.user_layer import load_layers
from eval.deploy import PROTOTXT
from eval.weights import read_weights
from layers.frames import DataError
from tools.quantize import quantize, samples

LARGEST_DIFFERENCE = 1e-5  # of the largest value of an output: float32 in another order of summation


def main(argv=None) -> int:
    args = _arguments(argv)
    try:
        if args.layers:
            load_layers(args.layers.split(","))
        net = caffe.Net(args.model, caffe.TEST, weights=args.weights)
        if missing := sorted(net.params.keys() - read_weights(args.weights).blobs.keys()):
            raise caffe.CaffeError(f"{args.weights}: no weights for {', '.join(missing)} of {args.model}")
        if args.torch:
            state = state_dict(net)
            with atomic_path(args.torch) as temporary:
                torch.save(state, temporary)
            print(f"{args.torch}: {len(state)} tensors")
        if args.safetensors:
            state = state_dict(net)
            with atomic_path(args.safetensors) as temporary:
                save = _need("safetensors.torch", option="--safetensors").save_file
                save(state, temporary, metadata={"format": "pt", "source": os.path.basename(args.weights)})
            print(f"{args.safetensors}: {len(state)} tensors")
        outputs = args.outputs.split(",") if args.outputs else None
        if args.onnx:
            with atomic_path(args.onnx) as temporary:
                difference = export_onnx(args.model, args.weights, temporary, outputs)
            print(f"{args.onnx}: checked in onnxruntime, largest difference {difference:.1e} of the largest value")
        if args.int8:
            with atomic_path(args.int8) as temporary, tempfile.TemporaryDirectory() as folder:
                _need("onnxruntime.quantization", option="--int8")
                given = samples(args.calibrate, net.inputs)
                exact = args.onnx or f"{folder}/float.onnx"
                if not args.onnx:
                    export_onnx(args.model, args.weights, exact, outputs)
                quantize(exact, temporary, given)
            count = len(next(iter(given.values())))
            print(f"{args.int8}: 8-bit integers, ranges from {count} samples; not as exact, see docs/PERFORMANCE.md")
    except (caffe.CaffeError, DataError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def export_onnx(model, weights, path, outputs=None):
    """Write the net in phase TEST as ONNX, with batches of any size; the largest relative difference of any output
    between onnxruntime and the Caffe net, over batches of the net's own size and of three times that."""
    onnxruntime = _need("onnxruntime", "onnx", "onnxscript")
    param = any_batch(read_net_file(model))
    net = _net(param, weights, 2)  # torch.export takes a size of 1 for a constant
    module = caffe.to_torch(net, outputs).eval()
    for layer, bottoms, _, _ in module._steps:
        if not layer.exportable:
            raise caffe.CaffeError(f"{model}: layer '{layer.name}' ({layer.type}) cannot be written as ONNX; --outputs "
                                   f"{','.join(bottoms)} writes the net up to there")  # fmt: skip
    inputs = tuple(torch.zeros(net.blobs[name].data.shape) for name in module.inputs)
    regions = regions_of(param)
    if len({len(x) for name, x in zip(module.inputs, inputs) if name not in regions}) > 1:
        raise caffe.CaffeError(f"{model}: inputs {', '.join(module.inputs)} must all have one batch size")
    batch, count = torch.export.Dim("batch"), torch.export.Dim("regions")
    shapes = tuple({0: count if name in regions else batch} for name in module.inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # no lines about packages that are not needed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of old functions
        try:
            torch.backends.cudnn.allow_tf32 = False  # read by this name, which torch refuses once newer ones were set
            torch.onnx.export(
                module, inputs, path, input_names=module.inputs, output_names=module.outputs, dynamic_shapes=(shapes,),
                external_data=False, dynamo=True, verbose=False,
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as e:
            reason = next((line for line in reversed(str(e).splitlines()) if "Error" in line), type(e).__name__)
            raise caffe.CaffeError(f"{model}: torch cannot export it as ONNX: {reason.strip()}") from e
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return max(_difference(session, _net(param, weights, times), module.outputs, regions) for times in (1, 3))


def regions_of(param):
    """Names of the blobs that hold regions of interest."""
    return {layer.bottom[1] for layer in param.layer if layer.type in ("ROIPooling", "PSROIPooling")}


def any_batch(param):
    """The NetParameter with Slices along axis 0 that cut into equal parts saying so, instead of where."""
    for layer in param.layer:
        points = list(layer.slice_param.slice_point)
        if layer.type != "Slice" or layer.slice_param.axis != 0 or not points:
            continue
        if points != [points[0] * (i + 1) for i in range(len(points))]:
            raise caffe.CaffeError(f"layer '{layer.name}' cuts the batch at {points}; only equal parts can be exported "
                                   "for batches of any size")  # fmt: skip
        del layer.slice_param.slice_point[:]
    return param


def _net(param, weights, times):
    """The net for batches `times` as large as its Input layers say."""
    larger = caffe_pb2.NetParameter()
    larger.CopyFrom(param)
    larger.state.phase = caffe_pb2.TEST
    for layer in larger.layer:
        for shape in layer.input_param.shape if layer.type == "Input" else ():
            shape.dim[0] *= times
    net = Net.from_proto(larger)
    net.copy_from(weights)
    return net


def _difference(session, net, outputs, regions):
    rng = np.random.default_rng(0)
    fed = {name: rng.uniform(-127.5, 127.5, net.blobs[name].shape).astype(np.float32) for name in net.inputs}
    for name in regions.intersection(fed):  # index of an item, corners in its image
        items, *_, side = next(value.shape for value in fed.values() if value.ndim == 4)
        corners = np.sort(rng.uniform(0, side, (len(fed[name]), 2, 2)), 1).reshape(-1, 4)
        fed[name] = np.hstack([rng.integers(0, items, (len(corners), 1)), corners]).astype(np.float32)
    found = session.run(outputs, {put.name: fed[put.name] for put in session.get_inputs()})
    net.forward(**fed)
    worst = 0.0
    for name, got in zip(outputs, found):
        want = net.blobs[name].data
        if got.shape != want.shape:
            raise caffe.CaffeError(f"output {name}: onnxruntime gives shape {got.shape}, the net {want.shape}")
        worst = max(worst, float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)))
    if not worst <= LARGEST_DIFFERENCE:
        raise caffe.CaffeError(f"onnxruntime differs from the net by {worst:.1e} of the largest value, more than "
                               f"{LARGEST_DIFFERENCE:.0e}; nothing was written")  # fmt: skip
    return worst


def _need(*modules, option="--onnx"):
    """The first of these optional modules; all must be there."""
    try:
        return [importlib.import_module(name) for name in modules][0]
    except ImportError as e:
        packages = " ".join(name.partition(".")[0] for name in modules)
        raise caffe.CaffeError(f"{option} needs the package {e.name}: pip install {packages}") from e


def _arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Example: tools/export.py --weights A.caffemodel --onnx A.onnx",
    )
    parser.add_argument("--model", default=str(PROTOTXT), help="prototxt of the net")
    parser.add_argument("--weights", required=True, metavar="FILE", help=".caffemodel or .caffemodel.h5")
    parser.add_argument("--onnx", metavar="FILE", help="write the net as ONNX")
    parser.add_argument("--int8", metavar="FILE", help="write the net as ONNX in 8-bit integers; wants --calibrate")
    parser.add_argument("--calibrate", metavar="DATASET", help="whose clips tell ranges for --int8, or an .npz")
    parser.add_argument("--torch", metavar="FILE", help="write the parameters as a PyTorch state dict")
    parser.add_argument("--layers", metavar="A,B", help="Python modules that declare the net's own layer types")
    parser.add_argument("--safetensors", metavar="FILE", help="write the parameters as safetensors, same names")
    parser.add_argument("--outputs", metavar="A,B", help="blobs that the ONNX file gives (default: the net's outputs)")
    args = parser.parse_args(argv)
    files = [path for path in (args.onnx, args.int8, args.torch, args.safetensors) if path]
    if not files:
        parser.error("nothing to do: give --onnx FILE, --int8 FILE, --torch FILE, --safetensors FILE, or several")
    if args.int8 and not args.calibrate:
        parser.error("--int8 wants --calibrate: a dataset (walkers), or an .npz file of arrays by input")
    for path in files:
        if not os.path.isdir(os.path.dirname(path) or "."):
            parser.error(f"{path}: its folder does not exist")
    return args


if __name__ == "__main__":
    sys.exit(program.run(main))
