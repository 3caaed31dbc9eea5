"""Fillers: the initial values of a parameter blob (Caffe: filler.hpp; FillerParameter)."""

import math

import torch

from caffe.blob import new_tensor
from caffe.errors import CaffeError

FLOAT_MAX = torch.finfo(torch.float32).max


def fill(blob, filler, generator):
    """Fill `blob.data` as FillerParameter `filler` says; `generator` is the torch.Generator to draw from."""
    kind = FILLERS.get(filler.type)
    if kind is None:
        raise CaffeError(f"Unknown filler name: {filler.type} (known: {', '.join(sorted(FILLERS))})")
    if filler.sparse != -1 and (filler.type != "gaussian" or filler.sparse < -1):
        raise CaffeError(f"filler {filler.type}: sparse is {filler.sparse}; gaussian alone knows it, from 0 on")
    if blob.count:
        value = new_tensor(blob.shape, torch.device("cpu"), torch.empty)
        kind(value if value.dim() else value.view(1), filler, generator)
        blob.memory.assign(value)


def _constant(value, filler, _):
    value.fill_(filler.value)


def _uniform(value, filler, generator):
    if not -FLOAT_MAX <= filler.min <= filler.max <= FLOAT_MAX:
        raise CaffeError(f"filler uniform: min is {filler.min:g} and max is {filler.max:g}; wanted min <= max, finite")
    value.uniform_(filler.min, filler.max, generator=generator)


def _gaussian(value, filler, generator):
    if not 0 <= filler.std < math.inf:
        raise CaffeError(f"filler gaussian: std is {filler.std:g}; wanted a number that is not negative")
    value.normal_(filler.mean, filler.std, generator=generator)
    if filler.sparse >= 0:  # each output keeps about `sparse` inputs
        keep = torch.bernoulli(torch.full(value.shape, min(1.0, filler.sparse / value.shape[0])), generator=generator)
        value.mul_(keep)


def _positive_unitball(value, _, generator):
    value.uniform_(0, 1, generator=generator)
    rows = value.view(value.shape[0], -1)
    rows.div_(rows.sum(1, keepdim=True))


def _fan(value, filler):
    """FAN_IN is count / axis 0, also where axis 0 holds inputs (Deconvolution): as Caffe computes it."""
    fan_in = value.numel() / value.shape[0]
    fan_out = value.numel() / value.shape[1] if value.dim() > 1 else value.numel()
    fans = {filler.FAN_IN: fan_in, filler.FAN_OUT: fan_out, filler.AVERAGE: (fan_in + fan_out) / 2}
    return fans[filler.variance_norm]


def _xavier(value, filler, generator):
    limit = math.sqrt(3 / _fan(value, filler))
    value.uniform_(-limit, limit, generator=generator)


def _msra(value, filler, generator):
    value.normal_(0, math.sqrt(2 / _fan(value, filler)), generator=generator)


def _bilinear(value, _, __):
    if value.dim() != 4 or value.shape[2] != value.shape[3]:
        raise CaffeError(f"bilinear filler wants a 4-d blob with a square kernel, not {tuple(value.shape)}")
    size = value.shape[3]
    factor = math.ceil(size / 2)
    center = (size - 1) / (2 * factor)
    ramp = 1 - (torch.arange(size) / factor - center).abs()
    value.copy_(ramp[:, None] * ramp[None, :])


FILLERS = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
