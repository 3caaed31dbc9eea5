"""One at a time: a lock file beside what is written. The lock goes with its process, even with a killed one."""

import contextlib
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout


class Held(BlockingIOError):
    """Another process holds the lock; `process` is its number, or "unknown"."""

    def __init__(self, path: str, process: str):
        super().__init__(f"{path}: process {process} holds this lock")
        self.process = process


@contextlib.contextmanager
def hold(path) -> Iterator[None]:
    """Hold the lock file `path`, which is there meanwhile. Raises Held, or OSError where it cannot be written."""
    path = str(path)
    os.stat(os.path.dirname(path) or ".")  # FileLock would make the folder
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not os.path.lexists(path):  # nobody's: what keeps it from being made?
            os.close(os.open(path, os.O_CREAT | os.O_RDWR))
        raise Held(path, _written_in(path)) from None
    try:
        with contextlib.suppress(OSError):  # no room for it; on Windows nobody could read it
            with open(path, "w") as file:
                file.write(str(os.getpid()))
        yield
    finally:
        with contextlib.suppress(OSError):  # gone, or read-only by now: what ended the work is told instead
            os.unlink(path)  # before it is freed: who takes it in that moment sees that it is none
        lock.release()


def _written_in(path):
    try:
        with open(path) as file:
            return file.read(20).strip() or "unknown"
    except OSError:
        return "unknown"
