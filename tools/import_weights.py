#!/usr/bin/env python
"""Writes a PyTorch state dict, as `tools/export.py` makes it, back as a .caffemodel; .safetensors, too.

tools/import_weights.py gaitnet.pt gaitnet.caffemodel
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import reprlib
import warnings
import zipfile

import torch

import caffe
from caffe.regular import open_file
from caffe.state_dict import load_state_dict
from eval.deploy import PROTOTXT

ZIP = b"PK\x03\x04"  # what torch takes for its archive


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Example: tools/import_weights.py gaitnet.pt gaitnet.caffemodel"
    )
    parser.add_argument("state", help="PyTorch state dict")
    parser.add_argument("caffemodel", help="file to write; .h5 at the end: HDF5")
    parser.add_argument("--model", default=str(PROTOTXT), help="prototxt of the net")
    args = parser.parse_args(argv)
    try:
        net = caffe.Net(args.model, caffe.TEST)
        load_state_dict(net, read_state(args.state), args.state)
        (net.save_hdf5 if args.caffemodel.endswith(".h5") else net.save)(args.caffemodel)
    except caffe.CaffeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(f"{args.caffemodel}: {sum(len(blobs) for blobs in net.params.values())} parameters")
    return 0


def read_state(path):
    """{name: tensor} of the file; nothing in it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of damaged files
            if str(path).endswith(".safetensors"):
                from safetensors.torch import load_file  # an optional package

                with open_file(path):  # which is no pipe
                    state = load_file(path)
            else:
                with open_file(path) as file:
                    require_stored(path, file)
                    state = torch.load(file, map_location="cpu", weights_only=True)
    except ImportError as e:
        raise caffe.CaffeError(f"{path}: needs the package safetensors: pip install safetensors") from e
    except OSError as e:
        raise caffe.CaffeError(f"{path}: {e.strerror or e}") from e
    except caffe.CaffeError:
        raise
    except Exception as e:  # a damaged file raises nearly any exception
        raise caffe.CaffeError(f"{path}: not a PyTorch state dict, or damaged") from e
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise caffe.CaffeError(f"{path}: holds no state dict (a dict of names and tensors)")
    for name, value in state.items():
        if not is_plain(value):
            raise caffe.CaffeError(
                f"{path}: {reprlib.repr(name)} is no tensor of finite real numbers, stored one by one"
            )
    return state


def require_stored(path, file):
    """CaffeError: the file is an archive that unpacks to more bytes than it has, which torch.save writes none of."""
    begin = file.read(len(ZIP))
    file.seek(0)
    if begin != ZIP:
        return
    with zipfile.ZipFile(file) as members:
        unpacked = sum(member.file_size for member in members.infolist())
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    if unpacked > size:
        raise caffe.CaffeError(
            f"{path}: has {size} bytes and unpacks to {unpacked}; wanted a file as torch.save writes it"
        )


def is_plain(value) -> bool:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.is_nested:
        return False
    stored = not value.is_meta and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    return stored and not value.is_complex() and bool(torch.isfinite(value.float()).all())


if __name__ == "__main__":
    sys.exit(program.run(main))
