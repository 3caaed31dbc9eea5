"""Old files brought up to date (Caffe: upgrade_proto.cpp).

The history of the net format, each step of which is undone here:
  V0 (2013)  one message for all layer types                               upgrade_v0.py
  V1 (2014)  type is an enum, image transformations lie in each data layer's own parameters
  inputs     `input`, `input_dim`, `input_shape` of the net               today an Input layer
  BatchNorm  three `param { lr_mult: 0 }` had to be written               today implied
  solver     `solver_type` is an enum                                     today `type`, a string
"""

from caffe.errors import CaffeError
from caffe.glog import info, warning
from caffe.proto import caffe_pb2
from caffe.upgrade_v0 import upgrade_v0_layers

V1 = caffe_pb2.V1LayerParameter

# Type names that differ from the enum's by more than case and underscores.
V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "NONE": "",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}

DATA_PARAMS = {V1.DATA: "data_param", V1.IMAGE_DATA: "image_data_param", V1.WINDOW_DATA: "window_data_param"}
TRANSFORMATIONS = ("scale", "mean_file", "crop_size", "mirror")

SOLVER_TYPES = {rule.upper(): rule for rule in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")}


def upgrade_net(net, name) -> bool:
    """Bring NetParameter `net` up to date in place; `name` (of its file) is for log lines and errors.

    False when something in it has no place in today's format: it is logged and left out, as in Caffe.
    """
    complete = True
    if any(layer.HasField("layer") for layer in net.layers):
        _log_attempt(30, "input file specified using deprecated V0LayerParameter", name)
        complete = upgrade_v0_layers(net, name)
        if complete:
            _log_success(41, "file specified using deprecated V0LayerParameter")
        else:
            warning(
                "upgrade_proto.cpp:36",
                "Warning: had one or more problems upgrading V0NetParameter to "
                "NetParameter (see above); continuing anyway.",
            )
    if any(_old_transformations(layer) for layer in net.layers):
        _log_attempt(46, "input file specified using deprecated transformation parameters", name)
        for layer in net.layers:
            _move_transformations(layer)
        _log_success(49, "file specified using deprecated data transformation parameters")
    if net.layers:
        _log_attempt(53, "input file specified using deprecated V1LayerParameter", name)
        _upgrade_v1_layers(net, name)
        _log_success(61, "file specified using deprecated V1LayerParameter")
    if net.input:
        _log_attempt(67, "input file specified using deprecated input fields", name)
        _inputs_to_layer(net, name)
        _log_success(70, "file specified using deprecated input fields")
    if any(_old_batch_norm(layer) for layer in net.layer):
        _log_attempt(77, "batch norm layers using deprecated params", name)
        for layer in filter(_old_batch_norm, net.layer):
            for spec in layer.param:  # names stay: layers share their statistics by them
                spec.lr_mult = spec.decay_mult = 0
        _log_success(80, "batch norm layers using deprecated params")
    return complete


def upgrade_solver(solver, name) -> None:
    """Turn `solver_type` of SolverParameter `solver` into `type`, in place, and upgrade the nets written in it."""
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise CaffeError(
                f"{name}: Failed to upgrade solver: old solver_type field (enum) and new type field "
                "(string) cannot be both specified in solver proto text."
            )
        _log_attempt(1085, "input file specified using deprecated 'solver_type' field (enum)", name)
        solver.type = SOLVER_TYPES[solver.SolverType.Name(solver.solver_type)]
        solver.ClearField("solver_type")
        _log_success(1091, "file specified using deprecated 'solver_type' field (enum) to 'type' field (string)")
    for field, value in solver.ListFields():
        if field.name.endswith("net_param"):
            for net in [value] if isinstance(value, caffe_pb2.NetParameter) else value:
                upgrade_net(net, name)


def _log_attempt(line, what, name):
    info(f"upgrade_proto.cpp:{line}", f"Attempting to upgrade {what}: {name}")


def _log_success(line, what):
    info(f"upgrade_proto.cpp:{line}", f"Successfully upgraded {what}.")


# ---- V1


def _old_transformations(layer):
    """The message in which V1 `layer` holds transformation fields, None when it has none."""
    field = DATA_PARAMS.get(layer.type)
    if field and any(getattr(layer, field).HasField(f) for f in TRANSFORMATIONS):
        return getattr(layer, field)
    return None


def _move_transformations(layer):
    old = _old_transformations(layer)
    for field in TRANSFORMATIONS if old else ():
        if old.HasField(field):
            setattr(layer.transform_param, field, getattr(old, field))
            old.ClearField(field)


def _upgrade_v1_layers(net, name):
    if net.layer:
        raise CaffeError(
            f"{name}: Refusing to upgrade inconsistent NetParameter input; the definition includes both "
            "'layer' and 'layers' fields. The current format defines 'layer' fields with string type "
            "like layer { type: 'Layer' ... } and not layer type enums: layers { type: LAYER ... }. "
            "Manually switch the definition to 'layer' format to continue."
        )
    for old in net.layers:
        _upgrade_v1_layer(old, net.layer.add())
    net.ClearField("layers")


def _upgrade_v1_layer(old, new):
    for field, value in old.ListFields():
        if field.name in ("bottom", "top", "include", "exclude", "blobs", "loss_weight"):
            getattr(new, field.name).extend(value)
        elif field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        new.type = v1_type_name(old.type)
    multipliers = (
        ("name", old.param),
        ("lr_mult", old.blobs_lr),
        ("decay_mult", old.weight_decay),
        ("share_mode", old.blob_share_mode),
    )
    for field, values in multipliers:
        while len(new.param) < len(values):
            new.param.add()
        for param, value in zip(new.param, values):
            setattr(param, field, value)


def v1_type_name(number: int) -> str:
    """Today's name of a V1 layer type: EUCLIDEAN_LOSS is EuclideanLoss."""
    name = V1.LayerType.Name(number)
    return V1_TYPES.get(name, name.title().replace("_", ""))


# ---- inputs, BatchNorm


def _inputs_to_layer(net, name):
    """Put one Input layer with all the net's inputs in front. Without shapes they say nothing and are dropped."""
    sizes = [list(shape.dim) for shape in net.input_shape]
    if not sizes:
        sizes = [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if sizes:
        if len(sizes) < len(net.input) or (net.input_dim and not net.input_shape and len(net.input_dim) % 4):
            raise CaffeError(
                f"{name}: {len(net.input)} inputs, {len(net.input_shape)} input_shape and {len(net.input_dim)} "
                "input_dim; give each input one input_shape, or four input_dim"
            )
        layer = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
        for size in sizes[: len(net.input)]:
            layer.input_param.shape.add().dim.extend(size)
        rest = list(net.layer)
        del net.layer[:]
        net.layer.extend([layer, *rest])
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)


def _old_batch_norm(layer):
    return layer.type == "BatchNorm" and len(layer.param) == 3
