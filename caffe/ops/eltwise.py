"""Eltwise: arithmetic over several blobs of one shape."""

import torch

from caffe.layer import register
from caffe.torch_layer import TorchLayer


@register("Eltwise")
class Eltwise(TorchLayer):
    """top = sum coeff[i] x[i] (SUM), x[0] x[1] .. (PROD), or the largest (MAX); all bottoms and the top of one shape.

    MAX: of two equals at the start the second wins, a later one must be larger. PROD's gradient is always the stable
    one (the product of the others), whatever stable_prod_grad says. Caffe: eltwise_layer.cpp."""

    num_bottom = (2, None)
    num_top = 1
    saves_output = False

    def configure(self, bottom):
        p = self.param.eltwise_param
        self.operation = p.operation
        self.keeps_own = self.operation == p.MAX  # which of them was the largest
        self.coefficients = list(p.coeff) or [1.0] * len(bottom)
        if len(self.coefficients) != len(bottom):
            self.fail(f"takes one coefficient per bottom blob; {len(p.coeff)} for {len(bottom)} bottoms")
        if p.coeff and self.operation == p.PROD:
            self.fail("only takes coefficients for summation, not for PROD")

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
