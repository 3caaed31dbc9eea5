"""Batches assembled in the background, in order, a bounded number ahead."""

import queue
import threading
import time
import weakref

AHEAD = 2  # finished batches that wait


class Prefetcher:
    """make(0), make(1), ... from a thread that works ahead. What `make` raises, `get` raises."""

    def __init__(self, make):
        self._make = make
        self.waited = 0.0  # seconds that `get` has waited, in all
        self._run = None
        self.seek(0)

    def seek(self, number):
        """The next `get` gives make(number)."""
        self._stop()
        self._next = number

    def get(self):
        """The next batch."""
        if self._run is None:
            self._start(self._next)
        begin = time.perf_counter()
        batch, error = self._run.queue.get()
        self.waited += time.perf_counter() - begin
        if error is not None:
            self._stop()
            raise error
        self._next += 1
        return batch

    def _start(self, number):
        self._run = _Run()
        # The thread holds no reference to the prefetcher, so that this can be collected; that stops the thread.
        weakref.finalize(self, self._run.stop)
        threading.Thread(target=_work, args=(self._make, number, self._run), daemon=True, name="prefetch").start()

    def _stop(self):
        if self._run is not None:
            self._run.stop()
            self._run = None


class _Run:
    """One stretch of consecutive batches."""

    def __init__(self):
        self.queue = queue.Queue(AHEAD)
        self.stopped = False

    def stop(self):
        self.stopped = True
        while not self.queue.empty():  # wakes a thread that waits for room
            try:
                self.queue.get_nowait()
            except queue.Empty:
                break


def _work(make, number, run):
    while not run.stopped:
        try:
            item = make(number), None
        except Exception as error:
            item = None, error
        run.queue.put(item)
        if item[1] is not None:
            break
        number += 1
