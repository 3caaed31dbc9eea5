"""Prototxts and layers in the docs run: each is built around inputs for what it does not make itself."""

import re
import sys
import types

import pytest

import caffe
from caffe.layer import REGISTRY
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import parse_text
from tests.test_docs import PAGES, ROOT, id_of
from tools.list_layers import PAGE, page

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
IS_PROTOTXT = re.compile(r"^(layers?|net|base_lr)\s*[:{]", re.M)
EXAMPLES = [
    (id_of(page), number, text)
    for page in PAGES
    for number, (language, text) in enumerate(BLOCK.findall(page.read_text()))
    if language in ("", "prototxt") and IS_PROTOTXT.search(text)
]


@pytest.fixture
def declared():
    """The layers that the docs' Python declares, and the module that their Python layer lies in."""
    before = set(REGISTRY)
    for _, text in BLOCK.findall((ROOT / "docs" / "EXTENDING.md").read_text()):
        if "@caffe.layer(" in text:
            exec(text, {"__name__": "docs"})
    module = types.ModuleType("my_module")

    class Mine(caffe.Layer):
        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].data.shape)

        def forward(self, bottom, top):
            top[0].data[...] = bottom[0].data

        def backward(self, top, propagate_down, bottom):
            bottom[0].diff[...] = top[0].diff

    module.Mine = Mine
    sys.modules["my_module"] = module
    yield
    del sys.modules["my_module"]
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


def test_there_are_some():
    assert {name for name, _, _ in EXAMPLES} >= {"docs/EXTENDING.md", "docs/FORKS.md"}


@pytest.mark.parametrize("page, number, text", EXAMPLES, ids=lambda value: str(value)[:20])
def test_example_runs(declared, page, number, text):
    param = parse_text(text.encode(), caffe_pb2.NetParameter, f"{page}, block {number}")
    made: set[str] = set()
    inputs = []
    for layer in param.layer:
        inputs += [name for name in layer.bottom if name not in made and name not in inputs]
        made.update(layer.top)
    net = caffe_pb2.NetParameter()
    for name in inputs:
        net.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=[1, 3, 16, 16])
    net.layer.extend(param.layer)
    built = Net.from_proto(net, seed=1)
    built.forward()
    assert made <= set(built.blobs)


def test_table_of_layer_types_is_fresh():
    assert PAGE.read_text() == page(), "run tools/list_layers.py"
