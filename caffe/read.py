"""Reading prototxt, caffemodel and solverstate files: any failure is one CaffeError; old files are upgraded."""

import os
import re

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from caffe import fork_words, options, words
from caffe.errors import CaffeError
from caffe.files import check_seal
from caffe.fork_wire import renumbered
from caffe.glog import info
from caffe.proto import caffe_pb2
from caffe.regular import open_file
from caffe.upgrade import upgrade_net, upgrade_solver

# Text is parsed at about 1 MB a second; real prototxts stay below 1 MB.
MAX_TEXT_BYTES = 16 * 2**20
MAX_BINARY_BYTES = 2**31 - 1  # protobuf's own limit
NOT_UTF8 = "a word holds bytes that are not UTF-8"


def read_net_file(path) -> caffe_pb2.NetParameter:
    """The net of a prototxt, upgraded when it is in an old format."""
    net = read_text(path, caffe_pb2.NetParameter)
    upgrade_net(net, path)
    return net


def read_solver_file(path) -> caffe_pb2.SolverParameter:
    """The solver of a prototxt, upgraded; `snapshot_prefix` is completed when it is absent or names a folder."""
    solver = read_text(path, caffe_pb2.SolverParameter)
    upgrade_solver(solver, path)
    _require_nets_from_here(solver, path)
    _complete_snapshot_prefix(solver, path)
    return solver


def read_net_binary(source) -> caffe_pb2.NetParameter:
    """The net of a .caffemodel: a path, or its bytes. Upgraded when it is in an old format."""
    net = read_binary(source, caffe_pb2.NetParameter)
    upgrade_net(net, _name_of(source))
    return net


def read_text(path, message_type):
    """A message of `message_type` from the text file `path`, as it stands there."""
    text = read_file(path, MAX_TEXT_BYTES)
    return parse_text(text, message_type, path)


def parse_text(text: bytes, message_type, name):
    """A message of `message_type` from `text`; errors call it `name`.

    What forks of Caffe say in other words is understood (fork_words.py), and options that users declared
    (options.py). All unknown words are told at once."""
    # Bytes that are not UTF-8 do no harm in comments; anywhere else the parser refuses them. Editors on Windows begin
    # a file with a byte order mark.
    decoded = text.decode("utf-8-sig", "surrogateescape")
    message, problem = _parsed(decoded, message_type)
    if problem:
        ours, unknown = in_our_words(decoded, message_type.DESCRIPTOR)
        if len(unknown) > 1 or (unknown and ours != decoded):
            problem = _all_unknown(unknown)
        elif ours != decoded:
            message, problem = _parsed(ours, message_type)
    if problem and (other := _other_kind(decoded, message_type)):
        problem = other
    if problem:
        problem += " (the file is binary; wanted text, a prototxt)" if b"\0" in text else ""
        raise CaffeError(
            f"Failed to parse {message_type.DESCRIPTOR.name} file: {name}: "
            f"Error parsing text-format {message_type.DESCRIPTOR.full_name}: {problem}"
        )
    return message


OF_SOLVERS = {"net", "net_param", "train_net", "train_net_param", "base_lr", "max_iter", "solver_mode", "lr_policy"}
_QUOTED = re.compile(r"""#.*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""")
_TOKEN = re.compile(r"[{}]|[A-Za-z_]\w*(?=\s*[:{])")


def holds_solver(text):
    """Is the text of a prototxt that of a solver, and not of a net?"""
    return bool(OF_SOLVERS & _top_fields(text))


def _other_kind(text, message_type):
    """A sentence where the text is a net and a solver is wanted, or the other way round; else ""."""
    fields = _top_fields(text)
    net, solver = bool({"layer", "layers"} & fields), bool(OF_SOLVERS & fields)
    if message_type is caffe_pb2.SolverParameter and net and not solver:
        return "it is a net; wanted a solver, which names a net in its field net"
    if message_type is caffe_pb2.NetParameter and solver and not net:
        return "it is a solver; wanted a net, such as the one that its field net names"
    return ""


def _top_fields(text):
    """The names of the fields that are in no other, as far as they can be told."""
    depth, fields = 0, set()
    for token in _TOKEN.findall(_QUOTED.sub('""', text)):
        if token in "{}":
            depth += 1 if token == "{" else -1
        elif depth == 0:
            fields.add(token)
    return fields


def in_our_words(text, descriptor):
    """`text`, which should hold a message of `descriptor`, with forks' words changed to BVLC Caffe's and users' options
    named as protobuf names them; and the words (words.Word) that stay unknown, which are left as they stand."""
    try:
        unknown, _ = words.words(text, descriptor)
    except words.Unreadable:
        return text, []
    parts: list[str] = []
    left: list[words.Word] = []
    place = 0
    for word in unknown:
        if word.message == "LayerParameter" and word.kind == "field" and options.extension(word.field):
            end, said = word.name_end, f"[{options.extension(word.field).full_name}]"
        else:
            end, said = word.end, fork_words.in_our_words(word.message, word.field, word.value)
        if said is None:
            left.append(word)
        elif word.start >= place:
            parts += [text[place : word.start], said]
            place = end
    return "".join([*parts, text[place:]]), left


def _parsed(text, message_type):
    """The message, and what is wrong with it ("": nothing)."""
    message = message_type()
    try:
        text_format.Parse(text, message)
        problem = _missing_fields(message)
    except text_format.ParseError as e:
        problem = _parse_problem(e, text)
    except (ValueError, OverflowError) as e:  # a number no field can hold
        problem = str(e)
    except SystemError:  # protobuf's answer to a lone surrogate where it looks for the name of an enum's value
        problem = NOT_UTF8
    return message, problem


def _all_unknown(unknown, most=20):
    told = " ".join(f"{word.line}:{word.column}: {word}" for word in unknown[:most])
    more = f" And {len(unknown) - most} more." if len(unknown) > most else ""
    return f"{told}{more} (caffe check says what to do about them)"


def read_binary(source, message_type):
    """A message of `message_type` from the binary file `source` (a path, or bytes), as it stands there."""
    data = source if isinstance(source, bytes) else read_file(source, MAX_BINARY_BYTES)
    check_seal(data, _name_of(source))
    if message_type is caffe_pb2.NetParameter:
        data = renumbered(data)
    message = message_type()
    try:
        message.ParseFromString(data)
        problem = _missing_fields(message) or _bad_string(message)
    except DecodeError as e:
        problem = f"not a {message_type.DESCRIPTOR.full_name} message, or cut short ({e})"
        begin = data[:60].strip()
        if begin and begin.isascii() and b"\0" not in begin:  # a page of a web site, a pointer of git-lfs, a prototxt
            problem = f"it is text that begins {begin.decode().splitlines()[0]!r}; wanted a binary file"
        elif message_type is caffe_pb2.NetParameter and _is_solver_state(data):
            problem = "it is a solver state; wanted weights, whose file lies beside it (to go on with it: --snapshot)"
    if problem:
        raise CaffeError(f"Failed to parse {message_type.DESCRIPTOR.name} file: {_name_of(source)}: {problem}")
    return message


def _is_solver_state(data):
    state = caffe_pb2.SolverState()
    try:
        state.ParseFromString(data)
    except DecodeError:
        return False
    return state.HasField("iter") and state.HasField("learned_net")


def read_file(path, most=MAX_TEXT_BYTES) -> bytes:
    """The bytes of a regular file of `most` bytes at most, or a CaffeError."""
    try:
        with open_file(path, most) as f:
            return f.read()
    except FileNotFoundError as e:
        raise CaffeError(f"File not found: {path}") from e
    except OSError as e:
        raise CaffeError(f"Cannot read {path}: {e.strerror}") from e


def _name_of(source):
    return "(bytes)" if isinstance(source, bytes) else source


def _parse_problem(error, text):
    """`line:column: what` as the C++ parser words it; Python's parser also repeats the whole line."""
    line, column = error.GetLine(), error.GetColumn()
    what = str(error)
    if line is None:
        return what
    what = what.removeprefix(f"{line}:{column} : ")
    lines = text.split("\n")
    current = lines[line - 1] if line <= len(lines) else ""
    what = what.removeprefix(f"'{current}': ")
    if "surrogates not allowed" in what:
        what = NOT_UTF8
    if 'has no field named "' in what:  # C++ points at what follows the name
        rest = current[column - 1 :]
        after_name = rest.lstrip("_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").lstrip()
        column += len(rest) - len(after_name)
    return f"{line}:{column}: {what}".encode("utf-8", "backslashreplace").decode()


def _missing_fields(message):
    missing = message.FindInitializationErrors()
    return f"Message missing required fields: {', '.join(missing)}" if missing else ""


def _bad_string(message):
    """Text when a string field is not UTF-8 (Python's protobuf then gives bytes), "" when all are."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for text in [value] if isinstance(value, (str, bytes)) else value:
                if isinstance(text, bytes):
                    return f"field {field.full_name} holds {text[:40]!r}, which is not UTF-8 text"
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                if problem := _bad_string(inner):
                    return problem
    return ""


def _require_nets_from_here(solver, path):
    """CaffeError where a net lies as its path says, but from the solver's folder instead of from the current one."""
    folder = os.path.dirname(path)
    for net in (solver.net, solver.train_net, *solver.test_net):
        if net and folder and not os.path.exists(net) and os.path.exists(os.path.join(folder, net)):
            raise CaffeError(
                f"{path}: there is no {net} here, but {os.path.join(folder, net)}; paths in a solver begin at the "
                f"current folder, {os.getcwd()}: start in {folder}, or write the path as it is from here"
            )


def _complete_snapshot_prefix(solver, path):
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = os.path.splitext(path)[0]
        info("upgrade_proto.cpp:1108", "snapshot_prefix was not specified and is set to " + solver.snapshot_prefix)
    elif os.path.isdir(solver.snapshot_prefix):
        stem = os.path.splitext(os.path.basename(path))[0]
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, stem)
        info("upgrade_proto.cpp:1113", "snapshot_prefix was a directory and is replaced to " + solver.snapshot_prefix)
