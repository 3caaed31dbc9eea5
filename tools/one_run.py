"""One run at a time in a folder, or at a file: a second one that would write there is refused."""

import contextlib
import os

from caffe.locks import Held, hold
from layers.bundled import whole


@contextlib.contextmanager
def only_run(folder):
    """Hold `folder`, made where it is missing: a second run that would write there gets a BlockingIOError."""
    whole.make_folder(folder)
    with only_writer(folder, os.path.join(folder, ".lock")):
        yield


@contextlib.contextmanager
def only_writer(path, lock_path):
    """Hold `path` by the lock `lock_path`: a second run that would write there gets a BlockingIOError."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold(lock_path))
        except Held as e:
            told = f"{path}: another run (process {e.process}) is writing there; wait for that one"
            raise BlockingIOError(told) from None
        yield
