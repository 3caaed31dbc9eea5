"""What a layer in phase TEST makes of its parameters once, not in every pass, and products with weights so prepared.

oneDNN wants weights in an order of its own. Where nobody can have changed them since, they are in it already; where
that cannot be told, because a user holds the array, they are brought into it in every pass: the values are the same.
"""

from typing import Any

import torch

HAS_MKLDNN = torch.backends.mkldnn.is_available()


def stamps_of(blobs):
    """What `stand` takes; None where nobody can tell when the values of one of the blobs change."""
    stamps = [(blob, blob.memory, blob.memory.stamp()) for blob in blobs]
    return None if any(stamp is None for _, _, stamp in stamps) else stamps


def stand(stamps) -> bool:
    """Whether the blobs have surely the values that they had then."""
    for blob, memory, stamp in stamps:
        if blob.memory is not memory or not memory.stands(stamp):
            return False
    return True


class Prepared:
    """Something made of blobs, kept while their values surely stay the same."""

    def __init__(self):
        self._stamps: list[tuple] | None = None  # None: nothing is kept
        self._also: Any = None
        self.kept: Any = None

    def get(self, blobs, also, make):
        """What `make()` has given for these blobs, and for an equal `also`; made now where anything may differ."""
        if not self._stamps or self._also != also or not stand(self._stamps):
            self._stamps = self.kept = None  # gone before there is another one
            stamps = stamps_of(blobs)
            made = make()
            if stamps is None:
                return made
            self._stamps, self._also, self.kept = stamps, also, made
        return self.kept


def available(x) -> bool:
    """Whether this torch computes with oneDNN on the CPU, and `x` has values for it."""
    return HAS_MKLDNN and bool(torch.backends.mkldnn.enabled) and x.numel() > 0


def convolution(weight, bias, shape, stride, pad, dilation, group, relu=False):
    """function(x): the 2-D convolution of x (N, C, H, W), channels last, for all N; `shape` is that of one such x.
    With `relu` negative values of it, and NaN, become 0."""
    geometry = (list(pad), list(stride), list(dilation), group)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight.contiguous(), *geometry, list(shape))
    run = torch.ops.mkldnn._convolution_pointwise.default
    return lambda x: run(x, packed, bias, *geometry, "relu" if relu else "none", [], "")


def product(weight, bias, relu=False):
    """function(x): x (N, K) @ weight (M, K) transposed + bias (M) or None; `relu` as above."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    run = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: run(x, packed, bias, "relu" if relu else "none", [], "")
