"""V0 layers (2013) made V1: one message held the fields of all types, and padding was a layer of its own."""

from google.protobuf.message import Message

from caffe.errors import CaffeError
from caffe.glog import error
from caffe.proto import caffe_pb2

V1 = caffe_pb2.V1LayerParameter

# V0 type: V1 type and the name of its own parameters
TYPES = {
    "accuracy": (V1.ACCURACY, "accuracy_param"),
    "bnll": (V1.BNLL, ""),
    "concat": (V1.CONCAT, "concat_param"),
    "conv": (V1.CONVOLUTION, "convolution_param"),
    "data": (V1.DATA, "data_param"),
    "dropout": (V1.DROPOUT, "dropout_param"),
    "euclidean_loss": (V1.EUCLIDEAN_LOSS, ""),
    "flatten": (V1.FLATTEN, ""),
    "hdf5_data": (V1.HDF5_DATA, "hdf5_data_param"),
    "hdf5_output": (V1.HDF5_OUTPUT, "hdf5_output_param"),
    "im2col": (V1.IM2COL, "convolution_param"),
    "images": (V1.IMAGE_DATA, "image_data_param"),
    "infogain_loss": (V1.INFOGAIN_LOSS, "infogain_loss_param"),
    "innerproduct": (V1.INNER_PRODUCT, "inner_product_param"),
    "lrn": (V1.LRN, "lrn_param"),
    "multinomial_logistic_loss": (V1.MULTINOMIAL_LOGISTIC_LOSS, ""),
    "pool": (V1.POOLING, "pooling_param"),
    "relu": (V1.RELU, "relu_param"),
    "sigmoid": (V1.SIGMOID, "sigmoid_param"),
    "softmax": (V1.SOFTMAX, "softmax_param"),
    "softmax_loss": (V1.SOFTMAX_LOSS, "softmax_param"),
    "split": (V1.SPLIT, ""),
    "tanh": (V1.TANH, "tanh_param"),
    "window_data": (V1.WINDOW_DATA, "window_data_param"),
}

# V0 field: the types that may have it, and its name in the parameters of these types
FIELDS = {
    "num_output": (("conv", "innerproduct"), "num_output"),
    "biasterm": (("conv", "innerproduct"), "bias_term"),
    "weight_filler": (("conv", "innerproduct"), "weight_filler"),
    "bias_filler": (("conv", "innerproduct"), "bias_filler"),
    "pad": (("conv", "pool"), "pad"),
    "kernelsize": (("conv", "pool"), "kernel_size"),
    "group": (("conv",), "group"),
    "stride": (("conv", "pool"), "stride"),
    "pool": (("pool",), "pool"),
    "dropout_ratio": (("dropout",), "dropout_ratio"),
    "local_size": (("lrn",), "local_size"),
    "alpha": (("lrn",), "alpha"),
    "beta": (("lrn",), "beta"),
    "k": (("lrn",), "k"),
    "source": (("data", "hdf5_data", "images", "window_data", "infogain_loss"), "source"),
    "batchsize": (("data", "hdf5_data", "images", "window_data"), "batch_size"),
    "rand_skip": (("data", "images"), "rand_skip"),
    "shuffle_images": (("images",), "shuffle"),
    "new_height": (("images",), "new_height"),
    "new_width": (("images",), "new_width"),
    "concat_dim": (("concat",), "concat_dim"),
    "det_fg_threshold": (("window_data",), "fg_threshold"),
    "det_bg_threshold": (("window_data",), "bg_threshold"),
    "det_fg_fraction": (("window_data",), "fg_fraction"),
    "det_context_pad": (("window_data",), "context_pad"),
    "det_crop_mode": (("window_data",), "crop_mode"),
}

# V0 field: its name in transform_param, whatever the type
TRANSFORM_FIELDS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}


def upgrade_v0_layers(net, name) -> bool:
    """Turn the V0 layers of `net` into V1 layers, in place; False when a field had to be left out (it is logged)."""
    _fold_padding_layers(net, name)
    complete = True
    for layer in net.layers:
        if layer.HasField("layer"):
            complete &= _upgrade(layer, name)
    return complete


def _fold_padding_layers(net, name):
    """Give the pad of each `padding` layer to the conv or pool layers above it."""
    producer = dict.fromkeys(net.input)  # the layer whose top a blob is, None for inputs of the net
    for layer in net.layers:
        for i, blob in enumerate(layer.bottom):
            if blob not in producer:
                raise CaffeError(f"{name}: Unknown blob input {blob} to layer {layer.layer.name}")
            source = producer[blob]
            if source is None or source.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool"):
                raise CaffeError(
                    f"{name}: Padding layer input to non-convolutional / non-pooling layer type {layer.layer.type}"
                )
            if len(layer.bottom) != 1 or len(source.bottom) != 1 or len(source.top) != 1:
                raise CaffeError(
                    f"{name}: Padding layer {source.layer.name} and the layer above it must take a single blob as input"
                )
            layer.layer.pad = source.layer.pad
            layer.bottom[i] = source.bottom[0]
        for blob in layer.top:
            producer[blob] = layer
    for i in reversed(range(len(net.layers))):
        if net.layers[i].layer.type == "padding":
            del net.layers[i]


def _upgrade(layer, name):
    old = caffe_pb2.V0LayerParameter()
    old.CopyFrom(layer.layer)
    layer.ClearField("layer")
    if old.HasField("name"):
        layer.name = old.name
    own = ""
    if old.HasField("type"):
        if old.type not in TYPES:
            raise CaffeError(f"{name}: Unknown layer name: {old.type} (known: {', '.join(TYPES)})")
        layer.type, own = TYPES[old.type]
    for name_ in ("blobs", "blobs_lr", "weight_decay"):
        getattr(layer, name_).extend(getattr(old, name_))
    complete = True
    for field, value in old.ListFields():
        if field.name in TRANSFORM_FIELDS:
            setattr(layer.transform_param, TRANSFORM_FIELDS[field.name], value)
        elif field.name == "hdf5_output_param" and old.type == "hdf5_output":
            layer.hdf5_output_param.CopyFrom(value)
        elif field.name in FIELDS and old.type in FIELDS[field.name][0]:
            _set(getattr(layer, own), FIELDS[field.name][1], value)
        elif field.name not in ("name", "type", "blobs", "blobs_lr", "weight_decay"):
            error("upgrade_proto.cpp:135", f"Unknown parameter {field.name} for layer type {old.type}")
            complete = False
    return complete


def _set(message, field, value):
    target = getattr(message, field)
    if isinstance(target, Message):
        target.CopyFrom(value)
    elif hasattr(target, "append"):
        target.append(value)
    else:
        setattr(message, field, value)
