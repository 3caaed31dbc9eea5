"""How the process of the command runs: its memory, its arithmetic, its end."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time

from caffe import glog as log
from caffe import machine

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # environment: transparent huge pages, from glibc 2.35 on
GRACE = 5  # seconds for what a layer has left running


def on_large_pages(deterministic=False):
    """Start this command anew, with glibc asking for memory in pages of 2 MB: it takes that at its start alone. A
    training step is 5 % faster. Where GLIBC_TUNABLES says something already, it stands.

    deterministic: with glibc's functions for every processor (`caffe.machine`), too."""
    ((name, wanted),) = LARGE_PAGES.items()
    wanted = os.environ.get(name, wanted)
    if deterministic and machine.GLIBC_TUNABLES not in wanted:
        wanted = f"{wanted}:{machine.GLIBC_TUNABLES}"
    if sys.platform == "linux" and os.environ.get(name) != wanted:
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, name: wanted})


def tune_allocator():
    """Keep freed memory in the process: a training step frees and takes back the same large arrays every iteration,
    and glibc would otherwise return them to the system and fault their pages in again. Only the largest, from 32 MB on
    (the most glibc lets one choose), still go back: kept, they would leave holes that cost a fifth more memory."""
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return  # not glibc: nothing to tune
    mmap_threshold, trim_threshold = -3, -1
    libc.mallopt(mmap_threshold, 32 << 20)
    libc.mallopt(trim_threshold, -1)


@contextlib.contextmanager
def denormals_flushed():
    """Context in which numbers below 1e-38 become 0.

    Where a gradient stays 0 (a unit that ReLU has switched off) Adam's mean gradient falls by a tenth each iteration,
    gets there after some 700 of them, and the processor handles such numbers a hundred times more slowly. To be entered
    before the first computation: the threads of torch's pool take it over."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def end_in_time(status):
    """Let no process or thread that a Python layer has left running keep this one from ending, with exit `status`.

    Python would wait for them for ever, and layers that load data in the background seldom end what they started. Caffe
    waits for nothing; here what is about to end may do so."""
    threads = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if threads or multiprocessing.active_children():
        threading.Thread(target=_end, args=(status,), daemon=True).start()


def _end(status):
    """In a thread that the process does not wait for: comes to its second line where the process has not ended."""
    time.sleep(GRACE)
    children = multiprocessing.active_children()
    told = "processes " + ", ".join(str(child.pid) for child in children) if children else "threads"
    log.warning(log.here(), f"{told} of a Python layer still run after {GRACE} s: ended")
    for end in ("terminate", "kill"):
        for child in children:
            getattr(child, end)()
        time.sleep(1)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
