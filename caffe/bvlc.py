"""What BVLC Caffe would do with the same net, told where it differs from what happens here, or surprises."""

from caffe import glog

# In place these are no use in BVLC Caffe.
GARBLED = {"Convolution", "Deconvolution", "InnerProduct", "Pooling", "SPP", "LRN", "BatchReindex", "Filter"}


def refuses(layer, what) -> None:
    """Warn that `what` is computed here, but BVLC Caffe would not take a net with it."""
    tell(layer, f"BVLC Caffe refuses this: {what}")


def tell(layer, text) -> None:
    """Warn of `layer`, an object or its LayerParameter."""
    glog.warning(glog.here(), f"layer '{layer.name}' ({layer.type}): {text}")


def tell_of_shared_blobs(nodes) -> None:
    """Warn of in-place layers on a blob that shares memory with another one in BVLC Caffe, which a further layer reads:
    there it reads the overwritten values, here those that the blob's name stands for."""
    shared: dict[int, set[int]] = {}  # blob -> all that lie in the same memory so far
    readers: dict[int, list] = {}
    makers: dict[int, list] = {}
    for node in nodes:
        for blob in node.bottom_ids:
            readers.setdefault(blob, []).append(node)
        for blob in node.top_ids:
            makers.setdefault(blob, []).append(node)
    for node in nodes:
        if node.in_place:
            others = sorted(shared.get(node.bottom_ids[0], set()) - {node.bottom_ids[0]})
            reading = [n for blob in others for n in readers.get(blob, ()) if _sees(n, node)]
            reading += [n for blob in others for n in makers.get(blob, ()) if n.reads_back(node.builtin.keeps_sign)]
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
            shared.update(dict.fromkeys(group, group))


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


def _sees(reader, writer):
    """Reads after the writer in the forward pass, or in the backward pass."""
    return reader.index > writer.index or (reader.duty.backward and not _shares(reader))
