"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time

from tqdm import tqdm

INTERVAL = 10  # seconds between lines of a log


def progress(total, label, unit):
    """A context manager with `update(n)`; writes to stderr."""
    if sys.stderr.isatty():
        return tqdm(total=total, desc=label, unit=unit)
    return Lines(total, label, unit)


class Lines:
    def __init__(self, total, label, unit):
        self.total, self.label, self.unit = total, label, unit
        self.done, self.start = 0, time.monotonic()
        self.next = self.start + INTERVAL

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.write()

    def update(self, n):
        self.done += n
        if time.monotonic() >= self.next and self.done < self.total:
            self.write()
            self.next = time.monotonic() + INTERVAL

    def write(self):
        seconds = time.monotonic() - self.start
        print(f"{self.label}: {self.done} of {self.total} {self.unit}s, {seconds:.0f} s", file=sys.stderr, flush=True)
