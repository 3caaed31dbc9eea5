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
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import read_net_file
from caffe.torch_net import TorchNet

PACKAGES = ("onnxruntime", "onnx", "onnxscript")
LARGEST_DIFFERENCE = 1e-5  # of the largest value of an output: float32 in another order of summation
TRIALS = 3  # inputs for nets with detections, where an overlap within rounding of the threshold falls on either side


def to_onnx(model, weights, path, outputs=None) -> float:
    """Write the net of the prototxt `model`, in phase TEST and with `weights`, to the ONNX file `path`.

    `outputs` names the blobs that it gives (default: the net's outputs). It takes batches of any size: what the
    prototxt says is for one. A Slice along the batch that cuts into equal parts does so then, too. Regions of interest,
    an input of ROIPooling or PSROIPooling, may be any number. Only a net with a Proposal is for one image of its size.

    Returns the largest difference between onnxruntime and the net on random input, as a part of an output's largest
    value; one above 1e-5 is an error, as is a layer that ONNX cannot say: CaffeError, and nothing is written. Needs the
    packages onnx, onnxscript and onnxruntime."""
    onnxruntime, onnx, _ = (_needed(name) for name in PACKAGES)
    param = any_batch(read_net_file(str(model)))
    single = any(layer.type == "Proposal" for layer in param.layer)
    net = _net(param, weights, 1 if single else 2)  # torch.export takes a size of 1 for a constant
    module = TorchNet(net, outputs)
    steps = [(layer, bottoms) for layer, bottoms, _, _ in module._steps]
    for layer, bottoms in steps:
        if layer.no_onnx:
            raise CaffeError(
                f"{model}: layer '{layer.name}' ({layer.type}) cannot be written as ONNX: {layer.no_onnx};"
                f" with the outputs {','.join(bottoms)} the net is written up to there"
            )
    told = list(module.outputs)
    rows = {
        layer.name: [b for b in bottoms if b not in module.inputs]
        for layer, bottoms in steps
        if isinstance(layer, Rows)
    }
    module.outputs += dict.fromkeys(b for bottoms in rows.values() for b in bottoms if b not in told)
    with atomic_path(path) as temporary:
        _write(module.eval(), net, temporary, model, None if single else sizes_of(module.inputs, param))
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        check = _Comparison(session, module.outputs, told, rows, param)
        with np.errstate(all="ignore"):  # random input may mean boxes beyond float32
            worst = max(check(_net(param, weights, times)) for times in ((1,) if single else (1, 3)))
        if rows:
            _cut_outputs(onnx, temporary, told)
    return worst


REGIONS, WHOLE, BATCH = "regions", "whole", "batch"  # what an input's first axis counts


def sizes_of(inputs, param):
    """{name of an input: what its first axis counts}: regions of interest, nothing that may change, or images."""
    whole = {b for layer in param.layer if layer.type in ("DetectionOutput", "Proposal") for b in layer.bottom[2:3]}
    regions = {layer.bottom[1] for layer in param.layer if layer.type in ("ROIPooling", "PSROIPooling")}
    return {name: WHOLE if name in whole else REGIONS if name in regions else BATCH for name in inputs}


def any_batch(param):
    """The NetParameter with Slices along axis 0 that cut into equal parts saying so, instead of where."""
    for layer in param.layer:
        points = list(layer.slice_param.slice_point)
        if layer.type != "Slice" or layer.slice_param.axis != 0 or not points:
            continue
        if points != [points[0] * (i + 1) for i in range(len(points))]:
            raise CaffeError(
                f"layer '{layer.name}' cuts the batch at {points}; only equal parts can be exported "
                "for batches of any size"
            )
        del layer.slice_param.slice_point[:]
    return param


def _needed(name):
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise CaffeError(f"ONNX needs the package {e.name}: pip install {' '.join(PACKAGES)}") from e


def _net(param, weights, times):
    """The net for batches `times` as large as its Input layers say."""
    larger = caffe_pb2.NetParameter()
    larger.CopyFrom(param)
    larger.state.phase = caffe_pb2.TEST
    for layer in larger.layer:
        for shape, name in zip(layer.input_param.shape if layer.type == "Input" else (), layer.top):
            shape.dim[0] *= 1 if sizes_of([name], param)[name] == WHOLE else times
    net = Net.from_proto(larger)
    net.copy_from(str(weights))
    return net


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
                module,
                inputs,
                path,
                input_names=module.inputs,
                output_names=module.outputs,
                dynamic_shapes=shapes,
                external_data=False,
                dynamo=True,
                verbose=False,
                custom_translation_table=_translations(),
            )
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


class _Comparison:
    """onnxruntime beside the net, on random input.

    What `rows` names, layers that find things and their bottoms, goes on in the net from what onnxruntime has made of
    these bottoms: their last digits differ, and detections in order of score would change places."""

    def __init__(self, session, found, told, rows, param):
        self.session, self.found, self.told, self.rows = session, found, told, rows
        self.param = param
        self.image_sizes = {layer.bottom[2] for layer in param.layer if layer.type == "Proposal"}

    def __call__(self, net):
        """The largest difference of any output, as a part of its largest value."""
        for seed in range(TRIALS if self.rows else 1):
            worst = self._once(net, np.random.default_rng(seed))
            if worst <= LARGEST_DIFFERENCE:
                return worst
        raise CaffeError(
            f"onnxruntime differs from the net by {worst:.1e} of the largest value, more than "
            f"{LARGEST_DIFFERENCE:.0e}; nothing was written"
        )

    def _once(self, net, rng):
        fed = self._inputs(net, rng)
        given = {put.name: fed[put.name] for put in self.session.get_inputs()}
        found = dict(zip(self.found, self.session.run(self.found, given)))
        net.forward(**fed)
        worst = 0.0
        for layer, bottoms in self.rows.items():
            for name in bottoms:
                worst = max(worst, _apart(name, found[name], net, True))
                net.blobs[name].data[...] = found[name]
            net.forward(start=layer)
        return max(worst, *(_apart(name, found[name], net, bool(self.rows)) for name in self.told))

    def _inputs(self, net, rng):
        fed = {name: rng.uniform(-127.5, 127.5, net.blobs[name].shape).astype(np.float32) for name in net.inputs}
        images = [value.shape for value in fed.values() if value.ndim == 4]
        for name, what in sizes_of(fed, self.param).items():
            if what != REGIONS:
                continue
            items, *_, side = images[0]  # index of an item, corners in its image
            corners = np.sort(rng.uniform(0, side, (len(fed[name]), 2, 2)), 1).reshape(-1, 4)
            fed[name] = np.hstack([rng.integers(0, items, (len(corners), 1)), corners]).astype(np.float32)
        for name in self.image_sizes.intersection(fed):  # height, width, scale or two
            fed[name][...] = [*images[0][2:], 1, 1][: fed[name].shape[-1]]
        return fed


def _apart(name, got, net, rows=False):
    want = net.blobs[name].data
    if got.shape != want.shape:
        if rows:
            return np.inf
        raise CaffeError(f"output {name}: onnxruntime gives shape {got.shape}, the net {want.shape}")
    differ = ~np.isclose(got, want, rtol=0, atol=0, equal_nan=True)  # both may have grown beyond float32
    apart = np.abs(got[differ] - want[differ])
    return float(apart.max(initial=0) / max(np.abs(want[np.isfinite(want)]).max(initial=0), 1e-30))
