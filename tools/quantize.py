"""An exported ONNX model in 8-bit integers: ONNX Runtime's static quantisation, its ranges taken from sample inputs."""

import os
import tempfile

import numpy as np

from caffe.errors import CaffeError
from eval.features import arrays_of
from layers.datasets import DATASETS, NUM_FRAMES, SIZE, data_root
from layers.frames import PLANES, fill_image_blob
from layers.sources import open_frames

CLIPS = 64  # of a dataset's training subjects, for the ranges of activations


def quantize(onnx, path, samples):
    """Write the float32 model `onnx` as `path`: weights of each output channel and activations in 8 bits, ranges from
    what passes for the `samples`, {input: array (N, ...)}. Inputs and outputs stay float32."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):
        def __init__(self):
            count = min(len(values) for values in samples.values())
            self.items = iter([{name: v[i : i + 1] for name, v in samples.items()} for i in range(count)])

        def get_next(self):
            return next(self.items, None)

    with tempfile.TemporaryDirectory() as folder:
        ready = os.path.join(folder, "ready.onnx")
        quant_pre_process(onnx, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, path, Samples(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
        )


def samples(source, inputs):
    """{input: array (N, ...)} from an .npz file, or for GaitNet from the training subjects of the dataset `source`."""
    if source in DATASETS:
        return clips_of(source, inputs)
    wanted = f"wanted an .npz file, or a dataset of {', '.join(sorted(DATASETS))}"
    try:
        with arrays_of(source, "an .npz file of numbers", f"; {wanted}") as arrays:
            found = {name: array.astype(np.float32) for name, array in arrays.items()}
    except OSError as e:
        raise CaffeError(f"--calibrate {source}: cannot be read ({e.strerror}); {wanted}") from e
    if missing := sorted(set(inputs) - set(found)):
        raise CaffeError(f"{source}: has no {', '.join(missing)}; found {', '.join(sorted(found))}")
    return {name: found[name] for name in inputs}


def clips_of(name, inputs):
    """The six frames of CLIPS clips of training subjects, evenly over their walks."""
    if sorted(inputs) != [f"im{i}" for i in range(NUM_FRAMES)]:
        raise CaffeError(
            f"--calibrate {name}: that is for nets with the inputs im0 .. im5, and this one has "
            f"{', '.join(inputs)}; give an .npz file of arrays with these names"
        )
    dataset = DATASETS[name]
    frames = open_frames(str(data_root() / dataset.folder / dataset.im_dir), None)
    training, _ = dataset.split(dataset.subjects(frames))
    paths = [path for path in dataset.paths(frames, training) if frames.length(path) >= NUM_FRAMES]
    if not paths:
        raise CaffeError(f"--calibrate {name}: no walk of the training subjects has {NUM_FRAMES} frames")
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, CLIPS).astype(int))]
    out = np.empty((NUM_FRAMES, len(chosen), 3, SIZE, SIZE), np.float32)
    for k, path in enumerate(chosen):
        planes = np.empty((NUM_FRAMES, *PLANES), np.uint8)
        frames.read(path, (frames.length(path) - NUM_FRAMES) // 2, planes)
        fill_image_blob(planes, out[:, k])
    return {f"im{i}": out[i] for i in range(NUM_FRAMES)}
