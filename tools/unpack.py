#!/usr/bin/env python
"""Brings a downloaded data set to the tree that it is to have: unpacks its archives, links folders that lie deeper.

    python tools/unpack.py outdoor

Archives (.zip, .tar, .tar.gz) lie in data/Outdoor-Gait/, or in data/ under a name that begins like that. Nothing is
done where the trees of frames and masks are there already; archives stay. train_net.sh runs this by itself.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layers.bundled import program

program.guard(__name__)

import argparse

from layers.archives import settle
from layers.datasets import DATASETS
from layers.frames import DataError


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/unpack.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(DATASETS), help="which")
    args = parser.parse_args(argv)
    try:
        settle(DATASETS[args.dataset])
    except (DataError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(program.run(main))
