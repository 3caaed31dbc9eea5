"""A single array in a file: a BlobProto, usually named .binaryproto (mean images, infogain matrices)."""

import numpy as np

from caffe.blob import Blob
from caffe.proto import caffe_pb2
from caffe.read import read_binary
from caffe.weights import blob_from_proto


def read_array(path) -> np.ndarray:
    """The float32 array in the BlobProto file `path`, in its own shape."""
    blob = Blob()
    blob_from_proto(blob, read_binary(path, caffe_pb2.BlobProto), str(path), reshape=True)
    return blob.data
