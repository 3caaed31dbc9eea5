"""Larger and smaller maps: Interp (DeepLab, PSPNet), Upsample (SegNet, YOLO)."""

import math

import torch
import torch.nn.functional as F

from caffe.layer import Count, register
from caffe.torch_layer import TorchLayer


@register("Interp")
class Interp(TorchLayer):
    """Bilinear interpolation in which corners stay corners. From the size H of the bottom, less what pad_beg and
    pad_end (at most 0) cut off: shrink_factor s gives (H - 1) / s + 1, zoom_factor z gives H + (H - 1) (z - 1), both
    one after the other; or `height` and `width`, which are overlooked beside one factor and win over both.
    PSPNet: interp_layer.cpp."""

    num_bottom = num_top = 1
    saves_output = False

    def top_shapes(self, shape):
        p = self.param.interp_param
        if len(shape) != 4:
            self.fail(f"bottom has shape {tuple(shape)}; wanted (N, C, H, W)")
        if p.pad_beg > 0 or p.pad_end > 0:
            self.fail(f"pad_beg is {p.pad_beg}, pad_end is {p.pad_end}; only cropping, 0 or less, is supported")
        if p.shrink_factor < 1 or p.zoom_factor < 1:
            self.fail("shrink_factor and zoom_factor must be at least 1")
        cut = [size + p.pad_beg + p.pad_end for size in shape[2:]]
        if min(cut) < 1:
            self.fail(f"pad_beg {p.pad_beg} and pad_end {p.pad_end} leave nothing of bottom shape {tuple(shape)}")
        shrinks, zooms, sized = p.HasField("shrink_factor"), p.HasField("zoom_factor"), p.height > 0 and p.width > 0
        if shrinks != zooms or (shrinks and not sized):
            sizes = [(size - 1) // p.shrink_factor + 1 for size in cut]
            sizes = [size + (size - 1) * (p.zoom_factor - 1) for size in sizes]
        elif sized:
            sizes = [p.height, p.width]
        else:
            self.fail("interp_param: give height and width, zoom_factor or shrink_factor")
        self.size = sizes
        return [(*shape[:2], *sizes)]

    def compute(self, x):
        p = self.param.interp_param
        x = x[:, :, -p.pad_beg : x.shape[2] + p.pad_end, -p.pad_beg : x.shape[3] + p.pad_end]
        return F.interpolate(x, size=self.size, mode="bilinear", align_corners=True)


@register("Upsample")
class Upsample(TorchLayer):
    """With bottom[1], the second top of a max Pooling (index h W + w of each winner): a map of zeros with each element
    of bottom[0] where the pooling took it from (SegNet: upsample_layer.cpp). Its size is that of upsample_h and
    upsample_w, or `scale` (2) times the bottom's, one less with pad_out_h or pad_out_w.

    With one bottom each element becomes `scale` (1) x `scale` equal ones (YOLO v3 forks)."""

    num_bottom: Count = (1, 2)
    num_top = 1
    no_gradient = (1,)
    gradient_checked = False
    saves_output = False

    def top_shapes(self, shape, mask=None):
        p = self.param.upsample_param
        if len(shape) != 4 or (mask is not None and tuple(mask) != tuple(shape)):
            self.fail(f"bottoms have shapes {tuple(shape)}, {mask and tuple(mask)}; wanted (N, C, H, W), equal ones")
        scale = p.scale if mask is not None or p.HasField("scale") else 1
        self.scale = (p.scale_h or scale, p.scale_w or scale)
        if min(self.scale) < 1 or (p.HasField("scale_h") != p.HasField("scale_w")):
            self.fail("upsample_param: give scale, or scale_h and scale_w, of at least 1")
        sizes = [size * by - out for size, by, out in zip(shape[2:], self.scale, (p.pad_out_h, p.pad_out_w))]
        if p.HasField("upsample_h") or p.HasField("upsample_w"):
            if not (p.upsample_h and p.upsample_w) or mask is None:
                self.fail("upsample_param: upsample_h and upsample_w go together, and with a mask in bottom[1]")
            sizes = [p.upsample_h, p.upsample_w]
        elif mask is None and (p.pad_out_h or p.pad_out_w):
            self.fail("upsample_param: pad_out_h and pad_out_w need a mask in bottom[1]")
        self.size = sizes
        return [(*shape[:2], *sizes)]

    def compute(self, x, mask=None):
        if mask is None:
            return x.repeat_interleave(self.scale[0], 2).repeat_interleave(self.scale[1], 3)
        index = mask.detach().long().flatten(2)
        if index.device.type == "cpu" and not torch.compiler.is_exporting() and index.numel():
            least, most = int(index.min()), int(index.max())
            if least < 0 or most >= math.prod(self.size):
                self.fail(
                    f"the mask in bottom[1] holds {least}..{most}; a top of {self.size[0]} x {self.size[1]} has "
                    f"places 0..{math.prod(self.size) - 1}; give upsample_h and upsample_w"
                )
        top = x.new_zeros(*x.shape[:2], math.prod(self.size))
        return top.scatter(2, index, x.flatten(2)).unflatten(2, self.size)
