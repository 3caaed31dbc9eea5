"""The module that old code imports Net and the solvers from: `from caffe.pycaffe import Net`."""

import caffe


def __getattr__(name):
    return getattr(caffe, name)
