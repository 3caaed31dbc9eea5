"""Evaluate GaitNet on this dataset; `python eval/eval-casiab.py --help` shows how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layers.bundled import program

program.guard(__name__)

from eval.cli import main

if __name__ == "__main__":
    sys.exit(program.run(lambda: main("casiab")))
