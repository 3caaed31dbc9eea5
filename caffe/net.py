"""Net: a net as pycaffe shows it (Caffe: net.hpp; pycaffe: pycaffe.py)."""

import os
from collections import OrderedDict
from itertools import repeat

import numpy as np

from caffe import glog as log
from caffe import net_build, weights
from caffe.blob import Blob
from caffe.errors import CaffeError, NotPickled
from caffe.executor import Executor
from caffe.layer import TEST, TRAIN, Layer
from caffe.proto import caffe_pb2
from caffe.random import Seeds
from caffe.read import read_net_file


class Net(NotPickled):
    """A net from a prototxt file.

    Net(file, phase, level=0, stages=None, weights=None), or as in old pycaffe Net(file, weights, phase).
    `phase` is caffe.TRAIN or caffe.TEST; `weights` a .caffemodel (or .h5) to copy by layer name.
    """

    call = "call it as caffe.Net(network_file, phase, level=0, stages=None, weights=None)"
    instead = "net.save(file) writes its weights, and caffe.Net(prototxt, phase, weights=file) makes it again"

    def __init__(self, network_file, *given, level=0, stages=None, weights=None, phase=None):
        old = bool(given) and isinstance(given[0], (str, bytes, os.PathLike))
        order = ("weights", "phase", "level", "stages") if old else ("phase", "level", "stages", "weights")
        if len(given) > len(order):
            raise TypeError(f"too many arguments, {1 + len(given)}; {self.call}")
        options = dict(phase=phase, level=level, stages=stages, weights=weights) | dict(zip(order, given))
        param = read_net_file(_path(network_file, "network_file"))
        param.state.MergeFrom(_state(self.call, options["phase"], options["level"], options["stages"]))
        self._build(param)
        if options["weights"] is not None:
            self.copy_from(options["weights"])

    @classmethod
    def from_proto(cls, param: caffe_pb2.NetParameter, seed=None) -> "Net":
        """A net from a NetParameter with its `state` (phase, level, stages) set."""
        net = cls.__new__(cls)
        net._build(param, seed)
        return net

    def _build(self, param, seed=None):
        seeds = Seeds(seed)
        self.wiring = wiring = net_build.build(param, seeds)
        self.executor = Executor(wiring, seeds, param.debug_info)
        self.loaded_from: list[str] = []  # files of weights
        self.name = param.name

    # ---- pycaffe's views

    @property
    def nodes(self):
        """What the net knows of its layers, in their order."""
        return self.wiring.nodes

    @property
    def layers(self) -> list[Layer]:
        return [node.layer for node in self.nodes]

    @property
    def inputs(self) -> list[str]:
        return list(self.wiring.inputs)

    @property
    def outputs(self) -> list[str]:
        return list(self.wiring.outputs)

    @property
    def blobs(self):
        """Blobs by name, in the order of the layers that make them."""
        return _Table("blobs", zip(self.wiring.names, self.wiring.blobs))

    @property
    def params(self):
        """Parameter blobs by layer name: `net.params['conv1'][0].data`."""
        return _Table("params", ((node.name, node.layer.blobs) for node in self.nodes if len(node.layer.blobs)))

    @property
    def layer_dict(self):
        return _Table("layer_dict", ((node.name, node.layer) for node in self.nodes))

    @property
    def bottom_names(self):
        return OrderedDict((node.name, [self.wiring.names[i] for i in node.bottom_ids]) for node in self.nodes)

    @property
    def top_names(self):
        return OrderedDict((node.name, [self.wiring.names[i] for i in node.top_ids]) for node in self.nodes)

    @property
    def blob_loss_weights(self):
        weights = OrderedDict.fromkeys(self.wiring.names, 0.0)
        for node in self.nodes:
            weights.update((self.wiring.names[i], weight) for i, weight in zip(node.top_ids, node.loss_weights))
        return weights

    _blob_loss_weights = property(lambda self: list(self.blob_loss_weights.values()))
    _layer_names = property(lambda self: [node.name for node in self.nodes])
    _blob_names = property(lambda self: list(self.wiring.names))
    _blobs = property(lambda self: list(self.wiring.blobs))
    _inputs = property(lambda self: [self.wiring.ids[name] for name in self.wiring.inputs])
    _outputs = property(lambda self: [self.wiring.ids[name] for name in self.wiring.outputs])

    def _bottom_ids(self, layer):
        return list(self.nodes[layer].bottom_ids)

    def _top_ids(self, layer):
        return list(self.nodes[layer].top_ids)

    # ---- what it learns

    @property
    def learnable_params(self) -> list[Blob]:
        return [learned.blob for learned in self.wiring.learned]

    @property
    def params_lr(self) -> list[float]:
        """lr_mult of each of `learnable_params`."""
        return [1.0 if learned.lr_mult is None else learned.lr_mult for learned in self.wiring.learned]

    @property
    def params_decay(self) -> list[float]:
        """decay_mult of each of `learnable_params`."""
        return [1.0 if learned.decay_mult is None else learned.decay_mult for learned in self.wiring.learned]

    def clear_param_diffs(self):
        """Set the diffs of all learnable parameters to zero (they add up over backward passes)."""
        self.wiring.clear_param_diffs()

    # ---- forward and backward

    def forward(self, blobs=None, start=None, end=None, **kwargs):
        """Run layers `start` to `end` (names, both included; default: all) and return {blob name: array}.

        blobs   names of further blobs to return, besides the outputs (or, with `end`, the tops of that layer)
        kwargs  data for the input blobs: {name: array}, all of them or none
        """
        first = 0 if start is None else self._layer_index(start)
        last = None if end is None else self._layer_index(end)
        names = {*(self.outputs if end is None else self.top_names[end]), *_names("blobs", blobs)}
        for blob, value in self._fed(kwargs, self.inputs, "Input blob", "inputs"):
            blob.data[...] = value
        self._forward(first, last)
        return {name: self._blob(name).data for name in names}

    def _forward(self, first, last):
        """Run layers number `first` to `last`; the loss (sum of weighted tops)."""
        return float(self.executor.forward(first, last))

    def backward(self, diffs=None, start=None, end=None, **kwargs):
        """Run layers backward from `start` to `end` (names; default: all) and return {blob name: diff array}.

        diffs   names of further blobs whose diffs to return, besides the inputs (or, with `end`, its bottoms)
        kwargs  diffs for the output blobs: {name: array}, all of them or none
        """
        first = None if start is None else self._layer_index(start)
        last = 0 if end is None else self._layer_index(end)
        names = {*(self.inputs if end is None else self.bottom_names[end]), *_names("diffs", diffs)}
        for blob, value in self._fed(kwargs, self.outputs, "Top diff", "outputs"):
            blob.diff[...] = value
        self._backward(first, last)
        return {name: self._blob(name).diff for name in names}

    def _backward(self, first=None, last=0):
        """Run layers number `first` (default: the last) down to `last` backward."""
        self.executor.backward(first, last)

    def _fed(self, arrays, names, told, what):
        """(blob, array) of {name: array}, which are to be for all of `names` or none."""
        if arrays and set(arrays) != set(names):
            raise CaffeError(
                f"{told} arguments do not match net {what}: given {sorted(arrays)}, the net has {sorted(names)}."
            )
        for name, value in arrays.items():
            blob = self._blob(name)
            if np.ndim(value) and np.shape(value)[0] != (blob.shape or (1,))[0]:
                raise CaffeError(
                    f"{told} is not batch sized: '{name}' got shape {np.shape(value)}, its blob has {blob.shape}."
                )
            yield blob, value

    def reshape(self):
        """Let every layer set its tops' shapes anew (after an input blob was reshaped)."""
        self.executor.reshape()

    # ---- whole data sets in batches

    def forward_all(self, blobs=None, **kwargs):
        """Run `forward` in batches over arrays of any length; {blob name: array of that length}."""
        if not kwargs:
            raise TypeError(f"forward_all wants an array for each input of the net: {', '.join(self.inputs)}")
        all_outs: dict[str, list] = {out: [] for out in set(self.outputs) | set(blobs or [])}
        for batch in self._batch(kwargs):
            outs = self.forward(blobs=blobs, **batch)
            for name, value in outs.items():
                all_outs[name].extend(_items(name, value))
        count = len(next(iter(kwargs.values())))
        return {name: np.asarray(value)[:count] for name, value in all_outs.items()}

    def forward_backward_all(self, blobs=None, diffs=None, **kwargs):
        """`forward` and `backward` in batches; ({blob name: data}, {blob name: diff})."""
        given = {name: kwargs[name] for name in set(self.inputs) & set(kwargs)}
        if not given:
            raise TypeError(f"forward_backward_all wants an array for each input of the net: {', '.join(self.inputs)}")
        given_diffs = {name: kwargs[name] for name in set(self.outputs) & set(kwargs)}
        outs: dict[str, list] = {}
        grads: dict[str, list] = {}
        for batch, batch_diffs in zip(self._batch(given), self._batch(given_diffs) if given_diffs else repeat({})):
            for name, value in self.forward(blobs=blobs, **batch).items():
                outs.setdefault(name, []).extend(_items(name, value))
            for name, value in self.backward(diffs=diffs, **batch_diffs).items():
                grads.setdefault(name, []).extend(_items(name, value))
        count = len(next(iter(given.values())))
        cut = lambda table: {name: np.asarray(value)[:count] for name, value in table.items()}  # noqa: E731
        return cut(outs), cut(grads)

    def _batch(self, arrays):
        """Cut arrays into batches of the net's size; the last is padded with zeros."""
        count = len(next(iter(arrays.values())))
        size = next(iter(self.blobs.values())).shape[0]
        for begin in range(0, count, size):
            batch = {name: np.asarray(value[begin : begin + size]) for name, value in arrays.items()}
            missing = size - len(next(iter(batch.values())))
            if missing:
                batch = {n: np.concatenate([v, np.zeros((missing, *v.shape[1:]), v.dtype)]) for n, v in batch.items()}
            yield batch

    def set_input_arrays(self, data, labels):
        """Feed the net's MemoryData layer: data (N, C, H, W), labels (N,) or (N, 1, 1, 1), both float32."""
        layer = self.nodes[0].builtin
        if layer.type != "MemoryData":
            raise CaffeError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        layer.set_arrays(data, labels)

    # ---- weights

    def copy_from(self, path):
        """Copy weights by layer name from a .caffemodel, or from HDF5 when the name ends in .h5."""
        path = _path(path, "weights")
        weights.copy_from(self, path)
        self.loaded_from.append(path)

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
        if not isinstance(other, Net):
            raise TypeError(f"share_with wants a caffe.Net, not {other!r}")
        own = self.wiring.by_name()
        for theirs in other.nodes:
            if theirs.name not in own:
                log.info("net.cpp:684", f"Ignoring source layer {theirs.name}")
                continue
            blobs = own[theirs.name].layer.blobs
            if len(blobs) != len(theirs.layer.blobs):
                raise CaffeError(f"Incompatible number of blobs for layer {theirs.name}")
            for i, (mine, source) in enumerate(zip(blobs, theirs.layer.blobs)):
                if mine.shape != source.shape:
                    raise CaffeError(
                        f"Cannot share param {i} weights from layer '{theirs.name}'; shape mismatch. "
                        f"Source param shape is {source.shape}; target's is {mine.shape}"
                    )
                mine.memory = source.memory

    # ---- callbacks: called with the number of the layer

    def before_forward(self, call):
        self.executor.callbacks["before_forward"].append(call)

    def after_forward(self, call):
        self.executor.callbacks["after_forward"].append(call)

    def before_backward(self, call):
        self.executor.callbacks["before_backward"].append(call)

    def after_backward(self, call):
        self.executor.callbacks["after_backward"].append(call)

    # ---- beyond pycaffe

    def frugal(self, backward=True):
        """Keep only what is still needed: diffs and data of intermediate blobs read as zero afterwards, and what is
        written into blobs after a forward pass does not count in `backward`. Without `backward` nothing is kept for a
        backward pass, and there can be none."""
        self.executor.frugal(backward)

    def seek(self, batch, seed=None):
        """Go on with batch number `batch`, as if all before it had been given, and with another seed where told one."""
        seeds = self.executor.seeds
        seeds.seed, seeds.pass_index = seeds.seed if seed is None else seed, batch
        for node in self.nodes:
            node.seek(batch)

    def _blob(self, name):
        if name not in self.wiring.ids:
            raise CaffeError(f"the net has no blob '{name}' (its blobs: {', '.join(self.wiring.names)})")
        return self.wiring.blobs[self.wiring.ids[name]]

    def _layer_index(self, name):
        if name not in self._layer_names:
            raise CaffeError(f"the net has no layer '{name}' (its layers: {', '.join(self._layer_names)})")
        return self._layer_names.index(name)


def _path(given, argument):
    if not isinstance(given, (str, bytes, os.PathLike)):
        raise TypeError(f"{argument} is {given!r}; wanted the path of a file")
    return os.fsdecode(given)


def _state(call, phase, level, stages):
    """A NetState of what `Net` was called with."""
    if phase not in (TRAIN, TEST):
        raise TypeError(f"phase is {phase!r}; wanted caffe.TRAIN or caffe.TEST; {call}")
    if isinstance(level, (str, bytes, os.PathLike)):
        raise TypeError(f"level is {level!r}; wanted a number, and weights by their name: weights={str(level)!r}")
    if isinstance(stages, str):
        raise TypeError(f"stages is {stages!r}; wanted a list of names, as in [{stages!r}]")
    return caffe_pb2.NetState(phase=caffe_pb2.Phase.Name(phase), level=int(level), stage=stages or [])


class _Table(OrderedDict):
    """What a net has, by name. What is there stays there: its values are written, not replaced."""

    def __init__(self, called, items):
        super().__init__()
        for name, value in items:
            super().__setitem__(name, value)
        self._called = called

    def copy(self):
        return OrderedDict(self)

    def __reduce__(self):  # what copy.copy and copy.deepcopy make
        return OrderedDict, (list(self.items()),)

    def __or__(self, other):
        return OrderedDict(self) | other

    def __repr__(self):
        return repr(OrderedDict(self))

    def __setitem__(self, name, value):
        raise TypeError(
            f"net.{self._called}[{name!r}] cannot be replaced by this {type(value).__name__}; "
            "write into what is there: .data[...] = values"
        )


def _names(argument, given):
    """The names of blobs that are given as a list."""
    if isinstance(given, str) or (given is not None and not all(isinstance(name, str) for name in given)):
        told = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        raise TypeError(
            f"{argument} is {told}; wanted a list of names of blobs (arrays are given by name, as in data=...)"
        )
    return given or []


def _items(name, array):
    if not array.ndim:
        raise CaffeError(f"'{name}' is one number for a whole batch, not one for each item; use net.forward() for it")
    return array.copy()
