"""The words of a prototxt that its message type lacks: all of them, with their places.

protobuf's parser stops at the first. Here the text is walked beside the message's descriptor; what is unknown is noted
and passed over, whatever it holds.
"""

import bisect
import re
from dataclasses import dataclass

TOKEN = re.compile(r"""\s+|\#[^\n]*|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|([\w.+-]+)|(.)""", re.S)


@dataclass(frozen=True)
class Word:
    """A field (or an enum's value) that a message type lacks, or a layer's type.

    `message` is the message type's name, `field` the field's; `value` the text of the value of a field that holds one
    word or string, else None. `start` and `end` span the field with its value; with `name_end` they are places in the
    text. `line` and `column` (from 1) are those that Caffe names: of what follows an unknown field's name."""

    kind: str  # "field", "value" or "type"
    message: str
    field: str
    value: str | None
    line: int
    column: int
    start: int
    name_end: int
    end: int

    def __str__(self):
        """As protobuf's parser says it."""
        if self.kind == "field":
            return f'Message type "caffe.{self.message}" has no field named "{self.field}".'
        return f"Field {self.field} of {self.message} has no value named {self.value}."


class Unreadable(Exception):
    """The text is no text format at all."""


def words(text, descriptor):
    """(unknown words, words that give layers' types) of `text`, which should hold a message of `descriptor`.

    Raises Unreadable where braces or colons are amiss."""
    walk = _Walk(text)
    walk.fields(descriptor, None)
    return walk.unknown, walk.types


class _Walk:
    def __init__(self, text):
        self.tokens = [(m.group(m.lastindex), m.start(), m.end()) for m in TOKEN.finditer(text) if m.lastindex]
        self.tokens.append(("", len(text), len(text)))
        self.at = 0
        self.lines = [0, *(m.end() for m in re.finditer("\n", text))]
        self.unknown: list[Word] = []
        self.types: list[Word] = []

    def fields(self, descriptor, closing):
        while self._peek() != (closing or ""):
            name, start, name_end = self._next()
            if name == "[":
                self._skip_to("]")
                self._value(None, [])
                continue
            if not re.fullmatch(r"\w+", name):
                raise Unreadable(name)
            field = descriptor.fields_by_name.get(name)
            follows = self.tokens[self.at][1]
            values: list[tuple[str, int]] = []
            self._value(field, values)
            only = values[0][0] if len(values) == 1 else None
            end = self.tokens[self.at - 1][2]
            if field is None:
                self._note("field", descriptor.name, name, only, follows, start, name_end, end)
            elif field.enum_type is not None:
                for value, place in values:
                    if re.match(r"[A-Za-z_]", value) and value not in field.enum_type.values_by_name:
                        self._note("value", descriptor.name, name, value, place, start, name_end, end)
            if name == "type" and only and descriptor.name in ("LayerParameter", "V1LayerParameter"):
                self._note("type", descriptor.name, name, only.strip("\"'"), start, start, name_end, end)
            if self._peek() in (",", ";"):
                self._next()
        self._next()

    def _value(self, field, values):
        """Pass over `: value`, `{ .. }` or `[ .. ]`; words and strings in it are appended to `values`."""
        if self._peek() == ":":
            self._next()
        if self._peek() == "[":
            self._next()
            while self._peek() != "]":
                self._one(field, values)
                if self._peek() == ",":
                    self._next()
            self._next()
        else:
            self._one(field, values)

    def _one(self, field, values):
        token, start, _ = self._next()
        if token in ("{", "<"):
            closing = "}" if token == "{" else ">"
            if field is not None and field.message_type is not None:
                self.fields(field.message_type, closing)
            else:
                self._skip_block()
        elif token[:1] in ("'", '"'):
            while self._peek()[:1] in ("'", '"'):  # strings side by side are one
                token += self._next()[0]
            values.append((token, start))
        elif re.fullmatch(r"[\w.+-]+", token):
            values.append((token, start))
        else:
            raise Unreadable(token)

    def _skip_block(self):
        depth = 1
        while depth:
            token = self._next()[0]
            if not token:
                raise Unreadable("a block without an end")
            depth += (token in ("{", "<")) - (token in ("}", ">"))

    def _skip_to(self, closing):
        while (token := self._next()[0]) != closing:
            if not token:
                raise Unreadable(f"no {closing}")

    def _peek(self):
        return self.tokens[self.at][0]

    def _next(self):
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)  # the last one is empty, and stays
        return token

    def _note(self, kind, message, field, value, place, start, name_end, end):
        line = bisect.bisect_right(self.lines, place)
        word = Word(kind, message, field, value, line, place - self.lines[line - 1] + 1, start, name_end, end)
        (self.types if kind == "type" else self.unknown).append(word)
