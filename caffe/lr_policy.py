"""Learning-rate policies: the rate as a function of the iteration (Caffe: SGDSolver::GetLearningRate)."""

import numpy as np

from caffe import glog as log
from caffe.errors import CaffeError


def learning_rate(param, iteration, current_step):
    """(rate, current_step) for SolverParameter `param`; current_step is the position in multistep's list.

    multistep passes at most one boundary a query, as in Caffe."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # infinite or NaN then, as in C++
        rate, current_step = _rate(param, param.lr_policy, np.float64(param.gamma), iteration, current_step)
    return float(rate), current_step


def _rate(param, policy, gamma, iteration, current_step):
    if policy == "fixed":
        rate = param.base_lr
    elif policy == "step":
        if param.stepsize <= 0:
            raise CaffeError(f"lr_policy step wants stepsize > 0, not {param.stepsize}")
        current_step = iteration // param.stepsize
        rate = param.base_lr * gamma**current_step
    elif policy == "exp":
        rate = param.base_lr * gamma**iteration
    elif policy == "inv":
        rate = param.base_lr * (1 + gamma * iteration) ** -param.power
    elif policy == "multistep":
        if current_step < len(param.stepvalue) and iteration >= param.stepvalue[current_step]:
            current_step += 1
            log.info("sgd_solver.cpp:50", f"MultiStep Status: Iteration {iteration}, step = {current_step}")
        rate = param.base_lr * gamma**current_step
    elif policy == "poly":
        rate = param.base_lr * (1 - np.float64(iteration) / param.max_iter) ** param.power
    elif policy == "sigmoid":
        if param.gamma < 0 or param.stepsize <= 0:
            raise CaffeError("lr_policy sigmoid wants gamma >= 0 and stepsize > 0")
        rate = param.base_lr / (1 + np.exp(-gamma * (iteration - param.stepsize)))
    else:
        raise CaffeError(
            f"Unknown learning rate policy: {policy} (known: fixed, step, exp, inv, multistep, poly, sigmoid)"
        )
    return rate, current_step
