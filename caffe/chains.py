"""Chains: a convolution in phase TEST that also does what the layers after it would do to each channel of its top.

BatchNorm with stored statistics, Scale and Bias multiply a channel by one number and add another; the convolution's
weights and bias can have both in them. In place nobody can tell: the values in between are overwritten. What can be
told is done where it is asked for, see `optimize`.
"""

from caffe import device
from caffe.errors import CaffeError
from caffe.layer import TEST
from caffe.node import Node, place_after, readers_of_blobs
from caffe.ops.neuron import Dropout, ReLU
from caffe.ops.vision import Convolution


def optimize(net):
    """Let forward passes of `net`, in phase TEST, take every short way that this package knows; gives the net.

        net = caffe.optimize(caffe.Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel"))

    A convolution then also does the work of BatchNorm, Scale, Bias, Dropout and ReLU after it where they are not in
    place, if no other layer reads the blobs in between. Such a blob is not computed any more, and reading it, also by
    net.forward(start=..), is a CaffeError that says so, but where its array had been asked for before the pass; all
    other blobs read as ever. A ReLU inside a convolution makes 0 of NaN, as in other inference engines. There can be no
    backward pass. Parameters may be written at any time, as before. Does nothing on a GPU."""
    if any(node.layer.phase != TEST for node in net.nodes):
        raise CaffeError(f"net '{net.name}' is not in phase TEST; optimize wants caffe.Net(file, caffe.TEST)")
    outputs = {net.wiring.ids[name] for name in net.outputs}
    net.executor.chains = find(net.nodes, lambda b: b not in outputs)
    for node in net.nodes:
        node.duty.backward = False
    return net


def find(nodes, may_vanish=None) -> dict[int, list[Node]]:
    """For the number of a convolution's node the nodes after it that it can do the work of, in order. With a function
    `may_vanish`, of a blob's number, also those that leave such a blob behind, and those that are told from NaN."""
    readers = readers_of_blobs(nodes)
    chains = {}
    for node in nodes:
        layer = node.layer
        folds = getattr(type(layer), "infer", None) is Convolution.infer  # a subclass may compute otherwise
        if folds and layer.phase == TEST and len(node.top_ids) == 1 and layer.axis == 1:
            if chain := _after(node, readers, may_vanish):
                chains[node.index] = chain
    return chains


def _after(node, readers, may_vanish):
    """The chain of the convolution `node`."""
    chain: list = []
    top, rectified = node.top_ids[0], False
    while not any(node.loss_weights):
        reading = readers.get(top, [])
        place = place_after(reading, node)
        if place == len(reading):
            break
        node = reading[place]
        if len(node.bottom_ids) != 1 or len(node.top_ids) != 1:
            break
        if not (getattr(node.layer, "by_channel", False) or (may_vanish and _is_simple(node.layer))):
            break
        if node.top_ids[0] != top and not (may_vanish and place == len(reading) - 1 and may_vanish(top)):
            break
        if rectified and not isinstance(node.layer, Dropout):
            break
        rectified = rectified or isinstance(node.layer, ReLU)
        chain.append(node)
        top = node.top_ids[0]
    return chain


def _is_simple(layer):
    return (isinstance(layer, Dropout) and layer.scaled) or (
        isinstance(layer, ReLU) and not layer.param.relu_param.negative_slope
    )


def usable(chain, last, without) -> list[Node]:
    """Those at the start of the `chain` that the convolution does the work of in a pass that ends with node number
    `last` and leaves out the numbers `without`. Where the pass ends inside of it none: that blob is to be seen."""
    found: list[Node] = []
    for node in chain if device.shares_host else ():
        looked_at = not node.in_place and node.bottoms[0].memory.exposed
        if node.index > last or node.index in without or node.duty.backward or looked_at:
            break
        found.append(node)
    while found and found[-1] is not chain[-1] and not found[-1].in_place:
        found.pop()
    return found


def forward(node, followers):
    """Run the layer of `node`, a convolution that works for `followers`, too; all tops have their shapes."""
    top = followers[-1].tops[0]
    for each in (node, *followers):
        if each.tops[0] is not top:
            told = f"blob '{each.param.top[0]}' has no values: caffe.optimize(net) computes what follows it at once"
            each.tops[0].memory.vanish(f"{told}; look at it before the pass, or make a net without optimize")
    node.layer.followers = tuple(f.layer for f in followers if not isinstance(f.layer, Dropout))
    try:
        node.layer.forward(node.bottoms, [top])
    finally:
        node.layer.followers = ()
