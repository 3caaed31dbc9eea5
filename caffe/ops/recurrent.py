"""Recurrent layers: RNN, LSTM, and LSTM's single step.

A recurrent layer's bottoms are x (T, N, ...): T time steps of N streams; cont (T, N): 0 where a sequence begins, which
clears the state, else 1; optionally a static input (N, ...), added at every step; with expose_hidden then the initial
states (1, N, H). Tops: the outputs (T, N, H), with expose_hidden then the last states (1, N, H). H is num_output.
Without expose_hidden each forward pass continues from the last state of the one before (zeros at first). No gradient
reaches the exposed states. Caffe: recurrent_layer.cpp unrolls a net; the order of the blobs is that net's.
"""

import math

import torch

from caffe import bvlc
from caffe.blob import Blob
from caffe.layer import register
from caffe.torch_layer import TorchLayer


class _Recurrent(TorchLayer):
    gradient_checked = False
    keeps_own = True
    states = 1  # how many blobs of shape (1, N, H) one step hands to the next
    blob_names: tuple[str, ...]

    def blob_shapes(self):
        """The shapes of the parameters: matrices of weights, and biases."""
        raise NotImplementedError

    def step(self, drive, alive, state, w):
        """The states (N, H) after one time step."""
        raise NotImplementedError

    def output(self, state, w):
        """The top (N, H) in these states."""
        raise NotImplementedError

    @property
    def exposed(self):
        return self.states if self.param.recurrent_param.expose_hidden else 0

    @property
    def num_bottom(self):  # type: ignore[override]  # a constant elsewhere
        return (2 + self.exposed, 3 + self.exposed)

    @property
    def num_top(self):  # type: ignore[override]  # a constant elsewhere
        return 1 + self.exposed

    def configure(self, bottom):
        p = self.param.recurrent_param
        shapes = [b.shape for b in bottom]
        self.hidden = p.num_output
        if self.hidden < 1:
            self.fail("num_output must be positive")
        if self.param.propagate_down and self.param.propagate_down[1]:
            bvlc.refuses(self, "propagate_down: true for bottom[1], where sequences begin")
        self.has_static = len(bottom) == 3 + self.exposed
        self.no_gradient = (1, *range(len(bottom) - self.exposed, len(bottom)))
        if len(shapes[0]) < 2:
            self.fail(f"bottom[0] must have at least 2 axes -- (#timesteps, #streams, ...); its shape is {shapes[0]}")
        self.steps, self.inputs = shapes[0][0], math.prod(shapes[0][2:])
        self.static_inputs = math.prod(shapes[2][1:]) if self.has_static else 0
        for shape in self.blob_shapes():
            self.add_blob(shape, p.weight_filler if len(shape) == 2 else p.bias_filler)
        self.state = [Blob() for _ in range(self.states)]

    def top_shapes(self, x, cont, *others):
        if x[0] != self.steps:
            self.fail(f"input number of timesteps changed: bottom[0] has shape {x}; wanted {self.steps} steps")
        if cont != x[:2]:
            self.fail(f"bottom[1] has shape {cont}; wanted (#timesteps, #streams) as in bottom[0], {x[:2]}")
        if math.prod(x[2:]) != self.inputs:
            self.fail(f"bottom[0] has shape {x}; wanted {self.inputs} inputs at each step")
        if self.has_static and (others[0][:1] != x[1:2] or math.prod(others[0][1:]) != self.static_inputs):
            self.fail(f"bottom[2] has shape {others[0]}; wanted {self.static_inputs} inputs for {x[1]} streams")
        state = (1, x[1], self.hidden)
        for i, shape in enumerate(others[int(self.has_static) :]):
            if shape != state:
                self.fail(f"bottom[{2 + int(self.has_static) + i}] has shape {shape}; wanted the state's {state}")
        for blob in self.state:
            if blob.shape != state:
                blob.reshape(*state)
                blob.memory.zero()
        return [(x[0], x[1], self.hidden)] + [state] * self.exposed

    def remember(self, bottom, top):
        stored = [s.clone() for s in self._stored()]
        super().remember(bottom, top)
        for state, values in zip(self._stored(), stored):
            state.copy_(values)

    def compute(self, x, cont, *others):
        names = [name for name in self.blob_names if name != "static" or self.has_static]
        w = dict(zip(names, self.weights))
        # (T, N, gates H): what no earlier step is needed for
        drive = x.reshape(*x.shape[:2], self.inputs) @ w["input"].t() + w["bias"]
        if self.has_static:
            drive = drive + others[0].reshape(x.shape[1], self.static_inputs) @ w["static"].t()
        # Copies: the stored states are overwritten below, while the gradient still needs the values read here.
        state = [s[0].detach().clone() for s in (others[-self.exposed :] if self.exposed else self._stored())]
        outputs = []
        for step, alive in zip(drive, cont[..., None]):
            state = self.step(step, alive, state, w)
            outputs.append(self.output(state, w))
        last = [s.detach()[None] for s in state]
        if self.exposed:
            return torch.stack(outputs), *last
        for blob, value in zip(self.state, last):
            blob.tensor().copy_(value)  # in place: a captured pass reads it there
        return torch.stack(outputs)

    def _stored(self):
        return [blob.tensor() for blob in self.state]


@register("RNN")
class RNN(_Recurrent):
    """h_t = tanh(W_hh (cont_t h_{t-1}) + W_xh x_t + W_xh_static x_static + b_h), o_t = tanh(W_ho h_t + b_o).

    Blobs: W_xh (H, X), b_h (H,), with a static input W_xh_static (H, S), then W_hh (H, H), W_ho (H, H), b_o (H,).
    State: h. Caffe: rnn_layer.cpp."""

    blob_names = ("input", "bias", "static", "hidden", "output", "output_bias")

    def blob_shapes(self):
        h = self.hidden
        static = [(h, self.static_inputs)] if self.has_static else []
        return [(h, self.inputs), (h,), *static, (h, h), (h, h), (h,)]

    def step(self, drive, alive, state, w):
        return [torch.tanh(drive + (alive * state[0]) @ w["hidden"].t())]

    def output(self, state, w):
        return torch.tanh(state[0] @ w["output"].t() + w["output_bias"])


def lstm_step(cell, gates, alive):
    """(c_t, h_t) from c_{t-1} (.., H), gates (.., 4H) in the order i, f, o, g, and alive (.., 1), 0 at a beginning:
    c_t = alive sigmoid(f) c_{t-1} + sigmoid(i) tanh(g), h_t = sigmoid(o) tanh(c_t)."""
    i, f, o, g = gates.chunk(4, -1)
    cell = alive * torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return cell, torch.sigmoid(o) * torch.tanh(cell)


@register("LSTM")
class LSTM(_Recurrent):
    """Gates [i; f; o; g] = W_hc (cont_t h_{t-1}) + W_xc x_t + W_xc_static x_static + b_c, then `lstm_step`; top h_t.

    Blobs: W_xc (4H, X), b_c (4H,), with a static input W_xc_static (4H, S), then W_hc (4H, H).
    States: h, c. Caffe: lstm_layer.cpp."""

    states = 2
    blob_names = ("input", "bias", "static", "hidden")

    def blob_shapes(self):
        gates = 4 * self.hidden
        static = [(gates, self.static_inputs)] if self.has_static else []
        return [(gates, self.inputs), (gates,), *static, (gates, self.hidden)]

    def step(self, drive, alive, state, w):
        hidden, cell = state
        cell, hidden = lstm_step(cell, drive + (alive * hidden) @ w["hidden"].t(), alive)
        return [hidden, cell]

    def output(self, state, w):
        return state[0]


@register("LSTMUnit")
class LSTMUnit(TorchLayer):
    """One step of an LSTM: bottoms c_{t-1} (1, N, H), gates (1, N, 4H) in the order i, f, o, g, cont (1, N);
    tops c_t and h_t (1, N, H). See `lstm_step`. Caffe: lstm_unit_layer.cpp."""

    num_bottom, num_top = 3, 2
    no_gradient = (2,)
    gradient_checked = False

    def top_shapes(self, cell, gates, cont):
        if len(cell) != 3 or cell[0] != 1 or gates != (*cell[:2], 4 * cell[2]) or cont != cell[:2]:
            self.fail(f"bottoms have shapes {cell}, {gates}, {cont}; wanted (1, N, H), (1, N, 4H), (1, N)")
        return [cell, cell]

    def compute(self, cell, gates, cont):
        return lstm_step(cell, gates, cont[..., None])
