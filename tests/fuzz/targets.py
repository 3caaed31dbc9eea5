"""What is fuzzed: each target takes bytes, as a file would hold them, and either succeeds or raises one CaffeError."""

import contextlib
import os
import resource
import signal
import tempfile

import numpy as np

from caffe import TEST, TRAIN, snapshot
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.read import read_net_binary, read_solver_file
from caffe.solver import SGDSolver

SECONDS = 20  # one input takes milliseconds; the rest is for a machine that is busy with other things
MEMORY = 3 * 2**30  # what an input may allocate on top of what the process holds already

NET = """
name: "fuzzed"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "fuzzed" solver_mode: CPU'


@contextlib.contextmanager
def workplace():
    """An empty working folder with a net and a solver, and bounds on memory; gives the targets {name: function}."""
    home, limit = os.getcwd(), resource.getrlimit(resource.RLIMIT_AS)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for name, text in (("net.prototxt", NET), ("solver.prototxt", SOLVER)):
                with open(name, "w") as f:
                    f.write(text)
            net, solver = Net("net.prototxt", TEST), SGDSolver("solver.prototxt")
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, limit[1]))
            yield {
                "net_text": lambda data: Net(_file(data), TRAIN),
                "solver_text": lambda data: read_solver_file(_file(data)),
                "caffemodel": lambda data: net.copy_from(_file(data)),
                "net_binary": lambda data: _build(read_net_binary(data)),
                "net_run": lambda data: _run(_build(read_net_binary(data))),
                "solverstate": lambda data: snapshot.restore(solver, _file(data)),
            }
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
            os.chdir(home)


def check(target, data: bytes) -> bool:
    """Run `target`; True when it took the input, False when it refused it with one sentence. Anything else raises."""
    signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target(data)
    except CaffeError as e:
        text = str(e)
        assert text and len(text) < 5000, f"an error nobody would read: {text[:200]!r}"
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def _too_slow(*_):
    raise TimeoutError(f"an input took longer than {SECONDS} s")


def _file(data):
    with open("input", "wb") as f:
        f.write(data)
    return "input"


def _build(param):
    param.state.phase = TRAIN
    return Net.from_proto(param)


def _run(net):
    """One pass forward and backward, unless the blobs are so large that it would take long."""
    if sum(blob.count for blob in net.blobs.values()) < 10_000:
        for name in net.inputs:
            data = net.blobs[name].data
            data[...] = np.arange(data.size).reshape(data.shape) % 3 - 0.5 * (data.ndim > 1)
        net.forward()
        net.backward()


def _address_space():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()
