"""What the tests of layer types share: a net around one layer, and gradients by finite differences."""

import numpy as np
from google.protobuf import text_format

import caffe
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import in_our_words


def layer_net(layer, *shapes, tops=1, phase=caffe.TRAIN, in_place=False):
    """A net of inputs b0, b1, .. of these shapes and one layer "layer" with tops t0, t1, .. (in_place: one top, b0);
    `layer` is the text of its other fields (`type: "ReLU" relu_param { .. }`). All gradients are computed."""
    bottoms = [f"b{i}" for i in range(len(shapes))]
    param = caffe_pb2.NetParameter(force_backward=True)
    for name, shape in zip(bottoms, shapes):
        source = param.layer.add(name=f"in_{name}", type="Input", top=[name])
        source.input_param.shape.add(dim=shape)
    names = ["b0"] if in_place else [f"t{i}" for i in range(tops)]
    tested = param.layer.add(name="layer", bottom=bottoms, top=names)
    text_format.Merge(in_our_words(layer, tested.DESCRIPTOR)[0], tested)
    param.state.phase = phase
    return Net.from_proto(param, seed=1)


def tops_of(net):
    """Copies of the tops t0, t1, .. as they are now."""
    return [net.blobs[name].data.copy() for name in net.top_names["layer"]]


def forward(net, *bottoms):
    """Write the bottoms, run the net, return copies of the tops."""
    for i, value in enumerate(bottoms):
        net.blobs[f"b{i}"].data[...] = value
    net.forward()
    return tops_of(net)


def backward(net, *top_diffs):
    """Write the tops' diffs, run backward, return copies of the bottoms' diffs."""
    for name, value in zip(net.top_names["layer"], top_diffs):
        net.blobs[name].diff[...] = value
    net.backward()
    return [net.blobs[name].diff.copy() for name in net.bottom_names["layer"]]


def check_gradients(net, *bottoms, wrt=(0,), params=True, tops=None, step=1e-2, tolerance=2e-3, seed=0):
    """Compare the diffs of the bottoms `wrt` and of the parameters with central differences of the tops.

    The objective is the tops (those numbered in `tops`, all by default) times fixed random numbers, summed in float64.
    With outputs of order 1 a step of 1e-2 leaves about 1e-5 of float32 rounding and 1e-4 of curvature; `tolerance` is
    relative to the largest element, as in Caffe's own checker. Inputs must lie further than `step` from any kink."""
    rng = np.random.default_rng(seed)
    found = forward(net, *bottoms)
    used = range(len(found)) if tops is None else tops
    weights = [rng.normal(size=t.shape) if i in used else np.zeros(t.shape) for i, t in enumerate(found)]
    for blob in net.params.get("layer", []):
        blob.diff[...] = 0
    backward(net, *weights)
    blobs = [net.blobs[f"b{i}"] for i in wrt] + (list(net.params.get("layer", [])) if params else [])
    diffs = [blob.diff.copy() for blob in blobs]

    def objective():
        net.forward()
        return sum((t.astype(np.float64) * w).sum() for t, w in zip(tops_of(net), weights))

    for blob, diff in zip(blobs, diffs):
        numeric = np.zeros(blob.shape)
        for index in np.ndindex(*blob.shape):
            old = blob.data[index]
            blob.data[index] = old + step  # `data` anew each time: on a GPU Caffe brings only then what is written
            above = objective()
            blob.data[index] = old - step
            numeric[index] = (above - objective()) / (2 * step)
            blob.data[index] = old
        np.testing.assert_allclose(diff, numeric, rtol=0, atol=tolerance * max(1, np.abs(numeric).max()))
