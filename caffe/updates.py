"""The six update rules: from gradient and history to the value subtracted from a parameter (Caffe: solvers/).

Each rule has `slots` history tensors a parameter (kept in the .solverstate) and
`update(solver_param, g, history, lr, t)`, which gives the update for gradient `g` (may be overwritten), local learning
rate `lr` and update number `t` (from 1), and brings `history` up to date.
"""

import math

import torch

from caffe.errors import CaffeError


class Rule:
    """What an update rule has beside `update`; see the head of this file."""

    slots = 1

    @staticmethod
    def update(param, g, history, lr, t):
        raise NotImplementedError

    @staticmethod
    def fused(param, w, g, history, lr, decay, t):
        """The whole update of `w` with L2 decay in one pass over memory; False where the rule cannot."""
        return False

    @staticmethod
    def check(param):
        """Raise CaffeError for settings of SolverParameter that the rule does not know."""


class SGD(Rule):
    """V = momentum V + lr g;  w -= V"""

    @staticmethod
    def update(param, g, history, lr, t):
        return history[0].mul_(param.momentum).add_(g, alpha=lr)

    @staticmethod
    def fused(param, w, g, history, lr, decay, t):
        """The whole update of `w` with L2 decay in one pass over memory; True where this rule can, and did.

        torch's kernel keeps V without the rate in it; with its own rate at 1 and the real one folded into gradient
        and decay it keeps Caffe's V."""
        if not (param.momentum and lr):
            return False
        torch._fused_sgd_([w], [g], history, weight_decay=lr * decay, momentum=param.momentum, lr=1.0, dampening=0.0,
                          nesterov=False, maximize=False, is_first_step=False,
                          grad_scale=torch.full((), param.iter_size / lr, device=w.device))  # fmt: skip
        return True


class Nesterov(Rule):
    """V' = momentum V + lr g;  w -= (1 + momentum) V' - momentum V"""

    @staticmethod
    def update(param, g, history, lr, t):
        (v,) = history
        before = v.clone()
        v.mul_(param.momentum).add_(g, alpha=lr)
        return before.mul_(-param.momentum).add_(v, alpha=1 + param.momentum)


class AdaGrad(Rule):
    """H += g^2;  w -= lr g / (sqrt(H) + delta)"""

    @staticmethod
    def check(param):
        if param.momentum:
            raise CaffeError(f"Momentum cannot be used with AdaGrad (momentum is {param.momentum}, must be 0).")

    @staticmethod
    def update(param, g, history, lr, t):
        history[0].addcmul_(g, g)
        return g.div_(history[0].sqrt().add_(param.delta)).mul_(lr)


class RMSProp(Rule):
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


class AdaDelta(Rule):
    """H = m H + (1 - m) g^2; u = g sqrt((U + delta) / (H + delta));  U = m U + (1 - m) u^2;  w -= lr u (m momentum)"""

    slots = 2

    @staticmethod
    def update(param, g, history, lr, t):
        h, u = history
        m, delta = param.momentum, param.delta
        h.mul_(m).addcmul_(g, g, value=1 - m)
        g.mul_(((u + delta) / (h + delta)).sqrt_())
        u.mul_(m).addcmul_(g, g, value=1 - m)
        return g.mul_(lr)


class Adam(Rule):
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

    @staticmethod
    def fused(param, w, g, history, lr, decay, t):
        """As SGD.fused. torch adds its eps to the corrected root, Caffe delta to the uncorrected one."""
        m, s = history
        torch._fused_adam_([w], [g], [m], [s], [], [torch.full((), float(t), device=w.device)], lr=lr,
                           beta1=param.momentum, beta2=param.momentum2, weight_decay=decay,
                           eps=param.delta / math.sqrt(1 - param.momentum2**t), amsgrad=False, maximize=False,
                           grad_scale=torch.full((), float(param.iter_size), device=w.device))  # fmt: skip
        return True


RULES = {"SGD": SGD, "Nesterov": Nesterov, "AdaGrad": AdaGrad, "RMSProp": RMSProp, "AdaDelta": AdaDelta, "Adam": Adam}
