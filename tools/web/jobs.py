"""Work that takes longer than a request: one thing at a time, few in the queue, progress to be asked for."""

import itertools
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

WAITING = 8  # jobs at most that are not done
KEPT = 32  # jobs at most whose results are kept


class Busy(Exception):
    """The queue is full."""


class Jobs:
    """Runs functions of `progress` in a thread of their own, in the order of their coming."""

    def __init__(self, expected=()):
        """expected: exceptions whose text is a sentence for the user; of others the name is told, too."""
        self._expected = expected
        self._states: OrderedDict[str, dict] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1)

    def add(self, work):
        """The id of the job work(progress); its result must be JSON-able."""
        with self._lock:
            if sum(state["state"] in ("waiting", "running") for state in self._states.values()) >= WAITING:
                raise Busy(f"{WAITING} walks are being looked at already; try again when one is done")
            job = str(next(self._numbers))
            self._states[job] = {"state": "waiting", "done": 0.0, "doing": "waiting for the walks before"}
            while len(self._states) > KEPT:
                self._states.popitem(last=False)
        self._thread.submit(self._run, job, work)
        return job

    def state(self, job):
        """{"state": waiting, running, done or failed, "done": share, "doing": text, "result" or "error"}, or None."""
        with self._lock:
            return self._states.get(job)

    def _run(self, job, work):
        def progress(done, doing):
            self._set(job, state="running", done=done, doing=doing)

        try:
            result = work(progress)
        except self._expected as e:
            self._set(job, state="failed", error=str(e))
        except Exception as e:
            self._set(job, state="failed", error=f"{type(e).__name__}: {e}")
        else:
            self._set(job, state="done", done=1.0, doing="", result=result)

    def _set(self, job, **values):
        with self._lock:
            if job in self._states:
                self._states[job] = {**self._states[job], **values}

    def close(self):
        self._thread.shutdown(wait=True, cancel_futures=True)
