"""Hypothesis strategies for files that attack: messages full of extreme values, and files with a few bytes changed."""

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor as F
from hypothesis import strategies as st

from caffe import layer_type_list
from caffe.builtin_layer import BuiltinLayer
from caffe.layer import REGISTRY
from caffe.net_spec import param_name_dict
from caffe.proto import caffe_pb2

NAMES = st.sampled_from(["data", "label", "a", "b", "c", "", "a\n", "ü"])
RARELY = st.sampled_from([False] * 5 + [True])
SMALL = st.sampled_from([1, 2, 3, 1, 2, 0])
EXTREME = [-1, -2, 7, 64, 65536, 2**24, 2**31 - 1]
FLOATS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e38, -1e38, 1e-40, float("nan"), float("inf"), float("-inf")])
INTEGERS = {
    F.TYPE_INT32: SMALL | st.sampled_from([*EXTREME, -(2**31)]),
    F.TYPE_INT64: SMALL | st.sampled_from([*EXTREME, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]),
    F.TYPE_UINT32: SMALL | st.sampled_from([n for n in EXTREME if n >= 0] + [2**31, 2**32 - 1]),
    F.TYPE_UINT64: SMALL | st.sampled_from([2**63, 2**64 - 1]),
}
# Layers of these types write files or run code of the user's own: not for random values.
TYPES = sorted(set(layer_type_list()) - {"HDF5Output", "Python"}) + ["Smurf", ""]
PARAM_OF_TYPE = {kind: f"{name}_param" for kind, name in param_name_dict().items()} | {
    "ConvolutionDepthwise": "convolution_param",
    "Deconvolution": "convolution_param",
    "DepthwiseConvolution": "convolution_param",
    "Im2col": "convolution_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
    "SoftmaxWithLoss": "softmax_param",
    "SpatialDropout": "spatial_dropout_param",
}


def scalar(field):
    if field.type in INTEGERS:
        return INTEGERS[field.type]
    if field.type in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        return FLOATS
    if field.type == F.TYPE_BOOL:
        return st.booleans()
    if field.type == F.TYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == F.TYPE_BYTES:
        return st.binary(max_size=4)
    if field.name == "type":
        return st.sampled_from(["constant", "uniform", "xavier", "bilinear", "gaussian", "smurf", "SGD", "Adam"])
    return NAMES


@st.composite
def filled(draw, message, most=4, without=()):
    """`message` with up to `most` of its fields set, in it and in its parts."""
    fields = [f for f in message.DESCRIPTOR.fields if f.name not in without]
    for field in draw(st.lists(st.sampled_from(fields), max_size=most)):
        target = getattr(message, field.name)
        if field.message_type is not None:
            for part in (
                [target] if not hasattr(target, "add") else [target.add() for _ in range(draw(st.integers(1, 2)))]
            ):
                part.SetInParent()
                draw(filled(part, most=3))
        elif hasattr(target, "extend"):
            target.extend(draw(st.lists(scalar(field), max_size=4)))
        else:
            setattr(message, field.name, draw(scalar(field)))
    return message


def count(draw, wanted):
    """A number of bottoms or tops that a layer takes: `wanted` is a number or (least, most)."""
    if isinstance(wanted, int):
        return wanted
    least, most = wanted if isinstance(wanted, tuple) else (1, 2)  # any number, or it depends on the parameters
    return draw(st.integers(least, most or least + 2))


@st.composite
def nets(draw):
    """A NetParameter: inputs, then a few layers, mostly wired as they want it, with parameters set to anything."""
    net = caffe_pb2.NetParameter()
    shapes = draw(st.sampled_from([[[2, 3, 4, 5], [2]], [[2, 3], [2, 3]], [[3, 2], [3]]]))
    if draw(RARELY):
        shapes = draw(st.lists(st.lists(INTEGERS[F.TYPE_INT64], max_size=5), min_size=2, max_size=2))
    blobs = ["data", "label"]
    for name, dims in zip(blobs, shapes):
        top = net.layer.add(name=name, type="Input", top=[name])
        top.input_param.shape.add(dim=dims)
    for index in range(draw(st.integers(1, 4))):
        layer = net.layer.add(name=f"l{index}", type=draw(st.sampled_from(TYPES)))
        kind = REGISTRY.get(layer.type, BuiltinLayer)
        layer.bottom.extend(draw(st.sampled_from(blobs)) for _ in range(count(draw, kind.num_bottom)))
        layer.top.extend(f"t{index}{i}" for i in range(count(draw, kind.num_top)))
        blobs += layer.top
        if own := PARAM_OF_TYPE.get(layer.type):
            part = getattr(layer, own)
            part.SetInParent()
            draw(filled(part, most=6))
        if draw(RARELY):
            draw(filled(layer, most=3, without=("hdf5_output_param",)))
    if draw(RARELY):
        draw(filled(net, most=2, without=("layer",)))
    return net


def solvers():
    return st.builds(caffe_pb2.SolverParameter).flatmap(lambda s: filled(s, most=8))


def states():
    """A SolverState that is nearly right for the solver of the targets: two history blobs, (2, 3) and (2)."""

    @st.composite
    def make(draw):
        state = caffe_pb2.SolverState(iter=draw(INTEGERS[F.TYPE_INT32]))
        for dims in ([2, 3], [2]):
            blob = state.history.add(data=[0.5] * (6 if len(dims) == 2 else 2))
            blob.shape.dim.extend(dims)
        if draw(RARELY):
            draw(filled(draw(st.sampled_from(list(state.history))), most=3))
        return draw(filled(state, most=2))

    return make()


def weights():
    """A NetParameter with blobs for the net of the targets, nearly right."""

    @st.composite
    def make(draw):
        net = caffe_pb2.NetParameter()
        layer = net.layer.add(name="ip", type="InnerProduct")
        for dims in ([2, 3], [2]):
            blob = layer.blobs.add(data=[0.5] * (6 if len(dims) == 2 else 2))
            blob.shape.dim.extend(dims)
        if draw(RARELY):
            draw(filled(draw(st.sampled_from(list(layer.blobs))), most=3))
        return draw(filled(net, most=2))

    return make()


def as_text(message):
    return text_format.MessageToString(message).encode()


def as_bytes(message):
    return message.SerializePartialToString()


@st.composite
def damaged(draw, files):
    """A file of `files`, now and then cut, or with some bytes overwritten, inserted, left out or repeated."""
    data = draw(files)
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        what = draw(st.sampled_from(["cut", "overwrite", "insert", "drop", "repeat"]))
        new = draw(st.binary(min_size=length, max_size=length)) if what in ("overwrite", "insert") else b""
        if what == "cut":
            data = data[:at]
        elif what == "repeat":
            data = data[:at] + data[at : at + length] * draw(st.sampled_from([2, 50])) + data[at + length :]
        else:
            data = data[:at] + new + data[at + (0 if what == "insert" else length) :]
    return data
