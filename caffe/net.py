"""Net: layers run in order, forward and backward (Caffe: net.hpp; pycaffe: pycaffe.py)."""

import math
from collections import OrderedDict

import numpy as np

from caffe import glog as log
from caffe import net_build, weights
from caffe.blob import Blob
from caffe.errors import CaffeError, note_layer
from caffe.layer import Layer
from caffe.proto import caffe_pb2
from caffe.random import next_seed


class Net:
    """A net from a prototxt file.

    Net(file, phase, level=0, stages=None, weights=None), or as in old pycaffe Net(file, weights, phase).
    `phase` is caffe.TRAIN or caffe.TEST; `weights` a .caffemodel (or .h5) to copy by layer name.
    """

    def __init__(self, network_file, *given, level=0, stages=None, weights=None, phase=None):
        args = list(given)
        if args and isinstance(args[0], (str, bytes)):  # the old order
            weights = args.pop(0)
        if args:
            phase, *args = args
        if args:
            level, *args = args
        if args:
            stages, *args = args
        if args:
            weights, *args = args
        if args or phase is None:
            raise TypeError("Net(network_file, phase, level=0, stages=None, weights=None)")
        from caffe.read import read_net_file

        param = read_net_file(str(network_file))
        param.state.phase = phase
        param.state.level = level
        param.state.stage.extend(stages or [])
        self._build(param)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def from_proto(cls, param: caffe_pb2.NetParameter, seed=None) -> "Net":
        """A net from a NetParameter with its `state` (phase, level, stages) set."""
        net = cls.__new__(cls)
        net._build(param, seed)
        return net

    def _build(self, param, seed=None):
        self.seed = next_seed() if seed is None else seed
        self.pass_index = 0  # counts forward passes; with the seed it fixes every random number
        self.keep = True  # False: release what no later layer reads (the command line trains like that)
        self.debug_info = param.debug_info
        self.layers, self.layer_names = [], []
        self.bottoms, self.tops, self.bottom_ids, self.top_ids = [], [], [], []
        self.blob_list, self.blob_names, self.blob_index, self.anonymous_tops = [], [], {}, 0
        self.loss_weights = []  # for every layer, a weight for every top
        self.inputs, self.outputs = [], []
        self.learnable_params: list[Blob] = []
        self.params_lr: list[float] = []
        self.params_decay: list[float] = []
        self.param_owner, self.param_ids = {}, {}
        self.bottom_need_backward, self.layer_need_backward = [], []
        moments = ("before_forward", "after_forward", "before_backward", "after_backward")
        self._callbacks: dict[str, list] = {moment: [] for moment in moments}
        self.loaded_from: list[str] = []  # files of weights
        net_build.build(self, param)
        self.name = param.name
        self.params_lr = [1.0 if v is None else v for v in self.params_lr]
        self.params_decay = [1.0 if v is None else v for v in self.params_decay]
        self._last_use = _last_uses(self)
        self._mark_overwritable()
        self._input_arrays = []

    # ---- pycaffe's views

    @property
    def blobs(self):
        """Blobs by name, in the order of the layers that make them."""
        return OrderedDict(zip(self.blob_names, self.blob_list))

    @property
    def params(self):
        """Parameter blobs by layer name: `net.params['conv1'][0].data`."""
        return OrderedDict((n, layer.blobs) for n, layer in zip(self.layer_names, self.layers) if len(layer.blobs))

    @property
    def layer_dict(self):
        return OrderedDict(zip(self.layer_names, self.layers))

    @property
    def bottom_names(self):
        return OrderedDict((n, [self.blob_names[i] for i in ids]) for n, ids in zip(self.layer_names, self.bottom_ids))

    @property
    def top_names(self):
        return OrderedDict((n, [self.blob_names[i] for i in ids]) for n, ids in zip(self.layer_names, self.top_ids))

    @property
    def blob_loss_weights(self):
        weights = OrderedDict((name, 0.0) for name in self.blob_names)
        for ids, values in zip(self.top_ids, self.loss_weights):
            for i, value in zip(ids, values):
                weights[self.blob_names[i]] = value
        return weights

    _layer_names = property(lambda self: list(self.layer_names))
    _blob_names = property(lambda self: list(self.blob_names))
    _blobs = property(lambda self: list(self.blob_list))
    _inputs = property(lambda self: [self.blob_names.index(n) for n in self.inputs])
    _outputs = property(lambda self: [self.blob_names.index(n) for n in self.outputs])

    def _bottom_ids(self, layer):
        return list(self.bottom_ids[layer])

    def _top_ids(self, layer):
        return list(self.top_ids[layer])

    # ---- forward

    def forward(self, blobs=None, start=None, end=None, **kwargs):
        """Run layers `start` to `end` (names, both included; default: all) and return {blob name: array}.

        blobs   names of further blobs to return, besides the outputs (or, with `end`, the tops of that layer)
        kwargs  data for the input blobs: {name: array}, all of them or none
        """
        first = self._layer_index(start) if start is not None else 0
        if end is not None:
            last = self._layer_index(end)
            outputs = set(self.top_names[end]) | set(blobs or [])
        else:
            last = len(self.layers) - 1
            outputs = set(self.outputs) | set(blobs or [])
        if kwargs:
            if set(kwargs) != set(self.inputs):
                raise CaffeError(f"Input blob arguments do not match net inputs: given {sorted(kwargs)}, "
                                 f"the net has {sorted(self.inputs)}.")  # fmt: skip
            for name, value in kwargs.items():
                blob = self._blob(name)
                if np.shape(value)[0] != blob.shape[0]:
                    raise CaffeError(f"Input is not batch sized: '{name}' got {np.shape(value)[0]} items, "
                                     f"its blob holds {blob.shape[0]}.")  # fmt: skip
                blob.data[...] = value
        self._forward(first, last)
        return {name: self._blob(name).data for name in outputs}

    def _forward(self, first, last):
        """Run layers number `first` to `last`; the loss (sum of weighted tops)."""
        return float(self.run_forward(first, last))

    def run_forward(self, first=0, last=None, without=()):
        """As `_forward`, but the loss stays a tensor (or 0.0), so that a GPU need not be waited for. `without`: numbers
        of layers that have done their work already (feed.py)."""
        last = len(self.layers) - 1 if last is None else last
        if first == 0:
            self.pass_index += 1
        loss = 0.0
        for i in range(first, last + 1):
            for call in self._callbacks["before_forward"]:
                call(i)
            layer, bottom, top = self.layers[i], self.bottoms[i], self.tops[i]
            try:
                if i not in without:
                    layer.reshape(bottom, top)
                self.fill_loss_weights(i)
                if i not in without:
                    layer.forward(bottom, top)
            except Exception as e:
                note_layer(e, layer)
                raise
            for k, weight in enumerate(self.loss_weights[i]):
                if weight:
                    loss = loss + (top[k].memory.tensor() * top[k].grad.tensor()).sum()
            if self.debug_info:
                self._forward_debug_info(i)
            for call in self._callbacks["after_forward"]:
                call(i)
            if not self.keep:
                self._release_data(i)
        return loss

    def reshape(self):
        """Let every layer set its tops' shapes anew (after an input blob was reshaped)."""
        for i, layer in enumerate(self.layers):
            try:
                layer.reshape(self.bottoms[i], self.tops[i])
            except Exception as e:
                note_layer(e, layer)
                raise
            self.fill_loss_weights(i)

    # ---- backward

    def backward(self, diffs=None, start=None, end=None, **kwargs):
        """Run layers backward from `start` to `end` (names; default: all) and return {blob name: diff array}.

        diffs   names of further blobs whose diffs to return, besides the inputs (or, with `end`, its bottoms)
        kwargs  diffs for the output blobs: {name: array}, all of them or none
        """
        first = self._layer_index(start) if start is not None else len(self.layers) - 1
        if end is not None:
            last = self._layer_index(end)
            outputs = set(self.bottom_names[end]) | set(diffs or [])
        else:
            last = 0
            outputs = set(self.inputs) | set(diffs or [])
        if kwargs:
            if set(kwargs) != set(self.outputs):
                raise CaffeError(f"Top diff arguments do not match net outputs: given {sorted(kwargs)}, "
                                 f"the net has {sorted(self.outputs)}.")  # fmt: skip
            for name, value in kwargs.items():
                blob = self._blob(name)
                if np.ndim(value) and np.shape(value)[0] != (blob.shape or (1,))[0]:
                    raise CaffeError(f"Diff is not batch sized: '{name}' got shape {np.shape(value)}, "
                                     f"its blob has {blob.shape}.")  # fmt: skip
                blob.diff[...] = value
        self._backward(first, last)
        return {name: self._blob(name).diff for name in outputs}

    def _backward(self, first=None, last=0):
        """Run layers number `first` (default: the last) down to `last` backward."""
        for i in range(len(self.layers) - 1 if first is None else first, last - 1, -1):
            for call in self._callbacks["before_backward"]:
                call(i)
            if self.layer_need_backward[i]:
                self._backward_layer(i)
            for call in self._callbacks["after_backward"]:
                call(i)
            if not self.keep:
                self._release_diffs(i)
        if self.debug_info and first is None:
            self._params_debug_info()

    def _backward_layer(self, i):
        layer, wanted = self.layers[i], self.bottom_need_backward[i]
        if not layer.differentiable and any(wanted):
            layer.fail("has no backward; leave out force_backward, or give it propagate_down: false")
        if layer.gradient_checked and any(wanted[k] for k in layer.no_gradient if k < len(wanted)):
            layer.fail(f"{layer.type} Layer cannot backpropagate to label inputs.")
        try:
            layer.backward(self.tops[i], wanted, self.bottoms[i])
        except Exception as e:
            note_layer(e, layer)
            raise
        if self.debug_info:
            self._backward_debug_info(i)

    def clear_param_diffs(self):
        """Set the diffs of all learnable parameters to zero (they add up over backward passes)."""
        for blob in self.learnable_params:
            blob.grad.zero()

    # ---- whole data sets in batches

    def forward_all(self, blobs=None, **kwargs):
        """Run `forward` in batches over arrays of any length; {blob name: array of that length}."""
        all_outs: dict[str, list] = {out: [] for out in set(self.outputs) | set(blobs or [])}
        for batch in self._batch(kwargs):
            outs = self.forward(blobs=blobs, **batch)
            for name, value in outs.items():
                all_outs[name].extend(value.copy())
        count = len(next(iter(kwargs.values())))
        return {name: np.asarray(value)[:count] for name, value in all_outs.items()}

    def forward_backward_all(self, blobs=None, diffs=None, **kwargs):
        """`forward` and `backward` in batches; ({blob name: data}, {blob name: diff})."""
        given = {name: kwargs[name] for name in set(self.inputs) & set(kwargs)}
        given_diffs = {name: kwargs[name] for name in set(self.outputs) & set(kwargs)}
        outs: dict[str, list] = {}
        grads: dict[str, list] = {}
        for batch, batch_diffs in zip(self._batch(given), self._batch(given_diffs) if given_diffs else _forever({})):
            for name, value in self.forward(blobs=blobs, **batch).items():
                outs.setdefault(name, []).extend(value.copy())
            for name, value in self.backward(diffs=diffs, **batch_diffs).items():
                grads.setdefault(name, []).extend(value.copy())
        count = len(next(iter(given.values())))
        cut = lambda table: {name: np.asarray(value)[:count] for name, value in table.items()}  # noqa: E731
        return cut(outs), cut(grads)

    def _batch(self, arrays):
        """Cut arrays into batches of the net's size; the last is padded with its own first item."""
        count = len(next(iter(arrays.values())))
        size = next(iter(self.blobs.values())).shape[0]
        for begin in range(0, count, size):
            batch = {name: np.asarray(value[begin : begin + size]) for name, value in arrays.items()}
            missing = size - len(next(iter(batch.values())))
            if missing:
                batch = {n: np.concatenate([v, np.repeat(v[:1], missing, 0)]) for n, v in batch.items()}
            yield batch

    def set_input_arrays(self, data, labels):
        """Feed the net's MemoryData layer: data (N, C, H, W), labels (N,) or (N, 1, 1, 1), both float32."""
        layer = self.layers[0]
        if layer.type != "MemoryData":
            raise CaffeError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        layer.set_arrays(data, labels)

    # ---- weights

    def copy_from(self, path):
        """Copy weights by layer name from a .caffemodel, or from HDF5 when the name ends in .h5."""
        weights.copy_from(self, str(path))
        self.loaded_from.append(str(path))

    def save(self, path, write_diff=False):
        """Write all layers and their weights as a .caffemodel (binary NetParameter)."""
        weights.save(self, str(path), write_diff)

    def load_hdf5(self, path):
        weights.copy_from_hdf5(self, str(path))
        self.loaded_from.append(str(path))

    def save_hdf5(self, path, write_diff=False):
        weights.save_hdf5(self, str(path), write_diff)

    def share_with(self, other):
        """Use the parameters of the layers of the same names in `other` (the same memory)."""
        for name, layer in zip(other.layer_names, other.layers):
            if name not in self.layer_names:
                log.info("net.cpp:684", f"Ignoring source layer {name}")
                continue
            own = self.layers[self.layer_names.index(name)]
            if len(own.blobs) != len(layer.blobs):
                raise CaffeError(f"Incompatible number of blobs for layer {name}")
            for i, (mine, theirs) in enumerate(zip(own.blobs, layer.blobs)):
                if mine.shape != theirs.shape:
                    raise CaffeError(f"Cannot share param {i} weights from layer '{name}'; shape mismatch. "
                                     f"Source param shape is {theirs.shape}; target's is {mine.shape}")  # fmt: skip
                mine.memory = theirs.memory

    # ---- callbacks: called with the number of the layer

    def before_forward(self, call):
        self._callbacks["before_forward"].append(call)

    def after_forward(self, call):
        self._callbacks["after_forward"].append(call)

    def before_backward(self, call):
        self._callbacks["before_backward"].append(call)

    def after_backward(self, call):
        self._callbacks["after_backward"].append(call)

    # ---- inside

    @property
    def watched(self):
        """True where somebody is to be called before or after layers."""
        return any(self._callbacks.values())

    def seek(self, batch):
        """Let data layers that can (`seek`) go on with batch number `batch`, as if they had given all before it."""
        self.pass_index = batch
        for layer in self.layers:
            if hasattr(layer, "seek"):
                layer.seek(batch)

    def first_not_finite(self):
        """Tells the first blob or parameter, in the order of the layers, that holds a NaN or an infinity."""
        for layer, bottoms, tops in zip(self.layers, self.bottoms, self.tops):
            if bottoms or layer.type != "Python":  # a frugal net has dropped its blobs: compute them again
                layer.forward(bottoms, tops)
        for name, layer, ids, tops in zip(self.layer_names, self.layers, self.top_ids, self.tops):
            for k, blob in enumerate(layer.blobs):
                if not bool(blob.tensor().isfinite().all()):
                    return f"the first bad values are in parameter {k} of layer '{name}'"
            for i, blob in zip(ids, tops):
                if not bool(blob.tensor().isfinite().all()):
                    return f"the first bad values are in blob '{self.blob_names[i]}' of layer '{name}'"
        return "no blob holds bad values when computed again"

    def frugal(self, backward=True):
        """Keep only what is still needed: diffs and data of intermediate blobs read as zero afterwards. Without
        `backward` nothing is kept for a backward pass, and there can be none."""
        self.keep = False
        for layer in self.layers:
            layer.keep_graph = False
            layer.need_backward = layer.need_backward and backward

    def set_loss_weights(self, index):
        layer, given = self.layers[index], list(self.layers[index].param.loss_weight)
        count = len(self.tops[index])
        if given and len(given) != count and not (layer.auto_top and len(given) <= count):
            raise CaffeError(f"layer '{layer.name}': loss_weight must be unspecified or specified once per top blob "
                             f"({len(given)} values, {count} tops).")  # fmt: skip
        if not given and layer.is_loss:
            given = [1.0]
        self.loss_weights.append([given[i] if i < len(given) else 0.0 for i in range(count)])

    def fill_loss_weights(self, index):
        """A top with a loss weight carries it in its diff; layers take their gradient's scale from there."""
        for blob, weight in zip(self.tops[index], self.loss_weights[index]):
            if weight and blob.grad.is_zero:
                blob.grad.assign(blob.grad.tensor().fill_(weight))

    def add_blob(self, name):
        """Make an empty blob; its number."""
        self.blob_index[name] = len(self.blob_list)
        self.blob_names.append(name)
        self.blob_list.append(Blob())
        return self.blob_index[name]

    def _blob(self, name):
        if name not in self.blob_index:
            raise CaffeError(f"the net has no blob '{name}' (its blobs: {', '.join(self.blob_names)})")
        return self.blob_list[self.blob_index[name]]

    def _layer_index(self, name):
        if name not in self.layer_names:
            raise CaffeError(f"the net has no layer '{name}' (its layers: {', '.join(self.layer_names)})")
        return self.layer_names.index(name)

    def _mark_overwritable(self):
        """An in-place layer may write over its bottom where neither the producer's backward nor a view needs it."""
        producer: dict[int, Layer] = {}
        for i, layer in enumerate(self.layers):
            for b in self.bottom_ids[i]:
                source = producer.get(b)
                if source is not None and b in self.top_ids[i]:
                    layer.may_overwrite = not source.saves_output
            for t in self.top_ids[i]:
                producer[t] = layer

    def _release_data(self, index):
        for b in self._last_use[index]:
            memory = self.blob_list[b].memory
            if not memory.exposed:
                memory.zero()

    def _release_diffs(self, index):
        if not self.bottom_ids[index]:
            return  # the diff of a Parameter layer's top is its parameter's
        for i, blob in enumerate(self.tops[index]):
            in_place = self.top_ids[index][i] in self.bottom_ids[index]
            if not self.loss_weights[index][i] and not in_place and not blob.grad.exposed:
                blob.grad.zero()

    def _forward_debug_info(self, index):
        name = self.layer_names[index]
        for i, blob in zip(self.top_ids[index], self.tops[index]):
            log.info("net.cpp:593", f"    [Forward] Layer {name}, top blob {self.blob_names[i]} "
                                    f"data: {_mean_abs(blob.memory)}")  # fmt: skip
        for k, blob in enumerate(self.layers[index].blobs):
            shown = self._param_name(index, k)
            log.info("net.cpp:605", f"    [Forward] Layer {name}, param blob {shown} data: {_mean_abs(blob.memory)}")

    def _backward_debug_info(self, index):
        name = self.layer_names[index]
        for i, blob, wanted in zip(self.bottom_ids[index], self.bottoms[index], self.bottom_need_backward[index]):
            if wanted:
                log.info("net.cpp:621", f"    [Backward] Layer {name}, bottom blob {self.blob_names[i]} "
                                        f"diff: {_mean_abs(blob.grad)}")  # fmt: skip
        for k, blob in enumerate(self.layers[index].blobs):
            if self.layers[index].param_propagate_down[k]:
                log.info("net.cpp:632", f"    [Backward] Layer {name}, param blob {k} diff: {_mean_abs(blob.grad)}")

    def _params_debug_info(self):
        data, diff = ([m(b).tensor() for b in self.learnable_params] for m in (lambda b: b.memory, lambda b: b.grad))
        l1 = [log.number(sum(float(t.abs().sum()) for t in tensors)) for tensors in (data, diff)]
        l2 = [log.number(math.sqrt(sum(float(t.square().sum()) for t in tensors))) for tensors in (data, diff)]
        log.error("net.cpp:721", f"    [Backward] All net params (data, diff): L1 norm = ({', '.join(l1)}); "
                                 f"L2 norm = ({', '.join(l2)})")  # fmt: skip

    def _param_name(self, index, k):
        specs = self.layers[index].param.param
        return specs[k].name if k < len(specs) and specs[k].name else str(k)


def _last_uses(net):
    """For every layer, the blobs that no later layer reads; outputs are kept, and the tops of data and Parameter
    layers, which may be written once and not in every pass."""
    last, kept = {}, {net.blob_names.index(n) for n in net.outputs}
    for i in range(len(net.layers)):
        if not net.bottom_ids[i]:
            kept.update(net.top_ids[i])
        for b in (*net.bottom_ids[i], *net.top_ids[i]):
            last[b] = i
    uses: list[list[int]] = [[] for _ in net.layers]
    for b, i in last.items():
        if b not in kept:
            uses[i].append(b)
    return uses


def _mean_abs(memory):
    tensor = memory.tensor()
    return log.number(float(tensor.abs().sum()) / max(tensor.numel(), 1))


def _forever(value):
    while True:
        yield value
