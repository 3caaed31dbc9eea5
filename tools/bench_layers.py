"""The benchmark's data layer: tops of GaitNet's data layers, filled from one batch made at set-up."""

import json

import numpy as np

import caffe


class ReadyMade(caffe.Layer):
    """param_str: {"clips": N, "step": "seg"|"rec"|"joint"|"sia"}; tops as those of GaitNet's layers."""

    def setup(self, bottom, top):
        settings = json.loads(self.param_str)
        clips, step = settings["clips"], settings["step"]
        rng = np.random.default_rng(0)
        self.batch = [rng.integers(0, 256, (clips, 3, 64, 64), dtype=np.uint8) for _ in range(6)]
        self.batch += [rng.integers(0, 2, (clips, 1, 64, 64)).astype(np.float32) for _ in range(6)]
        if step != "seg":
            self.batch.append(rng.integers(0, 74, clips).astype(np.float32))
        if step == "sia":
            self.batch.append(rng.integers(0, 2, clips // 2).astype(np.float32))

    def reshape(self, bottom, top):
        for i, value in enumerate(self.batch):
            top[i].reshape(*value.shape)

    def forward(self, bottom, top):
        for i, value in enumerate(self.batch):
            np.subtract(value, 127.5 if i < 6 else 0, out=top[i].data, dtype=np.float32)

    def backward(self, top, propagate_down, bottom):
        pass

    def __caffe_pack__(self):
        return self.batch

    def __caffe_unpack__(self, *values):
        return [image.float() - 127.5 for image in values[:6]] + list(values[6:])
