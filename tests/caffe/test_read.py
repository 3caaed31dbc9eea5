"""Reading files: what is right is read, what is wrong is one sentence."""

import os
from pathlib import Path

import pytest

from caffe import CaffeError, read
from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_binary, read_net_binary, read_net_file, read_solver_file
from caffe.text import message_to_text
from caffe.weights import read_array

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "files"


def net_error(text):
    with pytest.raises(CaffeError) as e:
        parse_text(text, caffe_pb2.NetParameter, "net.prototxt")
    assert "\n" not in str(e.value)
    return str(e.value)


def test_reads_net_and_weights():
    net = read_net_file(GOLDEN / "small_net.prototxt")
    assert [layer.name for layer in net.layer] == ["in_data", "in_label", "conv", "bn", "scale", "relu", "ip", "loss"]
    weights = read_net_binary(GOLDEN / "small_iter_10.caffemodel")
    assert weights == read_net_binary((GOLDEN / "small_iter_10.caffemodel").read_bytes())
    conv = next(layer for layer in weights.layer if layer.name == "conv")
    assert list(conv.blobs[0].shape.dim) == [4, 2, 3, 3] and len(conv.blobs[0].data) == 72


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    """Editors on Windows write one; Caffe's own parser skips it."""
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbfname: "a"')
    assert read_net_file(path).name == "a"


@pytest.mark.parametrize(
    "text, words",
    [
        (b'name: "a"\n  no_such: 1', '2:10: Message type "caffe.NetParameter" has no field named "no_such".'),
        (b"layer { nope { } }", '1:14: Message type "caffe.LayerParameter" has no field named "nope".'),
        (b"layer {", '1:7: Expected "}".'),
        (b'name: "a', "String missing ending quote"),
        (b"layers { type: SMURF }", 'has no value named "SMURF"'.replace('"', "")),
        (b'name: "a" name: "b"', 'should not have multiple "name" fields'),
        (b"input_dim: 1.5", "1:12: Couldn't parse integer: 1.5"),
        (b"input_dim: 99999999999", "Value out of range"),
        (b"input_dim: " + b"9" * 5000, "1:12: "),
        (b'name: "\xff"', "1:7: "),
        (b"layers { type: \xcdONVOLUTION }", "a word holds bytes that are not UTF-8"),
        (b"layer { clip_param { min: 1 } }", "Message missing required fields: layer[0].clip_param.max"),
        (b"\x00\x01\x02", "1:1: "),
        (b"{" * 100_000, "1:1: "),
    ],
)
def test_bad_text_names_file_and_place(text, words):
    message = net_error(text)
    assert message.startswith(
        "Failed to parse NetParameter file: net.prototxt: Error parsing text-format caffe.NetParameter: "
    )
    assert words in message
    assert len(message) < 6000  # a long line is not repeated


def test_error_is_caffes_own_for_an_unknown_solver_field(tmp_path):
    path = tmp_path / "s.prototxt"
    path.write_text("base_lr: 0.1\nno_such_field: 1\n")
    with pytest.raises(CaffeError) as e:
        read_solver_file(path)
    assert str(e.value) == (
        f"Failed to parse SolverParameter file: {path}: Error parsing text-format caffe.SolverParameter: "
        '2:14: Message type "caffe.SolverParameter" has no field named "no_such_field".'
    )


def test_comment_need_not_be_utf8():
    assert parse_text('# Größe\nname: "x"'.encode("latin-1"), caffe_pb2.NetParameter, "n").name == "x"


@pytest.mark.parametrize("cut", [1, 100, 1000, 3900])
def test_cut_weights_are_refused(cut):
    data = (GOLDEN / "small_iter_10.caffemodel").read_bytes()
    with pytest.raises(CaffeError, match="Failed to parse NetParameter file: .*cut short"):
        read_net_binary(data[:cut])


def test_binary_strings_must_be_utf8():
    with pytest.raises(CaffeError, match="caffe.LayerParameter.name holds .* not UTF-8"):
        read_net_binary(b"\xa2\x06\x04\x0a\x02\xff\xfe")
    with pytest.raises(CaffeError, match=r"missing required fields: layer\[0\].clip_param.min"):
        layer = caffe_pb2.LayerParameter()
        layer.clip_param.max = 1
        read_net_binary(caffe_pb2.NetParameter(layer=[layer]).SerializePartialToString())


def test_groups_nested_without_end_are_refused():
    with pytest.raises(CaffeError, match="Failed to parse"):
        read_binary(b"\x93\x27" * 200_000, caffe_pb2.NetParameter)  # field 626 opens a group, 200,000 times


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(CaffeError, match=f"^File not found: {tmp_path}/absent$"):
        read_net_file(tmp_path / "absent")
    with pytest.raises(CaffeError, match=f"^Cannot read {tmp_path}: Is a directory$"):
        read_net_binary(tmp_path)
    with pytest.raises(CaffeError, match="^Cannot read a\0b: "):
        read_net_file("a\0b")
    monkeypatch.setattr(read, "MAX_TEXT_BYTES", 10)
    with pytest.raises(CaffeError, match="it is longer than 10 bytes"):
        read_net_file(GOLDEN / "small_net.prototxt")


@pytest.mark.parametrize("kind", ["device", "pipe", "sparse"])
def test_endless_file_is_refused(tmp_path, kind):
    path = tmp_path / "endless"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(CaffeError, match="it is longer than" if kind == "sparse" else "it is no regular file"):
        read_net_file(path)
    with pytest.raises(CaffeError, match=f"Cannot read {path}: it is "):
        read_array(path)


def test_a_net_beside_the_solver_is_no_path_from_here(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project/net.prototxt").touch()
    (tmp_path / "project/solver.prototxt").write_text('train_net: "net.prototxt" test_net: "none.prototxt"')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CaffeError, match="there is no net.prototxt here, but project/net.prototxt; .* start in project"
    ):
        read_solver_file("project/solver.prototxt")
    monkeypatch.chdir("project")
    assert read_solver_file("solver.prototxt").train_net == "net.prototxt"


def test_snapshot_prefix_is_completed(tmp_path):
    path = tmp_path / "my.solver.prototxt"
    path.write_text("base_lr: 1")
    assert read_solver_file(path).snapshot_prefix == str(tmp_path / "my.solver")
    path.write_text(f'snapshot_prefix: "{tmp_path}"')
    assert read_solver_file(path).snapshot_prefix == str(tmp_path / "my.solver")
    path.write_text(f'snapshot_prefix: "{tmp_path}/a"')
    assert read_solver_file(path).snapshot_prefix == f"{tmp_path}/a"


def test_numbers_are_written_as_cpp_writes_them():
    solver = caffe_pb2.SolverParameter(
        base_lr=1,
        gamma=0.1,
        power=1e6,
        momentum=1e-5,
        delta=123456792,
        max_iter=10,
        weight_decay=-2.5,
        net='1.0"\nx: 2.0',
    )
    text = message_to_text(solver)
    assert text.splitlines() == [
        "base_lr: 1",
        "max_iter: 10",
        "gamma: 0.1",
        "power: 1e+06",
        "momentum: 1e-05",
        "weight_decay: -2.5",
        r'net: "1.0\"\nx: 2.0"',
        "delta: 123456792",
    ]
    assert parse_text(text.encode(), caffe_pb2.SolverParameter, "s") == solver
    blob = caffe_pb2.BlobProto(double_data=[1 / 3, 1], data=[float("inf"), 1 / 3])
    assert parse_text(message_to_text(blob).encode(), caffe_pb2.BlobProto, "b") == blob
