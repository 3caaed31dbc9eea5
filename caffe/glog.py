"""Caffe's log: glog's line prefix on stderr, so that people's log parsers read it.

A script is silent, but for warnings and errors, until it calls `init_log` (the command does) or GLOG_minloglevel=0 is
in the environment, which is obeyed everywhere.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable

INFO, WARNING, ERROR, FATAL = range(4)


def _least(default: int) -> int:
    """The level that GLOG_minloglevel names, or the default."""
    told = os.environ.get("GLOG_minloglevel", "")
    return int(told) if told.isdecimal() else default


_level = _least(WARNING)
# Entered while a line is written: a progress line steps aside.
around_line: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


def init_log(level: int = INFO, stderr: bool = True) -> None:
    """Show messages of `level` (0 INFO, 1 WARNING, 2 ERROR) and above, on stderr.

    stderr: False leaves errors alone there, as glog does, whose log files for the rest are not written here."""
    global _level
    _level = max(level, INFO if stderr else ERROR, _least(INFO))


@contextlib.contextmanager
def silenced():
    """Context in which nothing below a fatal error is written."""
    global _level
    before, _level = _level, FATAL
    try:
        yield
    finally:
        _level = before


def log(text: str) -> None:
    """Write an INFO line of the user's own."""
    info("_caffe.cpp:150", text)


def enabled(level: int = INFO) -> bool:
    return level >= _level


def number(value) -> str:
    """A number as C++ streams print it: six significant digits."""
    return f"{value:g}"


def here() -> str:
    """File and line of the caller: the `source` of a line that Caffe does not have."""
    caller = sys._getframe(1)
    return f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}"


def _write(level, source, text):
    """`source` is the file and line of Caffe that writes this line: log parsers look for some of them."""
    if level < _level and level != FATAL:
        return
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    line = f"{'IWEF'[level]}{stamp}.{int(now % 1 * 1e6):06d} {threading.get_native_id():5d} {source}] {text}\n"
    with around_line():
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except BrokenPipeError:  # nobody reads any more, and training goes on, as with glog
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        except OSError:  # the disk is full: these lines are lost, those after them perhaps not
            pass


# Each takes (source, text); after `fatal`, ending the process is the command line's task.
info, warning, error, fatal = (functools.partial(_write, level) for level in range(4))
