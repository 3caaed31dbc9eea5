"""Evaluate any data set of layers/datasets.py: `python -m eval casiab --help`."""

import sys

from layers.bundled import program

program.guard(__name__)

from eval.cli import main
from layers.datasets import DATASETS

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in DATASETS:
        told = sys.argv[1:] in (["-h"], ["--help"])
        usage = f"usage: python -m eval DATASET [options]   ({', '.join(DATASETS)}; python -m eval casiab --help)"
        print(usage, file=sys.stdout if told else sys.stderr)
        sys.exit(0 if told else 2)
    sys.exit(program.run(lambda: main(sys.argv[1], sys.argv[2:])))
