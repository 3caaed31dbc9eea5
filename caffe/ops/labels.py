"""Class labels: numbers stored as float32 in a blob, one for each prediction."""

import math

import torch

NO_ONNX = "it looks at labels, which are there in training and tests alone"


def predictions(layer, shape, label_shape, axis):
    """Axis of the classes in scores of this shape; fails unless there is one label for every other position."""
    axis = layer.canonical_axis(axis, shape)
    wanted = math.prod(shape[:axis]) * math.prod(shape[axis + 1 :])
    if math.prod(label_shape) != wanted:
        layer.fail(
            f"Number of labels must match number of predictions; scores of shape {tuple(shape)} with classes "
            f"on axis {axis} want {wanted} labels, bottom[1] has shape {tuple(label_shape)}"
        )
    return axis


def class_index(layer, labels, classes, ignore=None, what="a label in bottom[1]"):
    """Labels as int64 class numbers, a mask of those not ignored, and a number to add to the result.

    One that names no class is an error, told with `what`. On a GPU nothing can be raised without waiting for it, and in
    an exported net not at all: there the number to add, else 0, is NaN, and the solver stops on it."""
    index = labels.long()
    counted = torch.ones_like(index, dtype=torch.bool) if ignore is None else index != ignore
    wrong = counted & ((index < 0) | (index >= classes))
    if wrong.device.type == "cpu" and not torch.compiler.is_exporting():
        if wrong.any():
            layer.fail(f"{what} is {labels[wrong][0].item():g}; wanted 0..{classes - 1}")
        poison = torch.zeros(())
    else:
        poison = torch.where(wrong.any(), math.nan, 0.0)
    return index.clamp(0, classes - 1), counted, poison
