"""Nets written in Python: `layers as L`, `params as P` and `NetSpec` build a NetParameter (pycaffe's net_spec).

    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 64, 64]))
    n.conv1 = L.Convolution(n.data, num_output=48, kernel_size=5, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    print(n.to_proto())

A keyword goes to the parameter message of the layer's type (`convolution_param`) when that has a field of this name,
else to the layer itself (`name`, `loss_weight`, `param`, `include`, `convolution_param` of a Deconvolution).
"""

import json
from collections import Counter

from google.protobuf import text_format

from caffe import fork_words, options
from caffe.proto import caffe_pb2


def param_name_dict():
    """The `<name>_param` of each layer type: {"Convolution": "convolution", "InnerProduct": "inner_product", ...}"""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    messages = [(f.message_type, f.name) for f in fields if f.name.endswith("_param")]
    # Backwards, so that Caffe's own field wins over a fork's further one of the same message.
    return {m.name.removesuffix("Parameter"): name.removesuffix("_param") for m, name in reversed(messages) if m}


_param_names = param_name_dict()


def assign_proto(proto, name, value):
    """Sets field `name` of message `proto`: a dict fills a message, a list a repeated field; one value is such a list.

    Raises AttributeError where the message has no such field."""
    field = proto.DESCRIPTOR.fields_by_name.get(name)
    if field is None and isinstance(proto, caffe_pb2.LayerParameter) and options.extension(name):
        _assign_message(proto.Extensions[options.extension(name)], value)
        return
    if field is None and (said := _in_our_words(proto, name, value)) is not None:
        text_format.Merge(said, proto)
        return
    if field is None:
        known = ", ".join(proto.DESCRIPTOR.fields_by_name)
        raise AttributeError(f"{proto.DESCRIPTOR.name} has no field {name!r} (known: {known})")
    target = getattr(proto, name)
    if hasattr(target, "extend"):  # a repeated field
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if field.message_type is None:
                _assign(field, target.append, item)
            else:
                _assign_message(target.add(), item)
    elif field.message_type is not None:
        _assign_message(target, value)
    else:
        _assign(field, lambda value: setattr(proto, name, value), value)


def _assign(field, put, value):
    try:
        put(value)
    except (TypeError, ValueError) as e:
        raise type(e)(f"{field.containing_type.name}.{field.name} is {value!r}: {e}") from None


def _in_our_words(proto, name, value):
    """What a fork's field says in Caffe's words, as text; None where there is none."""
    text = (
        str(value).lower() if isinstance(value, bool) else json.dumps(value) if isinstance(value, str) else str(value)
    )
    return fork_words.in_our_words(proto.DESCRIPTOR.name, name, text)


def _assign_message(message, value):
    if isinstance(value, dict):
        for key, item in value.items():
            assign_proto(message, key, item)
    elif isinstance(value, type(message)):
        message.CopyFrom(value)
    else:
        raise TypeError(f"{message.DESCRIPTOR.name} is {value!r}; wanted a dict of its fields")


class Top:
    """One output of a layer, to be handed to other layers as input."""

    def __init__(self, fn, n):
        self.fn = fn  # the layer it comes out of
        self.n = n  # which of its tops it is

    def to_proto(self):
        """The NetParameter of this top and all it depends on, with names made up."""
        return to_proto(self)

    def _to_proto(self, layers, names, autonames):
        self.fn._to_proto(layers, names, autonames)


class Function:
    """A layer to be: type, inputs and parameters; `ntop` outputs, none of its own when `in_place`."""

    def __init__(self, type_name, inputs, params):
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(bottom)})")
        params = dict(params)
        self.type_name = type_name
        self.inputs = inputs
        self.ntop = params.pop("ntop", 1)
        self.in_place = params.pop("in_place", False)
        self.params = params
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _to_proto(self, layers, names, autonames):
        """Adds to `layers`, {Function: LayerParameter}, all that this layer depends on, then itself."""
        if self in layers:
            return
        bottoms = []
        for bottom in self.inputs:
            bottom._to_proto(layers, names, autonames)
            bottoms.append(layers[bottom.fn].top[bottom.n])
        tops = bottoms if self.in_place else [self._name_of(top, names, autonames) for top in self.tops]
        name = self._name_of(self.tops[0] if self.tops else self, names, autonames)
        layer = caffe_pb2.LayerParameter(type=self.type_name, name=name, bottom=bottoms, top=tops)
        for key, value in self.params.items():
            assign_proto(self._message_with(layer, key), key, value)
        layers[self] = layer

    def _name_of(self, thing, names, autonames):
        if thing not in names:
            autonames[self.type_name] += 1
            names[thing] = f"{self.type_name}{autonames[self.type_name]}"
        return names[thing]

    def _message_with(self, layer, key):
        """The message that option `key` belongs to: the layer's own options, before all unless it is such a message
        itself (transform_param); or the LayerParameter."""
        own, declared = _param_names.get(self.type_name), options.of_type.get(self.type_name)
        if not (own or declared):
            return layer
        options_of = layer.Extensions[options.extension(declared)] if declared else getattr(layer, f"{own}_param")
        if not key.endswith("param") and self._has(options_of, key):
            return options_of
        return layer if self._has(layer, key) or options.extension(key) else options_of

    def _has(self, message, key):
        return key in message.DESCRIPTOR.fields_by_name or _in_our_words(message, key, self.params[key]) is not None


class NetSpec:
    """A net under construction: an attribute is a named top, in the order of assignment; `to_proto()` writes it out."""

    def __init__(self):
        super().__setattr__("tops", {})

    def __setattr__(self, name, value):
        self.tops[name] = value

    def __getattr__(self, name):
        try:
            return self.tops[name]
        except KeyError:
            raise AttributeError(f"the net has no top {name!r} (so far: {', '.join(self.tops)})") from None

    def __delattr__(self, name):
        del self.tops[name]

    __setitem__ = __setattr__
    __delitem__ = __delattr__

    def __getitem__(self, name):
        return self.tops[name]

    def to_proto(self):
        """The NetParameter: each layer after those it needs, named as the attribute that holds its first top."""
        for name, top in self.tops.items():
            if not isinstance(top, (Top, Function)):
                several = f"{len(top)} tops; name each: n.a, n.b = L.." if isinstance(top, tuple) else "no top"
                raise TypeError(f"what the net has as {name!r} is {several} (type is {type(top)})")
        return _net(self.tops.values(), {top: name for name, top in self.tops.items()})


def to_proto(*tops):
    """The NetParameter of `tops` and all they depend on; layers and blobs get names such as Convolution1."""
    return _net(tops, {})


def _net(tops, names):
    layers: dict = {}
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(layers, names, autonames)
    return caffe_pb2.NetParameter(layer=layers.values())


class Layers:
    """`L.<Type>(*bottoms, **params)`: one Top; a tuple of `ntop` Tops; the Function itself when `ntop` is 0."""

    def __getattr__(self, type_name):
        def layer(*bottoms, **params):
            fn = Function(type_name, bottoms, params)
            return fn.tops if fn.ntop > 1 else fn.tops[0] if fn.ntop else fn

        return layer


class Parameters:
    """`P.<Type>.<NAME>`: the values of a layer type's enums, such as P.Pooling.MAX or P.Eltwise.SUM."""

    def __getattr__(self, type_name):
        return getattr(caffe_pb2, f"{type_name}Parameter")


layers = Layers()
params = Parameters()
