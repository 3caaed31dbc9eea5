"""A net as a plain `torch.nn.Module`: the same layers in the same order, differentiable, free of blobs and phases.

net = caffe.Net("net.prototxt", caffe.TEST, weights="net.caffemodel")
module = caffe.to_torch(net)
tops = module(data)  # {"prob": tensor}
"""

import torch
import torch.nn.functional as F
from torch import nn

from caffe import fork_words
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.net_build import make_layer
from caffe.torch_layer import TorchLayer, several

INSTEAD = "feed its tops as inputs, or replace it by layers of a built-in type"


class TorchNet(nn.Module):
    """The computation of `net`, a caffe.Net, in its phase.

    `inputs` names what `forward` takes: the tops of layers without bottoms (Input and all data layers), in their order.
    `forward` gives {name: tensor} of the blobs `outputs` (default: the net's outputs), each with its last value where
    layers work in place; layers that these do not depend on are left out. Other shapes than the net's are fine where
    its layers allow them.

    `params` holds copies of the net's parameters as "<layer>/<number>"; one shared by layers is there once. lr_mult 0
    means requires_grad False. What is random (Dropout in TRAIN) draws from torch's global generators. A layer without a
    computation on tensors (a Python layer with bottoms) is a CaffeError.
    """

    def __init__(self, net, outputs=None):
        super().__init__()
        names = net.wiring.names
        unknown = [name for name in outputs or [] if name not in names]
        if unknown:
            raise CaffeError(f"the net has no blob '{unknown[0]}' (its blobs: {', '.join(names)})")
        self.inputs = []
        self.outputs = list(net.outputs if outputs is None else outputs)
        self.loss_weights = {name: weight for name, weight in net.blob_loss_weights.items() if weight}
        self.params = nn.ParameterDict()
        self._steps = []  # (layer, names of its bottoms, of its tops, of its parameters)
        keys = {}  # number of a learnable parameter -> its name in `params`
        needed = _needed(net, self.outputs) if outputs is not None else net.nodes
        for node in net.nodes:
            bottoms, tops = ([names[k] for k in ids] for ids in (node.bottom_ids, node.top_ids))
            if not bottoms and node.type != "Parameter":
                self.inputs += tops
                continue
            if node not in needed:
                continue
            for number, (k, blob) in zip(node.param_ids, enumerate(node.layer.blobs)):
                if number not in keys:
                    keys[number] = self._add(f"{node.name}/{k}".replace(".", "_"), blob, _learns(node.param, k))
            self._steps.append((_same_layer(node), bottoms, tops, [keys[n] for n in node.param_ids]))

    def forward(self, *inputs, **named):
        values = {**dict(zip(self.inputs, inputs)), **named}
        if len(inputs) > len(self.inputs) or set(values) != set(self.inputs):
            raise TypeError(f"the net takes {', '.join(self.inputs)}; given {len(inputs)} in order and {sorted(named)}")
        for layer, bottoms, tops, keys in self._steps:
            layer.weights = [self.params[key] for key in keys]
            try:
                values.update(zip(tops, _compute(layer, [values[name] for name in bottoms], len(tops))))
            except Exception as e:
                if not torch.compiler.is_exporting():
                    raise
                raise CaffeError(  # else torch.export would not tell which layer it was
                    f"layer '{layer.name}' ({layer.type}) cannot be exported ({str(e).splitlines()[0]}); with the "
                    f"outputs {','.join(map(self.unsplit, bottoms))} the net is written up to there"
                ) from e
        return {name: values[name] for name in self.outputs}

    def loss(self, tops):
        """The sum of the losses among `tops`, what `forward` gave, each by its loss_weight."""
        terms = (weight * tops[name].sum() for name, weight in self.loss_weights.items() if name in tops)
        return sum(terms, torch.zeros(()))

    def unsplit(self, name):
        """The blob that a Split layer has made the blob `name` from; any other: itself."""
        copies = (bottoms[0] for layer, bottoms, tops, _ in self._steps if layer.type == "Split" and name in tops)
        return next(copies, name)

    def _add(self, key, blob, learns):
        while key in self.params:  # two layers may carry one name
            key += "'"
        self.params[key] = nn.Parameter(blob.tensor().detach().clone(), requires_grad=learns)
        return key


def to_torch(net, outputs=None) -> TorchNet:
    """The module that computes what `net` computes; see TorchNet."""
    return TorchNet(net, outputs)


def _learns(param, k):
    return k >= len(param.param) or param.param[k].lr_mult != 0


def _needed(net, outputs):
    """The nodes that the blobs `outputs` depend on."""
    names, wanted, needed = net.wiring.names, set(outputs), []
    for node in reversed(net.nodes):
        if not wanted.isdisjoint(names[k] for k in node.top_ids):
            needed.append(node)
            wanted.update(names[k] for k in node.bottom_ids)
    return needed


def _same_layer(node):
    """The layer once more, set up for the same shapes, so that the module shares no state with the net."""
    if node.type not in SPECIAL and not isinstance(node.layer, TorchLayer):
        raise CaffeError(
            f"layer '{node.name}' ({node.type}): computes outside torch, so the net cannot become a torch module; "
            + (fork_words.PYTHON_LAYERS.get(node.param.python_param.module) or INSTEAD)
        )
    param = type(node.param)()
    param.CopyFrom(node.param)
    same = make_layer(param)
    if node.type == "Parameter":
        return same
    same.random = _generator
    bottoms = [Blob(b.shape) for b in node.bottoms]
    tops = [bottoms[node.bottom_ids.index(t)] if t in node.bottom_ids else Blob() for t in node.top_ids]
    blobs = same.blobs
    same.add_blob = lambda shape, filler=None: blobs.append(Blob(shape))  # values come from `params`
    same.setup(bottoms, tops)
    same.reshape(bottoms, tops)
    same.seen = [b.shape for b in bottoms]
    return same


def _compute(layer, bottoms, count):
    """The tops of `layer`, `count` tensors."""
    told = layer.param.propagate_down or [True] * len(bottoms)
    passes = [layer.differentiable and told[i] and i not in layer.no_gradient for i in range(len(bottoms))]
    bottoms = [x if p else x.detach() for x, p in zip(bottoms, passes)]
    special = SPECIAL.get(layer.type)
    if special is not None:
        return special(layer, bottoms, count)
    if not torch.compiler.is_exporting():  # then sizes may be symbols, and are those of the net but for the batch
        shapes = [tuple(x.shape) for x in bottoms]
        if shapes != layer.seen:
            weights, layer.seen = layer.weights, shapes
            layer.top_shapes(*shapes)
            layer.weights = weights
    if layer.type == "Slice" and not layer.param.slice_param.slice_point:
        return bottoms[0].unflatten(layer.axis, (count, -1)).unbind(layer.axis)  # for a batch of any size
    return several(layer.compute(*bottoms))


def _filter(layer, bottoms, count):
    chosen = bottoms[-1].reshape(-1).nonzero()[:, 0]
    return [x.index_select(0, chosen) for x in bottoms[:-1]]


# Layer types whose forward pass is more (or other) than `compute`.
SPECIAL = {
    "ReLU": lambda layer, bottoms, _: [F.leaky_relu(bottoms[0], layer.param.relu_param.negative_slope)],
    "Split": lambda layer, bottoms, count: bottoms * count,
    "Filter": _filter,
    "Parameter": lambda layer, bottoms, _: layer.weights,
}


def _generator(device="cpu"):
    """torch's own generator of the device."""
    device = torch.device(device)
    if device.type == "cpu":
        return torch.default_generator
    return torch.cuda.default_generators[device.index or 0]
