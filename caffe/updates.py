"""The update of a net's parameters from their diffs: clipped, decayed, by one of six rules (Caffe: solvers/).

Each rule has `slots` history tensors a parameter (kept in the .solverstate) and
`update(solver_param, g, history, rate)`, which gives the update for gradient `g` (may be overwritten) and brings
`history` up to date. `rate` is the learning rate with all that changes from update to update in it; on a GPU it is a
tensor, so that a CUDA graph of the update stays right while it changes.
"""

import math

import torch

from caffe import glog as log
from caffe.blob import Blob
from caffe.errors import CaffeError


class Update:
    """Updates what `net` learns as SolverParameter `param` says; `history` holds the blobs of a solver state."""

    def __init__(self, param, net, rule):
        self.param, self.learned, self.executor = param, net.wiring.learned, net.executor
        self.mults = list(zip(net.params_lr, net.params_decay))
        self.rule = RULES[rule]
        # rule.slots blobs a parameter; those of the second slot follow all of the first, as the state file has them
        self.history = [Blob(p.blob.shape) for _ in range(self.rule.slots) for p in self.learned]

    def rates(self, lr, t) -> dict:
        """For each lr_mult the rate of update number `t` (from 1), where the policy's learning rate is `lr`."""
        rate = self.rule.rate(self.param, lr, t)
        return {mult: rate * mult for mult, _ in self.mults}

    def clip(self):
        """Scale all diffs down where their common L2 norm is above clip_gradients."""
        limit = self.param.clip_gradients
        if limit < 0:
            return
        grads = [p.blob.grad.tensor() for p in self.learned if not p.blob.grad.is_zero]
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        if norm > limit:
            scale = limit / norm
            told = f"scaling down gradients (L2 norm {log.number(norm)} > {log.number(limit)})"
            log.info("sgd_solver.cpp:91", f"Gradient clipping: {told} by scale factor {log.number(scale)}")
            for g in grads:
                g.mul_(scale)

    def apply(self, rates):
        """The update itself, of all parameters with the same rate and decay together; a diff then holds what was
        subtracted. `rates`: numbers or tensors."""
        alike: dict[tuple, list] = {}
        for i, (p, (mult, decay_mult)) in enumerate(zip(self.learned, self.mults)):
            history = self.history[i :: len(self.learned)]
            decay = self.param.weight_decay * decay_mult
            if mult == 0 and (not decay or self.rule is SGD):
                if p.blob.grad.is_zero and all(h.memory.is_zero for h in history):
                    continue  # a frozen parameter: update and history stay exactly zero
            alike.setdefault((mult, decay), []).append((p.blob, history))
        for (mult, decay), members in alike.items():
            self._apply(members, rates[mult], decay)

    def _apply(self, members, rate, decay):
        weights = [blob.memory.tensor() for blob, _ in members]
        grads = [_laid_out_like(w, blob.grad) for w, (blob, _) in zip(weights, members)]
        slots = [
            [_laid_out_like(w, h.memory) for w, h in zip(weights, slot)]
            for slot in zip(*(history for _, history in members))
        ]
        alike = all(w.stride() == t.stride() for some in (grads, *slots) for w, t in zip(weights, some))
        if alike and not self.executor.keep and self.param.regularization_type == "L2":
            if self.rule.fused(self.param, weights, grads, slots, rate, decay):
                for blob, _ in members:
                    blob.memory.written()  # torch's fused updates do not count as writing
                return  # nobody reads the diffs
        for (blob, _), w, g, *history in zip(members, weights, grads, *slots):
            self._regularize(w, g, decay)
            update = self.rule.update(self.param, g, history, rate)
            w.sub_(update)
            if update is not g:
                blob.grad.assign(g.copy_(update))

    def _regularize(self, w, g, decay):
        if self.param.iter_size > 1:
            g.mul_(1 / self.param.iter_size)
        if not decay:
            return
        if self.param.regularization_type == "L2":
            g.add_(w, alpha=decay)
        elif self.param.regularization_type == "L1":
            g.add_(w.sign(), alpha=decay)
        else:
            raise CaffeError(f"Unknown regularization type: {self.param.regularization_type} (known: L1, L2)")


def _laid_out_like(weight, memory):
    """The values of `memory` in the order in which those of `weight` lie, unless somebody looks at them: the fused
    updates go by that order."""
    values = memory.tensor()
    if values.stride() == weight.stride() or memory.exposed:
        return values
    memory.assign(torch.empty_like(weight).copy_(values))
    return memory.tensor()


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
        torch._fused_sgd_(
            weights,
            grads,
            history[0],
            weight_decay=decay,
            momentum=param.momentum,
            lr=1.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
            grad_scale=scale,
        )
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
            raise CaffeError(f"Momentum cannot be used with AdaGrad (momentum is {param.momentum:g}, must be 0).")

    @staticmethod
    def update(param, g, history, rate):
        history[0].addcmul_(g, g)
        return g.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


class RMSProp(Rule):
    """H = rms_decay H + (1 - rms_decay) g^2;  w -= lr g / (sqrt(H) + delta)"""

    @staticmethod
    def check(param):
        if param.momentum:
            raise CaffeError(f"Momentum cannot be used with RMSProp (momentum is {param.momentum:g}, must be 0).")
        if not 0 <= param.rms_decay < 1:
            raise CaffeError(f"rms_decay should lie between 0 and 1 (1 excluded), not {param.rms_decay:g}")

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
        torch._fused_adam_(
            weights,
            grads,
            means,
            squares,
            [],
            [step] * len(grads),
            lr=rate,
            beta1=param.momentum,
            beta2=param.momentum2,
            weight_decay=decay,
            eps=param.delta,
            amsgrad=False,
            maximize=False,
            grad_scale=scale,
        )
        return True


RULES = {"SGD": SGD, "Nesterov": Nesterov, "AdaGrad": AdaGrad, "RMSProp": RMSProp, "AdaDelta": AdaDelta, "Adam": Adam}
