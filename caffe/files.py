"""Files that are whole or not there, and that tell when they were damaged afterwards."""

import contextlib
import glob
import os
import re
import zlib

from caffe import whole
from caffe.errors import CaffeError
from caffe.locks import Held, hold
from caffe.regular import open_file

# A seal begins a binary protobuf file: field `checksum` (1001) with these words, then length and CRC32 of all that
# follows. Other readers, BVLC Caffe's too, skip a field that they do not know. Who parses the file, edits the message
# and writes it again puts the field after those of smaller number or, unknown to him, after all others. So a seal in
# front tells of these very bytes; one elsewhere tells that the file was edited since.
_WORDS = b"\xca\x3e\x1dlength and CRC32:"
_SEAL_BYTES = len(_WORDS) + 12


@contextlib.contextmanager
def atomic_path(path):
    """As `caffe.whole.atomic_path`; what cannot be written is a CaffeError."""
    with _writing(path), whole.atomic_path(path) as temporary:
        yield temporary


def write(path, content) -> None:
    """As `caffe.whole.write`; what cannot be written is a CaffeError."""
    with _writing(path):
        whole.write(path, content)


@contextlib.contextmanager
def _writing(path):
    try:
        yield
    except OSError as e:
        raise CaffeError(f"cannot write {path}: {e.strerror or e}") from e


def write_sealed(path, content: bytes) -> None:
    """Write `content`, a serialized protobuf message, behind its seal; the file is there whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        f.write(_seal(content))
        f.write(content)


def check_seal(content: bytes, path) -> bool:
    """Does `content`, that of the file `path`, begin with a seal? CaffeError: with one that does not fit it."""
    begin = content[: len(_WORDS)]
    if 2 * sum(a == b for a, b in zip(begin, _WORDS)) <= len(_WORDS):  # half of it still tells: it may be damaged, too
        return False
    if content[:_SEAL_BYTES] != _seal(memoryview(content)[_SEAL_BYTES:]):
        raise CaffeError(f"{path}: the file is damaged (its checksum does not fit its contents); use an older snapshot")
    return True


def _seal(content):
    return _WORDS + len(content).to_bytes(8, "little") + zlib.crc32(content).to_bytes(4, "little")


def seal_of(path) -> bytes:
    """The first bytes of a file, where its seal lies: what tells one sealed file from another."""
    with _reading(path) as f:
        return f.read(_SEAL_BYTES)


def bears_seal(path, seal: bytes) -> bool:
    """Whether the file is the one that had this seal, or an edited one, which carries it at its end."""
    with _reading(path) as f:
        begin = f.read(len(seal))
        f.seek(max(f.seek(0, os.SEEK_END) - len(seal), 0))
        return seal in (begin, f.read())


@contextlib.contextmanager
def _reading(path):
    try:
        with open_file(path) as f:
            yield f
    except OSError as e:
        raise CaffeError(f"Cannot read {path}: {e.strerror or e}") from e


def listed(paths) -> list[str]:
    """The paths in a text that separates them by commas, as Caffe's --weights does; blanks around them are none."""
    return [path for path in map(str.strip, paths.split(",")) if path]


@contextlib.contextmanager
def only_run(prefix):
    """Hold the snapshots named `prefix`: a second run that would write the same files gets a CaffeError.

    What a killed run left half written under a temporary name is removed."""
    path = f"{prefix}.lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold(path))
        except Held as e:
            raise CaffeError(
                f"another run (process {e.process}) is writing snapshots named '{prefix}'; "
                "wait for it, or give this another snapshot_prefix"
            ) from None
        except OSError as e:
            raise CaffeError(f"cannot write {path}: {e.strerror}; snapshots would fail there too") from e
        for left in glob.glob(f"{glob.escape(prefix)}_iter_*.tmp*"):
            if re.search(r"\.tmp\d+$", left):
                os.unlink(left)
        yield
