"""Stands in for `differential` in a test of it: the net of seed 4 ends the process."""

import os
import sys

first, count = map(int, sys.argv[1:])
for seed in range(first, first + count):
    print(f"seed {seed}", flush=True)
    if seed == 4:
        os.abort()
