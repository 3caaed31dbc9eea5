#!/usr/bin/env python
"""Brings a downloaded data set to the tree that it is to have: unpacks its archives, links folders that lie deeper.

    python tools/unpack.py outdoor

Archives (.zip, .tar, .tar.gz, .tar.xz, .tar.bz2) lie in data/Outdoor-Gait/, also one for each person in its im/ and
seg/, or in data/ under a name that begins like that. They stay; those that were unpacked are not looked at again,
others that come later are. train_net.sh runs this by itself.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse

from eval.ending import exit_status
from layers.archives import settle
from layers.datasets import DATASETS


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/unpack.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(DATASETS), help="which")
    return exit_status(settle, DATASETS[parser.parse_args(argv).dataset])


if __name__ == "__main__":
    sys.exit(program.run(main))
