"""How the coordinates of one blob map to those of another, and the Crop that lines the two up (pycaffe's coord_map).

A map is (axis, a, b): from spatial axis `axis` on, coordinate x of the one blob is coordinate a * x + b of the other.
axis None: the map holds whatever the axis. a and b are scalars, or arrays with a value for each spatial axis.
"""

import numpy as np

from caffe.net_spec import layers as L

PASS_THROUGH_LAYERS = (
    "AbsVal BatchNorm Bias BNLL Clip Dropout Eltwise ELU Exp Log LRN MVN Power PReLU ReLU Scale Sigmoid Split Swish "
    "TanH Threshold"
).split()
LEGACY_CONV_FIELDS = {"pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"}

IDENTITY = (None, 1, 0)


class UndefinedMapException(Exception):
    """A layer that is not spatial: its tops' coordinates have nothing to do with its bottoms'."""


class AxisMismatchException(Exception):
    """Two layers on the way disagree about the first spatial axis."""


def conv_params(fn):
    """(axis, stride, extent of the dilated kernel, pad) of a Convolution, Deconvolution, Pooling or Im2col."""
    params = _params(fn, "pooling_param" if fn.type_name == "Pooling" else "convolution_param")
    legacy = LEGACY_CONV_FIELDS & set(params)
    if legacy:
        raise AssertionError(f"cropping does not support legacy _h/_w params: {', '.join(sorted(legacy))}")
    if "kernel_size" not in params:
        raise UndefinedMapException(f"{fn.type_name} without kernel_size (global pooling)")
    kernel, dilation = np.atleast_1d(params["kernel_size"]), np.atleast_1d(params.get("dilation", 1))
    stride, pad = np.atleast_1d(params.get("stride", 1)), np.atleast_1d(params.get("pad", 0))
    extent = (kernel - 1) * dilation + 1
    return params.get("axis", 1), stride, extent, pad


def crop_params(fn):
    """(axis, offset) of a Crop."""
    params = _params(fn, "crop_param")
    return params.get("axis", 2), np.atleast_1d(params.get("offset", 0))


def coord_map(fn):
    """The map from the coordinates of the bottom of layer `fn` to those of its top."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # Crop counts from the first axis it cuts, the others from the channels
    raise UndefinedMapException(fn.type_name)


def compose(base_map, next_map):
    """The map that does `next_map` first, then `base_map`."""
    axis1, a1, b1 = base_map
    axis2, a2, b2 = next_map
    if axis1 is not None and axis2 is not None and axis1 != axis2:
        raise AxisMismatchException(f"{axis1} and {axis2}")
    return axis2 if axis1 is None else axis1, a1 * a2, a1 * b2 + b1


def inverse(coord_map):
    axis, a, b = coord_map
    return axis, 1 / a, -b / a


def coord_map_from_to(top_from, top_to):
    """The map from the coordinates of `top_from` to those of `top_to`, over an ancestor they share.

    Raises RuntimeError when spatial layers do not connect them."""
    from_maps = dict(_walk_back(top_from))
    for ancestor, to_map in _walk_back(top_to):
        if ancestor in from_maps:
            return compose(to_map, inverse(from_maps[ancestor]))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from, top_to):
    """A Crop layer that cuts `top_from` to the size of `top_to`, where it lines up with it.

    Raises AssertionError when no crop can do it: another scale, a negative or fractional offset."""
    axis, a, b = coord_map_from_to(top_from, top_to)
    if np.any(a != 1):
        raise AssertionError(f"scale mismatch on crop (a = {a})")
    if np.any(b > 0):
        raise AssertionError(f"cannot crop negative offset (b = {b})")
    if np.any(np.round(b) != b):
        raise AssertionError(f"cannot crop noninteger offset (b = {b})")
    offset = (-np.atleast_1d(np.round(b)).astype(int)).tolist()
    if axis is None:  # only layers that keep the size in between
        axis = 1
    return L.Crop(top_from, top_to, crop_param=dict(axis=axis + 1, offset=offset))


def _params(fn, name):
    return fn.params.get(name, fn.params)


def _walk_back(top):
    """Each blob that `top` is computed from over spatial layers, with the map from it to `top`; nearest first."""
    pending, seen = [(top, IDENTITY)], set()
    while pending:
        blob, to_top = pending.pop(0)
        if blob in seen:
            continue
        seen.add(blob)
        yield blob, to_top
        bottoms = blob.fn.inputs[:1] if blob.fn.type_name == "Crop" else blob.fn.inputs  # the other gives the size
        try:
            pending += [(bottom, compose(to_top, coord_map(blob.fn))) for bottom in bottoms]
        except UndefinedMapException:
            pass
