"""Eltwise: arithmetic over several blobs of one shape."""

import math

import torch

from caffe.layer import register
from caffe.torch_layer import TorchLayer


@register("Eltwise")
class Eltwise(TorchLayer):
    """top = sum coeff[i] x[i] (SUM), x[0] x[1] .. (PROD), or the largest (MAX); all bottoms and the top of one shape.

    MAX: of two equals at the start the second wins, a later one must be larger. PROD's gradient is the product of the
    others; with stable_prod_grad: false it is top over bottom, at 0 no number. In place, what Caffe's backward writes
    for bottom[0] is what the other bottoms take for the top's gradient. Caffe: eltwise_layer.cpp."""

    num_bottom = (2, None)
    num_top = 1
    saves_output = False

    def configure(self, bottom):
        p = self.param.eltwise_param
        self.operation = p.operation
        self.keeps_own = self.operation == p.MAX  # which of them was the largest
        self.reads_bottom = self.operation == p.PROD
        self.reads_top = self.reads_bottom and not p.stable_prod_grad
        self.by_formula = self.in_place or self.reads_top
        self.coefficients = list(p.coeff) or [1.0] * len(bottom)
        if len(self.coefficients) != len(bottom):
            self.fail(f"takes one coefficient per bottom blob; {len(p.coeff)} for {len(bottom)} bottoms")
        if p.coeff and self.operation == p.PROD:
            self.fail("only takes coefficients for summation, not for PROD")

    @property
    def spoils_diff(self):  # a constant elsewhere
        once = self.reads_bottom or (any(self.duty.bottoms[1:]) and (self.keeps_own or self.coefficients[0] != 1))
        return "here, too" if once else ""

    def top_shapes(self, *shapes):
        for i, shape in enumerate(shapes):
            if shape != shapes[0]:
                self.fail(f"bottom[{i}] has shape {shape}, bottom[0] {shapes[0]}; wanted equal shapes")
        return [shapes[0]]

    def compute(self, *bottoms):
        p, first = self.param.eltwise_param, bottoms[0]
        if self.operation == p.SUM:
            terms = [x if c == 1 else c * x for c, x in zip(self.coefficients, bottoms)]
            top = terms[0] + terms[1]
            for x in terms[2:]:
                top += x
        elif self.operation == p.PROD:
            top = first * bottoms[1]
            for x in bottoms[2:]:
                top = top * x
        else:
            top = torch.where(first > bottoms[1], first, bottoms[1])
            for x in bottoms[2:]:
                top = torch.where(x > top, x, top)
        return top

    def forward(self, bottom, top):
        if self.in_place and self.keeps_own:
            self.winner = _winner([b.tensor() for b in bottom])
        super().forward(bottom, top)

    def remember(self, bottom, top):
        if self.by_formula:
            self._values = [b.tensor() for b in bottom], top[0].tensor()
        else:
            super().remember(bottom, top)

    def backward(self, top, propagate_down, bottom):
        if not self.by_formula:
            return super().backward(top, propagate_down, bottom)
        for i, blob in enumerate(bottom):
            if propagate_down[i]:
                blob.grad.assign(self._share(i, top[0].grad))
        if not self.duty.keep:
            self._values = None

    def _share(self, i, diff):
        """The diff of bottom i, from the top's."""
        xs, y = self._values
        if self.keeps_own:
            return torch.where(self.winner == i, diff.tensor(), 0.0)
        if not self.reads_bottom:
            return self.coefficients[i] * diff.tensor()
        slope = y / xs[i] if self.reads_top else math.prod(x for k, x in enumerate(xs) if k != i)
        return slope * (slope if self.in_place and i == 0 else diff.tensor())


def _winner(bottoms):
    """The number of the bottom that MAX takes, at each place."""
    winner = torch.where(bottoms[0] > bottoms[1], 0, 1)
    largest = torch.maximum(bottoms[0], bottoms[1])
    for i, x in enumerate(bottoms[2:], 2):
        winner = torch.where(x > largest, i, winner)
        largest = torch.where(x > largest, x, largest)
    return winner
