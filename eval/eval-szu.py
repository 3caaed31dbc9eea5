"""Evaluate GaitNet on this dataset; `python eval/eval-szu.py --help` shows how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    try:
        from eval.cli import main

        sys.exit(main("szu"))
    except KeyboardInterrupt:  # while it was still importing
        sys.exit(130)
