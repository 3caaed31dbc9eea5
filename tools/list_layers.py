#!/usr/bin/env python
"""Writes docs/LAYERS.md: all layer types, each with the first sentence of what its class says.

tools/list_layers.py --check    says by its exit status whether the page is as it should be
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import inspect
import re

import caffe
from caffe import whole
from caffe.layer import REGISTRY

PAGE = ROOT / "docs" / "LAYERS.md"
LONGEST = 100  # characters of a sentence; what is longer stands in the class


def page() -> str:
    """The page as it should be."""
    caffe.layer_type_list()  # registers them
    ours = {name: cls for name, cls in REGISTRY.items() if cls.__module__.startswith("caffe.")}
    text = "# Layer types\n\nMade by `tools/list_layers.py` from the classes; what is not said here, they say.\n"
    for title, folder in (("BVLC Caffe's", "ops"), ("[Forks'](FORKS.md)", "forks")):
        text += f"\n## {title}\n\n| type | options | what it does |\n|---|---|---|\n"
        for name in sorted(name for name, cls in ours.items() if cls.__module__.startswith(f"caffe.{folder}.")):
            cls = ours[name]
            file = f"../{cls.__module__.replace('.', '/')}.py"
            text += f"| [{name}]({file}) | {_options(cls)} | {_first_sentence(cls)} |\n"
    return text + "\nAnd `Python`: [a layer in Python](EXTENDING.md), with `python_param`.\n"


def _options(cls):
    """The `_param` that the class reads, or the family that it is of; not what all data layers have."""
    for base in cls.__mro__:
        if base.__module__ == cls.__module__ or base.__module__.startswith("caffe.ops."):
            found = re.findall(r"param\.(?!transform_)([a-z0-9_]+_param)\b", inspect.getsource(base))
            if found:
                return f"`{found[0]}`"
    return ""


def _first_sentence(cls):
    text = " ".join((cls.__doc__ or "").split())
    sentence = re.split(r"(?<=[a-z0-9)\]])[.:;] (?=[A-Z])|\.$", text)[0].replace("|", "\\|")
    return sentence if len(sentence) <= LONGEST else sentence[: sentence.rindex(" ", 0, LONGEST)] + " ..."


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/list_layers.py", description=__doc__.splitlines()[0], epilog="Example: tools/list_layers.py --check"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is stale")
    if parser.parse_args(argv).check:
        return int(PAGE.read_text() != page())
    whole.write(PAGE, page())
    return 0


if __name__ == "__main__":
    sys.exit(program.run(main))
