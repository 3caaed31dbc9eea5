"""What `debug_info: true` adds to the log: mean magnitudes of all that is computed (Caffe: net.cpp)."""

import math

from caffe import glog as log


def forward(wiring, node):
    """After the forward pass of this node."""
    for i, blob in zip(node.top_ids, node.tops):
        told = f"    [Forward] Layer {node.name}, top blob {wiring.names[i]} data: {_mean_abs(blob.memory)}"
        log.info("net.cpp:593", told)
    for k, blob in enumerate(node.layer.blobs):
        spec = node.param.param[k].name if k < len(node.param.param) else ""
        told = f"    [Forward] Layer {node.name}, param blob {spec or k} data: {_mean_abs(blob.memory)}"
        log.info("net.cpp:605", told)


def backward(wiring, node):
    """After the backward pass of this node."""
    for i, blob, wanted in zip(node.bottom_ids, node.bottoms, node.duty.bottoms):
        if wanted:
            told = f"    [Backward] Layer {node.name}, bottom blob {wiring.names[i]} diff: {_mean_abs(blob.grad)}"
            log.info("net.cpp:621", told)
    for k, (blob, learns) in enumerate(zip(node.layer.blobs, node.duty.params)):
        if learns:
            log.info("net.cpp:632", f"    [Backward] Layer {node.name}, param blob {k} diff: {_mean_abs(blob.grad)}")


def params(wiring):
    """After the backward pass of all nodes."""
    data = [p.blob.memory.tensor() for p in wiring.learned]
    diff = [p.blob.grad.tensor() for p in wiring.learned]
    l1 = [log.number(sum(float(t.abs().sum()) for t in tensors)) for tensors in (data, diff)]
    l2 = [log.number(math.sqrt(sum(float(t.square().sum()) for t in tensors))) for tensors in (data, diff)]
    told = f"L1 norm = ({', '.join(l1)}); L2 norm = ({', '.join(l2)})"
    log.error("net.cpp:721", f"    [Backward] All net params (data, diff): {told}")


def _mean_abs(memory):
    tensor = memory.tensor()
    return log.number(float(tensor.abs().sum()) / max(tensor.numel(), 1))
