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
        self._run: _Run | None = None
        self.seek(0)

    def seek(self, number):
        """The next `get` gives make(number)."""
        self._stop()
        self._next = number

    def get(self):
        """The next batch."""
        run = self._run or self._start(self._next)
        begin = time.perf_counter()
        batch, error = run.queue.get()
        self.waited += time.perf_counter() - begin
        if error is not None:
            self._stop()
            raise error
        self._next += 1
        return batch

    def _start(self, number):
        self._run = run = _Run()
        # The thread holds no reference to the prefetcher, so that this can be collected; that stops the thread.
        weakref.finalize(self, run.stop)
        threading.Thread(target=_work, args=(self._make, number, run), daemon=True, name="prefetch").start()
        return run

    def _stop(self):
        if self._run is not None:
            self._run.stop()
            self._run = None


class _Run:
    """One stretch of consecutive batches."""

    def __init__(self):
        self.queue: queue.Queue = queue.Queue(AHEAD)  # of (batch, None) or (None, error)
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
            run.queue.put((make(number), None))
        except Exception as error:
            run.queue.put((None, error))
            break
        number += 1
