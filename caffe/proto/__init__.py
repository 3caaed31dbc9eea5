"""Caffe's protobuf messages; `from caffe.proto import caffe_pb2`."""
