"""Evaluate GaitNet on this dataset; `python eval/eval-walkers.py --help` shows how."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from eval.cli import main

if __name__ == "__main__":
    sys.exit(program.run(lambda: main("walkers")))
