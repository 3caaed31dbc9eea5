"""All commands speak alike: what --help tells, and what wrong usage comes to."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path
    for room in ("tools", "eval")
    for path in (ROOT / room).glob("*.py")
    if "__main__" in path.read_text() and path.name != "__main__.py"
)
SHELL = [ROOT / name for name in ("train_net.sh", "tests/run.sh", "tools/setup.sh", "experiments/casiab/train_net.sh")]


def id_of(path):
    return str(path.relative_to(ROOT))


def status(script, argument, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(script), argument])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name="__main__")
    return left.value.code


@pytest.mark.parametrize("script", SCRIPTS, ids=id_of)
def test_help_has_an_example_and_tells_of_every_option(script, monkeypatch, capsys):
    assert status(script, "--help", monkeypatch) == 0
    usage, _, told = capsys.readouterr().out.partition("\n\n")
    assert re.match(rf"usage: (tools/|eval/)?{re.escape(script.name)} ", usage)
    assert re.search(rf"{re.escape(script.name)} +\S", told), "no example"
    lines = told.splitlines()
    for line, following in zip(lines, [*lines[1:], ""]):
        alone = re.match(r"  (--[\w-]+)( \S+)*$", line)  # where it is long, its help is on the next line
        assert not alone or following.startswith(" " * 20), f"{line} has no help"


@pytest.mark.parametrize("script", SCRIPTS, ids=id_of)
def test_wrong_usage_exits_2(script, monkeypatch, capsys):
    assert status(script, "--no-such-option", monkeypatch) == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize("script", SHELL, ids=id_of)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_shell_scripts_tell_how_they_are_used(script, option, tmp_path):
    done = subprocess.run(
        ["sh", str(script), option],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": os.environ["PATH"]},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"sh {script.name}" in done.stdout or f"sh {id_of(script)}" in done.stdout
    assert not list(tmp_path.iterdir())
