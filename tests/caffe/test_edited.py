"""Weights and states that were edited with protobuf are read; what a disk did to them is found."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import caffe
from caffe import upgrade_commands
from caffe.proto import caffe_pb2
from caffe.read import read_binary

ROOT = Path(__file__).resolve().parents[2]
NET = """
name: "edited"
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 3 dim: 2 dim: 4 dim: 4 }
        data_filler { type: "gaussian" } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "ip" type: "InnerProduct" bottom: "bn" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }
"""
MODEL, STATE = "run_iter_2.caffemodel", "run_iter_2.solverstate"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A net, and the snapshot after two iterations."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot_prefix: "run" random_seed: 3'
    )
    solver = caffe.get_solver("solver.prototxt")
    solver.step(2)
    solver.snapshot()
    return tmp_path


@pytest.fixture(scope="module")
def bvlc():
    """Messages of a caffe_pb2 made from BVLC Caffe's caffe.proto, to which our own fields are unknown."""
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        if message.name in ("NetParameter", "SolverState"):
            for field in [field for field in message.field if field.number >= 1000]:
                message.field.remove(field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


@pytest.fixture(params=["ours", "BVLC's"])
def messages(request, bvlc):
    return bvlc if request.param == "BVLC's" else lambda name: getattr(caffe_pb2, name)


def edit(path, message_type, change, to=None):
    """What everybody does: parse, change, write."""
    message = message_type.FromString(Path(path).read_bytes())
    change(message)
    Path(to or path).write_bytes(message.SerializeToString())


def by_name(model, name):
    return next(layer for layer in model.layer if layer.name == name)


def test_a_renamed_layer(folder, messages):
    edit(MODEL, messages("NetParameter"), lambda model: setattr(by_name(model, "conv"), "name", "renamed"))
    Path("other.prototxt").write_text(NET.replace('name: "conv"', 'name: "renamed"'))
    want = caffe_pb2.NetParameter.FromString(Path(MODEL).read_bytes()).layer[1].blobs[0].data
    net = caffe.Net("other.prototxt", caffe.TEST, weights=MODEL)
    np.testing.assert_array_equal(net.params["renamed"][0].data.ravel(), np.array(want, np.float32))


def test_one_weight_with_the_same_size(folder, messages):
    """The file is as long as before, and differs from it in the place of the checksum and in four bytes."""

    def change(model):
        by_name(model, "ip").blobs[0].data[5] = 1.25

    before = Path(MODEL).read_bytes()
    edit(MODEL, messages("NetParameter"), change)
    assert len(Path(MODEL).read_bytes()) == len(before)
    assert caffe.Net("net.prototxt", caffe.TEST, weights=MODEL).params["ip"][0].data.ravel()[5] == 1.25


def test_nothing_changed_at_all(folder, messages):
    want = caffe.Net("net.prototxt", caffe.TEST, weights=MODEL).params["ip"][0].data.copy()
    edit(MODEL, messages("NetParameter"), lambda model: None)
    np.testing.assert_array_equal(caffe.Net("net.prototxt", caffe.TEST, weights=MODEL).params["ip"][0].data, want)


def test_a_merged_batch_norm(folder, messages):
    """The convolution takes over what the BatchNorm after it does, whose layer goes."""
    caffe.set_random_seed(1)
    whole = caffe.Net("net.prototxt", caffe.TEST, weights=MODEL)
    want = whole.forward(end="bn")["bn"].copy()
    x = whole.blobs["x"].data.copy()

    def merge(model):
        conv, bn = by_name(model, "conv"), by_name(model, "bn")
        mean, variance, (factor,) = (np.array(blob.data) for blob in bn.blobs)
        scale = 1 / np.sqrt(variance / factor + 1e-5)
        weights = np.array(conv.blobs[0].data).reshape(3, -1) * scale[:, None]
        bias = (np.array(conv.blobs[1].data) - mean / factor) * scale
        conv.blobs[0].data[:], conv.blobs[1].data[:] = weights.ravel(), bias
        model.layer.remove(bn)

    edit(MODEL, messages("NetParameter"), merge, "merged.caffemodel")
    bn = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }\n'
    Path("merged.prototxt").write_text(NET.replace(bn, "").replace('bottom: "bn"', 'bottom: "conv"'))
    merged = caffe.Net("merged.prototxt", caffe.TEST, weights="merged.caffemodel")
    merged.blobs["x"].data[...] = x
    got = merged.forward(start="conv", end="conv")["conv"]
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())  # two roundings of float32 in another order


def test_layers_removed_and_doubled(folder, messages):
    def change(model):
        extra = model.layer.add()
        extra.CopyFrom(by_name(model, "ip"))
        extra.name = "ip2"
        model.layer.remove(by_name(model, "conv"))

    edit(MODEL, messages("NetParameter"), change)
    assert caffe.Net("net.prototxt", caffe.TEST, weights=MODEL).params["ip"][0].data.any()


def test_a_state_and_the_weights_that_it_names(folder, messages):
    """Both edited; the state still takes the weights for its own."""
    edit(STATE, messages("SolverState"), lambda state: setattr(state, "iter", 40))
    edit(MODEL, messages("NetParameter"), lambda model: by_name(model, "ip").blobs[1].data.__setitem__(0, 7))
    solver = caffe.get_solver("solver.prototxt")
    solver.restore(STATE)
    assert solver.iter == 40 and solver.net.params["ip"][1].data[0] == 7


@pytest.mark.medium
@pytest.mark.parametrize("implementation", ["python", "upb"])
def test_both_of_protobufs_implementations(folder, implementation):
    """The one in Python serializes by other rules of its own."""
    code = f"""
from google.protobuf.internal import api_implementation
from caffe.proto import caffe_pb2
from caffe.read import read_binary
assert api_implementation.Type() == "{implementation}"
model = caffe_pb2.NetParameter.FromString(open("{MODEL}", "rb").read())
model.layer[1].name = "renamed"
open("{MODEL}", "wb").write(model.SerializeToString())
"""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
    caffe.Net("net.prototxt", caffe.TEST, weights=MODEL)


def test_upgraded_by_caffes_command(folder, capfd):
    """It reads what we write, and what it writes is read."""
    assert upgrade_commands.net_binary([MODEL, "new.caffemodel"]) == 0
    assert b"CRC32" not in Path("new.caffemodel").read_bytes()
    caffe.Net("net.prototxt", caffe.TEST, weights="new.caffemodel")


def test_every_flipped_bit_and_every_cut_is_found(folder):
    """Of a small file all of them, so no region of a file is left out: checksum, lengths, names, weights."""
    for name, message in ((MODEL, caffe_pb2.NetParameter), (STATE, caffe_pb2.SolverState)):
        content = Path(name).read_bytes()
        damaged = [content[:k] for k in range(1, len(content))]
        for k in range(len(content)):
            damaged += [content[:k] + bytes([content[k] ^ 1 << bit]) + content[k + 1 :] for bit in range(8)]
        # What a crash leaves: zeros, and blocks that are lost or doubled.
        for k in (20, 32, len(content) // 2, len(content) - 40):
            damaged += [content[:k] + bytes(len(content) - k), bytes(k) + content[k:], content[:k] + content[k + 1 :]]
            damaged += [content + bytes(k), content[:k] + content[k // 2 :]]
        assert len(damaged) > 9 * len(content)
        for some in damaged:
            with pytest.raises(caffe.CaffeError, match="damaged|not a caffe"):
                read_binary(some, message)


def test_damage_is_found_by_those_who_load(folder):
    net, solver = caffe.Net("net.prototxt", caffe.TEST), caffe.get_solver("solver.prototxt")
    for name, read in ((MODEL, net.copy_from), (STATE, solver.restore)):
        content = Path(name).read_bytes()
        bad = Path(name).with_stem("bad_iter_2")
        for some in (b"", content[:-1], content[:9] + b"!" + content[10:], content[:-9] + b"!" + content[-8:]):
            bad.write_bytes(some)
            with pytest.raises(caffe.CaffeError, match=bad.name):
                read(str(bad))
        read(name)


def test_states_of_earlier_versions_find_their_weights(folder):
    """They tell of the last 13 bytes of a file that ended with its checksum."""
    end = b"\xca\x3e\x0aCRC32:\1\2\3\4"
    edit(MODEL, caffe_pb2.NetParameter, lambda model: setattr(model, "checksum", end[3:]))
    edit(STATE, caffe_pb2.SolverState, lambda state: setattr(state, "weights_seal", end))
    solver = caffe.get_solver("solver.prototxt")
    solver.restore(STATE)
    assert solver.iter == 2
