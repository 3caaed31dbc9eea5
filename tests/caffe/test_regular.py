"""What is read is a regular file of a bearable size: else one sentence, and nobody waits for a pipe or /dev/zero."""

import os
import re
from pathlib import Path

import pytest

import caffe
from caffe import regular, weights
from caffe.errors import CaffeError
from caffe.tools import classify, parse_log
from eval import cli, compare, deploy
from eval.features import arrays_of, is_embeddings, read_cache
from eval.people import People
from eval.weights import read_weights
from layers.datasets import DATASETS
from layers.digest import sha256
from layers.frames import DataError
from layers.split import read_excluded, read_partition
from layers.unpickle import array_like, load_array, load_arrays
from tools.import_weights import read_state

ROOT = Path(__file__).resolve().parents[2]
NET = """
name: "small" input: "data" input_shape { dim: 1 dim: 2 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
"""
READERS = {
    "a state dict": lambda path: read_state(path),
    "safetensors": lambda path: read_state(path.rename(f"{path}.safetensors")),
    "HDF5": lambda path: weights.open_hdf5(path, "solver state").__enter__(),
    "weights": lambda path: caffe.Net(str(path.with_name("net.prototxt")), caffe.TEST).copy_from(str(path)),
    "weights of an evaluation": read_weights,
    "features": lambda path: cli.read_features(DATASETS["walkers"], path),
    "features to compare": lambda path: compare.read(DATASETS["walkers"], str(path)),
    "embeddings": is_embeddings,
    "a cache": read_cache,
    "arrays": lambda path: arrays_of(path, "arrays").__enter__(),
    "people": People.read,
    "a checksum": sha256,
    "pickles": load_arrays,
    "a pickle": load_array,
    "a pickle's shape": array_like,
    "excluded walks": read_excluded,
    "a partition": read_partition,
    "a deploy net": deploy.read_net,
    "a log": lambda path: list(parse_log.read(path)),
    "an image": lambda path: caffe.io.load_image(str(path)),
    "an array": lambda path: classify._load(str(path)),
}


def links_to(target):
    return lambda path: os.symlink(target, path)


def endless(path):
    with open(path, "wb") as file:
        file.truncate(2**42)  # sparse: it takes no room


KINDS = {"pipe": os.mkfifo, "zero": links_to("/dev/zero"), "unreadable": links_to("/proc/self/mem"), "endless": endless}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_says_what_is_wrong(tmp_path, reader, kind):
    if (reader, kind) == ("safetensors", "unreadable"):
        pytest.skip("of it the package tells by an exception of its own, see tools/import_weights.py")
    path = tmp_path / "there"
    KINDS[kind](path)
    (tmp_path / "net.prototxt").write_text(NET)
    with pytest.raises((CaffeError, DataError, ValueError, OSError)) as told:
        READERS[reader](path)
    assert "\n" not in str(told.value)


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffé".encode())
    assert regular.open_file(tmp_path / "a", 5).read() == "\ufeffé".encode()
    assert regular.read_text(tmp_path / "a", 5, "utf-8-sig") == "é"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        regular.open_file(tmp_path / "a", 4)
    with pytest.raises(FileNotFoundError):
        regular.open_file(tmp_path / "b")


def test_a_net_without_an_input_classifies_nothing(tmp_path):
    (tmp_path / "net.prototxt").write_text('name: "none"')
    (tmp_path / "w.caffemodel").write_bytes(caffe.proto.caffe_pb2.NetParameter(name="none").SerializeToString())
    with pytest.raises(CaffeError, match="'none' has no input for images"):
        caffe.Classifier(str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel"))


@pytest.mark.parametrize("shape", [f"({10**40},)", f"({2**62},)", "'x'"])
def test_an_array_of_a_shape_that_lies_is_one_sentence(tmp_path, shape):
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\0v\0" + head)
    with pytest.raises(CaffeError, match="no array can be read from it"):
        classify._load(str(tmp_path / "x.npy"))


def test_nothing_else_in_the_packages_opens_files_for_reading():
    """The user's, that is: these open the system's, a lock file, the project's own, and nothing at all."""
    known = {"caffe/blob.py", "caffe/locks.py", "eval/compare.py", "caffe/io.py"}
    reads = re.compile(r"(?<![\w.])(?<!def )open\((?![^\n]*[\"'](?:w|wb|a)[\"'])|read_text\(encoding|read_bytes\(\)")
    found = set()
    for room in ("caffe", "layers", "eval"):
        for path in (ROOT / room).rglob("*.py"):
            if path.name not in ("caffe_pb2.py", "regular.py") and reads.search(path.read_text()):
                found.add(str(path.relative_to(ROOT)))
    assert found <= known, found - known
