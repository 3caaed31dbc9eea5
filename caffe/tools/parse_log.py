"""parse_log: what a training's log tells, as two tables (Caffe: tools/extra/parse_log.py).

    parse_log caffe.log tables/

writes tables/caffe.log.train and tables/caffe.log.test, comma separated: NumIters, Seconds since the solver began,
LearningRate, and a column for every output of the net. Reads the logs of BVLC Caffe and of the one here.
"""

import argparse
import csv
import datetime
import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from caffe import program
from caffe.errors import CaffeError
from caffe.files import atomic_path
from caffe.regular import MOST_LIST, open_file
from caffe.tools import command

NUMBER = r"([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))"
TIME = re.compile(r"[IWEF](?:\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6})")
ITERATION = re.compile(r"\] Iteration (\d+)(?: \(.*\))?, (loss|lr) = " + NUMBER)
TESTING = re.compile(r"\] Iteration (\d+), Testing net \(#(\d+)\)")
OUTPUT = re.compile(r"\]\s+(Train|Test) net output #\d+: (\S+) = " + NUMBER)


class Told(NamedTuple):
    """One number of a log."""

    iteration: int
    seconds: float  # since the solver began; nan where the lines bear no time
    phase: str  # "train", or "test", or for further test nets "test #1"
    name: str  # of an output; "loss" is the printed, smoothed one, "lr" the learning rate
    printed: bool  # loss and lr are the solver's, all else outputs of a net
    value: float


@program.installed
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="parse_log", description="Write what a Caffe log tells as two CSV tables.")
    parser.add_argument("logfile_path", help="log of a training (its stderr)")
    parser.add_argument("output_dir", help="folder for NAME.train and NAME.test")
    parser.add_argument("--delimiter", default=",", help="between columns (default: %(default)r)")
    parser.add_argument("--verbose", action="store_true", help="say what was written")
    return command.run(write_tables, parser.parse_args(argv))


def write_tables(args):
    if len(args.delimiter) != 1:
        raise CaffeError(f"--delimiter is {args.delimiter!r}; wanted one character")
    told = list(read(args.logfile_path))
    if not told:
        raise CaffeError(f"{args.logfile_path}: no line tells of an iteration; wanted the log of a Caffe training")
    for phase in ("train", "test"):
        path = os.path.join(args.output_dir, f"{os.path.basename(args.logfile_path)}.{phase}")
        columns, rows = table(told, phase)
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as f:
            writer = csv.DictWriter(f, columns, delimiter=args.delimiter, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        if args.verbose:
            print(f"Wrote {path}: {len(rows)} rows")


def table(told, phase):
    """(names of columns, a dict a row) of one phase: a row an iteration, with the last value told of it."""
    columns, rate = ["NumIters", "Seconds", "LearningRate"], ""
    rows: dict[int, dict] = {}
    for item in told:
        if item.printed:
            if item.name == "lr":  # Caffe says the rate after the losses of its iteration
                rate = item.value
                if phase == "train" and item.iteration in rows:
                    rows[item.iteration]["LearningRate"] = rate
            continue
        if not item.phase.startswith(phase):
            continue
        row = rows.setdefault(item.iteration, {})
        row.setdefault("NumIters", item.iteration)
        row.setdefault("Seconds", "" if item.seconds != item.seconds else round(item.seconds, 6))
        row.setdefault("LearningRate", rate)
        name = item.name + item.phase.removeprefix(phase)
        row[name] = item.value
        if name not in columns:
            columns.append(name)
    return columns, list(rows.values())


def read(path) -> Iterator[Told]:
    """What the lines of the log file `path` tell, in their order."""
    try:
        with open_file(path, MOST_LIST) as f:
            lines = f.read().decode(errors="replace").splitlines()
    except OSError as e:
        raise CaffeError(f"{path}: {e.strerror}; wanted the log of a Caffe training") from e
    iteration, test_net, began, seconds = None, 0, None, float("nan")
    for line in lines:
        if stamp := TIME.match(line):
            now = _moment(stamp)
            if began is None or "] Solving " in line:
                began = now
            if now < began:  # glog's lines bear no year
                now = now.replace(year=now.year + 1)
            seconds = (now - began).total_seconds()
        if found := ITERATION.search(line):
            iteration = int(found[1])
            yield Told(iteration, seconds, "train", found[2], True, float(found[3]))
        elif found := TESTING.search(line):
            iteration, test_net = int(found[1]), int(found[2])
        elif (found := OUTPUT.search(line)) and iteration is not None:
            phase = "train" if found[1] == "Train" else f"test #{test_net}" if test_net else "test"
            yield Told(iteration, seconds, phase, found[2], False, float(found[3]))


def _moment(stamp):
    month, day, hour, minute, second, micro = map(int, stamp.groups())
    return datetime.datetime(2000, month, day, hour, minute, second, micro)  # 2000 has a 29th of February


if __name__ == "__main__":
    sys.exit(main())
