"""What every Python file of this repository is like: one idea long, and laid out by the formatter alone."""

import re

import pytest

from tests.test_imports import ROOMS, ROOT


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_files_are_short_and_the_formatters(room):
    files = [path for path in (ROOT / room).rglob("*.py") if path.name != "caffe_pb2.py"]  # which is generated
    assert files
    for path in files:
        text = path.read_text()
        assert text.count("\n") <= 600, f"{path} holds more than one idea"
        assert not re.search(r"# fmt: *(skip|off)$", text, re.M), f"{path} keeps the formatter from its lines"
