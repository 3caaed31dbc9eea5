"""Where a result comes from: hashes of what went in, versions of what computed it."""

import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from eval.runtime import BUNDLED, which_caffe
from layers.bundled import revision

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "torch", "matplotlib")


def fingerprint(root, folders):
    """Hash of path, size and time of change of every file in the folders below `root`; no file is opened."""
    digest = hashlib.sha256()
    for folder in folders:
        place = os.path.join(root, folder)
        for entry in sorted(os.scandir(place) if os.path.isdir(place) else (), key=lambda entry: entry.name):
            stat = entry.stat()
            digest.update(f"{folder}/{entry.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def device(gpu):
    """What computed: the GPU of this number, or for None the CPU."""
    if gpu is None:
        return f"cpu ({platform.machine()}), {os.cpu_count()} cores"
    torch = sys.modules.get("torch")  # BVLC Caffe has a GPU without it
    return f"cuda:{gpu}" + (f" ({torch.cuda.get_device_name(gpu)})" if torch else "")


def versions():
    """Versions of Python, the packages and this repository (its commit, with +changes when tracked files differ)."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in PACKAGES:
        if package == "torch" and which_caffe() != BUNDLED:
            continue  # though it may be installed
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    if commit := revision.commit():
        found["commit"] = commit
    return found
