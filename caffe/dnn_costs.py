"""Floating-point operations of a layer's forward pass, as OpenCV 4's dnn module counts them."""

import math

EACH = {
    "ReLU": 1,
    "PReLU": 1,
    "TanH": 1,
    "AbsVal": 1,
    "ReLU6": 2,
    "ELU": 2,
    "Sigmoid": 3,
    "BNLL": 5,
    "BatchNorm": 3,
    "Scale": 2,
    "Softmax": 4,
}  # operations for each element


def flops(layer, ins, outs) -> int:
    """Of `layer`, a LayerParameter, with bottoms and tops of these shapes; 0 where only data are moved."""
    if layer.type in EACH:
        return EACH[layer.type] * sum(map(math.prod, outs))
    count = COUNTED.get(layer.type)
    return int(count(layer, ins, outs)) if count else 0


def _area(p, axes):
    """Number of taps of the window that a convolution or pooling parameter describes."""
    if p.kernel_h or p.kernel_w:
        return p.kernel_h * p.kernel_w
    sizes = p.kernel_size if hasattr(p.kernel_size, "__len__") else [p.kernel_size]
    return math.prod(sizes) if len(sizes) > 1 else sizes[0] ** axes


def _convolution(layer, ins, outs):
    area = _area(layer.convolution_param, len(outs[0]) - 2)
    return sum(math.prod(top) * (2 * area * bottom[1] + 1) for bottom, top in zip(ins, outs))


def _deconvolution(layer, ins, outs):
    area = _area(layer.convolution_param, len(outs[0]) - 2)
    return sum(2 * bottom[1] * area * math.prod(bottom) for bottom in ins)


def _inner_product(layer, ins, outs):
    inner = math.prod(ins[0][layer.inner_product_param.axis :])
    return 3 * inner * sum(map(math.prod, outs))


def _pooling(layer, ins, outs):
    p = layer.pooling_param
    area = 1 if p.global_pooling else _area(p, 2)  # as in OpenCV
    return math.prod(outs[0]) * (area + (p.pool == p.AVE))


def _lrn(layer, ins, outs):
    p, total = layer.lrn_param, 0
    for n, channels, *plane in ins:
        size = p.local_size
        if p.norm_region != p.ACROSS_CHANNELS:
            total += n * channels * math.prod(plane) * (2 * size * size + 2)
            continue
        half, cells = (size - 1) // 2, math.prod(plane)
        total += n * (min(half, channels) * 2 * cells + channels * 4 * cells)
        total += (size + 2 * (channels - size)) * cells if half < channels else 0
    return total


def _eltwise(layer, ins, outs):
    return len(ins) * math.prod(ins[0])


COUNTED = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "DepthwiseConvolution": _convolution,
    "Deconvolution": _deconvolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "LRN": _lrn,
    "Eltwise": _eltwise,
}
