"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 10  # seconds


class Progress:
    """with Progress(total, "frames", "packing") as progress: ... progress.update(n)"""

    def __init__(self, total, unit, label):
        self.total, self.unit, self.label, self.done = total, unit, label, 0
        self.bar = tqdm(total=total, unit=f" {unit}", desc=label, disable=not sys.stderr.isatty())
        self.begin = self.said = time.monotonic()

    def update(self, n=1):
        self.done += n
        self.bar.update(n)
        if self.bar.disable and self.done < self.total and time.monotonic() - self.said > LINE_EVERY:
            self._say()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.bar.close()
        if self.bar.disable:
            self._say()

    def _say(self):
        self.said = time.monotonic()
        rate = self.done / max(self.said - self.begin, 1e-9)
        speed = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"  # never as 1.13e+04
        print(f"{self.label}: {self.done} of {self.total} {self.unit}, {speed} a second", file=sys.stderr, flush=True)
