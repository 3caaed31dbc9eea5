"""Chains: a convolution in phase TEST that also does what layers in place on its top would do to each channel.

BatchNorm with stored statistics, Scale and Bias multiply a channel by one number and add another; the convolution's
weights and bias can have both in them. Nobody can tell: in place, the values in between are overwritten.
"""

from caffe import device
from caffe.layer import TEST
from caffe.node import Node
from caffe.ops.vision import Convolution


def find(nodes) -> dict[int, list[Node]]:
    """For the number of a convolution's node the nodes after it that it can do the work of, in order."""
    chains = {}
    for node in nodes:
        if not isinstance(node.layer, Convolution) or node.layer.phase != TEST or len(node.top_ids) != 1:
            continue
        if node.layer.axis != 1 or any(node.loss_weights):
            continue
        chain = []
        for other in nodes[node.index + 1 :]:
            if node.top_ids[0] in other.bottom_ids:
                if not (other.bottom_ids == other.top_ids == node.top_ids and _scales_and_shifts(other)):
                    break
                chain.append(other)
        if chain:
            chains[node.index] = chain
    return chains


def _scales_and_shifts(node):
    return getattr(node.layer, "by_channel", False) and not any(node.loss_weights)


def usable(chain, last, without) -> list[Node]:
    """Those at the start of the `chain` that the convolution does the work of in a pass that ends with node number
    `last` and leaves out the numbers `without`."""
    found = []
    for node in chain if device.shares_host() else ():
        if node.index > last or node.index in without or node.duty.backward:
            break
        found.append(node)
    return found


def forward(node, followers):
    """Run the convolution `node` for itself and its `followers`, whose tops have their shapes."""
    node.layer.followers = tuple(follower.layer for follower in followers)
    try:
        node.layer.forward(node.bottoms, node.tops)
    finally:
        node.layer.followers = ()
