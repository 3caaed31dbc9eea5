"""Each command is killed, or interrupted, again and again until it has finished: a few times here, often when asked to.

`GAITNET_KILLS=100 pytest -m slow tests/crash/test_kills.py`, or `python -m tests.crash.kills NAME` for one command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.kills import KILLED

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("GAITNET_KILLS", 70))  # of each of 15 commands


def stopped(name, kills, *words):
    command = [sys.executable, "-m", "tests.crash.kills", name, "--kills", str(kills), *words]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    told = rf"^{name}: (\d+) \w+, \d+ of them left a draft, (\d+) times to the end, (\d+) wrong$"
    counts = re.search(told, done.stdout, re.MULTILINE)
    assert counts, done.stdout + done.stderr
    number, rounds, wrong = map(int, counts.groups())
    assert number >= kills and rounds and not wrong and not done.returncode, done.stdout


@pytest.mark.medium
@pytest.mark.parametrize("name, words", [("train", []), ("enroll", []), ("crop", []), ("render", ["--ctrl-c"])])
def test_stopped_a_few_times(name, words):
    stopped(name, 5, *words)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("words", [[], ["--ctrl-c"]], ids=["killed", "interrupted"])
@pytest.mark.parametrize("name", KILLED)
def test_stopped_many_times(name, words):
    stopped(name, KILLS, *words)
