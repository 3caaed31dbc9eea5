"""caffe.proto: the files that BVLC Caffe wrote hold nothing we do not know, and come out as they went in."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_binary, read_text

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PROTO = ROOT / "caffe" / "proto" / "caffe.proto"


def golden(pattern):
    return sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.glob(pattern))


def unknown_fields(message, path=""):
    """Paths of the messages inside `message` that hold field numbers without a name."""
    found = [path or "top"] if len(UnknownFieldSet(message)) else []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                found += unknown_fields(inner, f"{path}.{field.name}")
    return found


@pytest.mark.parametrize("name", golden("**/*.caffemodel") + golden("**/*.solverstate"))
def test_file_of_caffe_is_known_at_every_depth_and_written_equal(name):
    message_type = caffe_pb2.SolverState if name.endswith("solverstate") else caffe_pb2.NetParameter
    data = (GOLDEN / name).read_bytes()
    message = read_binary(data, message_type)
    assert message.ListFields() and unknown_fields(message) == []
    assert message.SerializeToString() == data


def test_unknown_fields_are_seen_by_the_check_above():
    message = caffe_pb2.NetParameter.FromString(b"\xa2\x06\x05\xc2\x3e\x02\x08\x01")  # layer { 1000 { 1: 1 } }
    assert unknown_fields(message) == [".layer"]


WRONG_ON_PURPOSE = "bad_syntax_solver.prototxt"  # test_read.py has it


@pytest.mark.parametrize("name", [name for name in golden("**/*.prototxt") if not name.endswith(WRONG_ON_PURPOSE)])
def test_prototxt_parses(name):
    is_solver = "solver" in Path(name).name
    read_text(GOLDEN / name, caffe_pb2.SolverParameter if is_solver else caffe_pb2.NetParameter)


@pytest.mark.parametrize("name", golden("layers/*.npz") + golden("solver/*.npz"))
def test_prototxt_inside_golden_array_file_parses(name):
    with np.load(GOLDEN / name, allow_pickle=False) as arrays:
        for key in arrays.files:
            if key.endswith("prototxt"):
                kind = caffe_pb2.SolverParameter if key.startswith("solver") else caffe_pb2.NetParameter
                parse_text(str(arrays[key]).encode(), kind, f"{name}:{key}")


def test_generated_module_is_what_the_proto_file_says(tmp_path):
    protoc = [shutil.which("protoc")] if shutil.which("protoc") else [sys.executable, "-m", "grpc_tools.protoc"]
    if protoc[0] == sys.executable and find_spec("grpc_tools") is None:
        pytest.skip("neither protoc nor grpcio-tools is installed")
    out = tmp_path / "set.bin"
    command = [*protoc, f"-I{PROTO.parent}", f"--descriptor_set_out={out}", "caffe.proto"]
    subprocess.run(command, check=True, timeout=120)
    (described,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto.FromString(caffe_pb2.DESCRIPTOR.serialized_pb)
    assert _plain(generated) == _plain(described)


def test_generated_types_are_what_the_proto_file_says(tmp_path):
    pytest.importorskip("grpc_tools")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", f"--pyi_out={tmp_path}", "caffe.proto"]
    subprocess.run(command, check=True, timeout=120)
    assert (PROTO.parent / "caffe_pb2.pyi").read_text() == (tmp_path / "caffe_pb2.pyi").read_text()


def _plain(described):
    """The descriptor without what differs between compilers: the default syntax, JSON names, digits of floats."""
    described.ClearField("syntax")
    for message in described.message_type:
        for field in message.field:
            field.ClearField("json_name")
            if field.type == field.TYPE_FLOAT and field.default_value:
                field.default_value = str(np.float32(field.default_value))
    return described


def test_layer_parameters_use_every_number_from_100_to_148():
    numbers = sorted(f.number for f in caffe_pb2.LayerParameter.DESCRIPTOR.fields if f.name.endswith("_param"))
    assert numbers[:49] == list(range(100, 149))
    assert numbers[49] > 148  # forks' layers, in numbers that BVLC Caffe skips


def test_blobs_are_packed():
    # tag 5 of wire type 2, 12 bytes; three tagged floats would take 15
    assert caffe_pb2.BlobProto(data=[1, 2, 3]).SerializeToString()[:2] == b"\x2a\x0c"
    assert caffe_pb2.BlobShape(dim=[1, 300]).SerializeToString() == b"\x0a\x03\x01\xac\x02"
    # Datum's floats are not packed in Caffe
    assert len(caffe_pb2.Datum(float_data=[1, 2]).SerializeToString()) == 10


def test_defaults_that_layers_rely_on():
    layer = caffe_pb2.LayerParameter()
    assert layer.pooling_param.stride == 1 and layer.pooling_param.pool == caffe_pb2.PoolingParameter.MAX
    assert layer.convolution_param.bias_term is True and layer.convolution_param.group == 1
    assert layer.batch_norm_param.moving_average_fraction == pytest.approx(0.999)
    assert not layer.batch_norm_param.HasField("use_global_stats")
    assert layer.loss_param.normalization == caffe_pb2.LossParameter.VALID
    assert layer.softmax_param.axis == layer.concat_param.axis == layer.slice_param.axis == 1
    solver = caffe_pb2.SolverParameter()
    assert (solver.type, solver.iter_size, solver.average_loss, solver.clip_gradients) == ("SGD", 1, 1, -1)
    assert solver.test_initialization and solver.snapshot_after_train
    assert solver.snapshot_format == caffe_pb2.SolverParameter.BINARYPROTO
    assert caffe_pb2.NetState().phase == caffe_pb2.TEST


def test_our_own_field_does_not_disturb_caffe():
    ours = caffe_pb2.SolverState(iter=7, current_step=2, random_seed=2**63)
    again = caffe_pb2.SolverState.FromString(ours.SerializeToString())
    assert again.random_seed == 2**63
    again.ClearField("random_seed")
    assert ours.SerializeToString().startswith(again.SerializeToString())  # it comes last, a reader may stop there
