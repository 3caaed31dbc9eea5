"""Input that attacks: any file gives a result or one CaffeError; no other exception, no hang, no memory blow-up.

The default run tries some hundred files; `pytest -m slow tests/caffe/test_fuzz.py` 120,000 (half an hour).
A coverage-guided run without end: tests/fuzz/atheris_target.py.
"""

import time

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from tests.fuzz import strategies as files
from tests.fuzz.targets import check, workplace

FILES = {
    "net_text": files.nets().map(files.as_text),
    "net_binary": files.nets().map(files.as_bytes),
    "net_run": files.nets().map(files.as_bytes),
    "solver_text": files.solvers().map(files.as_text),
    "caffemodel": files.weights().map(files.as_bytes),
    "solverstate": files.states().map(files.as_bytes),
}


@pytest.fixture(scope="module")
def targets():
    with workplace() as found:
        yield found


def fuzz(target, data, examples):
    accepted = []

    @seed(1)  # the same files each time
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data)
    def each(content):
        accepted.append(check(target, content))

    each()
    assert 0.02 < sum(accepted) / len(accepted) < 0.98, "the files are all good or all bad: they test nothing"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.medium
def test_some_files(targets, name):
    fuzz(targets[name], files.damaged(FILES[name]), 150)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FILES)
def test_120_000_files(targets, name):
    fuzz(targets[name], files.damaged(FILES[name]), 20_000)


@pytest.mark.parametrize("name", FILES)
def test_noise_is_refused_or_harmless(targets, name):
    @seed(1)
    @settings(max_examples=100, deadline=None, database=None)
    @given(st.binary(max_size=200))
    def each(content):
        check(targets[name], content)

    each()


# ---- attacks by name


def net(*layers):
    lines = ['layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }']
    lines += [f'layer {{ name: "l{i}" bottom: "data" top: "t{i}" {text} }}' for i, text in enumerate(layers)]
    return "\n".join(lines).encode()


def input_of(*dims):
    return f'layer {{ type: "Input" top: "x" input_param {{ shape {{ dim: {list(dims)} }} }} }}'.encode()


@pytest.mark.parametrize(
    "attack",
    [
        input_of(-1, 3),
        input_of(2**31),
        input_of(2**16, 2**16),
        input_of(2**62, 4, 0),
        input_of(2**31 - 1, 2**31 - 1, 0),
        input_of(*[2] * 33),
        net('type: "InnerProduct" inner_product_param { num_output: 2147483647 }'),
        net('type: "Convolution" convolution_param { num_output: 60000 kernel_size: 60000 }'),
        net('type: "Convolution" convolution_param { num_output: 1 kernel_size: 3 stride: 0 }'),
        net('type: "Convolution" convolution_param { num_output: 1 kernel_size: 4294967295 pad: 4294967295 }'),
        net('type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 2 stride: 4294967295 }'),
        net('type: "Pooling" pooling_param { kernel_size: 4294967295 pad: 4294967294 }'),
        net('type: "Pooling" pooling_param { kernel_size: 2 stride: 0 }'),
        net('type: "SPP" spp_param { pyramid_height: 4294967295 }'),
        net('type: "Tile" tile_param { axis: 0 tiles: 2147483647 }'),
        net('type: "Embed" embed_param { num_output: 2147483647 input_dim: 2147483647 }'),
        net('type: "Slice" slice_param { slice_point: 4294967295 }'),
        net('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }'),
        net('type: "Reshape" reshape_param { shape { dim: 9223372036854775807 } }'),
        net('type: "InnerProduct" inner_product_param { num_output: 11000000 }'),  # 8 GB
        net('type: "ArgMax"').replace(b"dim: 2 dim: 3 dim: 8 dim: 8", b""),
        b'layer { type: "DummyData" top: "x" dummy_data_param { shape { dim: 2000000000 } } }',
        net('type: "Python" python_param { module: "no_such_module" layer: "X" }'),
        b'layer { type: "ReLU" bottom: "a" top: "b" } layer { type: "ReLU" bottom: "b" top: "a" }',  # a cycle
        b"layer { convolution_param { weight_filler { " * 10_000,
        b'input: "a" ' * 10_000 + b"input_dim: 1",
        b"layer { }",
    ],
    ids=lambda attack: attack[-70:].decode(),
)
def test_nets_that_are_refused(targets, attack):
    assert check(targets["net_text"], attack) is False


@pytest.mark.parametrize(
    "layer, words",
    [
        ('type: "BatchNorm"', "at least one axis"),
        ('type: "ArgMax"', "at least one axis"),
        ('type: "RNN" bottom: "x" recurrent_param { num_output: 1 }', "at least 2 axes"),
        ('type: "PReLU" prelu_param { channel_shared: true }', "at least|>=2"),
    ],
)
def test_blobs_without_axes(targets, layer, words):
    with pytest.raises(CaffeError, match=words):
        targets["net_text"](input_of() + f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}'.encode())


@pytest.mark.medium
@pytest.mark.parametrize("blobs", [[b"x"], [b"a", b"b"]], ids=["one chain", "two in the same memory"])
def test_time_grows_no_faster_than_the_file(targets, blobs):
    split = b'layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" }' if len(blobs) > 1 else b""

    def seconds(layers):
        text = input_of(2, 3) + split
        text += b"".join(
            b'layer { name: "l" type: "ReLU" bottom: "%s" top: "%s" }' % (blob, blob)
            for blob in blobs
            for _ in range(layers // len(blobs))
        )
        start = time.process_time()  # of this process: waiting for a busy machine does not count
        assert check(targets["net_text"], text)
        return time.process_time() - start

    # eight times the layers: linear is 8, quadratic 64
    assert min(seconds(4000) for _ in range(4)) < 24 * min(seconds(500) for _ in range(4))


def weights_with(**blob):
    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="ip", type="InnerProduct")
    layer.blobs.add(**blob)
    layer.blobs.add(data=[0, 0], shape=caffe_pb2.BlobShape(dim=[2]))
    return net.SerializeToString()


@pytest.mark.parametrize(
    "blob",
    [
        dict(shape=caffe_pb2.BlobShape(dim=[2**31])),
        dict(shape=caffe_pb2.BlobShape(dim=[2, 3])),
        dict(shape=caffe_pb2.BlobShape(dim=[2, 3]), data=[1] * 5),
        dict(shape=caffe_pb2.BlobShape(dim=[2, -3]), data=[1] * 6),
        dict(shape=caffe_pb2.BlobShape(dim=[2**62, 4, 0])),
        dict(shape=caffe_pb2.BlobShape(dim=[2**31 - 1, 2**31 - 1, 0])),
        dict(num=2**31 - 1, channels=2**31 - 1, height=0, width=0),
        dict(shape=caffe_pb2.BlobShape(dim=[-2, -3]), data=[1] * 6),
        dict(num=2, channels=3, height=-1, width=-1, data=[1] * 6),
        dict(num=2**31 - 1, channels=2**31 - 1, height=2**31 - 1, width=2**31 - 1, data=[1]),
    ],
    ids=str,
)
def test_weights_and_states_that_are_refused(targets, blob):
    assert check(targets["caffemodel"], weights_with(**blob)) is False
    state = caffe_pb2.SolverState(iter=1)
    state.history.add(**blob)
    state.history.add(data=[0, 0], shape=caffe_pb2.BlobShape(dim=[2]))
    assert check(targets["solverstate"], state.SerializeToString()) is False


def test_a_loss_of_no_items_is_zero(targets):
    net = caffe_pb2.NetParameter()
    net.layer.add(name="x", type="Input", top=["x"]).input_param.shape.add(dim=[0, 3])
    net.layer.add(name="loss", type="SigmoidCrossEntropyLoss", bottom=["x", "x"], top=["loss"])
    assert check(targets["net_run"], net.SerializeToString())


def test_declared_length_beyond_the_file(targets):
    # field 5 (data) of a blob says that 2 GiB follow
    blob = b"\x2a\xff\xff\xff\xff\x07" + b"\0" * 8
    layer = b"\x3a" + bytes([len(blob)]) + blob
    assert check(targets["caffemodel"], b"\xa2\x06" + bytes([len(layer)]) + layer) is False


def test_a_weights_file_that_claims_2_to_the_40_values(targets):
    assert check(targets["caffemodel"], weights_with(shape=caffe_pb2.BlobShape(dim=[2**20, 2**20]))) is False
    assert (
        check(targets["caffemodel"], weights_with(shape=caffe_pb2.BlobShape(dim=[2**20, 2**20]), data=[1] * 6)) is False
    )
