"""Protobuf messages as text, the way Caffe's own tools write them."""

import re

import numpy as np
from google.protobuf import text_format

from caffe import options

# The number of a float field: the only unquoted value with a point or an exponent.
FLOAT_FIELD = re.compile(r"^( *)(\w+)(: )(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$", re.MULTILINE)


def message_to_text(message) -> str:
    """`message` in text format; floats as C++ prints them: `lr_mult: 1`, where Python would say `1.0`. Options
    that users declared (options.py) are fields like any other."""
    text = text_format.MessageToString(message, as_utf8=False)
    for name in options.names():
        text = re.sub(rf"^( *)\[caffe\.{name}\]", r"\1" + name, text, flags=re.MULTILINE)
    return FLOAT_FIELD.sub(_as_cpp, text)


def _as_cpp(match):
    indent, name, colon, number = match.groups()
    if not set(".e") & set(number):
        return match[0]
    as_type, digits, more = (np.float64, 15, 17) if name.startswith("double_") else (np.float32, 6, 9)
    short = f"{float(number):.{digits}g}"
    exact = as_type(short) == as_type(number)
    return f"{indent}{name}{colon}{short if exact else f'{float(as_type(number)):.{more}g}'}"
