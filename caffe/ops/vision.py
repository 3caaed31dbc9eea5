"""Convolution, Deconvolution, Im2col: windows sliding over any number of spatial axes; Crop."""

import math

import torch
import torch.nn.functional as F

from caffe import bvlc, precision, prepared
from caffe.errors import CaffeError
from caffe.layer import Count, register
from caffe.torch_layer import TorchLayer

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}  # by the number of spatial axes
SPREAD = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class _Windows(TorchLayer):
    """What all have: bottoms (N.., C, spatial axes..) with the channels at `axis` (1), and kernel, stride, pad and
    dilation for each spatial axis."""

    num_bottom: Count = (1, None)
    num_top: Count = (1, None)
    saves_output = False

    def configure(self, bottom):
        p = self.param.convolution_param
        shape = bottom[0].shape
        self.axis = self.canonical_axis(p.axis, shape)
        self.channels = shape[self.axis]
        self.axes = len(shape) - self.axis - 1
        self.kernel = self._sizes("kernel_size", p.kernel_size, None, ("kernel_h", "kernel_w"))
        self.stride = self._sizes("stride", p.stride, 1, ("stride_h", "stride_w"))
        self.pad = self._sizes("pad", p.pad, 0, ("pad_h", "pad_w"))
        dilation = self._sizes("dilation", p.dilation, 1)
        if min((*self.kernel, *self.stride, *dilation), default=1) < 1:
            self.fail("Filter dimensions, strides and dilations must be nonzero.")
        # A kernel of 1 has no gaps to widen. oneDNN, told of a dilation there, reads outside of thin inputs.
        self.dilation = tuple(1 if k == 1 else d for k, d in zip(self.kernel, dilation))

    def _sizes(self, what, repeated, default, two=()):
        """A size for each spatial axis, given once for all, once for each, or for two axes as `two`."""
        p = self.param.convolution_param
        if any(p.HasField(field) for field in two):
            if self.axes != 2:
                self.fail(
                    f"{two[0]} & {two[1]} can only be used for 2D convolution; there are {self.axes} spatial "
                    f"axes, so give {what} once, or once for each"
                )
            if len(repeated):
                self.fail(f"give either {what} or {two[0]} and {two[1]}, not both")
            return tuple(getattr(p, field) for field in two)
        values = list(repeated) or ([default] if default is not None else [])
        if len(values) not in (1, self.axes):
            self.fail(
                f"{what} must be specified once, or once per spatial dimension ({what} specified {len(values)} "
                f"times; {self.axes} spatial dims)"
            )
        return tuple(values * self.axes if len(values) == 1 else values)

    def check_bottom(self, shape):
        if len(shape) != self.axis + 1 + self.axes or shape[self.axis] != self.channels:
            self.fail(
                f"bottom has shape {tuple(shape)}; wanted {self.channels} channels at axis {self.axis}, and "
                f"{self.axes} axes after it, as in the first"
            )

    def window_sizes(self, shape):
        """How many windows fit along each spatial axis of a bottom of this shape."""
        geometry = zip(shape[len(shape) - self.axes :], self.kernel, self.stride, self.pad, self.dilation)
        return [
            (size + 2 * pad - (dilation * (kernel - 1) + 1)) // stride + 1
            for size, kernel, stride, pad, dilation in geometry
        ]


class _Learned(_Windows):
    """Convolution and Deconvolution: weights from the first bottom's channels to num_output, in groups."""

    def check_counts(self, bottom, top):
        super().check_counts(bottom, top)
        if len(bottom) != len(top):
            wish = f"{self.type} Layer produces one top blob as output for each bottom blob input"
            raise CaffeError(f"{wish}; layer '{self.name}' has {len(bottom)} and {len(top)}.")

    def weight_shape(self, outputs):
        """Shape of the weights for `outputs` channels."""
        raise NotImplementedError

    def top_sizes(self, shape):
        """Sizes of the spatial axes of the top of a bottom of this shape."""
        raise NotImplementedError

    def slide(self, x, weight, bias):
        """The top (N, num_output, ..) of a bottom (N, C, ..)."""
        raise NotImplementedError

    def configure(self, bottom):
        super().configure(bottom)
        p = self.param.convolution_param
        if self.axes > max(CONVOLVE):
            self.fail(f"bottom has shape {bottom[0].shape}; wanted at most 3 axes after the channels, axis {self.axis}")
        self.group, outputs = p.group, p.num_output
        if outputs < 1:
            self.fail("num_output must be at least 1")
        if self.group < 1 or self.channels % self.group or outputs % self.group:
            self.fail(f"group {self.group} must divide the {self.channels} channels and num_output {outputs}")
        self.add_blob(self.weight_shape(outputs), p.weight_filler)
        if p.bias_term:
            self.add_blob((outputs,), p.bias_filler)

    def top_shapes(self, *shapes):
        tops = []
        for shape in shapes:
            self.check_bottom(shape)
            sizes = self.top_sizes(shape)
            if min(sizes, default=1) < 1:
                self.fail(
                    f"bottom shapes {', '.join(map(str, shapes))} do not fit: kernel {self.kernel} with dilation "
                    f"{self.dilation} is larger than the padded bottom {tuple(shape)}"
                )
            tops.append((*shape[: self.axis], self.param.convolution_param.num_output, *sizes))
        return tops

    def compute(self, *bottoms):
        weight, bias = self.weights[0], self.weights[1] if len(self.weights) > 1 else None
        with precision.products(bottoms[0]):
            return [self._each(x, lambda x: self.slide(x, weight, bias)).to(x.dtype) for x in bottoms]

    def infer(self, *bottoms):
        return [self._each(x, self.slide_prepared) for x in bottoms]

    def slide_prepared(self, x):
        """As `slide`, with what was made of the parameters once, where that can be."""
        raise NotImplementedError

    def _each(self, x, slide):
        """The top of one bottom; all axes before the channels count items."""
        if self.axis == 1:
            return slide(x)
        items = x.shape[: self.axis]
        top = slide(x.reshape(-1, *x.shape[self.axis :]))
        return top.reshape(*items, *top.shape[1:])


@register("Convolution")
class Convolution(_Learned):
    """top (N.., num_output, H'..), H' = (H + 2 pad - (dilation (kernel - 1) + 1)) / stride + 1, rounded down.

    Weights (num_output, C / group, kernel..), bias (num_output,). Caffe: conv_layer.cpp."""

    def weight_shape(self, outputs):
        return (outputs, self.channels // self.group, *self.kernel)

    def top_sizes(self, shape):
        return self.window_sizes(shape)

    followers: tuple = ()  # layers after it whose work the next forward pass does, too: see `caffe.chains`

    def forward(self, bottom, top):
        if self.axes == 2 and not self.duty.keep and not self.infers and not self._covers(bottom[0].shape):
            memory, form = self.blobs[0].memory, torch.channels_last
            own = memory.tensor().dim() == 4  # shared as PERMISSIVE it may have another layer's shape
            if own and not memory.exposed and not memory.tensor().is_contiguous(memory_format=form):
                memory.assign(memory.tensor().contiguous(memory_format=form))  # nobody looks: as convolutions want it
        super().forward(bottom, top)

    def _covers(self, shape):
        """Is a bottom of this shape one window?"""
        return self.blobs[0].shape[1:] == tuple(shape[1:]) and not any(self.pad) and max(self.dilation, default=1) == 1

    def slide(self, x, weight, bias):
        if self._covers(x.shape):  # a matrix product, several times faster than a convolution
            return F.linear(x.flatten(1), weight.flatten(1), bias).view(-1, weight.shape[0], *(1,) * self.axes)
        if not self.axes:  # each item is one point
            return F.conv1d(x[..., None], weight[..., None], bias, groups=self.group)[..., 0]
        if self.axes == 2:
            x = x.flatten(1).view(x.shape) if self._strides_past(x.shape) else _channels_last(x)
        return CONVOLVE[self.axes](x, weight, bias, self.stride, self.pad, self.dilation, self.group)

    def slide_prepared(self, x):
        way, scaling = self._way(x), self._scaling
        if way:
            blobs = [*self.blobs, *(blob for layer in scaling for blob in layer.blobs)] if scaling else self.blobs
            run = self.once(lambda: self._prepare(way, x.shape), way, self.followers, blobs=blobs)
            if run:
                return run(x)
        top = self.slide(x, self.weights[0], self.weights[1] if len(self.weights) > 1 else None)
        for layer in scaling:
            scale, shift = (v.view(-1, *(1,) * self.axes) for v in layer.per_channel())
            top = torch.addcmul(shift, top, scale)
        return top.relu_() if self._rectifies else top

    def top_shapes(self, *shapes):
        self._ways = {}
        return super().top_shapes(*shapes)

    def again(self):
        once = self.infers and self.axis == 1 and len(self._ways) == 1 and all(self._ways.values())
        return self.prepared.kept if once and len(self._top_shapes) == 1 and self.prepared else None

    @property
    def by_item(self):  # type: ignore[override]  # a constant elsewhere
        return "product" not in self._ways.values()  # its sums may depend on the number of rows

    def _way(self, x):
        """How oneDNN computes the top of x: as a "product" or in "windows"; "" where torch does better."""
        if not prepared.available(x):
            return ""
        shape = tuple(x.shape)
        if shape not in self._ways:
            covers = self._covers(shape)
            windows = self.axes == 2 and not covers and not self._strides_past(shape)
            self._ways[shape] = "product" if covers and shape[0] > 1 else "windows" if windows else ""
        return self._ways[shape]

    def _prepare(self, way, shape):
        """function(x): the top, with what the followers do to each channel; None where that is not finite."""
        weight, bias = self.weights[0], self.weights[1] if len(self.weights) > 1 else None
        scaling, relu = self._scaling, self._rectifies
        for layer in scaling:
            scale, shift = layer.per_channel()
            weight = weight * scale.view(-1, *(1,) * (self.axes + 1))
            bias = shift if bias is None else bias * scale + shift
        if scaling and not all(bool(t.isfinite().all()) for t in (weight, bias) if t is not None):
            return None
        if way == "product":
            run, ones = prepared.product(_rows(weight), bias, relu), (1,) * self.axes
            return lambda x: run(_rows(x)).view(len(x), -1, *ones)
        run = prepared.convolution(weight, bias, shape, self.stride, self.pad, self.dilation, self.group, relu)
        return lambda x: run(_channels_last(x))

    @property
    def _scaling(self):
        return [layer for layer in self.followers if hasattr(layer, "per_channel")] if self.followers else []

    @property
    def _rectifies(self):
        return len(self._scaling) < len(self.followers)

    def _strides_past(self, shape):
        """One channel, and a stride along an axis with a single window: channels last, oneDNN gives garbage there."""
        return shape[1] == 1 and any(n == 1 < s for n, s in zip(self.window_sizes(shape), self.stride))


def _rows(x):
    """(N, C, ..) -> (N, .. C): for a bottom in channels last no copy."""
    return x.movedim(1, -1).flatten(1)


def _channels_last(x):
    """x (N, C, H, W) in the layout in which CPU and GPU convolve, normalise and pool fastest."""
    if x.shape[1] == 1:  # both layouts at once, and torch takes it for the other one: say so by the strides
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


@register("Deconvolution")
class Deconvolution(_Learned):
    """top (N.., num_output, H'..), H' = stride (H - 1) + dilation (kernel - 1) + 1 - 2 pad.

    Weights (C, num_output / group, kernel..), bias (num_output,). Caffe: deconv_layer.cpp."""

    def weight_shape(self, outputs):
        return (self.channels, outputs // self.group, *self.kernel)

    def top_sizes(self, shape):
        geometry = zip(shape[self.axis + 1 :], self.kernel, self.stride, self.pad, self.dilation)
        return [
            stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad
            for size, kernel, stride, pad, dilation in geometry
        ]

    def slide(self, x, weight, bias):
        if self._spreads_points(x.shape):
            top = (x.flatten(1) @ weight.flatten(1)).view(x.shape[0], -1, *self.kernel)
            return top if bias is None else top + bias.view(-1, *(1,) * self.axes)
        if not self.axes:
            return F.conv_transpose1d(x[..., None], weight[..., None], bias, groups=self.group)[..., 0]
        steps = tuple(1 if n == 1 else s for n, s in zip(x.shape[2:], self.stride))  # one window makes no step
        return SPREAD[self.axes](x, weight, bias, steps, self.pad, 0, self.group, self.dilation)

    def _spreads_points(self, shape):
        """Is a bottom of this shape a single point, and the top of it one window?"""
        plain = not any(self.pad) and self.group == 1 and max(self.dilation, default=1) == 1
        return plain and max(shape[2:], default=1) == 1

    def slide_prepared(self, x):
        weight, bias = self.weights[0], self.weights[1] if len(self.weights) > 1 else None
        if not prepared.available(x) or not self._spreads_points(x.shape) or len(x) == 1:
            return self.slide(x, weight, bias)
        each = None if bias is None else bias.repeat_interleave(math.prod(self.kernel))
        make = lambda: prepared.product(weight.flatten(1).t(), each)  # noqa: E731
        return self.once(make)(x.flatten(1)).view(len(x), -1, *self.kernel)


@register("Im2col")
class Im2col(_Windows):
    """The windows of a convolution as columns: (N.., C, H..) -> (N.., C kh.., H'..), H' as in Convolution.
    Caffe: im2col_layer.cpp."""

    num_bottom = num_top = 1

    def configure(self, bottom):
        super().configure(bottom)
        if not self.axes:
            bvlc.refuses(self, f"no axis after axis {self.axis}, the channels")

    def top_shapes(self, shape):
        self.check_bottom(shape)
        out = self.window_sizes(shape)
        if min(out, default=1) < 1:
            self.fail(f"kernel {self.kernel} with dilation {self.dilation} is larger than the padded bottom {shape}")
        return [(*shape[: self.axis], self.channels * math.prod(self.kernel), *out)]

    def compute(self, x):
        shape, first = self.top_shapes(tuple(x.shape))[0], self.axis + 1
        x = F.pad(x, [p for pad in reversed(self.pad) for p in (pad, pad)])
        for i, (kernel, stride, dilation) in enumerate(zip(self.kernel, self.stride, self.dilation)):
            x = x.unfold(first + i, dilation * (kernel - 1) + 1, stride)[..., ::dilation]  # adds an axis at the end
        order = [*range(first), *range(first + self.axes, x.dim()), *range(first, first + self.axes)]
        return x.permute(order).reshape(shape)


@register("Crop")
class Crop(TorchLayer):
    """The part of bottom[0] that has the size of bottom[1] from `axis` (2) on, starting at `offset` (none, one for all
    cropped axes, or one for each). Caffe: crop_layer.cpp."""

    num_bottom, num_top = 2, 1
    no_gradient = (1,)  # only its size counts
    gradient_checked = False
    saves_output = False

    def top_shapes(self, shape, reference):
        p = self.param.crop_param
        start = self.canonical_axis(p.axis, shape)
        cropped = len(shape) - start
        if len(reference) < len(shape):
            self.fail(f"bottom[1] has shape {reference}; wanted at least the {len(shape)} axes of bottom[0], {shape}")
        if len(p.offset) not in (0, 1, cropped):
            self.fail(f"{len(p.offset)} offsets; wanted none, one, or one for each of the {cropped} cropped axes")
        offsets = list(p.offset) or [0]
        begin = offsets * cropped if len(offsets) == 1 else offsets
        for i, b, n in zip(range(start, len(shape)), begin, reference[start:]):
            if b + n > shape[i]:
                self.fail(
                    f"the crop for dimension {i} is out-of-bounds: size {n} at offset {b} of bottom shape {shape}"
                )
        self.parts = (slice(None),) * start + tuple(slice(b, b + n) for b, n in zip(begin, reference[start:]))
        return [(*shape[:start], *reference[start : len(shape)])]

    def compute(self, x, _):
        # A copy, so that a layer working in place on the top leaves the bottom alone.
        return x[self.parts].clone()
