"""Writing files so that a reader never meets half of one."""

import contextlib
import os

from caffe.errors import CaffeError


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary name in the folder of `path`; when all went well it is synced and takes the real name."""
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        yield temporary
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise CaffeError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
