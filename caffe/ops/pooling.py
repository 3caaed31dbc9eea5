"""Pooling and SPP: the largest, the mean or a random element of sliding windows."""

import math

import torch
import torch.nn.functional as F

from caffe import bvlc, device
from caffe.layer import TRAIN, register
from caffe.torch_layer import TorchLayer

MAX, AVE, STOCHASTIC = 0, 1, 2  # PoolingParameter.PoolMethod, and SPPParameter's
TINY, LOWEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).min


def pooled_size(layer, size, kernel, stride, pad, round_up, clip):
    """Number of windows along one axis. Rounded up, so that the last may reach over the edge; with `clip`, which is
    padding on either axis, a last window that would start beyond the input is left out (pooling_layer.cpp)."""
    span = size + 2 * pad - kernel
    count = (math.ceil(span / stride) if round_up else math.floor(span / stride)) + 1
    if clip and (count - 1) * stride >= size + pad:
        count -= 1
    if count < 1:
        layer.fail(f"an input of size {size} has no window: kernel {kernel}, stride {stride}, pad {pad}")
    return count


class Windows:
    """The windows of one pooling: (height, width) of input, kernel, stride, padding and top."""

    def __init__(self, layer, size, kernel, stride, pad, round_up=True):
        if any(p >= k for p, k in zip(pad, kernel)):
            layer.fail(f"pad {pad} must be smaller than the kernel {kernel}")
        self.size, self.kernel, self.stride, self.pad, self.round_up = size, kernel, stride, pad, round_up
        axes = tuple(zip(size, kernel, stride, pad))
        self.out = tuple(pooled_size(layer, *args, round_up, any(pad)) for args in axes)
        # Without padding the last window may start beyond the input: `within` counts those that do not.
        self.within = tuple(n - ((n - 1) * s - p >= i) for n, (i, _, s, p) in zip(self.out, axes))
        # How far the last window within reaches beyond the bottom and the right edge of the input.
        self.over = [(n - 1) * s + k - p - i for n, (i, k, s, p) in zip(self.within, axes)]
        if self.within != self.out:
            told = f"the last window lies outside of the input of size {tuple(size)} (kernel {kernel}, stride {stride})"
            bvlc.tell(layer, f"{told}: as in BVLC Caffe it gives -3.40282e+38 (MAX) or nan (AVE)")

    def padded(self, x, value):
        """x with its border, exactly as large as the windows within need."""
        (top, left), (bottom, right) = self.pad, self.over
        return F.pad(x, (left, right, top, bottom), value=value)

    def completed(self, top, value):
        """`top` of the windows within, with `value` for those outside."""
        (h, w), (all_h, all_w) = self.within, self.out
        return F.pad(top, (0, all_w - w, 0, all_h - h), value=value) if self.within != self.out else top

    def empty_means(self, device):
        """For each window outside the mean that Caffe finds, 0 over its (zero or negative) area; 0 elsewhere."""
        spans = []
        for n, i, k, s in zip(self.out, self.size, self.kernel, self.stride):
            start = torch.arange(n, device=device) * s
            spans.append((start + k).clamp(max=i) - start)
        means = 0.0 / (spans[0][:, None] * spans[1])
        means[: self.within[0], : self.within[1]] = 0
        return means

    @property
    def fused(self):
        """True where torch's pooling takes this padding (at most half of the kernel)."""
        return all(2 * p <= k for p, k in zip(self.pad, self.kernel))


def _as_pooled_fast(x, least):
    """x (N, C, H, W) in the layout that torch pools several times as fast on the CPU, from so many channels on."""
    fast = x.device.type == "cpu" and x.shape[1] >= least
    return x.contiguous(memory_format=torch.channels_last) if fast else x


def max_pool(x, windows, with_index=False, above_lowest=False):
    """Largest element of each window, the first in row order among equals; with its index h W + w if wanted. A window
    outside of x gives -FLT_MAX and -1; with `above_lowest` so does one without an element above -FLT_MAX, where a NaN
    is none."""
    w, x = windows, _as_pooled_fast(x, least=4)
    if above_lowest:
        x = torch.where(x > LOWEST, x, -math.inf)
    if w.fused:
        found = F.max_pool2d(x, w.kernel, w.stride, w.pad, ceil_mode=w.round_up, return_indices=with_index)
        top, index = found if with_index else (found, None)
    else:
        wide = w.padded(x, -math.inf)
        top, index = F.max_pool2d(wide, w.kernel, w.stride, return_indices=True)
        row, column = index // wide.shape[3] - w.pad[0], index % wide.shape[3] - w.pad[1]
        index = row * x.shape[3] + column
    if above_lowest:
        none = top <= LOWEST
        top = top.masked_fill(none, LOWEST)
        index = index if index is None else index.masked_fill(none, -1)
    top = w.completed(top, LOWEST)
    return (top, w.completed(index, -1)) if with_index else top


def ave_pool(x, windows):
    """Sum of each window over its area, clipped to the padded input: padding counts as zeros."""
    w = windows
    if max(w.out) > 1 and not torch.is_grad_enabled():  # a gradient would have to come back in the other layout
        x = _as_pooled_fast(x, least=16)
    if w.fused:
        top = F.avg_pool2d(x, w.kernel, w.stride, w.pad, ceil_mode=w.round_up)
        return top if w.within == w.out else w.completed(top, 0.0) + w.empty_means(x.device)
    top, left = w.pad
    means = F.avg_pool2d(F.pad(x, (left, left, top, top)), w.kernel, w.stride, ceil_mode=w.round_up)
    return means[..., : w.out[0], : w.out[1]]


def stochastic_pool(x, windows, generator):
    """An element of each window, drawn with probability proportional to its value (values must not be negative);
    without a generator the expected value, sum x^2 / sum x. A window outside of x gives 0."""
    area = math.prod(windows.kernel)
    cells = F.unfold(windows.padded(x, 0.0), windows.kernel, stride=windows.stride)
    cells = cells.view(*x.shape[:2], area, *windows.within)
    if generator is None:
        return windows.completed(cells.square().sum(2) / (cells.sum(2) + TINY), 0.0)
    reached = cells.detach().cumsum(2)
    threshold = torch.rand(reached[:, :, -1].shape, generator=generator, device=x.device) * reached[:, :, -1]
    first = (reached >= threshold[:, :, None]).int().argmax(2, keepdim=True)
    return windows.completed(cells.gather(2, first).squeeze(2), 0.0)


class _Pools(TorchLayer):
    """A layer that pools by `method`."""

    num_bottom = 1
    saves_output = False
    keeps_own = True
    method: int
    above_lowest = False  # in this pass MAX is to overlook what is not above -FLT_MAX

    def choose(self, method):
        """Pool by this method."""
        self.method = method
        if method == STOCHASTIC and device.current.type == "cpu":
            bvlc.refuses(self, "STOCHASTIC pooling on the CPU")

    def forward(self, bottom, top):
        self.above_lowest = False
        super().forward(bottom, top)
        # Caffe takes what is above -FLT_MAX, never a NaN; torch a NaN always. (A GPU would have to be waited for.)
        if self.method == MAX and device.shares_host and not math.isfinite(top[0].tensor().sum()):
            self.above_lowest = True
            super().forward(bottom, top)

    def pool(self, x, windows, generator):
        """x (N, C, H, W) pooled to (N, C, H', W')."""
        if self.method == MAX:
            return max_pool(x, windows, above_lowest=self.above_lowest)
        if self.method == AVE:
            return ave_pool(x, windows)
        return stochastic_pool(x, windows, generator)

    def generator(self, x):
        """What STOCHASTIC draws from in TRAIN; asked for once a pass, as several poolings draw different numbers."""
        return self.random(x.device) if self.method == STOCHASTIC and self.phase == TRAIN else None


@register("Pooling")
class Pooling(_Pools):
    """top (N, C, H', W'), H' = (H + 2 pad - kernel) / stride + 1, rounded up (see `pooled_size`).

    MAX may have a second top: the index h W + w of each winner in its plane; no gradient comes from it.
    STOCHASTIC draws in TRAIN and gives the expected value in TEST. Caffe: pooling_layer.cpp."""

    @property
    def num_top(self):  # type: ignore[override]  # a constant elsewhere
        return (1, 2) if self.param.pooling_param.pool == MAX else 1

    def configure(self, bottom):
        p = self.param.pooling_param
        self.round_up = p.round_mode == p.CEIL
        self.stride = self._pair(p, "stride", ("stride_h", "stride_w"))
        self.pad = self._pair(p, "pad", ("pad_h", "pad_w"))
        self.kernel = None  # the whole plane
        if not p.global_pooling:
            self.kernel = self._pair(p, "kernel_size", ("kernel_h", "kernel_w"))
            if min(self.kernel) < 1:
                self.fail(f"Filter dimensions cannot be zero; kernel is {self.kernel}")
        elif any(p.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w")):
            self.fail("With global_pooling: true the filter size cannot be specified")
        elif self.pad != (0, 0) or self.stride != (1, 1):
            self.fail("With global_pooling: true, only pad = 0 and stride = 1 are possible")
        if min(self.stride) < 1:
            self.fail(f"stride must be at least 1, not {self.stride}")
        if p.pool == STOCHASTIC and self.pad != (0, 0):
            self.fail("Padding implemented only for average and max pooling")
        self.choose(p.pool)

    def _pair(self, p, one, two):
        given = [p.HasField(f) for f in two]
        if one == "kernel_size" and p.HasField(one) and not all(given):
            given = []  # one of the two beside kernel_size is overlooked
        if any(given):
            if p.HasField(one) or not all(given):
                self.fail(f"give either {one}, or {two[0]} and {two[1]}")
            return getattr(p, two[0]), getattr(p, two[1])
        if one == "kernel_size" and not p.HasField(one):
            self.fail(f"give {one}, or {two[0]} and {two[1]}")
        return getattr(p, one), getattr(p, one)

    def top_shapes(self, shape):
        self.require_planes(shape)
        self.windows = Windows(self, shape[2:], self.kernel or shape[2:], self.stride, self.pad, self.round_up)
        return [(*shape[:2], *self.windows.out)] * 2

    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.with_index = len(top) > 1

    def compute(self, x):
        if self.with_index:
            top, index = max_pool(x, self.windows, with_index=True, above_lowest=self.above_lowest)
            return top, index.float()
        return self.pool(x, self.windows, self.generator(x))


@register("SPP")
class SPP(_Pools):
    """Spatial pyramid pooling: level i = 0 .. pyramid_height - 1 pools the plane to 2^i x 2^i cells; the levels are
    flattened and joined: top (N, C sum 4^i); a single level stays (N, C, 1, 1). Caffe: spp_layer.cpp."""

    num_top = 1

    def configure(self, bottom):
        self.levels = self.param.spp_param.pyramid_height
        if self.levels < 1:
            self.fail("pyramid_height must be at least 1")
        self.choose(self.param.spp_param.pool)

    def top_shapes(self, shape):
        self.require_planes(shape)
        self.windows = [self._windows(shape[2:], 2**i) for i in range(self.levels)]
        counts = [shape[1] * math.prod(w.out) for w in self.windows]
        return [(shape[0], sum(counts)) if self.levels > 1 else (*shape[:2], 1, 1)]

    def _windows(self, size, bins):
        kernel = tuple(math.ceil(s / bins) for s in size)
        pad = tuple((k * bins - s + 1) // 2 for k, s in zip(kernel, size))
        return Windows(self, size, kernel, kernel, pad)

    def compute(self, x):
        generator = self.generator(x)
        pooled = [self.pool(x, w, generator) for w in self.windows]
        return torch.cat([y.flatten(1) for y in pooled], 1) if self.levels > 1 else pooled[0]
