"""Caffe's layer types in NumPy, in float64 and with loops over windows: what random nets are held against.

Each function takes the layer's LayerParameter, its bottoms and its parameter blobs, and gives the list of its tops; it
is written from Caffe's formulas, and knows nothing of the package that it judges but its messages."""

import math
from itertools import product

import numpy as np

from caffe.proto import caffe_pb2


class Unfit(Exception):
    """These bottoms do not suit the layer: Caffe would refuse them, or the numbers say nothing."""


def axes_of(p, what, count, default):
    values = list(getattr(p, what)) or [default]
    return values * count if len(values) == 1 else values


def geometry(p, x):
    """Kernel, stride, pad and dilation for each spatial axis of x (N, C, ..)."""
    axes = x.ndim - 2
    two = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") else None
    kernel = list(two or axes_of(p, "kernel_size", axes, 0))
    stride = [p.stride_h, p.stride_w] if p.HasField("stride_h") else axes_of(p, "stride", axes, 1)
    pad = [p.pad_h, p.pad_w] if p.HasField("pad_h") else axes_of(p, "pad", axes, 0)
    return kernel, stride, pad, axes_of(p, "dilation", axes, 1)


def patches(x, kernel, stride, pad, dilation):
    """[(place in the top, the window (N, C, kernel..))], and the number of windows along each axis."""
    wide = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    sizes = [(n - (d * (k - 1) + 1)) // s + 1 for n, k, s, d in zip(wide.shape[2:], kernel, stride, dilation)]
    if min(sizes) < 1:
        raise Unfit
    cut = [
        (
            at,
            wide[
                (..., *(slice(o * s, o * s + d * (k - 1) + 1, d) for o, s, k, d in zip(at, stride, kernel, dilation)))
            ],
        )
        for at in product(*map(range, sizes))
    ]
    return cut, sizes


def convolution(layer, bottoms, blobs):
    p, tops = layer.convolution_param, []
    weight, group = blobs[0], layer.convolution_param.group
    per = weight.shape[0] // group
    for x in bottoms:
        cut, sizes = patches(x, *geometry(p, x))
        top = np.zeros((x.shape[0], weight.shape[0], *sizes))
        inputs = weight.shape[1]
        for at, window in cut:
            for g in range(group):
                part = window[:, g * inputs : (g + 1) * inputs].reshape(x.shape[0], -1)
                rows = slice(g * per, (g + 1) * per)
                top[(slice(None), rows, *at)] = part @ weight[rows].reshape(per, -1).T
        if p.bias_term:
            top += blobs[1].reshape(-1, *(1,) * len(sizes))
        tops.append(top)
    return tops


def deconvolution(layer, bottoms, blobs):
    p, x, weight = layer.convolution_param, bottoms[0], blobs[0]
    kernel, stride, pad, dilation = geometry(p, x)
    group, inputs, per = p.group, x.shape[1] // p.group, weight.shape[1]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    wide = np.zeros((x.shape[0], per * group, *(s * (n - 1) + e for n, s, e in zip(x.shape[2:], stride, spans))))
    if min(n - 2 * q for n, q in zip(wide.shape[2:], pad)) < 1:
        raise Unfit
    for at in product(*map(range, x.shape[2:])):
        where = tuple(slice(o * s, o * s + e, d) for o, s, e, d in zip(at, stride, spans, dilation))
        for g in range(group):
            rows = slice(g * inputs, (g + 1) * inputs)
            spread = np.tensordot(x[(slice(None), rows, *at)], weight[rows], 1)
            wide[(slice(None), slice(g * per, (g + 1) * per), *where)] += spread
    top = wide[(..., *(slice(q, n - q) for n, q in zip(wide.shape[2:], pad)))]
    return [top + blobs[1].reshape(-1, *(1,) * len(pad)) if p.bias_term else top]


def im2col(layer, bottoms, blobs):
    x = bottoms[0]
    cut, sizes = patches(x, *geometry(layer.convolution_param, x))
    top = np.zeros((x.shape[0], cut[0][1][0].size, *sizes))
    for at, window in cut:
        top[(..., *at)] = window.reshape(x.shape[0], -1)
    return [top]


def pooling(layer, bottoms, blobs):
    p, x = layer.pooling_param, bottoms[0]
    if p.global_pooling:
        kernel, stride, pad = x.shape[2:], (1, 1), (0, 0)
    else:
        kernel = (p.kernel_h, p.kernel_w) if p.HasField("kernel_h") else (p.kernel_size,) * 2
        stride = (p.stride_h, p.stride_w) if p.HasField("stride_h") else (p.stride,) * 2
        pad = (p.pad_h, p.pad_w) if p.HasField("pad_h") else (p.pad,) * 2
    sizes = []
    for n, k, s, q in zip(x.shape[2:], kernel, stride, pad):
        span = (n + 2 * q - k) / s
        count = (math.floor(span) if p.round_mode == p.FLOOR else math.ceil(span)) + 1
        if any(pad) and (count - 1) * s >= n + q:
            count -= 1
        if q >= k or count < 1 or (count - 1) * s - q >= n:
            raise Unfit
        sizes.append(count)
    top, mask = np.zeros((*x.shape[:2], *sizes)), np.zeros((*x.shape[:2], *sizes))
    for i, j in product(*map(range, sizes)):
        begin = [o * s - q for o, s, q in zip((i, j), stride, pad)]
        end = [min(b + k, n + q) for b, k, n, q in zip(begin, kernel, x.shape[2:], pad)]
        area = math.prod(e - b for b, e in zip(begin, end))
        begin, end = [max(b, 0) for b in begin], [min(e, n) for e, n in zip(end, x.shape[2:])]
        window = x[:, :, begin[0] : end[0], begin[1] : end[1]].reshape(*x.shape[:2], -1)
        if p.pool == p.AVE:
            top[:, :, i, j] = window.sum(2) / area
        else:
            row, column = np.divmod(window.argmax(2), end[1] - begin[1])
            top[:, :, i, j] = window.max(2)
            mask[:, :, i, j] = (begin[0] + row) * x.shape[3] + begin[1] + column
    return [top, mask]


def spp(layer, bottoms, blobs):
    p, x, parts = layer.spp_param, bottoms[0], []
    for bins in (2**i for i in range(p.pyramid_height)):
        level = caffe_pb2.LayerParameter()
        q = level.pooling_param
        q.pool = p.pool
        (q.kernel_h, q.kernel_w), sizes = (-(-n // bins) for n in x.shape[2:]), x.shape[2:]
        q.stride_h, q.stride_w = q.kernel_h, q.kernel_w
        q.pad_h, q.pad_w = ((k * bins - n + 1) // 2 for k, n in zip((q.kernel_h, q.kernel_w), sizes))
        parts.append(pooling(level, bottoms, ())[0])
    return [np.concatenate([y.reshape(len(x), -1) for y in parts], 1) if len(parts) > 1 else parts[0]]


def inner_product(layer, bottoms, blobs):
    p, x = layer.inner_product_param, bottoms[0]
    axis = p.axis % x.ndim
    rows = x.reshape(*x.shape[:axis], -1) @ (blobs[0] if p.transpose else blobs[0].T)
    return [rows + blobs[1] if p.bias_term else rows]


def recurrent(layer, bottoms, blobs):
    """LSTM and RNN. The first time step begins a sequence, or the states are given."""
    p, lstm = layer.recurrent_param, layer.type == "LSTM"
    states = [np.zeros((bottoms[0].shape[1], p.num_output))] * (1 + lstm)
    x, cont, *others = bottoms
    if p.expose_hidden:
        states, others = [s[0] for s in others[-len(states) :]], others[: -len(states)]
    w_x, b, *more = blobs
    drive = x.reshape(*x.shape[:2], -1) @ w_x.T + b
    if others:
        drive = drive + others[0].reshape(x.shape[1], -1) @ more.pop(0).T
    tops = []
    for row, alive in zip(drive, cont[..., None]):
        row = row + (alive * states[0]) @ more[0].T
        if lstm:
            i, f, o, g = np.split(row, 4, -1)
            cell = alive * sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
            states = [sigmoid(o) * np.tanh(cell), cell]
        else:
            states = [np.tanh(row)]
        tops.append(states[0] if lstm else np.tanh(states[0] @ more[1].T + more[2]))
    return [np.array(tops), *(s[None] for s in states)]


def embed(layer, bottoms, blobs):
    rows = blobs[0][bottoms[0].astype(int)]
    return [rows + blobs[1] if layer.embed_param.bias_term else rows]


def spread(x, operand, axis):
    axis = axis % x.ndim if operand.ndim else 0
    return operand.reshape((1,) * axis + operand.shape + (1,) * (x.ndim - axis - operand.ndim))


def scale(layer, bottoms, blobs):
    p, x = layer.scale_param, bottoms[0]
    top = x * spread(x, bottoms[1] if len(bottoms) > 1 else blobs[0], p.axis)
    return [top + spread(x, blobs[-1], p.axis) if p.bias_term else top]


def bias(layer, bottoms, blobs):
    x = bottoms[0]
    return [x + spread(x, bottoms[1] if len(bottoms) > 1 else blobs[0], layer.bias_param.axis)]


def batch_norm(layer, bottoms, blobs):
    p, x = layer.batch_norm_param, bottoms[0]
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    if p.use_global_stats:
        factor = 1 / blobs[2][0] if blobs[2][0] else 0
        mean, variance = (b.reshape(shape) * factor for b in blobs[:2])
    else:
        mean = x.mean(axes).reshape(shape)
        variance = ((x - mean) ** 2).mean(axes).reshape(shape)
    return [(x - mean) / np.sqrt(variance + p.eps)]


def mvn(layer, bottoms, blobs):
    x = bottoms[0].reshape(*bottoms[0].shape, *(1,) * (4 - bottoms[0].ndim))
    axes = (1, 2, 3) if layer.mvn_param.across_channels else (2, 3)
    centred = x - x.mean(axes, keepdims=True)
    p = layer.mvn_param
    return [centred / (centred.std(axes, keepdims=True) + p.eps) if p.normalize_variance else centred]


def lrn(layer, bottoms, blobs):
    p, x, top = layer.lrn_param, bottoms[0], np.zeros_like(bottoms[0])
    half = p.local_size // 2
    for c in range(x.shape[1]):
        if p.norm_region == p.ACROSS_CHANNELS:
            total = (x[:, max(0, c - half) : c + half + 1] ** 2).sum(1)
            top[:, c] = x[:, c] * (p.k + p.alpha / p.local_size * total) ** -p.beta
            continue
        for i, j in product(range(x.shape[2]), range(x.shape[3])):
            total = (x[:, c, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1] ** 2).sum((1, 2))
            top[:, c, i, j] = x[:, c, i, j] * (1 + p.alpha / p.local_size**2 * total) ** -p.beta
    return [top]


def softmax_of(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def eltwise(layer, bottoms, blobs):
    p = layer.eltwise_param
    if p.operation == p.SUM:
        return [sum(c * x for c, x in zip(list(p.coeff) or [1] * len(bottoms), bottoms))]
    return [np.prod(bottoms, 0) if p.operation == p.PROD else np.max(bottoms, 0)]


def slice_(layer, bottoms, blobs):
    p, x = layer.slice_param, bottoms[0]
    points = list(p.slice_point) or [x.shape[p.axis] * k // len(layer.top) for k in range(1, len(layer.top))]
    return np.split(x, points, p.axis)


def reshape(layer, bottoms, blobs):
    p, x = layer.reshape_param, bottoms[0]
    start = p.axis if p.axis >= 0 else x.ndim + 1 + p.axis
    end = x.ndim if p.num_axes == -1 else start + p.num_axes
    dims = [d or x.shape[start + i] for i, d in enumerate(p.shape.dim)]
    return [x.reshape(*x.shape[:start], *dims, *x.shape[end:])]


def flatten(layer, bottoms, blobs):
    p, x = layer.flatten_param, bottoms[0]
    start, end = p.axis % x.ndim, p.end_axis % x.ndim
    return [x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])]


def reduction(layer, bottoms, blobs):
    p, x = layer.reduction_param, bottoms[0]
    axis = p.axis % x.ndim
    rows = x.reshape(*x.shape[:axis], -1)
    rows = {p.ASUM: np.abs, p.SUMSQ: np.square}.get(p.operation, lambda v: v)(rows)
    return [p.coeff * (rows.mean(-1) if p.operation == p.MEAN else rows.sum(-1))]


def crop(layer, bottoms, blobs):
    p, (x, reference) = layer.crop_param, bottoms
    axis = p.axis % x.ndim
    offsets = (list(p.offset) or [0]) * (1 if len(p.offset) > 1 else x.ndim - axis)
    cut = [slice(o, o + n) for o, n in zip(offsets, reference.shape[axis:])]
    return [x[(slice(None),) * axis + tuple(cut)]]


def class_rows(scores, labels, axis):
    """Scores as (positions, classes), labels as (positions)."""
    return np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis]), labels.reshape(-1).astype(int)


def divisor(p, scores, axis, counted, default):
    axis %= scores.ndim
    items, positions = math.prod(scores.shape[:axis]), math.prod(scores.shape[axis + 1 :])
    mode = p.normalization if p.HasField("normalization") else default
    return max(1, {p.VALID: counted.sum(), p.FULL: items * positions, p.BATCH_SIZE: items, p.NONE: 1}[mode])


def softmax_loss(layer, bottoms, blobs):
    p, axis = layer.loss_param, layer.softmax_param.axis
    rows, labels = class_rows(*bottoms[:2], axis)
    counted = labels != p.ignore_label if p.HasField("ignore_label") else labels >= 0
    prob = softmax_of(rows, 1)[np.arange(len(labels)), np.where(counted, labels, 0)]
    loss = -np.log(np.maximum(prob, np.finfo(np.float32).tiny))[counted].sum()
    return [loss / divisor(p, bottoms[0], axis, counted, p.VALID), softmax_of(bottoms[0], axis)]


def infogain_loss(layer, bottoms, blobs):
    p, axis = layer.loss_param, layer.infogain_loss_param.axis
    rows, labels = class_rows(*bottoms[:2], axis)
    costs = -(bottoms[2].reshape(rows.shape[1], -1)[labels] * np.log(np.maximum(softmax_of(rows, 1), 1e-20))).sum(1)
    return [costs.sum() / divisor(p, bottoms[0], axis, labels >= 0, p.VALID), softmax_of(bottoms[0], axis)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sigmoid_loss(layer, bottoms, blobs):
    x, t = bottoms[0], bottoms[1].reshape(bottoms[0].shape)
    return [-(t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x))).sum() / len(x)]


def hinge_loss(layer, bottoms, blobs):
    p, rows, labels = layer.hinge_loss_param, bottoms[0].reshape(len(bottoms[0]), -1), bottoms[1].ravel().astype(int)
    sign = np.ones_like(rows)
    sign[np.arange(len(rows)), labels] = -1
    margins = np.maximum(0, 1 + sign * rows)
    return [(margins**2 if p.norm == p.L2 else margins).sum() / len(rows)]


def multinomial_loss(layer, bottoms, blobs):
    rows, labels = bottoms[0].reshape(len(bottoms[0]), -1), bottoms[1].ravel().astype(int)
    return [-np.log(np.maximum(rows[np.arange(len(rows)), labels], 1e-20)).sum() / len(rows)]


def contrastive_loss(layer, bottoms, blobs):
    p, (a, b, similar) = layer.contrastive_loss_param, bottoms
    squared = ((a - b).reshape(len(a), -1) ** 2).sum(1)
    apart = np.maximum(p.margin - squared, 0)  # legacy_version, whose gradient is the derivative
    return [np.where(similar.ravel() != 0, squared, apart).sum() / (2 * len(a))]


def accuracy(layer, bottoms, blobs):
    p = layer.accuracy_param
    rows, labels = class_rows(*bottoms, p.axis)
    own = rows[np.arange(len(labels)), labels]
    hit = (rows >= own[:, None]).sum(1) <= p.top_k
    shares = [hit[labels == c].mean() if (labels == c).any() else 0 for c in range(rows.shape[1])]
    return [hit.mean(), np.array(shares)]


def argmax(layer, bottoms, blobs):
    p, x = layer.argmax_param, bottoms[0]
    axis, rows = (p.axis, x) if p.HasField("axis") else (1, x.reshape(len(x), -1))
    last = rows.shape[axis] - 1 - np.flip(rows, axis).argmax(axis, keepdims=True)  # of equals Caffe takes the last
    return [last if p.HasField("axis") else last.reshape(len(x), *(1,) * max(2, x.ndim - 1))]


def of(field, formula):
    """An element-wise type: `formula` of the layer's own parameter and x."""
    return lambda layer, bottoms, blobs: [formula(getattr(layer, field, None), bottoms[0])]


def base_of(p):
    return math.e if p.base == -1 else p.base


LOOPS = {
    "AbsVal": of("", lambda p, x: np.abs(x)),
    "Accuracy": accuracy,
    "ArgMax": argmax,
    "BNLL": of("", lambda p, x: np.log1p(np.exp(x))),
    "BatchNorm": batch_norm,
    "BatchReindex": lambda layer, bottoms, blobs: [bottoms[0][bottoms[1].astype(int)]],
    "Bias": bias,
    "Clip": of("clip_param", lambda p, x: np.maximum(p.min, np.minimum(x, p.max))),
    "Concat": lambda layer, bottoms, blobs: [np.concatenate(bottoms, layer.concat_param.axis)],
    "ContrastiveLoss": contrastive_loss,
    "Convolution": convolution,
    "Crop": crop,
    "Deconvolution": deconvolution,
    "Dropout": of("", lambda p, x: x),  # phase TEST, or dropout_ratio 0
    "ELU": of("elu_param", lambda p, x: np.where(x > 0, x, p.alpha * np.expm1(x))),
    "Eltwise": eltwise,
    "Embed": embed,
    "EuclideanLoss": lambda layer, bottoms, blobs: [((bottoms[0] - bottoms[1]) ** 2).sum() / (2 * len(bottoms[0]))],
    "Exp": of("exp_param", lambda p, x: base_of(p) ** (p.shift + p.scale * x)),
    "Filter": lambda layer, bottoms, blobs: [x[bottoms[-1].reshape(-1) != 0] for x in bottoms[:-1]],
    "Flatten": flatten,
    "HingeLoss": hinge_loss,
    "Im2col": im2col,
    "InfogainLoss": infogain_loss,
    "InnerProduct": inner_product,
    "LRN": lrn,
    "LSTM": recurrent,
    "Log": of("log_param", lambda p, x: np.log(p.shift + p.scale * x) / math.log(base_of(p))),
    "MVN": mvn,
    "MultinomialLogisticLoss": multinomial_loss,
    "PReLU": lambda layer, bottoms, blobs: [np.where(bottoms[0] > 0, 1, spread(bottoms[0], blobs[0], 1)) * bottoms[0]],
    "Pooling": pooling,
    "Power": of("power_param", lambda p, x: (p.shift + p.scale * x) ** p.power),
    "RNN": recurrent,
    "ReLU": of("relu_param", lambda p, x: np.where(x > 0, x, p.negative_slope * x)),
    "Reduction": reduction,
    "Reshape": reshape,
    "SPP": spp,
    "Scale": scale,
    "Sigmoid": of("", lambda p, x: sigmoid(x)),
    "SigmoidCrossEntropyLoss": sigmoid_loss,
    "Silence": lambda layer, bottoms, blobs: [],
    "Slice": slice_,
    "Softmax": lambda layer, bottoms, blobs: [softmax_of(bottoms[0], layer.softmax_param.axis)],
    "SoftmaxWithLoss": softmax_loss,
    "Split": lambda layer, bottoms, blobs: [bottoms[0]] * len(layer.top),
    "Swish": of("swish_param", lambda p, x: x * sigmoid(p.beta * x)),
    "TanH": of("", lambda p, x: np.tanh(x)),
    "Threshold": of("threshold_param", lambda p, x: (x > p.threshold).astype(float)),
    "Tile": lambda layer, bottoms, blobs: [
        np.concatenate([bottoms[0]] * layer.tile_param.tiles, layer.tile_param.axis)
    ],
}
