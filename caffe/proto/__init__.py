"""Caffe's protobuf messages; `from caffe.proto import caffe_pb2`."""

from caffe.proto import caffe_pb2  # noqa: F401 - pycaffe users write caffe.proto.caffe_pb2
