"""Several threads or processes at one long work, which keep its order and do not run far ahead."""

import argparse
import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2


def workers(text):
    """How many workers the words --jobs N ask for: N, from 1 on."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}: wanted a number of at least 1")
    return int(text)


def in_order(function, items, jobs, executor=ThreadPoolExecutor):
    """function(item) of every item, in order, by `jobs` workers that are a few items ahead.

    Threads do for decoding: OpenCV does that without the GIL. `processes` is the executor for the rest.
    ChildProcessError: one of them was killed."""
    try:
        with executor(jobs) as pool:
            ahead: deque = deque()
            for item in items:
                with _death_told():
                    ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * jobs:
                    with _death_told():
                        done = ahead.popleft().result()
                    yield done
            while ahead:
                with _death_told():
                    done = ahead.popleft().result()
                yield done
    except BaseException:  # Ctrl-C while processes are being started: nobody would ever tell these to end
        for child in multiprocessing.active_children():
            child.terminate()
        raise


@contextlib.contextmanager
def _death_told():
    try:
        yield
    except BrokenProcessPool:
        told = "one of the processes at work was killed, for want of memory perhaps (fewer --jobs take less)"
        raise ChildProcessError(f"{told}; the same command goes on from here") from None


def processes(jobs):
    """An executor of `jobs` processes that end with this one, even when it is killed."""
    cv2.setNumThreads(1)  # before they are forked: in a fork OpenCV would wait for threads that are not there
    return ProcessPoolExecutor(jobs, initializer=_start_worker)


def _start_worker():
    if cv2.getNumThreads() != 1:  # a process that was not forked
        cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to tell of
    follow_parent()


def follow_parent(last=lambda: None):
    """End this process, after `last()`, when its parent has ended: killed outright, that cannot tell it to."""

    def follow(parent):
        parent.join()
        last()
        os._exit(1)

    if parent := multiprocessing.parent_process():
        threading.Thread(target=follow, args=(parent,), daemon=True).start()
