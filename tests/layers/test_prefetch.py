"""Batches from the background: order, bound, errors, seeking, ending."""

import gc
import threading
import time

import pytest

from layers.prefetch import AHEAD, Prefetcher


def test_order_and_bound():
    made = []
    prefetcher = Prefetcher(lambda n: made.append(n) or n * n)
    assert [prefetcher.get() for _ in range(5)] == [0, 1, 4, 9, 16]
    time.sleep(0.2)  # room to run away, if nothing held it
    assert len(made) <= 5 + AHEAD + 1  # those that wait, and the one in the thread's hand


def test_seek():
    prefetcher = Prefetcher(lambda n: n)
    assert prefetcher.get() == 0
    prefetcher.seek(40)
    assert [prefetcher.get(), prefetcher.get()] == [40, 41]
    prefetcher.seek(3)
    assert prefetcher.get() == 3


def test_error_arrives_with_its_batch_and_again_when_asked_again():
    def make(n):
        if n == 2:
            raise OSError("no such clip")
        return n

    prefetcher = Prefetcher(make)
    assert [prefetcher.get(), prefetcher.get()] == [0, 1]
    for _ in range(2):
        with pytest.raises(OSError, match="no such clip"):
            prefetcher.get()


def test_thread_ends_with_its_prefetcher():
    prefetcher = Prefetcher(lambda n: n)
    prefetcher.get()
    threads = [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert threads
    del prefetcher
    gc.collect()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
