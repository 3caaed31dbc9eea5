"""Files and folders that are whole or not there, also after a power cut.

What a process writes lies in the system's memory at first: a kill loses none of it, a power cut all. So contents go to
the disk before they take their name, and the name goes there before anything that relies on it. POSIX orders neither
by itself.

Imports nothing of this package: evaluation writes by this module (through `layers.bundled`) under BVLC Caffe, too.
"""

import contextlib
import errno
import os

LONGEST = 255  # bytes of a file's name


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary name beside `path`; when all went well, the file written there takes the real name.

    OSError: it cannot be written, or no file is there; what was at `path` is there still."""
    _require_replaceable(path)
    temporary = _beside(path)
    try:
        yield temporary
        put(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # gone, or the disk cannot be written to at all
            os.unlink(temporary)


def write(path, content):
    """Write the file `path`; `content` is bytes, or text to be written in UTF-8, names that are not as they are."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def put(draft, path):
    """Let `draft`, a file or a folder with all that is in it, take the name `path` when it has reached the disk.

    A file that is at `path` is replaced, a folder only where it is empty."""
    sync(draft)
    os.replace(draft, path)
    sync_folder(os.path.dirname(path) or ".")


def sync(path):
    """Wait until the file or the folder `path`, with all that is in it, has reached the disk."""
    if not os.path.isdir(path):
        _sync_file(path)
    for folder, _, files in os.walk(path):
        for name in files:
            _sync_file(os.path.join(folder, name))
        sync_folder(folder)


def make_folder(path):
    """Make the folder `path`, and those above it, where they are missing. Its name has reached the disk then."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:  # by another process, just now; or it is no folder
        if not os.path.isdir(path):
            raise
    sync_folder(os.path.dirname(path))


def sync_folder(path):
    """Wait until the names in the folder `path` have reached the disk; contents are another matter, see `sync`."""
    if os.name == "nt":  # where folders are not opened, and names are on the disk at once
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that do that by themselves, or not at all
            raise
    finally:
        os.close(number)


def _require_replaceable(path):
    """OSError: a folder, a pipe or a device is at `path`. It would be in vain to write beside a folder; of a device,
    such as /dev/null, root would make a file."""
    if os.path.isdir(path):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    of_process = os.path.islink(path) and os.readlink(path).startswith("/proc/")  # /dev/stdout is
    if of_process or (os.path.exists(path) and not os.path.isfile(path)):
        raise OSError(errno.EINVAL, "it is no regular file", path)


def _beside(path):
    folder, name = os.path.split(path)
    ending = f".tmp{os.getpid()}"
    return os.path.join(folder, os.fsdecode(os.fsencode(name)[: LONGEST - len(ending)]) + ending)


def _sync_file(path):
    if os.path.islink(path):  # a name, which its folder holds
        return
    number = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
