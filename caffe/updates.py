"""The six update rules: from gradient and history to the value subtracted from a parameter (Caffe: solvers/).

Each rule has `slots` history tensors a parameter (kept in the .solverstate) and
`update(solver_param, g, history, rate)`, which gives the update for gradient `g` (may be overwritten) and brings
`history` up to date. `rate` is the learning rate with all that changes from update to update in it; on a GPU it is a
tensor, so that a CUDA graph of the update stays right while it changes.
"""

import math

import torch

from caffe.errors import CaffeError


class Rule:
    """What an update rule has beside `update`; see the head of this file."""

    slots = 1

    @staticmethod
    def rate(param, lr, t):
        """The rate of update number `t` (from 1), where the policy's learning rate is `lr`."""
        return lr

    @staticmethod
    def update(param, g, history, rate):
        raise NotImplementedError

    @staticmethod
    def fused(param, weights, grads, history, rate, decay):
        """The whole update of several parameters with L2 decay in one pass over memory; False where the rule cannot.
        `history` holds for each slot a tensor for each parameter."""
        return False

    @staticmethod
    def check(param):
        """Raise CaffeError for settings of SolverParameter that the rule does not know."""


class SGD(Rule):
    """V = momentum V + lr g;  w -= V"""

    @staticmethod
    def update(param, g, history, rate):
        return history[0].mul_(param.momentum).add_(g.mul_(rate))

    @staticmethod
    def fused(param, weights, grads, history, rate, decay):
        """torch's kernel keeps V without the rate in it; with its own rate at 1 and the real one folded into gradient
        and decay it keeps Caffe's V."""
        if not param.momentum:
            return False
        if torch.is_tensor(rate):  # but the kernel's decay is a number
            if decay:
                torch._foreach_add_(grads, weights, alpha=decay * param.iter_size)
            scale, decay = param.iter_size / rate, 0.0
        elif rate:
            scale, decay = torch.tensor(param.iter_size / rate, device=weights[0].device), rate * decay
        else:
            return False
        torch._fused_sgd_(weights, grads, history[0], weight_decay=decay, momentum=param.momentum, lr=1.0,
                          dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
                          grad_scale=scale)  # fmt: skip
        return True


class Nesterov(Rule):
    """V' = momentum V + lr g;  w -= (1 + momentum) V' - momentum V"""

    @staticmethod
    def update(param, g, history, rate):
        (v,) = history
        before = v.clone()
        v.mul_(param.momentum).add_(g.mul_(rate))
        return before.mul_(-param.momentum).add_(v, alpha=1 + param.momentum)


class AdaGrad(Rule):
    """H += g^2;  w -= lr g / (sqrt(H) + delta)"""

    @staticmethod
    def check(param):
        if param.momentum:
            raise CaffeError(f"Momentum cannot be used with AdaGrad (momentum is {param.momentum}, must be 0).")

    @staticmethod
    def update(param, g, history, rate):
        history[0].addcmul_(g, g)
        return g.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


class RMSProp(Rule):
    """H = rms_decay H + (1 - rms_decay) g^2;  w -= lr g / (sqrt(H) + delta)"""

    @staticmethod
    def check(param):
        if param.momentum:
            raise CaffeError(f"Momentum cannot be used with RMSProp (momentum is {param.momentum}, must be 0).")
        if not 0 <= param.rms_decay < 1:
            raise CaffeError(f"rms_decay should lie between 0 and 1 (1 excluded), not {param.rms_decay}")

    @staticmethod
    def update(param, g, history, rate):
        history[0].mul_(param.rms_decay).addcmul_(g, g, value=1 - param.rms_decay)
        return g.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


class AdaDelta(Rule):
    """H = m H + (1 - m) g^2; u = g sqrt((U + delta) / (H + delta));  U = m U + (1 - m) u^2;  w -= lr u (m momentum)"""

    slots = 2

    @staticmethod
    def update(param, g, history, rate):
        h, u = history
        m, delta = param.momentum, param.delta
        h.mul_(m).addcmul_(g, g, value=1 - m)
        g.mul_(((u + delta) / (h + delta)).sqrt_())
        u.mul_(m).addcmul_(g, g, value=1 - m)
        return g.mul_(rate)


class Adam(Rule):
    """M = b1 M + (1 - b1) g;  S = b2 S + (1 - b2) g^2;  w -= lr sqrt(1 - b2^t) / (1 - b1^t) M / (sqrt(S) + delta)"""

    slots = 2

    @staticmethod
    def rate(param, lr, t):
        return lr * math.sqrt(1 - param.momentum2**t) / (1 - param.momentum**t)

    @staticmethod
    def update(param, g, history, rate):
        m, s = history
        m.mul_(param.momentum).add_(g, alpha=1 - param.momentum)
        s.mul_(param.momentum2).addcmul_(g, g, value=1 - param.momentum2)
        return s.sqrt().add_(param.delta).reciprocal_().mul_(m).mul_(rate)

    @staticmethod
    def fused(param, weights, grads, history, rate, decay):
        """After infinitely many steps torch's own corrections are 1: they are in `rate`."""
        means, squares = history
        step, scale = (torch.full((), value, device=grads[0].device) for value in (math.inf, float(param.iter_size)))
        torch._fused_adam_(weights, grads, means, squares, [], [step] * len(grads), lr=rate, beta1=param.momentum,
                           beta2=param.momentum2, weight_decay=decay, eps=param.delta, amsgrad=False, maximize=False,
                           grad_scale=scale)  # fmt: skip
        return True


RULES = {"SGD": SGD, "Nesterov": Nesterov, "AdaGrad": AdaGrad, "RMSProp": RMSProp, "AdaDelta": AdaDelta, "Adam": Adam}
