"""Building a net: layers in order, blobs wired by name, what needs a gradient (Caffe: Net::Init)."""

from caffe import forks, ops  # noqa: F401 - importing them registers the layer types
from caffe import glog as log
from caffe.errors import CaffeError, note_layer
from caffe.layer import REGISTRY
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.python_layer import make_python_layer
from caffe.random import Stream
from caffe.splits import insert_splits
from caffe.text import message_to_text


def layer_type_list():
    """The names of all layer types, sorted."""
    return sorted([*REGISTRY, "Python"])


def make_layer(param):
    """The layer object for LayerParameter `param`."""
    if param.type == "Python":
        return make_python_layer(param)
    cls = REGISTRY.get(param.type)
    if cls is None:
        raise CaffeError(f"Unknown layer type: {param.type} (known types: {', '.join(layer_type_list())})")
    return cls(param)


def build(net, param):
    """Fill the empty Net `net` with the layers of NetParameter `param` (its `state` chooses among them)."""
    param = filter_net(param)
    if log.enabled():
        log.info("net.cpp:53", f"Initializing net from parameters: \n{message_to_text(param)}".rstrip("\n"))
    net.param = param = insert_splits(param)
    needs = _Needs(net)
    available: dict[str, int] = {}  # blob name -> its index; what is left at the end are the net's outputs
    memory = 0
    for index, layer_param in enumerate(param.layer):
        if not layer_param.HasField("phase"):
            layer_param.phase = param.state.phase
        _add_layer(net, index, layer_param, available, needs)
        memory += 4 * sum(t.count for t in net.tops[index])
        log.info("net.cpp:139", f"Memory required for data: {memory}")
    needs.finish(param.force_backward)
    for name in sorted(available):
        log.info("net.cpp:244", f"This network produces output {name}")
    net.outputs = sorted(available)
    log.info("net.cpp:257", "Network initialization done.")


def _add_layer(net, index, param, available, needs):
    name = param.name
    if param.propagate_down and len(param.propagate_down) != len(param.bottom):
        raise CaffeError(f"layer '{name}': propagate_down param must be specified either 0 or bottom_size times "
                         f"({len(param.propagate_down)} values, {len(param.bottom)} bottoms)")  # fmt: skip
    log.info("layer_factory.hpp:77", f"Creating layer {name}")
    layer = make_layer(param)
    layer.random = Stream(net, index)
    log.info("net.cpp:86", f"Creating Layer {name}")
    bottoms: list[int] = []
    for name_ in param.bottom:
        if name_ not in available:
            raise CaffeError(f"Unknown bottom blob '{name_}' (layer '{name}', bottom index {len(bottoms)})")
        log.info("net.cpp:408", f"{name} <- {name_}")
        bottoms.append(available.pop(name_))
    tops = [_add_top(net, param, i, top, available) for i, top in enumerate(param.top)]
    wanted = 0 if not layer.auto_top else layer.num_top if isinstance(layer.num_top, int) else layer.num_top[0]
    while len(tops) < wanted:  # a loss makes its own top
        net.anonymous_tops += 1
        top = f"(automatic)_{net.anonymous_tops}"
        log.info("net.cpp:382", f"{name} -> (automatic)")
        tops.append(net.add_blob(top))

    net.layers.append(layer)
    net.layer_names.append(name)
    net.bottom_ids.append(bottoms)
    net.top_ids.append(tops)
    net.bottoms.append([net.blob_list[i] for i in bottoms])
    net.tops.append([net.blob_list[i] for i in tops])
    try:
        _check_and_set_up(net, index, layer)
    except Exception as e:
        note_layer(e, layer)
        raise
    needs.add_layer(index, layer, param)
    _add_params(net, index, layer, param)


def _add_top(net, param, i, name, available):
    if i < len(param.bottom) and param.bottom[i] == name:
        log.info("net.cpp:369", f"{param.name} -> {name} (in-place)")
        index = net.blob_index[name]
    elif name in net.blob_index:
        raise CaffeError(f"Top blob '{name}' produced by multiple sources. (layer '{param.name}')")
    else:
        log.info("net.cpp:382", f"{param.name} -> {name}")
        index = net.add_blob(name)
        if param.type == "Input":
            net.inputs.append(name)
    available[name] = index
    return index


def _check_and_set_up(net, index, layer):
    bottom, top, param = net.bottoms[index], net.tops[index], layer.param
    layer.check_counts(bottom, top)
    layer.setup(bottom, top)
    if param.blobs and layer.type != "Python":
        _take_given_blobs(layer)
    net.set_loss_weights(index)
    layer.reshape(bottom, top)
    net.fill_loss_weights(index)
    log.info("net.cpp:124", f"Setting up {layer.name}")
    for i, blob in enumerate(top):
        dims = "".join(f"{d} " for d in blob.shape)
        log.info("net.cpp:131", f"Top shape: {dims}({blob.count})")
        if net.loss_weights[index][i]:
            log.info("net.cpp:134", f"    with loss weight {log.number(net.loss_weights[index][i])}")


def _take_given_blobs(layer):
    """Parameters written into the prototxt itself (`blobs { ... }`)."""
    from caffe.weights import blob_from_proto

    for own, given in zip(layer.blobs, layer.param.blobs):
        blob_from_proto(own, given, f"layer '{layer.name}'")


def _add_params(net, index, layer, param):
    if len(param.param) > len(layer.blobs):
        raise CaffeError(f"Too many params specified for layer {param.name} "
                         f"({len(param.param)} param entries, {len(layer.blobs)} parameter blobs)")  # fmt: skip
    for i, blob in enumerate(layer.blobs):
        spec = param.param[i] if i < len(param.param) else caffe_pb2.ParamSpec()
        owner = net.param_owner.get(spec.name) if spec.name else None
        if owner is None:
            net.learnable_params.append(blob)
            net.params_lr.append(spec.lr_mult if spec.HasField("lr_mult") else None)
            net.params_decay.append(spec.decay_mult if spec.HasField("decay_mult") else None)
            if spec.name:
                net.param_owner[spec.name] = (len(net.learnable_params) - 1, param.name, i)
            net.param_ids.setdefault(index, []).append(len(net.learnable_params) - 1)
            continue
        number, owner_layer, owner_index = owner
        shared = net.learnable_params[number]
        where = (f"Cannot share param '{spec.name}' owned by layer '{owner_layer}' with layer '{param.name}'; "
                 f"owner shape {shared.shape}, sharing layer's shape {blob.shape}")  # fmt: skip
        if spec.share_mode == spec.PERMISSIVE:
            if shared.count != blob.count:
                raise CaffeError(f"{where}: count mismatch.")
        elif shared.shape != blob.shape:
            raise CaffeError(f"{where}: shape mismatch.")
        blob.share(shared)
        net.param_ids.setdefault(index, []).append(number)
        for values, field in ((net.params_lr, "lr_mult"), (net.params_decay, "decay_mult")):
            if spec.HasField(field):
                if values[number] is not None and values[number] != getattr(spec, field):
                    raise CaffeError(f"Shared param '{spec.name}' has mismatched {field}.")
                values[number] = getattr(spec, field)


class _Needs:
    """Decides what is computed backward: only what lies between a learning parameter and a loss."""

    def __init__(self, net):
        self.net = net
        self.blob = {}  # blob index -> does its producer need a gradient
        self.skip = None

    def add_layer(self, index, layer, param):
        net = self.net
        bottoms = []
        for i, b in enumerate(net.bottom_ids[index]):
            bottoms.append(param.propagate_down[i] if param.propagate_down else self.blob[b])
        layer_needs = any(bottoms)
        layer.param_propagate_down = []
        for i in range(len(layer.blobs)):
            spec = param.param[i] if i < len(param.param) else None
            learns = spec.lr_mult != 0 if spec is not None else True
            layer.param_propagate_down.append(learns)
            layer_needs |= learns
        for t in net.top_ids[index]:
            self.blob[t] = layer_needs
        net.bottom_need_backward.append(bottoms)
        net.layer_need_backward.append(layer_needs)

    def finish(self, force_backward):
        net = self.net
        under_loss, skipped = set(), set()
        for index in reversed(range(len(net.layers))):
            tops = net.top_ids[index]
            contributes = any(net.loss_weights[index][i] or t in under_loss for i, t in enumerate(tops))
            skip = all(t in skipped for t in tops)
            if net.layer_need_backward[index] and skip:
                net.layer_need_backward[index] = False
                net.bottom_need_backward[index] = [False] * len(net.bottom_ids[index])
            if not contributes:
                net.layer_need_backward[index] = False
            verb = "needs" if net.layer_need_backward[index] else "does not need"
            log.info("net.cpp:200" if net.layer_need_backward[index] else "net.cpp:202",
                     f"{net.layer_names[index]} {verb} backward computation.")  # fmt: skip
            for i, b in enumerate(net.bottom_ids[index]):
                if contributes:
                    under_loss.add(b)
                else:
                    net.bottom_need_backward[index][i] = False
                if not net.bottom_need_backward[index][i]:
                    skipped.add(b)
        if force_backward:
            self._force()
        for index, layer in enumerate(net.layers):
            layer.need_backward = net.layer_need_backward[index]
            layer.propagate_down = net.bottom_need_backward[index]

    def _force(self):
        net = self.net
        for index, layer in enumerate(net.layers):
            net.layer_need_backward[index] = True
            for i in range(len(net.bottom_ids[index])):
                allowed = i not in layer.no_gradient
                net.bottom_need_backward[index][i] = net.bottom_need_backward[index][i] or allowed
            layer.param_propagate_down = [True] * len(layer.blobs)
