"""What BVLC Caffe would do with the same net, told where it differs from what happens here, or surprises."""

from caffe import glog
from caffe.node import place_after, readers_of_blobs

# In place these are no use in BVLC Caffe.
GARBLED = {"Convolution", "Deconvolution", "InnerProduct", "Pooling", "SPP", "LRN", "BatchReindex", "Filter"}


def refuses(layer, what) -> None:
    """Warn that `what` is computed here, but BVLC Caffe would not take a net with it."""
    tell(layer, f"BVLC Caffe refuses this: {what}")


def refuses_axes(layer, shape) -> None:
    """Warn where the layer type uses (num, channels, height, width) in BVLC Caffe and `shape` has more axes."""
    if len(shape) > 4:
        refuses(layer, f"more than 4 axes; a bottom has shape {tuple(shape)}")


def tell(layer, text) -> None:
    """Warn of `layer`, an object or its LayerParameter."""
    glog.warning(glog.here(), f"layer '{layer.name}' ({layer.type}): {text}")


def tell_of_shared_blobs(nodes) -> None:
    """Warn of in-place layers on a blob that shares memory with another one in BVLC Caffe, which a further layer reads:
    there it reads the overwritten values, here those that the blob's name stands for."""
    readers, rereaders = readers_of_blobs(nodes), _rereaders(nodes)
    shared: dict[int, set[int]] = {}  # blob -> all that lie in the same memory so far
    for node in nodes:
        if node.in_place:
            own, reading = node.bottom_ids[0], []
            for blob in shared.get(own, set()) - {own}:
                place = place_after(readers.get(blob, []), node)
                reading += readers.get(blob, [])[place : place + 1]
                reading += rereaders.get((blob, node.builtin.keeps_sign), [])
            reader = min(reading, key=lambda n: n.index, default=None)
            if reader:
                tell(
                    node.param,
                    f"works in place on memory that layer '{reader.name}' reads, too: BVLC Caffe gives "
                    "that layer the changed values; here it gets the original ones",
                )
        elif _shares(node):
            group = shared.setdefault(node.bottom_ids[0], {node.bottom_ids[0]})
            group.update(node.top_ids)
            shared.update(dict.fromkeys(node.top_ids, group))


def tell_of_work_in_place(nodes) -> None:
    """Warn of layers in place that go wrong in BVLC Caffe, forward, or backward (`BuiltinLayer.spoils_diff`)."""
    for node in nodes:
        if not node.in_place:
            continue
        if node.type in GARBLED:
            told = "BVLC Caffe writes over the bottom that it has yet to read (here the result is right)"
        elif node.duty.backward and node.duty.bottoms[0] and (here := node.builtin.spoils_diff):
            told = f"BVLC Caffe's backward writes over the gradient that it has yet to read ({here})"
        else:
            continue
        tell(node.param, f"works in place, where {told}; give it a top of its own")


def _shares(node):
    one_to_one = len(node.bottom_ids) == len(node.top_ids) == 1
    return node.type in ("Split", "Flatten", "Reshape") or (node.type in ("Concat", "Slice") and one_to_one)


def _rereaders(nodes):
    """[the first node whose backward reads a blob], by its number and whether what is written over it keeps signs."""
    first: dict[tuple[int, bool], list] = {}
    for node in nodes:
        for keeps_sign in (True, False):
            read = node.bottom_ids if node.duty.backward and not _shares(node) else []
            read_back = node.top_ids if node.reads_back(keeps_sign) else []
            for blob in (*read, *read_back):
                first.setdefault((blob, keeps_sign), [node])
    return first
