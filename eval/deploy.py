"""The deploy net in two halves, so that a frame passes the segmentation branch once, however many clips it is in.

The deploy net takes one clip of six frames. Its segmentation branch treats frames one by one, its recognition branch
takes the sum of six masks; so the halves, fed with batches of frames and of sums, give what the whole gives clip by
clip. Every BatchNorm of the deploy net uses global statistics, which is why a batch does not change what it gives.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from eval.runtime import load_caffe
from eval.weights import read_weights
from layers.bundled import regular
from layers.datasets import NUM_FRAMES, SIZE
from layers.frames import fill_image_blob

PROTOTXT = Path(__file__).with_name("deploy_gaitnet.prototxt")
# Frames, clips a forward pass. More than 32 clips do not fit into a CPU's cache: 128 take three times as long each.
CPU_BATCH, GPU_BATCH = (64, 32), (512, 1024)
PARTS = ("segmentation", "recognition")


class DeployNet:
    """Masks of frames and features of clips, by the weights of a trained net.

    caffe: the module. prototxt: a deploy net. weights: a .caffemodel or .caffemodel.h5. batch: (frames, clips) a
    forward pass. parts: of PARTS those that are wanted; the weights need not hold the other. Raises ValueError where
    the file is no such net, or the weights lack one of its layers.
    """

    segmentation: Any
    recognition: Any

    def __init__(self, caffe, prototxt, weights, batch=CPU_BATCH, parts=PARTS):
        self.frames, self.clips = batch
        trained = read_weights(weights)
        for name, half in zip(PARTS, halves(read_net(prototxt), prototxt, *batch)):
            if name in parts:
                setattr(self, name, build(caffe, half, trained))

    def masks(self, planes):
        """planes (n, 4, 64, 64) uint8, see layers.frames -> (n, 64, 64) float32, probability of the person."""
        out = np.empty((len(planes), SIZE, SIZE), np.float32)
        for start in range(0, len(planes), self.frames):
            some = planes[start : start + self.frames]
            entry = resized(self.segmentation.blobs["im_cube"], len(some))
            fill_image_blob(some, entry.data)
            (result,) = self.segmentation.forward().values()
            out[start : start + len(some)] = result[:, 0]
        return out

    def features(self, sums):
        """sums (n, 64, 64) of the masks of six frames -> (n, 256)."""
        rows = []
        for start in range(0, len(sums), self.clips):
            some = sums[start : start + self.clips]
            entry = resized(self.recognition.blobs["temporal_fusion"], len(some))
            entry.data[:, 0] = some
            (result,) = self.recognition.forward().values()
            rows.append(result.copy())
        return np.concatenate(rows)


def open_net(weights, gpu=None, parts=PARTS):
    """The DeployNet of these weights on the CPU, or on GPU number `gpu`, in batches that suit it."""
    return DeployNet(load_caffe(gpu), PROTOTXT, weights, CPU_BATCH if gpu is None else GPU_BATCH, parts)


class SilhouetteNet(DeployNet):
    """The recognition branch on true masks: there are no frames to predict masks from."""

    def __init__(self, caffe, prototxt, weights, batch=CPU_BATCH):
        super().__init__(caffe, prototxt, weights, batch, parts=("recognition",))

    def masks(self, planes):
        return planes[:, 3].astype(np.float32) / 255


def resized(blob, count):
    """The blob, for `count` frames or clips: the last batch is smaller, and costs no more than what is in it."""
    if blob.shape[0] != count:
        blob.reshape(count, *blob.shape[1:])
    return blob


def literal_features(net, planes, starts):
    """The original's procedure: clips through the whole deploy net, one by one -> (len(starts), 256)."""
    rows = []
    for start in starts:
        for k in range(NUM_FRAMES):
            fill_image_blob(planes[start + k : start + k + 1], net.blobs[f"im{k}"].data)
        net.forward()
        rows.append(net.blobs["fc_fea"].data[0].copy())
    return np.stack(rows)


def build(caffe, net, weights):
    """A net in phase TEST, every parameter of which comes from the eval.weights.Weights."""
    with as_file(net) as path:  # pycaffe builds nets from files only
        built = caffe.Net(path, caffe.TEST)
    weights.copy_to(built)
    optimize = getattr(caffe, "optimize", None)  # Caffe itself has no such thing
    return optimize(built) if optimize else built


@contextlib.contextmanager
def as_file(net):
    """The path of a prototxt of the net, which goes afterwards."""
    from google.protobuf import text_format

    handle, path = tempfile.mkstemp(suffix=".prototxt")
    try:
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text_format.MessageToString(net))
        except OSError as e:
            folder = os.path.dirname(path)
            raise OSError(e.errno, f"{e.strerror}; TMPDIR may name another folder", folder) from e
        yield path
    finally:
        os.unlink(path)


def read_net(path):
    from google.protobuf import text_format

    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter()
    try:
        text_format.Parse(regular.read_text(path), net)
    except text_format.ParseError as e:
        raise ValueError(f"{path}: not a prototxt: {e}") from e
    return net


def halves(net, path, frames, clips):
    """The segmentation net (frames, 3, 64, 64) -> masks, and the recognition net (clips, 1, 64, 64) -> features."""
    place: dict[str, int] = {}
    for i, layer in enumerate(net.layer):
        place.setdefault(layer.name, i)
    try:
        cube, cut, fusion = (place[name] for name in ("im_cube", "make_pair", "temporal_fusion"))
    except KeyError as e:
        raise ValueError(
            f"{path}: no layer {e}; wanted a GaitNet deploy net, such as eval/deploy_gaitnet.prototxt"
        ) from None
    return (
        part(net, "im_cube", (frames, 3, SIZE, SIZE), net.layer[cube + 1 : cut]),
        part(net, "temporal_fusion", (clips, 1, SIZE, SIZE), net.layer[fusion + 1 :]),
    )


def part(net, blob, shape, layers):
    """A net of some layers of `net`, with one input blob."""
    new = type(net)(name=f"{net.name}_from_{blob}")
    entry = new.layer.add(name=blob, type="Input", top=[blob])
    entry.input_param.shape.add(dim=shape)
    new.layer.extend(layers)
    return new
