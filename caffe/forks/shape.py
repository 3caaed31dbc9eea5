"""Elements in another order: Permute (SSD), Transpose and Reverse (CTPN), ShuffleChannel (ShuffleNet), Reorg (YOLO)."""

from caffe.layer import register
from caffe.torch_layer import TorchLayer


class _Moved(TorchLayer):
    num_bottom = num_top = 1
    saves_output = False


@register("Permute")
class Permute(_Moved):
    """Axis i of the top is axis order[i] of the bottom; axes that `order` leaves out follow. SSD: permute_layer.cpp."""

    def top_shapes(self, shape):
        order = list(self.param.permute_param.order)
        if len(set(order)) != len(order) or any(axis >= len(shape) for axis in order):
            self.fail(f"order {order} must name axes of bottom shape {tuple(shape)}, each once")
        self.order = [*order, *(axis for axis in range(len(shape)) if axis not in order)]
        return [tuple(shape[axis] for axis in self.order)]

    def compute(self, x):
        return x.permute(self.order).contiguous().view([x.shape[axis] for axis in self.order])


@register("Transpose")
class Transpose(_Moved):
    """Axis i of the top is axis dim[i] of the bottom; all are named. CTPN: transpose_layer.cpp."""

    def top_shapes(self, shape):
        self.order = list(self.param.transpose_param.dim)
        if sorted(self.order) != list(range(len(shape))):
            self.fail(f"dim {self.order} must name all axes of bottom shape {tuple(shape)}, each once")
        return [tuple(shape[axis] for axis in self.order)]

    def compute(self, x):
        return x.permute(self.order).contiguous()


@register("Reverse")
class Reverse(_Moved):
    """The bottom with its elements along `axis` (0) in reverse order. CTPN: reverse_layer.cpp."""

    def top_shapes(self, shape):
        self.axes = [self.canonical_axis(axis, shape) for axis in self.param.reverse_param.axis or [0]]
        return [shape]

    def compute(self, x):
        return x.flip(self.axes)


@register("ShuffleChannel")
class ShuffleChannel(_Moved):
    """Channel j group + i of the top is channel i (C / group) + j of the bottom.

    ShuffleNet: shuffle_channel_layer.cpp."""

    def top_shapes(self, shape):
        group = self.param.shuffle_channel_param.group
        if len(shape) < 2 or group < 1 or shape[1] % group:
            self.fail(f"group {group} must divide the channels of bottom shape {tuple(shape)}")
        return [shape]

    def compute(self, x):
        group = self.param.shuffle_channel_param.group
        return x.unflatten(1, (group, -1)).transpose(1, 2).flatten(1, 2)


@register("Reorg")
class Reorg(_Moved):
    """A map (N, C, H, W) as (N, C s^2, H / s, W / s), s = stride. As in YOLO's own code the bottom is read as maps of
    C / s^2 channels, s H x s W large, whose s x s phases become the channels. With `reverse`: (N, C / s^2, s H, s W),
    whose phase (a, b) is the (s a + b)-th group of C / s^2 channels. YOLO v2 forks: reorg_layer.cpp."""

    def top_shapes(self, shape):
        p = self.param.reorg_param
        if not p.HasField("stride") or p.stride < 1:
            self.fail("reorg_param: stride must be given, and at least 1 (its default differs between forks)")
        s = p.stride
        if len(shape) != 4 or shape[1] % s**2 or (not p.reverse and (shape[2] % s or shape[3] % s)):
            more = "" if p.reverse else f", H and W of {s}"
            self.fail(f"bottom has shape {tuple(shape)}; wanted (N, C, H, W) with C a multiple of {s**2}{more}")
        n, c, h, w = shape
        return [(n, c // s**2, h * s, w * s) if p.reverse else (n, c * s**2, h // s, w // s)]

    def compute(self, x):
        s, (n, c, h, w) = self.param.reorg_param.stride, x.shape
        if self.param.reorg_param.reverse:
            phases = x.reshape(n, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2)
            return phases.reshape(n, c // s**2, h * s, w * s)
        phases = x.reshape(n, c // s**2, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return phases.reshape(n, c * s**2, h // s, w // s)
