"""Names of files and folders: what is data, and what a file manager, an archiver or a file server left there."""

import os
import re

NOISE = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "@eadir",
    "#recycle",
    "__macosx",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
_PARTS = re.compile(r"(\D*)(\d*)")


def is_noise(name):
    """Is it hidden (.DS_Store, ._001.png, .001.partial) or the work of some system (Thumbs.db, @eaDir)?"""
    return name.startswith(".") or name.lower() in NOISE


def of_data(names):
    """The names that are no noise, sorted."""
    return sorted(name for name in names if not is_noise(name))


def in_order(names):
    """Sorted, 2.png before 10.png. Of names of one length, as of those with leading zeros, the plain order."""
    if len({len(name) for name in names}) == 1:
        return sorted(names)
    return sorted(names, key=lambda name: ([(text, int(number or 0)) for text, number in _PARTS.findall(name)], name))


def some(names, shown=5):
    """The first few of many names, for a sentence."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def folders(root, path=""):
    """Sorted names of the folders below `root`/`path`, those of noise left out. OSError: it cannot be listed."""
    with os.scandir(os.path.join(root, path)) as entries:
        return of_data([entry.name for entry in entries if entry.is_dir()])
