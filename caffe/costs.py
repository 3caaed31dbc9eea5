"""What the passes of a layer cost, counted from its shapes: FLOP, and bytes to and from memory.

Counted are the products with weights (a multiplication and an addition are two FLOP) and, as traffic, each layer
reading its bottoms and parameters and writing its tops once, and the same for the gradients that it gives.
"""

from math import prod
from typing import NamedTuple

from caffe.ops.linear import InnerProduct
from caffe.ops.recurrent import LSTM, RNN
from caffe.ops.vision import Convolution, Deconvolution

FLOAT = 4  # bytes
VIEWS = ("Split", "Input")  # layers without traffic of their own


class Cost(NamedTuple):
    """FLOP and bytes of one pass of one layer."""

    flop: int
    bytes: int


def flop(node) -> int:
    """Floating point operations of a layer, forward: those of its products with weights."""
    layer, blobs = node.layer, node.layer.blobs
    if isinstance(layer, Convolution):  # an element of a top is a sum over one output's weights
        return sum(2 * top.count * prod(blobs[0].shape[1:]) for top in node.tops)
    if isinstance(layer, InnerProduct):
        return 2 * node.bottoms[0].count * layer.param.inner_product_param.num_output
    if isinstance(layer, Deconvolution):  # an element of a bottom is spread over one row of the weights
        return sum(2 * bottom.count * prod(blobs[0].shape[1:]) for bottom in node.bottoms)
    if isinstance(layer, (LSTM, RNN)):  # every item of every time step meets each matrix
        steps = prod(node.bottoms[0].shape[:2])
        return sum(2 * steps * blob.count for blob in blobs if len(blob.shape) == 2)
    return 0


def forward(node) -> Cost:
    """The Cost of a Node's forward pass."""
    if node.type in VIEWS:
        return Cost(0, 0)
    return Cost(flop(node), FLOAT * sum(b.count for b in (*node.bottoms, *node.layer.blobs, *node.tops)))


def backward(node) -> Cost:
    """The Cost of the gradients that the net wants of a Node: of bottoms, and of learned parameters."""
    duty = node.duty
    if node.type in VIEWS or not duty.backward:
        return Cost(0, 0)
    bottoms, tops, weights = (sum(b.count for b in blobs) for blobs in (node.bottoms, node.tops, node.layer.blobs))
    wanted = sum(b.count for b, w in zip(node.bottoms, duty.bottoms) if w)
    learned = weights if any(duty.params) else 0
    traffic = 0
    if wanted:
        traffic += tops + weights + wanted
    if learned:
        traffic += tops + bottoms + learned
    elif wanted:
        traffic += bottoms  # a layer without weights looks at its bottom or top again
    return Cost(flop(node) * (bool(wanted) + bool(learned)), FLOAT * traffic)
