"""A file of weights, opened and read once: its hash, and the arrays of every layer, whatever Caffe runs the net.

A .caffemodel is a NetParameter (caffe.proto); the numbers of a blob stand in it as an array's bytes do in memory, so
they are taken from where they lie, and the message is not built.
"""

import functools
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layers.bundled import regular, wire_format
from layers.digest import MOST_BYTES

LAYERS = {100: (1, 7), 2: (4, 6)}  # field of NetParameter: in it, the fields of a layer's name and of its blobs
DATA, DOUBLE_DATA, SHAPE = 5, 8, 7  # fields of BlobProto; 1..4 are num, channels, height, width of old files


@dataclass(frozen=True)
class Weights:
    """blobs: {layer: its arrays, float32 in the shapes of the file}; of layers without parameters nothing."""

    path: Path
    sha256: str
    blobs: dict[str, list[np.ndarray]]

    @property
    def people(self):
        """How many people the identity layer tells apart; None where there is no such layer."""
        first = self.blobs.get("fc_id", [np.zeros(0)])[0]
        return first.shape[-2] if first.ndim > 1 else None

    def copy_to(self, net):
        """Set every parameter of a net. ValueError: the file lacks a layer, or one has other shapes."""
        missing = sorted(set(net.params) - self.blobs.keys())
        if missing:
            raise ValueError(
                f"{self.path}: no weights for {', '.join(missing)}; wanted those of a trained GaitNet, "
                "such as gaitnet-sia_iter_30000.caffemodel"
            )
        for name, blobs in net.params.items():
            found, wanted = [x.shape for x in self.blobs[name]], [blob.data.shape for blob in blobs]
            if [trimmed(shape) for shape in found] != [trimmed(shape) for shape in wanted]:
                raise ValueError(
                    f"{self.path}: layer {name} has parameters {listed(found)}, the net's are {listed(wanted)}; "
                    "wanted the weights of a GaitNet"
                )
            for blob, array in zip(blobs, self.blobs[name]):
                blob.data[...] = array.reshape(blob.data.shape)


def trimmed(shape):
    """Without leading ones, which old files have."""
    return shape[next((i for i, n in enumerate(shape) if n != 1), len(shape)) :]


def listed(shapes):
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)


def read_weights(path) -> Weights:
    """Weights of a .caffemodel or .caffemodel.h5, kept until other ones are asked for. ValueError: it is none."""
    stat = os.stat(path)
    return _read(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path, _size, _time):
    with regular.open_file(path, MOST_BYTES) as file:
        content = file.read()
    try:
        blobs = hdf5_blobs(content) if path.endswith(".h5") else message_blobs(content)
    except (ValueError, KeyError, OSError, AttributeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path}: not a .caffemodel, or a damaged one ({e})") from e
    return Weights(Path(path), hashlib.sha256(content).hexdigest(), blobs)


def hdf5_blobs(content):
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        return {
            name: [np.asarray(blobs[i], np.float32) for i in sorted(blobs, key=int)]
            for name, blobs in file["data"].items()
            if len(blobs)
        }


def message_blobs(content):
    found: dict[str, list[np.ndarray]] = {}
    for field, layer in fields_of(memoryview(content)):
        if field not in LAYERS or not isinstance(layer, memoryview):
            continue
        name_field, blob_field = LAYERS[field]
        name, blobs = "", []
        for inner, value in fields_of(layer):
            if inner == name_field:
                name = bytes(value).decode()
            elif inner == blob_field:
                blobs.append(blob_array(value))
        if blobs:
            found.setdefault(name, blobs)  # the first of a name, as in Caffe
    return found


def blob_array(message):
    """A BlobProto as an array."""
    pieces, old, shape = [], {}, None
    for field, value in fields_of(message):
        if field in (DATA, DOUBLE_DATA):
            kind = "<f4" if field == DATA else "<f8"
            pieces.append(np.frombuffer(value, kind))
        elif field == SHAPE:
            shape = [n for inner, dims in fields_of(value) if inner == 1 for n in numbers_of(dims)]
        elif field <= 4:
            old[field] = value
    values = np.concatenate(pieces) if len(pieces) != 1 else pieces[0]
    if shape is None:
        shape = [old.get(field, 0) for field in range(1, 5)] if old else [values.size]
    return values.astype(np.float32, copy=False).reshape(shape)


def numbers_of(packed):
    if isinstance(packed, int):
        yield packed
        return
    place = 0
    while place < len(packed):
        number, place = wire_format.varint(packed, place)
        yield number


def fields_of(message):
    """(number, value) of every field of a message: an int for a varint, else a view of its bytes."""
    for field, kind, _, at, end in wire_format.fields(message):
        yield field, wire_format.varint(message, at)[0] if kind == wire_format.NUMBER else message[at:end]
