"""Element-wise layers: the top has the bottom's shape; all may work in place."""

import torch
import torch.nn.functional as F

from caffe.layer import TorchLayer, register


class Neuron(TorchLayer):
    num_bottom = num_top = 1

    def top_shapes(self, shape):
        return [shape]


@register("ReLU")
class ReLU(Neuron):
    """max(0, x) + negative_slope min(0, x); at 0 the gradient is the negative side's. Caffe: relu_layer.cpp.

    Its own backward works from the output, so that in place it needs no memory of its own."""

    def forward(self, bottom, top):
        x, slope = bottom[0].tensor(), self.param.relu_param.negative_slope
        if slope:
            y = F.leaky_relu(x, slope)
        elif self.may_overwrite and not bottom[0].memory.exposed:
            y = x.relu_()
        else:
            y = x.relu()
        self._output = y if self.need_backward else None
        top[0].memory.assign(y)

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            g, slope = top[0].grad.tensor(), self.param.relu_param.negative_slope
            aten = torch.ops.aten
            dx = aten.leaky_relu_backward(g, self._output, slope, True) if slope else (
                aten.threshold_backward(g, self._output, 0))  # fmt: skip
            bottom[0].grad.assign(dx)


@register("Sigmoid")
class Sigmoid(Neuron):
    """1 / (1 + exp(-x)), computed as Caffe does: 0.5 tanh(0.5 x) + 0.5 (sigmoid_layer.cpp)."""

    def compute(self, x):
        return 0.5 * torch.tanh(0.5 * x) + 0.5


@register("Dropout")
class Dropout(Neuron):
    """TRAIN: each element is 0 with probability dropout_ratio, else scaled by 1 / (1 - ratio); TEST: identity.
    Caffe: dropout_layer.cpp."""

    def configure(self, bottom):
        ratio = self.param.dropout_param.dropout_ratio
        if not 0 < ratio < 1:
            self.fail(f"dropout_ratio is {ratio}; wanted a value between 0 and 1")

    def compute(self, x):
        if self.phase == 1:
            return x.view_as(x)
        ratio = self.param.dropout_param.dropout_ratio
        keep = torch.empty(x.shape, device=x.device).bernoulli_(1 - ratio, generator=self.random())
        return x * keep.div_(1 - ratio)
