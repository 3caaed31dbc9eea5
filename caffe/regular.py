"""Files that are read are regular ones: a pipe would be waited for, and a device read from without end.

Imports nothing of this package, see `caffe.whole`.
"""

import errno
import os
import stat
import sys

MOST_TEXT, MOST_LIST, MOST_IMAGE = 2**26, 2**30, 2**28  # bytes of a record, a list or a log, an image


def open_file(path, most=sys.maxsize):
    """The regular file `path` of `most` bytes at most, open for reading bytes; OSError: it is none, or longer."""
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    except ValueError as e:  # a zero byte in the path
        raise OSError(errno.EINVAL, str(e), path) from e
    about = os.fstat(file.fileno())
    if stat.S_ISREG(about.st_mode) and about.st_size <= most:
        return file
    file.close()
    told = f"it is longer than {most} bytes" if stat.S_ISREG(about.st_mode) else "it is no regular file"
    raise OSError(errno.EINVAL, told, path)


def read_text(path, most=MOST_TEXT, encoding="utf-8", errors="strict"):
    """The text of the regular file `path` of `most` bytes at most; OSError: it is none, or longer."""
    with open_file(path, most) as file:
        return file.read().decode(encoding, errors)
