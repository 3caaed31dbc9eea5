"""Split layers: one for every blob with several consumers; gradients add up there (Caffe: insert_splits.cpp)."""

from caffe import bvlc
from caffe.errors import CaffeError
from caffe.layer import REGISTRY
from caffe.proto import caffe_pb2


def insert_splits(net):
    """A copy of NetParameter `net` with a Split layer `<blob>_<layer>_<top>_split` behind each blob of several uses."""
    producer: dict[str, tuple[int, int]] = {}  # blob name -> (layer index, top index) of its newest version
    uses: dict[tuple[int, int], int] = {}  # (layer index, top index) -> how many bottoms read it
    reads = []  # for every layer, the producers of its bottoms
    for i, layer in enumerate(net.layer):
        sources = []
        for j, name in enumerate(layer.bottom):
            if name not in producer:
                raise CaffeError(f"Unknown bottom blob '{name}' (layer '{layer.name}', bottom index {j})")
            sources.append(producer[name])
            uses[producer[name]] = uses.get(producer[name], 0) + 1
        reads.append(sources)
        for j, name in enumerate(layer.top):
            producer[name] = (i, j)
        for j in range(min(len(layer.loss_weight), len(layer.top))):  # a loss is a use of its own
            if layer.loss_weight[j] and (i, j) not in uses:
                uses[i, j] = 0

    weighted = {(i, j): w for i, layer in enumerate(net.layer) for j, w in enumerate(layer.loss_weight) if w}
    total = {key: count + (key in weighted) for key, count in uses.items()}
    given = dict.fromkeys(total, 0)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    for i, layer in enumerate(net.layer):
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for j, key in enumerate(reads[i]):
            if total[key] > 1:
                copy.bottom[j] = _split_top(net, key, layer.bottom[j], given[key])
                given[key] += 1
        for j, name in enumerate(layer.top):
            if total.get((i, j), 0) > 1:
                split = result.layer.add(name=_split_name(net, (i, j), name), type="Split", bottom=[name])
                split.top.extend(_split_top(net, (i, j), name, k) for k in range(total[i, j]))
                if (i, j) in weighted:  # the loss weight moves to the first of the copies
                    split.loss_weight.extend([weighted[i, j]] + [0] * (total[i, j] - 1))
                    del copy.loss_weight[:]  # all of them: a loss goes back to weight 1, other layers have none
                    given[i, j] += 1
                    _tell(layer, j, [k for k in range(len(layer.top)) if total.get((i, k), 0) > 1])
    return result


def _tell(layer, number, split):
    """Warn of what becomes of the loss weights of `layer` when its top of this number is split, among others."""
    lost = [name for k, (name, w) in enumerate(zip(layer.top, layer.loss_weight)) if w and k not in split]
    if getattr(REGISTRY.get(layer.type), "is_loss", False):
        effect = "the logged loss counts this layer once more, with weight 1; gradients are not affected"
    elif lost:
        effect = f"the loss_weight of {', '.join(map(repr, lost))} is lost"
    else:
        return
    bvlc.tell(
        layer,
        f"top '{layer.top[number]}' has a loss_weight and is read by another layer, too: as in BVLC Caffe, {effect}",
    )


def _split_name(net, key, blob):
    return f"{blob}_{net.layer[key[0]].name}_{key[1]}_split"


def _split_top(net, key, blob, k):
    return f"{_split_name(net, key, blob)}_{k}"
