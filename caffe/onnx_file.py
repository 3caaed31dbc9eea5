"""A net as an ONNX file: `caffe.to_onnx("deploy.prototxt", "net.caffemodel", "net.onnx")`.

torch.export traces the net's module (`caffe.to_torch`), torch.onnx writes it, and onnxruntime's numbers are compared
with the Caffe net's before the file gets its name.
"""

import importlib
import logging
import warnings
from typing import Any

import numpy as np
import torch

from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.forks.rows import Rows
from caffe.onnx_check import BATCH, REGIONS, WHOLE, Comparison, scaled_net, sizes_of
from caffe.read import read_net_file
from caffe.torch_net import TorchNet

PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def to_onnx(model, weights, path, outputs=None) -> float:
    """Write the net of the prototxt `model`, in phase TEST and with `weights`, to the ONNX file `path`.

    `outputs` names the blobs that it gives (default: the net's outputs). It takes batches of any size: what the
    prototxt says is for one. A Slice along the batch that cuts into equal parts does so then, too. Regions of interest,
    an input of ROIPooling or PSROIPooling, may be any number. Only a net with a Proposal is for one image of its size.

    Returns the largest difference between onnxruntime and the net on random input, as a part of an output's largest
    value. One above 1e-5, where onnxruntime is further from float64 than the net by more than rounding explains, is a
    CaffeError, as is a layer that ONNX cannot say; then nothing is written. Needs the packages onnx, onnxscript and
    onnxruntime."""
    onnxruntime, onnx, _ = (_needed(name) for name in PACKAGES)
    param = any_batch(read_net_file(str(model)))
    single = any(layer.type == "Proposal" for layer in param.layer)
    net = scaled_net(param, weights, 1 if single else 2)  # torch.export takes a size of 1 for a constant
    module = TorchNet(net, outputs)
    for layer, bottoms, _, _ in module._steps:
        if layer.no_onnx:
            raise CaffeError(f"{model}: layer '{layer.name}' ({layer.type}) cannot be written as ONNX: {layer.no_onnx};"
                             f" with the outputs {','.join(bottoms)} the net is written up to there")  # fmt: skip
    outputs = list(module.outputs)
    rows = {layer.name: (bottoms, tops) for layer, bottoms, tops, _ in module._steps if isinstance(layer, Rows)}
    seen = [name for blobs in rows.values() for names in blobs for name in names if name not in module.inputs]
    module.outputs = list(dict.fromkeys([*outputs, *seen]))
    with atomic_path(path) as temporary:
        _write(module.eval(), net, temporary, model, None if single else sizes_of(module.inputs, param))
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        beside = Comparison(session, rows, param, weights)
        with np.errstate(all="ignore"):  # random input may mean boxes beyond float32
            worst = max(beside.worst(times) for times in ((1,) if single else (1, 3)))
        if rows:
            _cut_outputs(onnx, temporary, outputs)
    return worst


def any_batch(param):
    """The NetParameter with Slices along axis 0 that cut into equal parts saying so, instead of where."""
    for layer in param.layer:
        points = list(layer.slice_param.slice_point)
        if layer.type != "Slice" or layer.slice_param.axis != 0 or not points:
            continue
        if points != [points[0] * (i + 1) for i in range(len(points))]:
            raise CaffeError(f"layer '{layer.name}' cuts the batch at {points}; only equal parts can be exported "
                             "for batches of any size")  # fmt: skip
        del layer.slice_param.slice_point[:]
    return param


def _needed(name):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise CaffeError(f"ONNX needs the package {e.name}: pip install {' '.join(PACKAGES)}") from e


def _write(module, net, path, model, sizes):
    """Write the module as ONNX, inputs of as many rows as `sizes` says (sizes_of); without it as many as now."""
    inputs = tuple(torch.zeros(net.blobs[name].data.shape) for name in module.inputs)
    shapes = None
    if sizes:
        if len({len(x) for name, x in zip(module.inputs, inputs) if sizes[name] == BATCH}) > 1:
            raise CaffeError(f"{model}: inputs {', '.join(module.inputs)} must all have one batch size")
        counts: dict = {WHOLE: None, **{word: torch.export.Dim(word) for word in (BATCH, REGIONS)}}
        shapes = (tuple({0: counts[sizes[name]]} for name in module.inputs),)
    for name in ("torch.onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # no lines about packages that are not needed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of old functions
        try:
            torch.backends.cudnn.allow_tf32 = False  # read by this name, which torch refuses once newer ones were set
            torch.onnx.export(
                module, inputs, path, input_names=module.inputs, output_names=module.outputs, dynamic_shapes=shapes,
                external_data=False, dynamo=True, verbose=False, custom_translation_table=_translations(),
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as e:
            reason = next((line for line in reversed(str(e).splitlines()) if "Error" in line), type(e).__name__)
            raise CaffeError(f"{model}: torch cannot export it as ONNX: {reason.strip()}") from e


def _translations():
    """What the runtime's own operations are in ONNX."""
    op: Any = importlib.import_module("onnxscript").opset18  # its types want what it cannot infer

    def suppress(found, score, overlap, least, most):
        limits = (op.Constant(value_int=most), op.Constant(value_float=overlap), op.Constant(value_float=least))
        lists = op.Unsqueeze(score, op.Constant(value_ints=[1]))  # (B, 1 class, k)
        chosen = op.NonMaxSuppression(found, lists, *limits)  # rows of list, class, place
        places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
        nothing = op.ConstantOfShape(op.Shape(score))
        ones = op.ConstantOfShape(op.Shape(op.Gather(chosen, op.Constant(value_int=0), axis=1)))
        return op.Cast(op.ScatterND(nothing, places, op.Add(ones, op.Constant(value_float=1.0))), to=9)

    return {torch.ops.caffe.suppress.default: suppress}


def _cut_outputs(onnx, path, told):
    """Leave the ONNX file with the outputs `told` alone."""
    model = onnx.load(path)
    kept = [put for put in model.graph.output if put.name in told]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)
