"""tools/count_hops.py, and how many files a reader of one training iteration goes through."""

import functools

import pytest
import torch

from caffe.net_state import filter_net
from caffe.proto import caffe_pb2
from tools import count_hops


def test_hops_are_calls_from_one_file_into_another():
    net = caffe_pb2.NetParameter()
    for phase in (0, 1, 1):
        net.layer.add(name="x").include.add(phase=phase)
    files, hops = count_hops.counted(functools.partial(filter_net, net))  # tells the log of a rule that does not fit
    assert files == {"caffe/net_state.py", "caffe/glog.py"}
    assert hops == {("caffe/net_state.py", "caffe/glog.py"): 1}


@pytest.mark.medium
@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the way of an iteration on the CPU")
def test_an_iteration_stays_as_short_to_follow():
    files, hops = count_hops.iteration(None)
    assert {"caffe/executor.py", "caffe/torch_layer.py", "caffe/updates.py"} <= files
    assert len(files) <= 20, sorted(files)
    assert sum(hops.values()) <= 1600, hops.most_common(10)
