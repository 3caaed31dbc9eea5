"""Long work: several threads or processes at it, and its progress, a bar on a terminal or lines in a log."""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import cv2
from tqdm import tqdm

from caffe.locks import Held, hold
from layers import whole

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
        if self.bar.disable and time.monotonic() - self.said > LINE_EVERY:
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
        print(
            f"{self.label}: {self.done} of {self.total} {self.unit}, {rate:.0f} a second", file=sys.stderr, flush=True
        )


@contextlib.contextmanager
def only_run(folder):
    """Hold `folder`, made where it is missing: a second run that would write there gets a BlockingIOError."""
    whole.make_folder(folder)
    with only_writer(folder, os.path.join(folder, ".lock")):
        yield


@contextlib.contextmanager
def only_writer(path, lock_path):
    """Hold `path` by the lock `lock_path`: a second run that would write there gets a BlockingIOError."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold(lock_path))
        except Held as e:
            told = f"{path}: another run (process {e.process}) is writing there; wait for that one"
            raise BlockingIOError(told) from None
        yield


def workers(text):
    """How many workers the words --jobs N ask for: N, from 1 on."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}: wanted a number of at least 1")
    return int(text)


def in_order(function, items, jobs, executor=ThreadPoolExecutor):
    """function(item) of every item, in order, by `jobs` workers that are a few items ahead.

    Threads do for decoding: OpenCV does that without the GIL. `processes` is the executor for the rest."""
    with executor(jobs) as pool:
        ahead: deque = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 2 * jobs:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def processes(jobs):
    """An executor of `jobs` processes that end with this one, even when it is killed."""
    return ProcessPoolExecutor(jobs, initializer=_start_worker)


def _start_worker():
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to tell of

    parent = multiprocessing.parent_process()

    def follow():  # a parent killed outright cannot tell its workers to end
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
