"""Data: images and labels from an LMDB or LevelDB of Datum messages, as convert_imageset writes it."""

import cv2
import numpy as np
from google.protobuf.message import DecodeError

from caffe import glog
from caffe.errors import CaffeError
from caffe.io import decode, planes
from caffe.layer import register
from caffe.ops.batches import BatchLayer
from caffe.ops.records import Records
from caffe.proto import caffe_pb2


@register("Data")
class Data(BatchLayer):
    """Tops: images (N, C, H, W) as transform_param makes them, and labels (N). Caffe: data_layer.cpp.

    A batch is as large as its first image, all others must have that size."""

    num_top = (1, 2)

    def open(self, top):
        p = self.param.data_param
        self.batch_size, self.labels = p.batch_size, len(top) == 2
        backend = p.DB.Name(p.backend)
        try:
            self.records = Records(p.source, backend)
        except CaffeError as e:
            self.fail(f"cannot read {backend} {p.source!r}: {e}")

    def read(self, numbers, rng):
        data, labels, names = [], [], []
        for datum, name in self.messages(numbers, caffe_pb2.Datum):
            data.append(self.pixels(datum, name))
            labels.append(datum.label)
            names.append(name)
        images = self.transformed(data, rng, names)
        return [images, np.array(labels, np.float32)] if self.labels else [images]

    def messages(self, numbers, kind):
        """The records of these numbers as messages of type `kind`, each with its name for errors."""
        skip = self.skipped(self.param.data_param.rand_skip)
        for k in numbers:
            message = kind()
            try:
                key, value = self.records[k + skip]
            except CaffeError as e:
                self.fail(f"cannot read record {k + skip} of {self.param.data_param.source!r}: {e}")
            name = f"record {key!r}"
            try:
                message.ParseFromString(value)
            except DecodeError as e:
                self.fail(f"{name} of {self.param.data_param.source!r} is no {kind.DESCRIPTOR.name}: {e}")
            yield message, name

    def pixels(self, datum, name):
        """The Datum's image, (C, H, W)."""
        t = self.param.transform_param
        if datum.encoded:
            color = t.force_color or self.param.data_param.force_encoded_color
            flag = cv2.IMREAD_COLOR if color else self.transform.color
            image = decode(datum.data, flag)
            if image is None:
                self.fail(f"Could not decode datum: {name} of {self.param.data_param.source!r}")
            return planes(image)
        if t.force_color or t.force_gray:
            glog.error("data_transformer.cpp:149", "force_color and force_gray only for encoded datum")
        shape = (datum.channels, datum.height, datum.width)
        values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
        if values.size != np.prod(shape):
            self.fail(f"{name} of {self.param.data_param.source!r} holds {values.size} values for shape {shape}")
        return values.reshape(shape)
