"""Building a net: layers in order, blobs wired by name, what needs a gradient (Caffe: Net::Init)."""

from caffe import bvlc, forks, ops  # noqa: F401 - importing them registers the layer types
from caffe import glog as log
from caffe.builtin_layer import BuiltinLayer
from caffe.errors import CaffeError, note_layer
from caffe.layer import REGISTRY
from caffe.net_state import filter_net
from caffe.node import Learned, Node, Wiring
from caffe.proto import caffe_pb2
from caffe.python_layer import make_python_layer
from caffe.random import Stream
from caffe.splits import insert_splits
from caffe.text import message_to_text
from caffe.weights import blob_from_proto


def layer_type_list():
    """The names of all layer types, sorted."""
    return sorted([*REGISTRY, "Python"])


def make_layer(param):
    """The layer object for LayerParameter `param`."""
    if param.type == "Python":
        return make_python_layer(param)
    cls = REGISTRY.get(param.type)
    if cls is None:
        known = f"(known types: {', '.join(layer_type_list())})"
        advice = f"layer '{param.name}'; caffe check says what can be done"
        raise CaffeError(f"Unknown layer type: {param.type} {known} ({advice})")
    return cls(param)


def build(param, seeds) -> Wiring:
    """The nodes of NetParameter `param` (its `state` chooses among the layers), set up and reshaped."""
    param = filter_net(param)
    if log.enabled():
        log.info("net.cpp:53", f"Initializing net from parameters: \n{message_to_text(param)}".rstrip("\n"))
    builder = _Builder(insert_splits(param), seeds)
    memory = 0
    for layer_param in builder.wiring.param.layer:
        node = builder.add_layer(layer_param)
        memory += 4 * sum(t.count for t in node.tops)
        log.info("net.cpp:139", f"Memory required for data: {memory}")
    return builder.finish()


class _Builder:
    def __init__(self, param, seeds):
        self.wiring, self.seeds = Wiring(param), seeds
        self.available: dict[str, int] = {}  # blob name -> its id; what is left at the end are the net's outputs
        self.owners: dict[str, tuple[int, str]] = {}  # name of a parameter -> its number, and the layer that owns it
        self.learns: dict[int, bool] = {}  # blob id -> does its producer need a gradient

    def add_layer(self, param) -> Node:
        wiring, name = self.wiring, param.name
        if not param.HasField("phase"):
            param.phase = wiring.param.state.phase
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise CaffeError(
                f"layer '{name}': propagate_down param must be specified either 0 or bottom_size times "
                f"({len(param.propagate_down)} values, {len(param.bottom)} bottoms)"
            )
        log.info("layer_factory.hpp:77", f"Creating layer {name}")
        index = len(wiring.nodes)
        node = Node(index, param, make_layer(param), Stream(self.seeds, index))
        log.info("net.cpp:86", f"Creating Layer {name}")
        wiring.nodes.append(node)
        self._wire(node)
        try:
            _set_up(node)
        except Exception as e:
            note_layer(e, node)
            raise
        self._decide_needs(node)
        self._add_params(node)
        return node

    def _wire(self, node):
        wiring, param, kind = self.wiring, node.param, node.builtin
        for name in param.bottom:
            if name not in self.available:
                at = f"layer '{param.name}', bottom index {len(node.bottom_ids)}"
                raise CaffeError(f"Unknown bottom blob '{name}' ({at})")
            log.info("net.cpp:408", f"{param.name} <- {name}")
            node.bottom_ids.append(self.available.pop(name))
        node.top_ids = [self._add_top(param, i, top) for i, top in enumerate(param.top)]
        least = kind.num_top if isinstance(kind.num_top, int) or kind.num_top is None else kind.num_top[0]
        while kind.auto_top and len(node.top_ids) < (least or 0):  # a loss makes its own top
            log.info("net.cpp:382", f"{param.name} -> (automatic)")
            node.top_ids.append(wiring.add_blob("(automatic)"))
        node.in_place = any(t in node.bottom_ids for t in node.top_ids)
        node.bottoms = [wiring.blobs[i] for i in node.bottom_ids]
        node.tops = [wiring.blobs[i] for i in node.top_ids]

    def _add_top(self, param, i, name):
        wiring = self.wiring
        if i < len(param.bottom) and param.bottom[i] == name:
            log.info("net.cpp:369", f"{param.name} -> {name} (in-place)")
            index = wiring.ids[name]
        elif name in wiring.ids:
            raise CaffeError(f"Top blob '{name}' produced by multiple sources. (layer '{param.name}')")
        else:
            log.info("net.cpp:382", f"{param.name} -> {name}")
            index = wiring.add_blob(name)
            if param.type == "Input":
                wiring.inputs.append(name)
        self.available[name] = index
        return index

    def _decide_needs(self, node):
        """What of this layer needs a gradient as far as the layers below tell."""
        given, specs = node.param.propagate_down, node.param.param
        learns = [self.learns[b] for b in node.bottom_ids]
        node.duty.bottoms = list(given) or learns
        node.duty.params = [i >= len(specs) or specs[i].lr_mult != 0 for i in range(len(node.layer.blobs))]
        node.duty.backward = any(learns) or any(node.duty.params)  # whatever propagate_down says
        self.learns.update(dict.fromkeys(node.top_ids, node.duty.backward))

    def _add_params(self, node):
        param, blobs, learned = node.param, node.layer.blobs, self.wiring.learned
        if len(param.param) > len(blobs):
            raise CaffeError(
                f"Too many params specified for layer {param.name} "
                f"({len(param.param)} param entries, {len(blobs)} parameter blobs)"
            )
        for i, blob in enumerate(blobs):
            spec = param.param[i] if i < len(param.param) else caffe_pb2.ParamSpec()
            number, owner = self.owners.get(spec.name, (None, "")) if spec.name else (None, "")
            if number is None:
                number = len(learned)
                learned.append(Learned(blob))
                if spec.name:
                    self.owners[spec.name] = number, param.name
            else:
                _share(blob, learned[number].blob, spec, owner, param.name)
            node.param_ids.append(number)
            for field in ("lr_mult", "decay_mult"):
                if spec.HasField(field):
                    if getattr(learned[number], field) not in (None, getattr(spec, field)):
                        raise CaffeError(f"Shared param '{spec.name}' has mismatched {field}.")
                    setattr(learned[number], field, getattr(spec, field))

    def finish(self) -> Wiring:
        wiring = self.wiring
        _skip_backward(wiring.nodes)
        if wiring.param.force_backward:
            _force_backward(wiring.nodes)
        _note_overwritten(wiring.nodes)
        _note_overwritable(wiring.nodes)
        _note_last_reads(wiring, set(self.available.values()))
        bvlc.tell_of_shared_blobs(wiring.nodes)
        bvlc.tell_of_work_in_place(wiring.nodes)
        for name in sorted(self.available):
            log.info("net.cpp:244", f"This network produces output {name}")
        wiring.outputs = sorted(self.available)
        log.info("net.cpp:257", "Network initialization done.")
        return wiring


def _set_up(node):
    layer, bottom, top = node.layer, node.bottoms, node.tops
    if isinstance(layer, BuiltinLayer):
        layer.duty, layer.random = node.duty, node.stream
        layer.check_counts(bottom, top)
    node.seed()
    layer.setup(bottom, top)
    if isinstance(layer, BuiltinLayer):
        for own, given in zip(layer.blobs, node.param.blobs):  # written into the prototxt itself
            blob_from_proto(own, given, f"layer '{node.name}'")
    node.loss_weights = _loss_weights(node)
    node.reshape()
    log.info("net.cpp:124", f"Setting up {node.name}")
    for blob, weight in zip(top, node.loss_weights):
        dims = "".join(f"{d} " for d in blob.shape)
        log.info("net.cpp:131", f"Top shape: {dims}({blob.count})")
        if weight:
            log.info("net.cpp:134", f"    with loss weight {log.number(weight)}")


def _loss_weights(node):
    given, count = list(node.param.loss_weight), len(node.tops)
    if given and len(given) != count and not (node.builtin.auto_top and len(given) <= count):
        raise CaffeError(
            f"layer '{node.name}': loss_weight must be unspecified or specified once per top blob "
            f"({len(given)} values, {count} tops)."
        )
    if not given and node.builtin.is_loss:
        given = [1.0]
    return [given[i] if i < len(given) else 0.0 for i in range(count)]


def _share(blob, shared, spec, owner, name):
    """Let a parameter of layer `name` be the one of the same name that layer `owner` has."""
    where = (
        f"Cannot share param '{spec.name}' owned by layer '{owner}' with layer '{name}'; "
        f"owner shape {shared.shape}, sharing layer's shape {blob.shape}"
    )
    if spec.share_mode == spec.PERMISSIVE:
        if shared.count != blob.count:
            raise CaffeError(f"{where}: count mismatch.")
    elif shared.shape != blob.shape:
        raise CaffeError(f"{where}: shape mismatch.")
    blob.share(shared)


# ---- what the layers above tell


def _skip_backward(nodes):
    """Only what lies between a learning parameter and a loss is computed backward."""
    under_loss, skipped = set(), set()
    for node in reversed(nodes):
        duty, tops = node.duty, node.top_ids
        contributes = any(weight or t in under_loss for t, weight in zip(tops, node.loss_weights))
        if duty.backward and all(t in skipped for t in tops):
            duty.bottoms = [False] * len(node.bottom_ids)
            duty.backward = False
        duty.backward = duty.backward and contributes
        if duty.backward:
            log.info("net.cpp:200", f"{node.name} needs backward computation.")
        else:
            log.info("net.cpp:202", f"{node.name} does not need backward computation.")
        for i, b in enumerate(node.bottom_ids):
            if contributes:
                under_loss.add(b)
            else:
                duty.bottoms[i] = False
            if not duty.bottoms[i]:
                skipped.add(b)


def _force_backward(nodes):
    for node in nodes:
        kind = node.builtin
        if any(
            i < len(node.bottoms) for i in kind.no_gradient if kind.gradient_checked and not (kind.is_loss and i == 1)
        ):
            bvlc.refuses(node.param, f"force_backward in a net with {node.type}")
        node.duty.backward = True
        node.duty.bottoms = [p or i not in kind.no_gradient for i, p in enumerate(node.duty.bottoms)]
        node.duty.params = [True] * len(node.layer.blobs)


def _note_last_reads(wiring, outputs):
    """For every node, the blobs that no later one reads; outputs are kept, what backward rereads, and the tops of data
    and Parameter layers, which may be written once and not in every pass."""
    kept = outputs.union(*(node.top_ids for node in wiring.nodes if not node.bottom_ids))
    kept.update(b for node in wiring.nodes if node.duty.rereads for b in (*node.bottom_ids, *node.top_ids))
    last = {b: node for node in wiring.nodes for b in (*node.bottom_ids, *node.top_ids)}
    for b, node in last.items():
        if b not in kept:
            node.last_reads.append(wiring.blobs[b])


def _note_overwritten(nodes):
    """Caffe's backward takes a blob as it finds it: what a later layer has written over it in place."""
    keeps_sign: dict[int, bool] = {}  # blob -> whether all layers that write over it from here on keep its signs
    for node in reversed(nodes):
        for b in node.top_ids:
            if b in keeps_sign:
                node.duty.rereads |= node.reads_back(keeps_sign[b])
            keeps_sign[b] = keeps_sign.get(b, True) and node.builtin.keeps_sign


def _note_overwritable(nodes):
    """An in-place layer may write over its bottom where neither the producer's backward nor a view needs it."""
    producer: dict[int, Node] = {}
    for node in nodes:
        for b in node.bottom_ids:
            if b in producer and b in node.top_ids:
                node.duty.overwrite = not producer[b].builtin.saves_output
        producer.update(dict.fromkeys(node.top_ids, node))
