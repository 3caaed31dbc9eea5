"""Weights on disk: .caffemodel (binary NetParameter) and HDF5, copied by layer name (Caffe: net.cpp)."""

import contextlib
import os

import h5py
import numpy as np
import torch

from caffe import glog as log
from caffe import packed
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.files import atomic_path, write_sealed
from caffe.proto import caffe_pb2
from caffe.read import read_binary, read_net_binary
from caffe.regular import open_file

# ---- one blob


def blob_from_proto(blob, proto, where, reshape=False):
    """Copy BlobProto `proto` into `blob`; a shape mismatch is an error told with `where` unless `reshape`."""
    shape = packed.shape(proto)
    if reshape:
        blob.reshape(*shape)
    elif not _same_shape(blob.shape, proto, shape):
        raise _mismatch(where, blob.shape, shape)
    values = packed.read_values(proto)
    if len(values) != blob.count:
        raise CaffeError(f"{where} holds {len(values)} values for shape {shape}; the file is damaged")
    blob.memory.assign(torch.from_numpy(values.reshape(blob.shape)))
    diff = packed.read(proto, "double_diff" if len(proto.double_diff) else "diff")
    if len(diff) == blob.count and blob.count:
        blob.grad.assign(torch.from_numpy(diff.reshape(blob.shape)))


def _same_shape(own, proto, shape):
    if packed.is_old(proto):
        return len(own) <= 4 and (1,) * (4 - len(own)) + tuple(own) == tuple(shape)  # old files pad in front
    return tuple(own) == tuple(shape)


def _mismatch(where, own, shape):
    return CaffeError(
        f"{where} shape mismatch. Source param shape is {_told(shape)}; target param shape is {_told(own)}. "
        "To learn this layer's parameters from scratch rather than copying from a saved net, rename the layer."
    )


def _told(shape):
    count = int(np.prod(shape, dtype=np.int64))
    return f"{' '.join(str(d) for d in shape)} ({count})"


def blob_to_proto(blob, proto, write_diff=False):
    """Write `blob` into BlobProto `proto` (shape and data, and the diff when asked)."""
    proto.shape.dim.extend(blob.shape)
    packed.write(proto, "data", blob.tensor().detach().to("cpu").numpy())
    if write_diff:
        packed.write(proto, "diff", blob.grad.tensor().detach().to("cpu").numpy())


def read_array(path) -> np.ndarray:
    """The float32 array in the BlobProto file `path`, usually named .binaryproto (mean images, infogain matrices)."""
    blob = Blob()
    blob_from_proto(blob, read_binary(path, caffe_pb2.BlobProto), str(path), reshape=True)
    return blob.data


# ---- a net


def to_proto(net, write_diff=False) -> caffe_pb2.NetParameter:
    """NetParameter with all layers of the net and their parameters, as snapshots hold it."""
    result = caffe_pb2.NetParameter(name=net.name)
    for node in net.nodes:
        saved = result.layer.add()
        saved.CopyFrom(node.param)
        del saved.blobs[:]
        if node.builtin.is_loss and not saved.loss_weight:
            saved.loss_weight.append(1.0)
        for blob in node.layer.blobs:
            blob_to_proto(blob, saved.blobs.add(), write_diff)
    return result


def save(net, path, write_diff=False):
    write_sealed(path, to_proto(net, write_diff).SerializeToString())


def copy_from(net, path):
    """Copy the weights of the layers that `net` has; others in the file are ignored (and logged). The layers' names.

    A warning where the file has no layer that the net could learn: it is of another net, or names were changed."""
    # Caffe, too, takes a missing file for HDF5.
    hdf5 = not os.path.exists(path) or is_hdf5(path)
    copied = copy_from_hdf5(net, path) if hdf5 else _copy_from_binary(net, path)
    wanted = [node.name for node in net.nodes if node.layer.blobs]
    if wanted and not copied & set(wanted):
        log.warning(log.here(), f"{path}: has weights for none of the net's layers, such as {wanted[0]}")
    return copied


def _copy_from_binary(net, path):
    source = read_net_binary(path)
    wanted, found = any(node.layer.blobs for node in net.nodes), any(saved.blobs for saved in source.layer)
    if wanted and not found and not source.HasField("checksum"):
        raise CaffeError(f"{path}: holds no weights at all; it was emptied or cut off")
    return copy_from_proto(net, source, path)


def copy_from_proto(net, source, path):
    layers = net.wiring.by_name()
    for saved in source.layer:
        if saved.name not in layers:
            log.info("net.cpp:744", f"Ignoring source layer {saved.name}")
            continue
        own = layers[saved.name].layer
        if len(own.blobs) != len(saved.blobs):
            raise CaffeError(
                f"{path}: Incompatible number of blobs for layer {saved.name} "
                f"({len(saved.blobs)} in the file, {len(own.blobs)} in the net)"
            )
        for i, (blob, proto) in enumerate(zip(own.blobs, saved.blobs)):
            blob_from_proto(blob, proto, f"{path}: Cannot copy param {i} weights from layer '{saved.name}';")
    return layers.keys() & {saved.name for saved in source.layer}


# ---- HDF5: group `data/<layer>/<i>`, and `diff/...` when asked


def save_hdf5(net, path, write_diff=False):
    names = [node.name for node in net.nodes]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise CaffeError(f"{path}: two layers are named '{twice}', which HDF5 cannot hold; save as .caffemodel")
    for name in names:
        if "/" in name or name in ("", "."):
            raise CaffeError(f"{path}: a layer is named '{name}', which HDF5 cannot hold; save as .caffemodel")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as f:
        groups = [(f.create_group("data"), lambda b: b.tensor())]
        if write_diff:
            groups.append((f.create_group("diff"), lambda b: b.grad.tensor().reshape(b.shape)))
        for group, values in groups:
            for node in net.nodes:
                inner = group.create_group(node.name)
                for k, blob in enumerate(node.layer.blobs):
                    if values is groups[0][1] and not _owns(net, node, k):
                        continue  # shared parameters are stored with their owner
                    create_checked(inner, str(k), values(blob).detach().to("cpu").numpy())


def create_checked(group, name, array):
    """A data set with a checksum, so that HDF5 refuses to read it once a bit has flipped (Caffe's HDF5 does, too)."""
    group.create_dataset(name, data=array, fletcher32=array.size > 0 and array.ndim > 0)


def _owns(net, node, k):
    """Whether no other parameter before it is the same one."""
    number = node.param_ids[k]
    return node.param_ids.index(number) == k and not any(number in n.param_ids for n in net.nodes[: node.index])


def copy_from_hdf5(net, path):
    with open_hdf5(path, "weights") as f:
        if "data" not in f:
            raise CaffeError(f"{path}: not a Caffe weights file (it has no group 'data')")
        nodes = net.wiring.by_name()
        for name, group in f["data"].items():
            if name in nodes:
                _copy_group(net, nodes[name], group, path)
            else:
                log.info("net.cpp:785", f"Ignoring source layer {name}")
        return nodes.keys() & set(f["data"])


def _copy_group(net, node, group, path):
    name, blobs = node.name, node.layer.blobs
    for k, blob in enumerate(blobs):
        if str(k) not in group:
            if _owns(net, node, k):
                raise CaffeError(
                    f"{path}: Incompatible number of blobs for layer {name} ({len(group)} in the file, "
                    f"{len(blobs)} in the net)"
                )
            continue
        data = group[str(k)]
        if tuple(data.shape) != blob.shape:
            where = f"{path}: Cannot copy param {k} weights from layer '{name}';"
            raise _mismatch(where, blob.shape, data.shape)
        blob.memory.assign(torch.from_numpy(hdf5_values(data)))


def hdf5_values(dataset):
    """A data set as float32; its shape was compared with the blob's before, so that the values fit into memory."""
    chunk = int(np.prod(dataset.chunks, dtype=np.float64)) if dataset.chunks else 0
    if chunk > dataset.size + 2**24:  # HDF5 unpacks a chunk as a whole
        raise ValueError(f"{dataset.name} has chunks of {chunk} values, and {dataset.size} in all")
    return np.asarray(dataset, np.float32)


def is_hdf5(path):
    """Whether the file begins as HDF5 does. Not so what is no regular file, or cannot be read: its reader tells why."""
    with contextlib.suppress(OSError):
        return os.path.isfile(path) and h5py.is_hdf5(path)
    return False


@contextlib.contextmanager
def open_hdf5(path, what):
    """The HDF5 file `path`, which should hold Caffe `what`; whatever goes wrong in reading it is one CaffeError."""
    if not os.path.exists(path):
        raise CaffeError(f"Couldn't open {path} (no such file)")
    try:
        with open_file(path), h5py.File(path, "r") as f:  # the first opens no pipe or device
            yield f
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as e:
        raise CaffeError(f"{path}: not a file of Caffe {what}, or damaged ({' '.join(str(e).split())})") from e
