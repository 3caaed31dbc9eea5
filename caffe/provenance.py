"""The head of a log: what is needed to repeat the run. Data layers add a line about their data with `caffe.log`."""

import os
import platform
import time
from importlib import metadata

from caffe import glog as log
from caffe.revision import commit

PACKAGES = ("gaitnet-caffe", "torch", "numpy", "opencv-python-headless", "protobuf", "h5py")  # the first is this one


def log_header(command: str, seed: int | None = None) -> None:
    """Write one line each about command, folder, commit, versions, device, and seed if there is one to tell yet."""
    told = {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),  # of the lines' prefixes, which lack year and zone
        "command": command,
        "folder": os.getcwd(),
        "commit": commit(),
        "versions": versions(),
        "device": device(),
        "seed": "" if seed is None else str(seed),
    }
    for what, text in told.items():
        if text:
            log.info("provenance.py:1", f"{what}: {text}")


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue  # not installed, only on PYTHONPATH; or OpenCV under another name
    return ", ".join(found)


def device() -> str:
    import torch

    from caffe import device

    where = device.current
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    return f"{where} ({name}), {torch.get_num_threads()} CPU threads"
