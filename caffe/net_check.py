"""What keeps a prototxt from being built: all its unknown fields and layer types at once, and what to do about each."""

import difflib
import os
import re
from dataclasses import dataclass

from caffe import fork_words, options, words
from caffe import glog as log
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.net_build import layer_type_list
from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_file
from caffe.upgrade import upgrade_net

SOLVER = re.compile(
    r"^\s*(net|net_param|train_net|train_net_param|base_lr|max_iter|solver_mode|lr_policy)\s*[:{]", re.M
)

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
    (caffe.TRAIN or caffe.TEST; default: those that it has data for, and of a solver's nets those that it runs), and the
    error that this gives is a finding. It would build if all findings are `taken`. Building runs the code of Python
    layers. Raises CaffeError for a file that cannot be read."""
    return _of_file(str(path), None if phase is None else (phase,), level, stages)


def _of_file(path, phases, level, stages):
    text = read_file(path).decode("utf-8-sig", "surrogateescape")
    solver = bool(SOLVER.search(text)) and not re.search(r"^\s*layers?\s*\{", text, re.M)
    message_type = caffe_pb2.SolverParameter if solver else caffe_pb2.NetParameter
    found = _unknown(path, text, message_type)
    if not all(finding.taken for finding in found):
        return found
    try:
        param = parse_text(text.encode("utf-8", "surrogateescape"), message_type, path)
        if not solver:
            return found + _of_net(path, param, phases, level, stages)
        for net, run in _nets(param):
            if isinstance(net, str):
                found += _of_file(net, phases or run, level, stages)
            else:
                found += _of_net(path, net, phases or run, level, stages)
    except CaffeError as e:
        return [*found, Finding(path, None, str(e))]
    return found


def _nets(solver):
    """(file or message, the phases that it is built in) of each net of a SolverParameter."""
    tested = len(solver.test_iter) > len(solver.test_net) + len(solver.test_net_param)
    for field, phases in (("net", (TRAIN, TEST) if tested else (TRAIN,)), ("train_net", (TRAIN,))):
        for name in (field, f"{field}_param"):
            if solver.HasField(name):
                yield getattr(solver, name), phases
    for net in (*solver.test_net, *solver.test_net_param):
        yield net, (TEST,)


def _of_net(path, param, phases, level, stages):
    """What building the NetParameter says, in all of `phases` (None: those that it has data for)."""
    found = []
    upgrade_net(param, path)
    made = {}
    for phase in phases or (TRAIN, TEST):
        made[phase] = caffe_pb2.NetParameter()
        made[phase].CopyFrom(param)
        made[phase].state.phase = phase
        made[phase].state.level = level
        made[phase].state.stage.extend(stages)
    with log.silenced():
        fed = [phase for phase, net in made.items() if any(not x.bottom for x in filter_net(net).layer)]
    if phases is None and len(fed) == 1:
        only, other = NAMES[fed[0]], NAMES[1 - fed[0]]
        found.append(Finding(path, None, f"has no data in phase {other}", "", f"tried in {only} alone", taken=True))
        made = {fed[0]: made[fed[0]]}
    for phase, net in made.items():
        try:
            with log.silenced():
                Net.from_proto(net)
        except Exception as e:  # a Python layer may raise anything
            told = str(e) if isinstance(e, CaffeError) else f"{type(e).__name__}: {e}"
            found.append(Finding(path, None, f"cannot be built in phase {NAMES[phase]}: {told}"))
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
            close = difflib.get_close_matches((word.value or "").lower(), [name.lower() for name in known], 1, 0.8)
            if close and not fork:
                advice = f"is it {next(name for name in known if name.lower() == close[0])}? Else {advice}"
            found.append(Finding(path, word.line, f"layer type {word.value} is not known", fork, advice))
    return sorted(found, key=lambda finding: finding.line or 0)


def _declared(word):
    return word.message == "LayerParameter" and options.extension(word.field) is not None


def _of_word(path, word):
    fork, advice = fork_words.FIELDS.get((word.message, word.field), ("", ""))
    ours = fork_words.in_our_words(word.message, word.field, word.value)
    what = f"{word.message} has no field {word.field}"
    if word.kind == "value":
        what = f"{word.field} of {word.message} has no value {word.value}"
    if ours is not None:
        return Finding(path, word.line, what, fork, f"taken as {ours}" if ours else "passed over", taken=True)
    if not advice and word.message == "LayerParameter" and word.kind == "field" and word.field.endswith("_param"):
        advice = fork_words.OWN_TYPE
    return Finding(path, word.line, what, fork, advice or _newer(word) or _close(word))


def _newer(word):
    """What to write for a word that LayerParameter knows and V1LayerParameter does not."""
    if word.message != "V1LayerParameter":
        return ""
    if word.kind == "field" and word.field in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
        return f'only layer {{ .. }} with type: ".." has it, not the old layers {{ .. }}; {UPGRADE}'
    types = {name.lower(): name for name in layer_type_list()}
    known = types.get((word.value or "").replace("_", "").strip("\"'").lower()) if word.field == "type" else None
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
