"""Threads that keep order and do not run ahead."""

import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from tools.workers import in_order, processes


def test_in_order_and_few_ahead():
    started = []

    def slow_first(n):
        started.append(n)
        time.sleep(0.05 if n == 0 else 0)
        return n * n

    results = in_order(slow_first, range(50), jobs=3)
    assert next(results) == 0
    assert len(started) <= 2 * 3 + 1  # items are taken up only as results are
    assert list(results) == [n * n for n in range(1, 50)]


def test_in_order_raises_what_an_item_raised():
    def fail_at_two(n):
        if n == 2:
            raise OSError("two")
        return threading.get_ident()

    with pytest.raises(OSError, match="two"):
        list(in_order(fail_at_two, range(5), jobs=2))


def die_at_two(n):
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@pytest.mark.medium
def test_a_process_that_is_killed_is_one_sentence():
    """As the system does it to one that takes too much memory; also where OpenCV has threads that a fork lacks."""
    cv2.setNumThreads(3)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (15, 15), 5)
    with pytest.raises(ChildProcessError, match="one of the processes at work was killed, .* goes on from here"):
        list(in_order(die_at_two, range(50), 2, processes))
