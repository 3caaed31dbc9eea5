#!/usr/bin/env python
"""Writes a trained net as ONNX, and its weights as a PyTorch state dict or as safetensors.

    tools/export.py --weights gaitnet-sia_iter_30000.caffemodel --onnx gaitnet.onnx --torch gaitnet.pt

`caffe.to_onnx` writes the ONNX file and tells what it can be. `models/gaitnet_torch.py` loads the state dict.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import importlib
import io
import tempfile

import torch

import caffe
from caffe.files import atomic_path, write
from caffe.state_dict import state_dict
from caffe.user_layer import load_layers
from eval.deploy import PROTOTXT
from eval.weights import read_weights
from layers.frames import DataError
from tools.quantize import quantize, samples


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
            write(args.torch, _torch_bytes(state))
            print(f"{args.torch}: {len(state)} tensors")
        if args.safetensors:
            state = state_dict(net)
            save = _need("safetensors.torch", "--safetensors").save
            content = save(state, metadata={"format": "pt", "source": os.path.basename(args.weights)})
            write(args.safetensors, content)
            print(f"{args.safetensors}: {len(state)} tensors")
        outputs = args.outputs.split(",") if args.outputs else None
        if args.onnx:
            difference = caffe.to_onnx(args.model, args.weights, args.onnx, outputs)
            print(f"{args.onnx}: checked in onnxruntime, largest difference {difference:.1e} of the largest value")
        if args.int8:
            with atomic_path(args.int8) as temporary, tempfile.TemporaryDirectory() as folder:
                _need("onnxruntime.quantization", "--int8")
                given = samples(args.calibrate, net.inputs)
                exact = args.onnx or f"{folder}/float.onnx"
                if not args.onnx:
                    caffe.to_onnx(args.model, args.weights, exact, outputs)
                quantize(exact, temporary, given)
            count = len(next(iter(given.values())))
            print(f"{args.int8}: 8-bit integers, ranges from {count} samples; not as exact, see docs/PERFORMANCE.md")
    except (caffe.CaffeError, DataError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def _torch_bytes(state):
    """What torch.save writes of it; where a disk is full torch itself says something else."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def _need(name, option):
    """The optional module `name`."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        package = name.partition(".")[0]
        raise caffe.CaffeError(f"{option} needs the package {e.name}: pip install {package}") from e


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
