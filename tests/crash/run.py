"""Power cuts: record a command once, make the disks that a cut may leave, start the command again on each.

    python -m tests.crash.run train                  the states that a seeded draw of 200 gives
    python -m tests.crash.run train --states 100000  every state

Prints how many states there are, how many were tried, and what went wrong; the exit status is 1 where something did.
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.crash import disk, trace
from tests.crash.child import end_with, say_into
from tests.crash.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # for one command


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=SCENARIOS)
    parser.add_argument("--states", type=int, default=200, metavar="N", help="to try at most (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder to work in, kept for a look at it")
    args = parser.parse_args(argv)
    base = args.keep or Path(tempfile.mkdtemp(prefix="crash-"))
    base.mkdir(exist_ok=True)
    try:
        every, tried, wrong = cut(SCENARIOS[args.command], args.command, base.resolve(), args.states, args.seed)
    finally:
        if not args.keep:
            shutil.rmtree(base)
    for one in wrong:
        print(one)
    print(f"{args.command}: {every} states, {tried} tried, {len(wrong)} wrong")
    return 1 if wrong else 0


def cut(scenario, name, base, most, seed):
    """(number of states, of those tried, what went wrong)"""
    whole = base / "whole"
    whole.mkdir()
    scenario.prepare(whole)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-m", "tests.crash.scenarios", name]
    recording = trace.record(command, whole, base / "trace", env=environment)
    require_right(recording, whole)
    found = list(disk.states(recording, seed))
    chosen = found if len(found) <= most else random.Random(seed).sample(found, most)
    for module in scenario.imports:  # once, for all that are started again
        importlib.import_module(module)
    wrong = []
    for number, state in enumerate(chosen):
        folder = base / f"state-{number}"
        folder.mkdir()
        state.write(folder)
        if told := again(scenario, folder, whole, state.said, base / "said"):
            wrong.append(f"cut after {state.op} of {len(recording.ops)}, {state.why}: {told}")
        shutil.rmtree(folder)
    return len(found), len(chosen), wrong


def require_right(recording, root):
    """What the recording says is on the disk at the end has to be there."""
    state = disk.end(recording)
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert dict(state.files) == files, "the recording is not what happened: " + ", ".join(
        sorted(path for path in files.keys() | dict(state.files) if dict(state.files).get(path) != files.get(path))
    )


def again(scenario, folder, whole, said, log):
    """Start the command again, in a process of its own; what is wrong then, or ""."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if not status:
            return ""
        return f"status {os.waitstatus_to_exitcode(status)}: {log.read_text(errors='replace')[-1500:]}"
    end_with(lambda: go_on(scenario, folder, whole, said, log))
    return None


def go_on(scenario, folder, whole, said, log):
    """The command on what the cut has left, and whether its end is right; the exit status."""
    signal.alarm(SECONDS)
    say_into(log)
    os.chdir(folder)
    scenario.after_cut(whole, said)
    if scenario.run() != 0:
        return 1
    scenario.at_end(whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
