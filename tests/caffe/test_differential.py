"""Random nets: the runtime against NumPy, in child processes (tests/fuzz/differential.py).

The default run tries 250 nets; `pytest -m slow tests/caffe/test_differential.py` 20,000 (some ten minutes).
"""

import os

import pytest

from tests.fuzz import differential
from tests.fuzz.loops import LOOPS
from tests.fuzz.nets import RandomNet

NOT_DRAWN = {"Silence"}


@pytest.mark.medium
def test_some_nets():
    assert differential.hunt(0, 250) == {}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_20_000_nets():
    assert differential.hunt(1000, 20_000) == {}


def test_every_type_is_drawn():
    nets = [RandomNet(seed) for seed in range(400)]
    assert {step.param.type for net in nets for step in net.steps} == LOOPS.keys() - NOT_DRAWN
    assert sum(net.forced for net in nets) > 100 and sum(len(net.steps) for net in nets) > 1200


def test_what_is_wrong_is_found(monkeypatch):
    """Each loop that computes something else than the layer is told: the comparison can fail."""
    honest = dict(LOOPS)
    for kind in ("Convolution", "Pooling", "InnerProduct", "Concat", "PReLU", "SoftmaxWithLoss"):
        monkeypatch.setitem(LOOPS, kind, lambda *a, kind=kind: [1.01 * t for t in honest[kind](*a)])
        seeds = [s for s in range(150) if any(x.param.type == kind for x in RandomNet(s).steps)][:8]
        assert any(differential.run(seed) for seed in seeds), kind
        monkeypatch.setitem(LOOPS, kind, honest[kind])


def test_a_net_that_dies_is_a_finding(monkeypatch):
    monkeypatch.setattr(differential, "MODULE", "tests.fuzz.deadly")
    found = differential.hunt(3, 4)
    assert found.keys() == {4} and "ends the process" in found[4][0]


def test_an_exception_is_a_finding(monkeypatch, capsys):
    def fails(seed):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(differential, "run", fails)
    differential.main(7, 1)
    assert capsys.readouterr().out == f"seed 7{os.linesep}  RuntimeError: no such thing{os.linesep}"
