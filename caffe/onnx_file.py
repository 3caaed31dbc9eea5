"""A net as an ONNX file: `caffe.to_onnx("deploy.prototxt", "net.caffemodel", "net.onnx")`.

torch.export traces the net's module (`caffe.to_torch`), torch.onnx writes it, and onnxruntime's numbers are compared
with the Caffe net's before the file gets its name.
"""

import contextlib
import glob
import importlib
import logging
import os
import tempfile
import warnings
from typing import Any

import numpy as np
import torch

from caffe import glog as log
from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.onnx_check import BATCH, REGIONS, WHOLE, Comparison, chooses, scaled_net, sizes_of
from caffe.read import read_net_file
from caffe.torch_net import TorchNet

PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def to_onnx(model, weights, path, outputs=None) -> float:
    """Write the net of the prototxt `model`, in phase TEST and with `weights`, to the ONNX file `path`.

    `outputs` names the blobs that it gives (default: the net's outputs). It takes batches of any size; then a Slice
    along the batch that cuts into equal parts does so for all sizes. Regions of interest, an input of ROIPooling or
    PSROIPooling, may be any number. Where the net has no other way, as one with a Proposal, the file takes inputs of
    the prototxt's sizes alone, and the log says so.

    Returns the largest difference between onnxruntime and the net on random input, as a part of an output's largest
    value. One above 1e-5, where onnxruntime is further from float64 than the net by more than rounding explains, is a
    CaffeError, as is a layer that ONNX cannot say; then nothing is written. Needs the packages onnx, onnxscript and
    onnxruntime."""
    for name in PACKAGES:
        _needed(name)
    param = read_net_file(str(model))
    module = TorchNet(scaled_net(param, weights, 1), outputs)
    for layer, bottoms, _, _ in module._steps:
        if layer.no_onnx:
            raise CaffeError(
                f"{model}: layer '{layer.name}' ({layer.type}) cannot be written as ONNX: {layer.no_onnx};"
                f" with the outputs {','.join(map(module.unsplit, bottoms))} the net is written up to there"
            )
    if outputs is None:  # an input that no layer reads is an output in Caffe
        made = {name for _, _, tops, _ in module._steps for name in tops}
        module.outputs = outputs = [name for name in module.outputs if name in made]
    if both := set(module.outputs).intersection(module.inputs):
        raise CaffeError(
            f"{model}: blob '{both.pop()}' is an input and an output, which have two names in ONNX; "
            "give the layer that works in place a top of its own"
        )
    with atomic_path(path) as temporary:
        try:
            return _written(any_batch(param), weights, temporary, outputs, True)
        except CaffeError as e:
            reason = e
        try:
            worst = _written(param, weights, temporary, outputs, False)
        except CaffeError as e:
            raise CaffeError(f"{model}: {e}; nothing was written") from reason
        log.warning(log.here(), f"{path} takes inputs of the prototxt's sizes alone: {reason}")
    return worst


def _written(param, weights, path, outputs, any_size):
    """Write the net of `param` for batches of `any_size` or of its own; the largest difference."""
    net = scaled_net(param, weights, 2 if any_size else 1)  # torch.export takes a size of 1 for a constant
    module = TorchNet(net, outputs)
    told = list(module.outputs)
    choosing = {
        layer.name: ({name: module.unsplit(name) for name in bottoms}, tops)
        for layer, bottoms, tops, _ in module._steps
        if chooses(layer)
    }
    seen = [name for bottoms, tops in choosing.values() for name in (*bottoms.values(), *tops)]
    module.outputs = list(dict.fromkeys([*told, *(name for name in seen if name not in module.inputs)]))
    inputs = tuple(torch.zeros(net.blobs[name].data.shape) for name in module.inputs)
    _export(module.eval(), inputs, path, _free(module.inputs, inputs, param) if any_size else None)
    _rename(path, module)
    try:
        session = _needed("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's own, which derive from nothing nearer
        raise CaffeError(f"onnxruntime cannot load the file: {' '.join(str(e).split())}") from e
    beside = Comparison(session, choosing, param, weights)
    with np.errstate(all="ignore"):  # random input may mean boxes beyond float32
        worst = max(beside.worst(times) for times in ((1, 3) if any_size else (1,)))
    if choosing:
        _cut_outputs(path, told)
    return worst


def _free(names, inputs, param):
    """torch.export's word for which axes of the inputs may have any size."""
    sizes = sizes_of(names, param)
    if any(layer.type == "Proposal" for layer in param.layer):
        raise CaffeError("a Proposal is for one image")
    if len({len(x) for name, x in zip(names, inputs) if sizes[name] == BATCH}) > 1:
        raise CaffeError(f"inputs {', '.join(names)} have no batch size in common")
    counts: dict = {WHOLE: None, **{word: torch.export.Dim(word) for word in (BATCH, REGIONS)}}
    return (tuple({0: counts[sizes[name]]} for name in names),)


def any_batch(param):
    """A copy of the NetParameter with Slices along axis 0 that cut into equal parts saying so, instead of where."""
    changed = type(param)()
    changed.CopyFrom(param)
    for layer in changed.layer:
        points = list(layer.slice_param.slice_point)
        if layer.type != "Slice" or layer.slice_param.axis != 0 or not points:
            continue
        if points != [points[0] * (i + 1) for i in range(len(points))]:
            raise CaffeError(
                f"layer '{layer.name}' cuts the batch at {points}; only equal parts can be exported "
                "for batches of any size"
            )
        del layer.slice_param.slice_point[:]
    return changed


def _needed(name):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise CaffeError(f"ONNX needs the package {e.name}: pip install {' '.join(PACKAGES)}") from e


@contextlib.contextmanager
def _no_folder_left():
    """torch makes a folder for compiled code in TMPDIR as soon as its exporter is loaded, and leaves it there empty."""
    before = _compiled()
    yield
    for folder in _compiled() - before:
        with contextlib.suppress(OSError):  # it is in use by now
            os.rmdir(folder)


def _compiled():
    return set(glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), "torchinductor_*")))


def _export(module, inputs, path, free):
    """Write the module, which takes `inputs`, as ONNX; `free`: see torch.export's dynamic_shapes."""
    for name in ("torch.onnx", "onnx_ir", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(name).setLevel(logging.ERROR)  # no lines about packages that are not needed
    with _no_folder_left(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of old functions
        try:
            torch.backends.cudnn.allow_tf32 = False  # read by this name, which torch refuses once newer ones were set
            torch.onnx.export(
                module,
                inputs,
                path,
                input_names=[f"input.{i}" for i in range(len(module.inputs))],  # no name in a graph has a dot
                output_names=[f"output.{i}" for i in range(len(module.outputs))],
                dynamic_shapes=free,
                external_data=False,
                dynamo=True,
                verbose=False,
                custom_translation_table=_translations(),
            )
        except torch.onnx.OnnxExporterError as e:
            cause: BaseException | None = e
            while cause and not isinstance(cause, CaffeError):
                cause = cause.__cause__ or cause.__context__
            reason = next((line for line in reversed(str(e).splitlines()) if "Error" in line), type(e).__name__)
            raise CaffeError(str(cause or f"torch cannot export it as ONNX: {reason.strip()}")) from e


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


def _rename(path, module):
    """Give inputs and outputs in the ONNX file their names; another value that has one of these gets a dot."""
    onnx = _needed("onnx")
    model = onnx.load(path)
    wanted = {f"input.{i}": name for i, name in enumerate(module.inputs)}
    wanted |= {f"output.{i}": name for i, name in enumerate(module.outputs)}
    named = {name: f"{name}." for name in wanted.values()} | wanted
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = named.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]
    onnx.save(model, path)


def _cut_outputs(path, told):
    """Leave the ONNX file with the outputs `told` alone."""
    onnx = _needed("onnx")
    model = onnx.load(path)
    kept = [put for put in model.graph.output if put.name in told]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)
