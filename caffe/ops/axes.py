"""Axes as prototxts give them and as old layers see them (Caffe: blob.hpp)."""

from caffe import bvlc


def canonical_axis(layer, axis, shape, what="axis"):
    """`axis` as an index 0 .. len(shape) - 1, counted from the end where negative; the layer fails when a blob of this
    shape has no such axis."""
    if not -len(shape) <= axis < len(shape):
        layer.fail(f"{what} {axis} out of range for a {len(shape)}-D blob with shape {tuple(shape)}")
    return axis % len(shape)


def warn_of_axes(layer, shape):
    """Warn where the layer type uses (num, channels, height, width) in BVLC Caffe and `shape` has more axes."""
    if len(shape) > 4:
        bvlc.refuses(layer, f"more than 4 axes; a bottom has shape {tuple(shape)}")


def require_planes(layer, shape):
    """The layer fails unless a bottom of this shape is (N, C, H, W)."""
    if len(shape) != 4:
        layer.fail(f"Input must have 4 axes, corresponding to (num, channels, height, width); its shape is {shape}")


def legacy_shape(layer, shape):
    """`shape` as (num, channels, height, width), with ones for missing axes."""
    if len(shape) > 4:
        layer.fail(f"Cannot use legacy accessors on Blobs with > 4 axes (shape {tuple(shape)})")
    return (*shape, *(1,) * (4 - len(shape)))
