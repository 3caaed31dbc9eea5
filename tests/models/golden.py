"""The nets as they were fed to real Caffe for tests/golden/gaitnet, with the same weights and inputs."""

from pathlib import Path

import numpy as np

from caffe.proto import caffe_pb2
from models.gaitnet import gaitnet

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
INPUTS = [f"im{i}" for i in range(6)] + [f"gt{i}" for i in range(6)] + ["label", "sim"]
PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}


def load(name):
    return np.load(GOLDEN / f"{name}.npz", allow_pickle=False)


def fed_net(step, clips, phase="TRAIN"):
    """Our net of CASIA-B, fed by Input layers; in phase TRAIN without dropout, whose masks cannot match."""
    net = caffe_pb2.NetParameter(name=step)
    for layer in gaitnet("casiab", step).layer:
        if layer.include and layer.include[0].phase != PHASES[phase] or layer.type == "Dropout" and phase == "TRAIN":
            continue
        if layer.type == "Python":
            for top in layer.top:
                shapes = {"im": (clips, 3, 64, 64), "gt": (clips, 1, 64, 64), "la": (clips,), "si": (clips // 2,)}
                fed = net.layer.add(name=f"in_{top}", type="Input", top=[top])
                fed.input_param.shape.add(dim=shapes[top[:2]])
            continue
        added = net.layer.add()
        added.CopyFrom(layer)
        del added.include[:]
        if layer.type == "Slice":
            points = [clips // 2] if "feature1" in layer.top else [clips * i for i in range(1, 6)]
            added.slice_param.slice_point[:] = points
    return net


def weights(names, shapes, seed):
    """{layer: [blob, ...]} of the layers `names` in the order of net.params, by the formula of the golden data."""
    result = {}
    for k, name in enumerate(names):
        blobs = [np.random.RandomState(seed + 1000 * k + i).randn(*shape) for i, shape in enumerate(shapes[name])]
        if len(blobs) == 3:  # BatchNorm: mean, variance, how many batches they are the sum of
            blobs = [0.05 * blobs[0], 1 + 0.5 * abs(blobs[1]), np.ones_like(blobs[2])]
        else:
            blobs = [np.sqrt(2 / np.prod(shapes[name][0][1:])) * blobs[0], 0.1 * blobs[1]]
        result[name] = [blob.astype(np.float32) for blob in blobs]
    return result


def inputs(names, seed, clips):
    """{blob: array} for the input blobs `names`, by the formula of the golden data."""
    result = {}
    for j, name in enumerate(INPUTS):
        if name not in names:
            continue
        rs = np.random.RandomState(seed + j)
        if name.startswith("im"):
            coarse, fine = rs.randint(0, 256, (clips, 3, 8, 8)), rs.randint(0, 256, (clips, 3, 64, 64))
            value = (coarse.repeat(8, 2).repeat(8, 3) + fine - 255) / 128
        elif name.startswith("gt"):
            value = rs.randint(0, 2, (clips, 1, 8, 8)).repeat(8, 2).repeat(8, 3)
        elif name == "label":
            value = rs.randint(0, 74, (clips,))
        else:
            value = (np.arange(clips // 2) + seed) % 2
        result[name] = value.astype(np.float32)
    return result


def set_params(net, z):
    """Writes the golden weights into `net`, after checking them against the stored summaries."""
    names = str(z["param_layers"]).split("\n") if "param_layers" in z else list(net.params)
    assert list(net.params) == names
    shapes = {name: [blob.data.shape for blob in blobs] for name, blobs in net.params.items()}
    for name, blobs in weights(names, shapes, int(z["weight_seed"])).items():
        for i, value in enumerate(blobs):
            if f"weight/{name}/{i}/idx" in z:
                assert np.array_equal(value.flat[z[f"weight/{name}/{i}/idx"]], z[f"weight/{name}/{i}/val"])
            net.params[name][i].data[...] = value


def check_summary(array, z, key, samples, norm):
    """`array` against the summary under `key`: samples within `samples` * rms, norm within `norm`."""
    assert array.shape == tuple(z[f"{key}/shape"]), key
    l2 = float(z[f"{key}/l2"])
    rms = l2 / np.sqrt(max(array.size, 1))
    np.testing.assert_allclose(
        array.flat[z[f"{key}/idx"]], z[f"{key}/val"], rtol=0, atol=samples * rms + 1e-12, err_msg=key
    )
    np.testing.assert_allclose(np.linalg.norm(array.astype(np.float64)), l2, rtol=norm, err_msg=key)
    # Sums cancel: they are compared on the scale of what was summed.
    assert abs(array.sum(dtype=np.float64) - z[f"{key}/sum"]) <= norm * l2 * np.sqrt(array.size) + 1e-12, key
