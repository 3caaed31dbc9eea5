"""onnxruntime's numbers beside the Caffe net's, on random input.

Values differ in their last digits, in another order of summation. A layer that chooses by them (`choosing`) may then
give anything else: so each of these is compared alone, on what onnxruntime has made of its bottoms, and the rest of the
net with onnxruntime's tops of these layers as inputs.
"""

import numpy as np
import torch

from caffe.errors import CaffeError
from caffe.forks.rows import Rows
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.torch_net import TorchNet
from caffe.weights import copy_from

LARGEST_DIFFERENCE = 1e-5  # of the largest value of an output: float32 in another order of summation
AS_FAR = 4  # times as far from float64 as the net itself is: rounding adds up with depth, and is never the same twice
TRIALS = 3  # inputs for layers that choose: an overlap within rounding of the threshold falls on either side
INDICES = {"Embed": 0, "BatchReindex": 1, "Upsample": 1}  # layer type: its bottom that holds whole numbers
REGIONS, WHOLE, BATCH = "regions", "whole", "batch"  # what an input's first axis counts


def sizes_of(inputs, param):
    """{name of an input: what its first axis counts}: regions of interest, nothing that may change, or images."""
    whole = {b for layer in param.layer if layer.type in ("DetectionOutput", "Proposal") for b in layer.bottom[2:3]}
    regions = {layer.bottom[1] for layer in param.layer if layer.type in ("ROIPooling", "PSROIPooling")}
    return {name: WHOLE if name in whole else REGIONS if name in regions else BATCH for name in inputs}


def chooses(layer):
    """Whether it gives detections, regions, places or classes."""
    masks = layer.type == "Pooling" and len(layer.param.top) > 1
    return isinstance(layer, Rows) or masks or layer.type in ("ArgMax", "Threshold")


def scaled_net(param, weights, times, tops=None):
    """The net in phase TEST, for batches `times` as large as its Input layers say. `tops`, {name of a layer: {its top:
    shape}}, are inputs of these shapes in place of the layers."""
    larger = caffe_pb2.NetParameter()
    larger.CopyFrom(param)
    larger.state.phase = caffe_pb2.TEST
    for layer in larger.layer:
        for shape, name in zip(layer.input_param.shape if layer.type == "Input" else (), layer.top):
            shape.dim[0] *= 1 if sizes_of([name], param)[name] == WHOLE else times
    for layer in larger.layer:
        if layer.name in (tops or {}):
            given = tops[layer.name]
            layer.CopyFrom(caffe_pb2.LayerParameter(name=layer.name, type="Input", top=given))
            for shape in given.values():
                layer.input_param.shape.add(dim=shape)
    net = Net.from_proto(larger)
    if missing := sorted(net.params.keys() - copy_from(net, str(weights))):
        raise CaffeError(f"{weights}: no weights for {', '.join(missing)}, which would be random numbers")
    return net


class Comparison:
    """The onnxruntime `session` beside the net of `param`; it gives bottoms and tops of layers that choose, too.
    `choosing` is {name of such a layer: ({bottom: the blob it is, or is a Split's copy of}, tops)}."""

    def __init__(self, session, choosing, param, weights):
        self.session, self.choosing, self.param, self.weights = session, choosing, param, weights

    def worst(self, times):
        """The largest difference of any blob, as a part of its largest value, in a batch `times` as large."""
        net = scaled_net(self.param, self.weights, times)
        for seed in range(TRIALS if self.choosing else 1):
            fed = self._random(net, np.random.default_rng(seed))
            found = self._run(fed)
            apart = max((self._of_layer(net, layer, {**found, **fed}) for layer in self.choosing), default=0.0)
            if apart <= LARGEST_DIFFERENCE:
                break
        else:
            self._fail(apart)
        if self.choosing:
            tops = {layer: {name: found[name].shape for name in tops} for layer, (_, tops) in self.choosing.items()}
            net = scaled_net(self.param, self.weights, times, tops)
        return max(apart, self._of_rest(net, found, fed))

    def _run(self, fed):
        given = {put.name: fed[put.name] for put in self.session.get_inputs()}
        names = [put.name for put in self.session.get_outputs()]
        try:
            return dict(zip(names, self.session.run(names, given)))
        except Exception as e:  # onnxruntime's own, which derive from nothing nearer
            raise CaffeError(f"onnxruntime cannot run the file: {' '.join(str(e).split())}") from e

    def _of_layer(self, net, layer, given):
        bottoms, tops = self.choosing[layer]
        for name, blob in bottoms.items():
            net.blobs[name].data[...] = given[blob]
        net.forward(start=layer, end=layer)
        wanted = {name: net.blobs[name].data for name in tops}
        if any(given[name].shape != want.shape for name, want in wanted.items()):
            return np.inf
        return max(_apart(given[name], want) for name, want in wanted.items())

    def _of_rest(self, net, found, fed):
        for name in net.inputs:
            value = fed[name] if name in fed else found[name]
            net.blobs[name].reshape(*value.shape)
            net.blobs[name].data[...] = value
        net.forward()
        names = [name for name in found if name not in net.inputs]
        for name in names:
            if found[name].shape != net.blobs[name].shape:
                raise CaffeError(
                    f"output {name}: onnxruntime gives shape {found[name].shape}, the net {net.blobs[name].shape}"
                )
        worst = max((_apart(found[name], net.blobs[name].data) for name in names), default=0.0)
        if worst > LARGEST_DIFFERENCE:
            self._as_exact(net, names, found, worst)
        return worst

    def _as_exact(self, net, names, found, worst):
        """Fail unless onnxruntime is as near to the net in float64 as the net is."""
        exact = TorchNet(net, names).eval().double()
        inputs = {name: torch.from_numpy(net.blobs[name].data).double() for name in exact.inputs}
        try:
            with torch.no_grad():
                tops = exact(**inputs)
        except (RuntimeError, CaffeError):  # a user's layer may know no float64
            self._fail(worst)
        for name in names:
            want = tops[name].numpy()
            own, theirs = _apart(net.blobs[name].data, want), _apart(found[name], want)
            if not theirs <= max(LARGEST_DIFFERENCE, AS_FAR * own):
                self._fail(worst)

    def _fail(self, apart):
        raise CaffeError(
            f"onnxruntime differs from the net by {apart:.1e} of the largest value, more than "
            f"{LARGEST_DIFFERENCE:.0e} and than rounding explains"
        )

    def _random(self, net, rng):
        fed = {name: rng.uniform(-127.5, 127.5, net.blobs[name].shape).astype(np.float32) for name in net.inputs}
        images = [value.shape for value in fed.values() if value.ndim == 4]
        for name, what in sizes_of(fed, self.param).items():
            if what == REGIONS:  # index of an item, corners in its image
                items, *_, side = images[0]
                corners = np.sort(rng.uniform(0, side, (len(fed[name]), 2, 2)), 1).reshape(-1, 4)
                fed[name] = np.hstack([rng.integers(0, items, (len(corners), 1)), corners]).astype(np.float32)
        for layer in self.param.layer:
            if layer.type in INDICES and fed.keys() & layer.bottom[INDICES[layer.type] :]:
                name = layer.bottom[INDICES[layer.type]]
                fed[name] = rng.integers(0, _places(layer, net), fed[name].shape).astype(np.float32)
        for name in {layer.bottom[2] for layer in self.param.layer if layer.type == "Proposal"}.intersection(fed):
            fed[name][...] = [*images[0][2:], 1, 1][: fed[name].shape[-1]]  # height, width, scale or two
        return fed


def _places(layer, net):
    """How many things a layer of one of the INDICES types chooses from."""
    if layer.type == "Embed":
        return layer.embed_param.input_dim
    shape = net.blobs[layer.bottom[0] if layer.type == "BatchReindex" else layer.top[0]].shape
    return shape[0] if layer.type == "BatchReindex" else int(np.prod(shape[2:]))


def _apart(got, want):
    differ = ~np.isclose(got, want, rtol=0, atol=0, equal_nan=True)  # both may have grown beyond float32
    apart = np.abs(got[differ] - want[differ])
    return float(apart.max(initial=0) / max(np.abs(want[np.isfinite(want)]).max(initial=0), 1e-30))
