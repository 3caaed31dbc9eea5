"""Random nets through the runtime and through NumPy's loops: values, and gradients by finite differences.

    python -m tests.fuzz.differential FIRST COUNT     the nets of these seeds, in this process

Before each net its seed is printed, after it what is wrong. `hunt` runs that in child processes, so that one that dies
is a finding, too."""

import contextlib
import subprocess
import sys
import traceback

import numpy as np

import caffe
from caffe import TEST
from caffe.errors import CaffeError
from caffe.net import Net
from tests.caffe.apart import memory_apart
from tests.fuzz.loops import Unfit
from tests.fuzz.nets import RandomNet

MODULE = "tests.fuzz.differential"  # what a child process runs
STEP = 1e-6  # of the finite differences, in float64
TOLERANCE = 1e-4  # of the largest value of a blob: float32 through a few layers
JITTER, RANGE = 1e-6, 50  # an error may be RANGE times what inputs wrong by JITTER (relative) make


def run(seed):
    """What is wrong with the net of this seed: a list of lines."""
    drawn = RandomNet(seed)
    rng = np.random.default_rng([seed, 1])
    apart = memory_apart() if rng.random() < 0.3 else contextlib.nullcontext()
    with apart:
        net = Net.from_proto(drawn.proto, seed=seed)
        for step in drawn.steps:
            for blob, value in zip(net.params.get(step.param.name, ()), step.blobs):
                blob.data[...] = value
        put_inputs(net, drawn, drawn.inputs)
        if drawn.phase == TEST and rng.random() < 0.5:
            return infer(net, drawn, rng)
        frugal = not drawn.forced and rng.random() < 0.4
        if frugal:  # as the command trains
            net.executor.frugal()
        held, wrong = [], []
        for _ in range(rng.integers(1, 4)):
            passes(net, drawn, rng, frugal, held)
            if rng.random() < 0.2:
                wrong += in_another_batch_size(net, drawn, rng, frugal, held)
        net.clear_param_diffs()
        passes(net, drawn, rng, frugal, held, last=True)
        return wrong + compare(net, drawn, frugal)


def infer(net, drawn, rng):
    """What is wrong with the outputs of a net that is only run forward, as `caffe test` or `caffe.optimize` runs it,
    while parameters are written, and written back."""
    caffe.optimize(net) if rng.random() < 0.5 else net.frugal(backward=False)
    params = [blob for step in drawn.steps for blob in net.params.get(step.param.name, ())]
    for _ in range(rng.integers(1, 4)):
        net.forward()
        for blob in params:
            if rng.random() < 0.5:
                kept = blob.data.copy()
                blob.data[...] *= 2
                net.forward()
                blob.data[...] = kept
    put_inputs(net, drawn, drawn.inputs)  # some layers work in place on them
    net.forward()
    inputs = {n: v.astype(np.float64) for n, v in drawn.inputs.items()}
    return compare_values(net, drawn, True, inputs, drawn.compute(inputs, [step.blobs for step in drawn.steps]))


def put_inputs(net, drawn, inputs):
    for number, value in inputs.items():
        blob = net.blobs[drawn.names[number]]
        blob.reshape(*value.shape)
        blob.data[...] = value


def passes(net, drawn, rng, frugal, held, last=False):
    """One forward and one backward pass (or two), with blobs looked at in between, or not."""
    net.forward() if rng.random() < 0.5 else net.executor.forward()
    if not frugal:  # a frugal net has given up what backward needs no more, and says so
        look(net, rng, held)
    for number, weight in drawn.objective if drawn.forced else ():
        diff = net.blobs[drawn.names[number]].diff
        diff[...] = weight if diff.shape == weight.shape else 1
    twice = not last and not frugal and rng.random() < 0.2
    for _ in range(1 + twice):
        net.executor.backward()
        look(net, rng, held)


def in_another_batch_size(net, drawn, rng, frugal, held):
    """What is wrong when the net is reshaped for more or fewer items, where it can be, and back again."""
    items, other = next(iter(drawn.inputs.values())).shape[:1], int(rng.integers(1, 5))
    inputs = {n: np.resize(v, (other, *v.shape[1:])) if v.shape[:1] == items else v for n, v in drawn.inputs.items()}
    wrong = []
    try:
        values = drawn.compute(inputs, [step.blobs for step in drawn.steps])
        if not all(map(np.size, values.values())):
            raise Unfit
        put_inputs(net, drawn, inputs)
        net.reshape()
    except (ValueError, IndexError, Unfit, CaffeError):  # in some sizes a net is none
        pass
    else:
        passes(net, drawn, rng, frugal, held, last=True)
        wrong = [f"with {other} items {line}" for line in compare_values(net, drawn, frugal, inputs, values)]
    put_inputs(net, drawn, drawn.inputs)
    net.reshape()
    return wrong


def look(net, rng, held):
    """Look at all blobs, at some, or at none; some arrays are kept."""
    share = rng.choice([0, 0, 0.3, 1])
    for blob in net.blobs.values():
        if rng.random() < share:
            held.append(blob.data if rng.random() < 0.7 else blob.diff)


def compare_values(net, drawn, frugal, inputs, values):
    """What is wrong with the blobs, which hold `values` by number for these `inputs`."""
    blurred = Blurred(drawn, inputs, [step.blobs for step in drawn.steps])
    wrong, largest = [], max(np.abs(v).max() for v in values.values())
    terms = max(map(np.size, values.values()))
    for name, number in drawn.newest.items():
        if number not in inputs and (not frugal or name in net.outputs):
            found, want = net.blobs[name].data, np.asarray(values[number])
            if found.shape != want.shape:
                wrong.append(f"blob {name} has shape {found.shape}; wanted {want.shape}")
            elif not close(found, want, largest, terms) and not blurred.allows_value(number, found):
                wrong.append(f"blob {name} is wrong by {np.abs(found - want).max():.3g} of {np.abs(want).max():.3g}")
    return wrong


def compare(net, drawn, frugal):
    inputs = {n: v.astype(np.float64) for n, v in drawn.inputs.items()}
    blobs = [step.blobs for step in drawn.steps]
    values = drawn.compute(inputs, blobs)
    wrong = compare_values(net, drawn, frugal, inputs, values)
    blurred = Blurred(drawn, inputs, blobs)
    for what, put, diff, value in leaves(net, drawn, inputs, blobs):
        if diff.shape != value.shape:
            wrong.append(f"the gradient of {what} has shape {diff.shape}; wanted {value.shape}")
            continue
        direction = np.random.default_rng(0).normal(size=value.shape)
        found, scale = (diff * direction).sum(), np.abs(diff * direction).sum()
        want = slope(drawn, inputs, blobs, values, put, direction)
        bound = 1e-3 * max(scale, abs(want)) + 1e-4
        if not abs(found - want) <= bound and not blurred.allows_slope(put, direction, found, bound):
            wrong.append(f"the gradient of {what} along a direction is {found:.5g}; wanted {want:.5g}")
    return wrong


def leaves(net, drawn, inputs, blobs):
    """(what, a function that puts another value there, the diff found, the value) of all that gets a gradient."""
    for step, own in zip(drawn.steps, blobs):
        if step.param.type == "BatchNorm" or step.owner is not step:
            continue
        for k, value in enumerate(own):

            def put(inputs, blobs, new, step=step, k=k):
                changed = [
                    [*own[:k], new, *own[k + 1 :]] if other.owner is step else own
                    for other, own in zip(drawn.steps, blobs)
                ]
                return inputs, changed

            yield f"parameter {k} of {step.param.name}", put, net.params[step.param.name][k].diff, value
    for number, value in inputs.items() if drawn.forced else ():
        if number not in drawn.constant:

            def put(inputs, blobs, new, number=number):
                return {**inputs, number: new}, blobs

            if drawn.readers[number]:
                yield f"input {drawn.names[number]}", put, net.blobs[drawn.names[number]].diff, value


def slope(drawn, inputs, blobs, values, put, direction):
    """The derivative of the loss along `direction`, from the place, of these `values`, where `put` puts others."""
    base = value_of(inputs, blobs, put)
    at = lambda h: drawn.loss(*put(inputs, blobs, base + h * direction), values)  # noqa: E731
    return (at(STEP) - at(-STEP)) / (2 * STEP)


def value_of(inputs, blobs, put):
    """What `put` would replace."""
    marker = object()
    new_inputs, new_blobs = put(inputs, blobs, marker)
    for old, new in zip(inputs.values(), new_inputs.values()):
        if new is marker:
            return old
    return next(o for old, new in zip(blobs, new_blobs) for o, n in zip(old, new) if n is marker)


class Blurred:
    """What the loops give for inputs that are wrong in their last bits: float32 is on one side of a switch (of a ReLU,
    a largest value) where float64 is on the other, and sums that cancel magnify what is lost."""

    def __init__(self, drawn, inputs, blobs):
        self.drawn, self.inputs, self.blobs = drawn, inputs, blobs
        self._places = None

    @property
    def places(self):
        if self._places is None:
            rng = np.random.default_rng(0)
            blur = lambda v: v + JITTER * (np.abs(v) + 0.1) * rng.normal(size=v.shape)  # noqa: E731
            constant = self.drawn.constant
            self._places = [
                (
                    {n: v if n in constant else blur(v) for n, v in self.inputs.items()},
                    self.drawn.shared([[blur(b) for b in own] for own in self.blobs]),
                )
                for _ in range(6)
            ]
        return self._places

    def allows_value(self, number, found):
        near = np.array([self.drawn.compute(*place)[number] for place in self.places])
        low, high = near.min(0), near.max(0)
        room = RANGE * (high - low) + TOLERANCE * np.abs(near).max()
        return bool(((low - room <= found) & (found <= high + room)).all())

    def allows_slope(self, put, direction, found, bound):
        near = [slope(self.drawn, *place, self.drawn.compute(*place), put, direction) for place in self.places]
        room = RANGE * (max(near) - min(near)) + bound
        return min(near) - room <= found <= max(near) + room


def close(found, want, largest, terms):
    """`largest` of the net's values: what cancels out leaves their rounding behind, more in a sum of many `terms`."""
    left = 0.02 * largest * max(1, terms / found.size) ** 0.5
    return bool(np.all(np.abs(found - want) <= TOLERANCE * max(np.abs(want).max(), left, 1e-2)))


def main(first, count):
    for seed in range(first, first + count):
        print(f"seed {seed}", flush=True)
        try:
            wrong = run(seed)
        except Exception:  # whatever it is, it is a finding, and the others go on
            wrong = traceback.format_exc().strip().splitlines()[-1:]
        for line in wrong:
            print(f"  {line}", flush=True)


def hunt(first, count):
    """{seed: what is wrong} among the nets of these seeds, which run in child processes."""
    findings, end = {}, first + count
    while first < end:
        command = [sys.executable, "-m", MODULE, str(first), str(min(1000, end - first))]
        child = subprocess.run(command, capture_output=True, text=True)
        lines = child.stdout.splitlines()
        seed = first
        for line in lines:
            if line.startswith("seed "):
                seed = int(line.split()[1])
            else:
                findings.setdefault(seed, []).append(line.strip())
        if child.returncode:
            findings.setdefault(seed, []).append(f"ends the process, status {child.returncode}: {child.stderr[-300:]}")
        first = seed + 1
    return findings


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
