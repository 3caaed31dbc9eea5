#!/usr/bin/env python
"""How far the numbers here are from real Caffe's: runs the golden tests and notes the largest error of each family.

    tools/measure_fidelity.py --output table.md

An error is the largest difference of an array, over the largest value of what Caffe computed. "Of the bound" is how
much of the test's own tolerance the worst element uses up. Exits 1 when a comparison fails.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import platform
import re

import numpy as np

from caffe.errors import CaffeError
from caffe.files import atomic_path

TESTS = {  # file: what it compares
    "tests/caffe/ops/test_golden_layers.py": "layer",
    "tests/caffe/test_solver_golden.py": "solver",
    "tests/models/test_golden_gaitnet.py": "gaitnet",
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Example: tools/measure_fidelity.py --output table.md"
    )
    parser.add_argument("--output", metavar="FILE", help="write the table there, too")
    args = parser.parse_args(argv)
    try:
        import pytest
    except ImportError:
        print("error: this runs the tests and needs pytest: pip install -r requirements-dev.txt", file=sys.stderr)
        return 1
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.testing, "assert_allclose", recorder.watch(np.testing.assert_allclose))
        patch.setattr(np.testing, "assert_array_equal", recorder.watch(np.testing.assert_array_equal))
        status = pytest.main(
            ["-q", "-m", "", "-k", "not test_inputs", "--rootdir", str(ROOT), *(str(ROOT / t) for t in TESTS)],
            [recorder],
        )
    table = recorder.table()
    print(table)
    if args.output:
        try:
            with atomic_path(args.output) as temporary:
                Path(temporary).write_text(table + "\n")
        except CaffeError as e:
            print(f"error: {e}", file=sys.stderr)
            return 1
    return int(status != 0)


class Recorder:
    """A pytest plugin that notes every comparison of arrays under the family of the test that makes it."""

    def __init__(self):
        self.families = {}  # name -> [comparisons, largest error, largest share of the bound]
        self.family = None

    def pytest_runtest_setup(self, item):
        kind = next(kind for test, kind in TESTS.items() if str(item.path).endswith(test))
        self.family = (kind, family_of(kind, item))

    def watch(self, compare):
        def watched(actual, desired, *args, rtol=1e-7, atol=0, **kwargs):
            if compare.__name__ == "assert_array_equal":
                compare(actual, desired, *args, **kwargs)
                self.note(actual, desired, None)
            else:
                compare(actual, desired, *args, rtol=rtol, atol=atol, **kwargs)
                self.note(actual, desired, atol + rtol * np.abs(np.asarray(desired, np.float64)))

        return watched

    def note(self, actual, desired, bound):
        difference = np.abs(np.asarray(actual, np.float64) - np.asarray(desired, np.float64))
        entry = self.families.setdefault(self.family, [0, 0.0, 0.0])
        entry[0] += 1
        largest = np.abs(desired).max(initial=0)
        if difference.size and largest:
            entry[1] = max(entry[1], float(difference.max() / largest))
        if difference.size and bound is not None:
            used = difference / np.maximum(np.broadcast_to(bound, difference.shape), 1e-300)
            entry[2] = max(entry[2], float(used.max()))

    def table(self):
        import torch

        lines = ["| | family | comparisons | largest error | of the bound |", "|---|---|---|---|---|"]
        for (kind, family), (count, error, used) in sorted(self.families.items()):
            lines.append(f"| {kind} | {family} | {count} | {error:.1e} | {used:.0%} |")
        threads = torch.get_num_threads()
        lines += ["", f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, {threads} thread(s)."]
        return "\n".join(lines)


def family_of(kind, item):
    """Golden layer cases by the first word of their name, solver cases by the type, nets by test and case."""
    found = re.search(r"\[(.*)\]", item.nodeid)
    case = found.group(1) if found else ""
    if kind in ("layer", "solver"):
        return case.split("_")[0].split(".")[0] or item.name
    return f"{item.originalname.removeprefix('test_').replace('_', ' ')}{', ' + case if case else ''}"


if __name__ == "__main__":
    sys.exit(program.run(main))
