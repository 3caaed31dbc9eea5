"""The six update rules: from gradient and history to the value subtracted from a parameter (Caffe: solvers/).

Each rule has `slots` history tensors a parameter (kept in the .solverstate) and
`update(solver_param, g, history, lr, t)`, which gives the update for gradient `g` (may be overwritten), local learning
rate `lr` and update number `t` (from 1), and brings `history` up to date.
"""

import math

import torch

from caffe.errors import CaffeError


class SGD:
    """V = momentum V + lr g;  w -= V"""

    slots = 1

    @staticmethod
    def check(param):
        pass

    @staticmethod
    def update(param, g, history, lr, t):
        return history[0].mul_(param.momentum).add_(g, alpha=lr)


def fused_sgd(param, w, g, v, lr, decay):
    """SGD with L2 decay in one pass over memory: V = momentum V + lr (g / iter_size + decay w);  w -= V.

    torch's kernel keeps V without the rate in it; with its own rate at 1 and the real one folded into gradient and
    decay it keeps Caffe's V. `g` is spoilt; the update is V."""
    scale = torch.full((), param.iter_size / lr, device=w.device)
    torch._fused_sgd_([w], [g], [v], weight_decay=lr * decay, momentum=param.momentum, lr=1.0, dampening=0.0,
                      nesterov=False, maximize=False, is_first_step=False, grad_scale=scale)  # fmt: skip
    return v


class Nesterov(SGD):
    """V' = momentum V + lr g;  w -= (1 + momentum) V' - momentum V"""

    @staticmethod
    def update(param, g, history, lr, t):
        (v,) = history
        before = v.clone()
        v.mul_(param.momentum).add_(g, alpha=lr)
        return before.mul_(-param.momentum).add_(v, alpha=1 + param.momentum)


class AdaGrad(SGD):
    """H += g^2;  w -= lr g / (sqrt(H) + delta)"""

    @staticmethod
    def check(param):
        if param.momentum:
            raise CaffeError(f"Momentum cannot be used with AdaGrad (momentum is {param.momentum}, must be 0).")

    @staticmethod
    def update(param, g, history, lr, t):
        history[0].addcmul_(g, g)
        return g.div_(history[0].sqrt().add_(param.delta)).mul_(lr)


class RMSProp(SGD):
    """H = rms_decay H + (1 - rms_decay) g^2;  w -= lr g / (sqrt(H) + delta)"""

    @staticmethod
    def check(param):
        if param.momentum:
            raise CaffeError(f"Momentum cannot be used with RMSProp (momentum is {param.momentum}, must be 0).")
        if not 0 <= param.rms_decay < 1:
            raise CaffeError(f"rms_decay should lie between 0 and 1 (1 excluded), not {param.rms_decay}")

    @staticmethod
    def update(param, g, history, lr, t):
        history[0].mul_(param.rms_decay).addcmul_(g, g, value=1 - param.rms_decay)
        return g.div_(history[0].sqrt().add_(param.delta)).mul_(lr)


class AdaDelta(SGD):
    """H = m H + (1 - m) g^2;  u = g sqrt((U + delta) / (H + delta));  U = m U + (1 - m) u^2;  w -= lr u,  m = momentum"""

    slots = 2

    @staticmethod
    def update(param, g, history, lr, t):
        h, u = history
        m, delta = param.momentum, param.delta
        h.mul_(m).addcmul_(g, g, value=1 - m)
        g.mul_(((u + delta) / (h + delta)).sqrt_())
        u.mul_(m).addcmul_(g, g, value=1 - m)
        return g.mul_(lr)


class Adam(SGD):
    """M = b1 M + (1 - b1) g;  S = b2 S + (1 - b2) g^2;  w -= lr sqrt(1 - b2^t) / (1 - b1^t) M / (sqrt(S) + delta)"""

    slots = 2

    @staticmethod
    def update(param, g, history, lr, t):
        m, s = history
        b1, b2 = param.momentum, param.momentum2
        m.mul_(b1).add_(g, alpha=1 - b1)
        s.mul_(b2).addcmul_(g, g, value=1 - b2)
        correction = lr * math.sqrt(1 - b2**t) / (1 - b1**t)
        return s.sqrt().add_(param.delta).reciprocal_().mul_(m).mul_(correction)


RULES = {"SGD": SGD, "Nesterov": Nesterov, "AdaGrad": AdaGrad, "RMSProp": RMSProp, "AdaDelta": AdaDelta, "Adam": Adam}
