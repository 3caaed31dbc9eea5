"""Regions of interest: ROIPooling (Fast R-CNN), PSROIPooling and BoxAnnotatorOHEM (R-FCN).

bottom[1] holds the regions (R, 5): index of the item, then x1, y1, x2, y2 in pixels of the input image, of which the
feature map bottom[0] is a picture `spatial_scale` as large. No gradient goes to the regions."""

import math

import torch

from caffe.forks import traced
from caffe.layer import register
from caffe.torch_layer import TorchLayer


class _Regions(TorchLayer):
    num_bottom, num_top = 2, 1
    no_gradient = (1,)
    gradient_checked = False
    saves_output = False
    capturable = False  # looks at the regions

    def check_regions(self, shape, rois):
        if len(shape) != 4:
            self.fail(f"bottom[0] has shape {tuple(shape)}; wanted (N, C, H, W)")
        if len(rois) < 2 or math.prod(rois[1:]) != 5:
            self.fail(f"bottom[1] has shape {tuple(rois)}; wanted (R, 5): index of the item, x1, y1, x2, y2")

    def items(self, rois, count):
        """The regions' items as indices; one that is none of `count` is an error."""
        index = rois[:, 0].long()
        if torch.compiler.is_exporting():
            return index
        wrong = (index < 0) | (index >= count)
        if bool(wrong.any()):
            self.fail(f"a region in bottom[1] is of item {rois[wrong][0, 0].item():g}; wanted 0..{count - 1}")
        return index


def _rounded(x):
    """The nearest integer, halves away from zero, as C's round."""
    return torch.where(x < 0, -torch.floor(0.5 - x), torch.floor(x + 0.5))


def _ends(begin, length, bins, size):
    """First and one after the last index of `bins` equal parts of [begin, begin + length), clipped to 0..size."""
    part = (length / bins)[:, None]
    number = torch.arange(bins, dtype=torch.float32, device=begin.device)
    first = torch.floor(number * part) + begin[:, None]
    last = torch.ceil((number + 1) * part) + begin[:, None]
    return first.clamp(0, size).long(), last.clamp(0, size).long()


@register("ROIPooling")
class ROIPooling(_Regions):
    """Each region is cut into pooled_h x pooled_w parts; the top (R, C, pooled_h, pooled_w) is the largest element of
    each part, the first in row order among equals, 0 where the part is empty. Corners are rounded to the map's pixels;
    a region is at least one pixel large. The gradient goes to the largest element. Fast R-CNN: roi_pooling_layer.cu."""

    def configure(self, bottom):
        p = self.param.roi_pooling_param
        if p.pooled_h < 1 or p.pooled_w < 1:
            self.fail(f"pooled_h is {p.pooled_h}, pooled_w is {p.pooled_w}; both must be at least 1")

    def top_shapes(self, shape, rois):
        self.check_regions(shape, rois)
        p = self.param.roi_pooling_param
        return [(rois[0], shape[1], p.pooled_h, p.pooled_w)]

    def compute(self, x, rois):
        p = self.param.roi_pooling_param
        rois = rois.reshape(-1, 5)
        if torch.compiler.is_exporting():
            return traced.regions_max(x, rois, p)
        item = self.items(rois, x.shape[0])
        x1, y1, x2, y2 = _rounded(rois[:, 1:].detach() * p.spatial_scale).unbind(1)
        rows = _ends(y1, (y2 - y1 + 1).clamp(min=1), p.pooled_h, x.shape[2])
        columns = _ends(x1, (x2 - x1 + 1).clamp(min=1), p.pooled_w, x.shape[3])
        index, filled = _winners(x.detach(), item, rows, columns)
        planes = x.flatten(2)[item]
        return torch.where(filled, planes.gather(2, index.flatten(2)).view(index.shape), 0.0)


def _winners(x, item, rows, columns):
    """For regions' parts (R, PH, PW), given by first and last rows (R, PH) and columns (R, PW): the index h W + w of
    the largest element (R, C, PH, PW), and where there is one (R, 1, PH, PW).

    A range of n is covered by two ranges of the largest power of 2 below n, whose maxima are made once for all places
    (a sparse table), so that the parts need no loop."""
    (top, bottom), (left, right) = rows, columns
    tall, wide = (bottom - top)[:, :, None], (right - left)[:, None, :]
    filled = ((tall > 0) & (wide > 0))[:, None]
    sizes = (1, 1)
    if tall.numel() and wide.numel():
        sizes = (max(int(tall.max()), 1), max(int(wide.max()), 1))
    powers = [[2**k for k in range(int(size).bit_length())] for size in sizes]
    values, places = _tables(x, *powers)
    kh, kw = (torch.log2(n.clamp(min=1).double()).floor().long() for n in (tall, wide))
    reach_h, reach_w = 2**kh, 2**kw
    level = (kh * len(powers[1]) + kw)[:, :, :]
    n = item[:, None, None]
    y = [top[:, :, None], (bottom[:, :, None] - reach_h)]
    z = [left[:, None, :], (right[:, None, :] - reach_w)]
    best: torch.Tensor | None = None
    for i in y:
        for j in z:
            i_, j_ = i.clamp(0, x.shape[2] - 1), j.clamp(0, x.shape[3] - 1)
            value, place = values[level, n, i_, j_], places[level, n, i_, j_]  # (R, PH, PW, C)
            if best is None:
                best, index = value, place
            else:
                better = (value > best) | ((value == best) & (place < index))
                best, index = torch.where(better, value, best), torch.where(better, place, index)
    return index.permute(0, 3, 1, 2).long(), filled


def _tables(x, tall, wide):
    """Largest elements of all ranges of tall[i] rows and wide[j] columns that begin at each place, and their indices:
    (levels, N, H, W, C) both."""
    h, w = x.shape[2:]
    value = x.permute(0, 2, 3, 1).contiguous()
    place = torch.arange(h * w, device=x.device, dtype=torch.int32).view(1, h, w, 1).expand(value.shape)
    values, places = [], []
    for i in range(len(tall)):
        if i:
            value, place = _larger(value, place, 1, tall[i - 1])
        row = value, place
        for j in range(len(wide)):
            if j:
                row = _larger(*row, 2, wide[j - 1])
            values.append(row[0])
            places.append(row[1])
    return torch.stack(values), torch.stack(places)


def _larger(value, place, axis, step):
    """The larger one of each element and the one `step` further on; the first of equals. At the end: the last."""
    size = value.shape[axis]
    on = (torch.arange(size, device=value.device) + step).clamp(max=size - 1)
    other, there = value.index_select(axis, on), place.index_select(axis, on)
    better = (other > value) | ((other == value) & (there < place))
    return torch.where(better, other, value), torch.where(better, there, place)


@register("PSROIPooling")
class PSROIPooling(_Regions):
    """Each region is cut into k x k parts, k = group_size; part (i, j) of the top (R, output_dim, k, k) is the mean of
    the part in channel (c k + i) k + j of bottom[0] (N, output_dim k k, H, W), 0 where it is empty. Corners are rounded
    before they are scaled. R-FCN: psroi_pooling_layer.cu."""

    def configure(self, bottom):
        p = self.param.psroi_pooling_param
        for field in ("spatial_scale", "output_dim", "group_size"):
            if not p.HasField(field) or getattr(p, field) <= 0:
                self.fail(f"psroi_pooling_param: {field} must be given, and above 0")

    def top_shapes(self, shape, rois):
        self.check_regions(shape, rois)
        p = self.param.psroi_pooling_param
        if shape[1] != p.output_dim * p.group_size**2:
            self.fail(
                f"bottom[0] has shape {tuple(shape)}; wanted {p.output_dim * p.group_size**2} channels "
                f"(output_dim {p.output_dim} x group_size {p.group_size} squared)"
            )
        return [(rois[0], p.output_dim, p.group_size, p.group_size)]

    def compute(self, x, rois):
        p = self.param.psroi_pooling_param
        k, rois = p.group_size, rois.reshape(-1, 5)
        item = self.items(rois, x.shape[0])
        corners = _rounded(rois[:, 1:].detach())
        x1, y1 = corners[:, 0] * p.spatial_scale, corners[:, 1] * p.spatial_scale
        x2, y2 = (corners[:, 2] + 1) * p.spatial_scale, (corners[:, 3] + 1) * p.spatial_scale
        top, bottom = _parts(y1, (y2 - y1).clamp(min=0.1), k, x.shape[2])
        left, right = _parts(x1, (x2 - x1).clamp(min=0.1), k, x.shape[3])
        # Sums of all rectangles from the corner on, in double: four of them make the sum of any rectangle.
        sums = torch.nn.functional.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
        n = item[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device).view(1, p.output_dim, k, k)
        y, z = (top[:, None, :, None], bottom[:, None, :, None]), (left[:, None, None, :], right[:, None, None, :])
        total = sums[n, channel, y[1], z[1]] - sums[n, channel, y[0], z[1]]
        total = total - sums[n, channel, y[1], z[0]] + sums[n, channel, y[0], z[0]]
        height, width = (y[1] - y[0]).clamp(min=0), (z[1] - z[0]).clamp(min=0)
        area = height * width
        return torch.where(area > 0, total / area.clamp(min=1), 0.0).float()


def _parts(begin, length, bins, size):
    """As `_ends`, of ranges that do not begin at a pixel."""
    part = (length / bins)[:, None]
    number = torch.arange(bins, dtype=torch.float32, device=begin.device)
    first, last = torch.floor(number * part + begin[:, None]), torch.ceil((number + 1) * part + begin[:, None])
    return first.clamp(0, size).long(), last.clamp(0, size).long()


@register("BoxAnnotatorOHEM")
class BoxAnnotatorOHEM(TorchLayer):
    """Of the regions of each item the roi_per_img that cost most keep their labels and weights; the labels of the
    others become ignore_label (-1), their weights 0.

    Bottoms: regions (R, 5), losses (R), labels (R), weights (R, K); tops: labels and weights, of their bottoms' shapes.
    R-FCN: box_annotator_ohem_layer.cpp."""

    num_bottom, num_top = 4, 2
    differentiable = False
    saves_output = False

    def configure(self, bottom):
        p = self.param.box_annotator_ohem_param
        if not p.HasField("roi_per_img") or p.roi_per_img < 1:
            self.fail("box_annotator_ohem_param: roi_per_img must be given, and at least 1")

    def top_shapes(self, rois, losses, labels, weights):
        count = rois[0] if rois else 0
        if math.prod(rois) != 5 * count or any(not s or s[0] != count for s in (losses, labels, weights)):
            self.fail(
                f"bottoms have shapes {tuple(rois)}, {tuple(losses)}, {tuple(labels)}, {tuple(weights)}; wanted "
                "(R, 5), (R), (R), (R, K)"
            )
        if math.prod(losses) != count or math.prod(labels) != count:
            self.fail(f"bottoms have shapes {tuple(losses)}, {tuple(labels)}; wanted one loss and label a region")
        return [labels, weights]

    def compute(self, rois, losses, labels, weights):
        p = self.param.box_annotator_ohem_param
        item = rois.reshape(-1, 5)[:, 0].long()
        order = torch.sort(losses.reshape(-1), descending=True, stable=True).indices
        ahead = (item[order][:, None] == item[order][None]).tril(-1).sum(1)  # of the same item, with larger losses
        keep = torch.zeros_like(item, dtype=torch.bool)
        keep[order] = ahead < p.roi_per_img
        of_labels, of_weights = (keep.view(-1, *(1,) * (x.dim() - 1)) for x in (labels, weights))
        return torch.where(of_labels, labels, p.ignore_label), torch.where(of_weights, weights, 0.0)
