"""What keeps a prototxt from being built: all its unknown fields and layer types at once, and what to do about each."""

import difflib
import os
from dataclasses import dataclass

from caffe import fork_words, options, upgrade_v0, words
from caffe import glog as log
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.net_build import layer_type_list
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.read import holds_solver, parse_text, read_file
from caffe.solver import test_sources, train_source
from caffe.upgrade import V1, upgrade_net, v1_type_name

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
NAMES: dict[int, str] = {TRAIN: "TRAIN", TEST: "TEST"}
UPGRADE = "upgrade_net_proto_text rewrites the other layers, for a file has one kind alone"


@dataclass(frozen=True)
class Finding:
    """One thing in the file `path`. `line` is None where it has none; `fork` names the Caffe it comes from, "" where
    that is not known; `advice` what to do. `taken`: it is understood as what `advice` says, nothing has to be done."""

    path: str
    line: int | None
    what: str
    fork: str = ""
    advice: str = ""
    taken: bool = False

    def __str__(self):
        place = f"{self.path}:{self.line}" if self.line else self.path
        return (
            f"{place}: {self.what}"
            + (f" ({self.fork})" if self.fork else "")
            + (f": {self.advice}" if self.advice else "")
        )


def check(path, phase=None, level=0, stages=()) -> list[Finding]:
    """All that is wrong with the net (or the solver and its nets) in the prototxt `path`.

    Unknown fields, values and layer types are found by reading; where there is none, the net is built, in `phase`
    (caffe.TRAIN or caffe.TEST; default: those that it has data for), and the error that this gives is a finding. Of a
    solver's nets those are built that it runs, with its train_state and test_state. It would build if all findings are
    `taken`. Building runs the code of Python layers. Raises CaffeError for a file that cannot be read."""
    path, phases = str(path), (TRAIN, TEST) if phase is None else (phase,)
    states = [caffe_pb2.NetState(phase=each, level=level, stage=stages) for each in phases]
    text = _text(path)
    if not holds_solver(text):
        return _of_file(path, states, phase is None)
    found = _unknown(path, text, caffe_pb2.SolverParameter)
    if not all(finding.taken for finding in found):
        return found
    try:
        for net, own in _nets(_parsed(path, text, caffe_pb2.SolverParameter), states):
            found += _of_file(net, own) if isinstance(net, str) else _of_net(path, net, own)
    except CaffeError as e:
        found.append(Finding(path, None, str(e)))
    return found


def _text(path):
    return read_file(path).decode("utf-8-sig", "surrogateescape")


def _parsed(path, text, message_type):
    return parse_text(text.encode("utf-8", "surrogateescape"), message_type, path)


def _of_file(path, states, choose=False):
    text = _text(path)
    found = _unknown(path, text, caffe_pb2.NetParameter)
    if not all(finding.taken for finding in found):
        return found
    try:
        return found + _of_net(path, _parsed(path, text, caffe_pb2.NetParameter), states, choose)
    except CaffeError as e:
        return [*found, Finding(path, None, str(e))]


def _nets(solver, asked):
    """[(file or message, the states that it is built in)] of the nets of a SolverParameter, in the phases of the states
    `asked` for, with their levels and stages besides."""
    wanted = [(train_source(solver)[1], TRAIN, solver.train_state)]
    wanted += [(source, TEST, state) for _, source, state in test_sources(solver)]
    nets: list = []
    for source, phase, state in wanted:
        for one in (one for one in asked if one.phase == phase):
            own = caffe_pb2.NetState()
            own.CopyFrom(state)
            own.phase = phase
            own.stage.extend(one.stage)
            if one.level:
                own.level = one.level
            states = next((states for net, states in nets if net == source), None)
            if states is None:
                nets.append((source, [own]))
            elif own not in states:
                states.append(own)
    return nets


def _of_net(path, param, states, choose=False):
    """What building the NetParameter says, in all of `states`, or with `choose` in those that it has data for."""
    found = []
    upgrade_net(param, path)
    made = []
    for state in states:
        net = caffe_pb2.NetParameter()
        net.CopyFrom(param)
        net.state.MergeFrom(state)
        made.append(net)
    with log.silenced():
        fed = [net for net in made if any(not layer.bottom for layer in filter_net(net).layer)]
    if choose and len(fed) == 1:
        only, other = NAMES[fed[0].state.phase], NAMES[1 - fed[0].state.phase]
        found.append(Finding(path, None, f"has no data in phase {other}", "", f"tried in {only} alone", taken=True))
        made = fed
    for net in made:
        try:
            with log.silenced():
                Net.from_proto(net)
        except Exception as e:  # a Python layer may raise anything
            told = str(e) if isinstance(e, CaffeError) else f"{type(e).__name__}: {e}"
            found.append(Finding(path, None, f"cannot be built in phase {NAMES[net.state.phase]}: {told}"))
    return found


def _unknown(path, text, message_type):
    try:
        unknown, types = words.words(text, message_type.DESCRIPTOR)
    except words.Unreadable:
        return []  # the parser says where
    found = [_of_word(path, word) for word in unknown if not _declared(word)]
    known = layer_type_list()
    for word in types:
        if word.message == "LayerParameter" and word.value not in known:
            fork, advice = fork_words.TYPES.get(word.value, ("", fork_words.OWN_TYPE))
            if not fork and (near := _meant(word.value or "", known)):
                advice = f"is it {near}? Else {advice}"
            found.append(Finding(path, word.line, f"layer type {word.value} is not known", fork, advice))
    return sorted(found, key=lambda finding: finding.line or 0)


def _declared(word):
    return word.message == "LayerParameter" and options.extension(word.field) is not None


def _of_word(path, word):
    fork, advice = fork_words.FIELDS.get((word.message, word.field)) or _old_type(word)
    ours = fork_words.in_our_words(word.message, word.field, word.value)
    what = f"{word.message} has no field {word.field}"
    if word.kind == "value":
        what = f"{word.field} of {word.message} has no value {word.value}"
    if ours is not None:
        return Finding(path, word.line, what, fork, f"taken as {ours}" if ours else "passed over", taken=True)
    if not advice and word.message == "LayerParameter" and word.kind == "field" and word.field.endswith("_param"):
        advice = fork_words.OWN_TYPE
    return Finding(path, word.line, what, fork, advice or _newer(word) or _close(word))


def _old_type(word):
    """What to do about a fork's type in old layers { .. }, IMAGE_SEG_DATA for ImageSegData."""
    if (word.message, word.field) != ("V1LayerParameter", "type"):
        return "", ""
    return {name.lower(): said for name, said in fork_words.TYPES.items()}.get(_one_word(word.value), ("", ""))


def _meant(name, known):
    """The layer type that `name` may be an older name or a misspelling of, or None. Misspelt types keep their first
    letter and about their length: SELU is no ELU, ConvolutionData no Convolution."""
    if older := _older_names().get(_one_word(name)):
        return older
    lower = {kind.lower(): kind for kind in known if kind[:1].lower() == name[:1].lower()}
    near = difflib.get_close_matches(name.lower(), lower, 1, 0.8)
    return lower[near[0]] if near and abs(len(near[0]) - len(name)) <= 2 else None


def _older_names():
    """{a layer type's name of 2013 or 2014, in small letters without _: its name now}."""
    numbers = dict(V1.LayerType.items()) | {name: number for name, (number, _) in upgrade_v0.TYPES.items()}
    return {_one_word(name): v1_type_name(number) for name, number in numbers.items() if number != V1.NONE}


def _one_word(value):
    return (value or "").replace("_", "").strip("\"'").lower()


def _newer(word):
    """What to write for a word that LayerParameter knows and V1LayerParameter does not."""
    if word.message != "V1LayerParameter":
        return ""
    if word.kind == "field" and word.field in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
        return f'only layer {{ .. }} with type: ".." has it, not the old layers {{ .. }}; {UPGRADE}'
    types = {name.lower(): name for name in layer_type_list()}
    known = types.get(_one_word(word.value)) if word.field == "type" else None
    return f'write it as layer {{ type: "{known}" .. }}; {UPGRADE}' if known else ""


def _close(word):
    """What the word may be a misspelling of."""
    message = getattr(caffe_pb2, word.message, None)
    near = difflib.get_close_matches(word.field, message.DESCRIPTOR.fields_by_name, 1, 0.8) if message else []
    return f"is it {near[0]}?" if near and word.kind == "field" else "leave it out, if the net can do without"


def report(path, findings):
    """The findings as text, one a line, and whether the file would build."""
    problems = sum(not finding.taken for finding in findings)
    lines = [str(finding) for finding in findings]
    end = "builds" if not problems else f"would not build: {problems} problem{'s' if problems > 1 else ''}"
    return "\n".join([*lines, f"{os.fspath(path)}: {end}"])
