"""Binary files of forks: parameters are found under the numbers that the fork gave them."""

import pytest

from caffe.fork_wire import INSIDE, NUMBERS, renumbered
from caffe.proto import caffe_pb2
from caffe.read import read_net_binary

FIELDS = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name


def varint(number):
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def net(kind, number, content, blob=b""):
    layer = message(1, b"x") + message(2, kind.encode()) + message(7, blob) + message(number, content)
    return message(1, b"net") + message(100, layer) + message(100, message(1, b"y") + message(2, b"ReLU"))


@pytest.mark.parametrize("kind, number", [(kind, n) for kind, (_, numbers) in NUMBERS.items() for n in numbers])
def test_field_is_found(kind, number):
    """Its first field, a number (all messages but BN's begin with one or a float)."""
    field = NUMBERS[kind][0]
    inner = {ours: theirs for theirs, ours in INSIDE.get((kind, number), {}).items()}
    own = FIELDS[field].message_type
    first = next(f for f in own.fields if f.number == (11 if inner and kind == "BN" else 2 if inner else 1))
    content = varint(
        inner.get(first.number, first.number) << 3 | {"float": 5}.get("float" if first.type == 2 else "", 0)
    )
    if first.type == 11:
        content = message(inner.get(first.number, 1), caffe_pb2.FillerParameter(value=3).SerializeToString())
    else:
        content += b"\x00\x00\x40\x40" if first.type == 2 else b"\x03"
    blob = caffe_pb2.BlobProto(data=[1, 2, 3]).SerializeToString()
    found = read_net_binary(net(kind, number, content, blob)).layer
    value = getattr(getattr(found[0], field), first.name)
    value = value.value if first.type == 11 else value[0] if hasattr(value, "append") else value
    assert value == (1 if first.type == 8 else 3) and list(found[0].blobs[0].data) == [1, 2, 3]
    assert found[1].type == "ReLU" and not any(
        f.name.endswith("_param") and f.name != field for f, _ in found[0].ListFields()
    )


def test_other_types_stay_as_they_are():
    data = net("Input", 143, message(1, caffe_pb2.BlobShape(dim=[2, 3]).SerializeToString()))
    assert renumbered(data) is data
    assert list(read_net_binary(data).layer[0].input_param.shape[0].dim) == [2, 3]


def test_segnets_bn_mode():
    content = message(1, caffe_pb2.FillerParameter(value=2).SerializeToString()) + b"\x18\x01"
    own = read_net_binary(net("BN", 45, content)).layer[0].bn_param
    assert own.scale_filler.value == 2 and own.bn_mode == own.INFERENCE and not own.HasField("momentum")


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_cut_files_are_left_to_the_parser(cut):
    data = net("Interp", 143, b"\x08\x21")[:-cut]
    assert isinstance(renumbered(data), bytes)
