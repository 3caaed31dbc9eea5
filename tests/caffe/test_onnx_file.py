"""`caffe.to_onnx`: what it makes of a net; layers of detection: tests/caffe/forks/test_onnx.py."""

import pytest
from google.protobuf import text_format

import caffe
from caffe import onnx_file
from caffe.proto import caffe_pb2

UNEQUAL = """layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { axis: 0 slice_point: 1 slice_point: 9 } }
"""


def test_unequal_cuts_of_the_batch_cannot_be_exported():
    with pytest.raises(caffe.CaffeError, match=r"layer 'cut' cuts the batch at \[1, 9\]"):
        onnx_file.any_batch(text_format.Parse(UNEQUAL, caffe_pb2.NetParameter()))
    equal = onnx_file.any_batch(text_format.Parse(UNEQUAL.replace("9", "2"), caffe_pb2.NetParameter()))
    assert not equal.layer[1].slice_param.slice_point
