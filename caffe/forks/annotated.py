"""AnnotatedData: SSD's images with boxes, from a database."""

import numpy as np

from caffe.forks.augmentation import Augmentation
from caffe.layer import register
from caffe.ops.data import Data
from caffe.proto import caffe_pb2


@register("AnnotatedData")
class AnnotatedData(Data):
    """Tops: images (N, C, H, W), and the boxes in them (1, 1, G, 8): rows of item, label, instance, xmin, ymin, xmax,
    ymax as parts of the image, difficult; one row of -1 where no image has any.

    Records are AnnotatedDatum messages in the LMDB or LevelDB of data_param. Each image is distorted, expanded, cut out
    by one of the batch_samplers, resized, cropped and mirrored as transform_param and annotated_data_param say; what is
    random follows from the seed and the iteration. label_map_file is not read. SSD: annotated_data_layer.cpp."""

    with_boxes = True

    def open(self, top):
        super().open(top)
        self.augment = Augmentation(self.param.transform_param, self.param.annotated_data_param, self.fail)

    def read(self, numbers, rng):
        images, rows, names = [], [], []
        for item, (record, name) in enumerate(self.messages(numbers, caffe_pb2.AnnotatedDatum)):
            if not record.HasField("datum"):
                self.fail(f"{name} of {self.param.data_param.source!r} is no AnnotatedDatum: it holds no image")
            image, boxes = self._image(record, name)
            image, boxes = self.augment(image, boxes, rng)
            image, boxes = self._transformed(image.transpose(2, 0, 1), boxes, rng)
            images.append(image)
            names.append(name)
            rows += [(item, *row) for row in boxes]
        truth = np.array(rows or [(-1,) * 8], np.float32).reshape(1, 1, -1, 8)
        images = self.stacked(images, names)
        return [images, truth] if self.labels else [images]

    def _image(self, record, name):
        """The image (H, W, C) and the boxes of an AnnotatedDatum."""
        pixels = self.pixels(record.datum, name)
        if pixels.dtype != np.uint8:
            self.fail(f"{name} of {self.param.data_param.source!r} holds {pixels.dtype}; wanted an image of bytes")
        boxes = [
            (group.group_label, one.instance_id, b.xmin, b.ymin, b.xmax, b.ymax, b.difficult)
            for group in record.annotation_group
            for one in group.annotation
            for b in [one.bbox]
        ]
        return pixels.transpose(1, 2, 0), np.array(boxes, np.float32).reshape(-1, 7)

    def _transformed(self, pixels, boxes, rng):
        chosen = top, left, tall, wide, mirrored = self.transform.chosen(pixels, rng)
        _, height, width = pixels.shape
        window = np.array([left / width, top / height, (left + wide) / width, (top + tall) / height], np.float32)
        boxes = self.augment.projected(boxes, window)
        if mirrored:
            boxes[:, [2, 4]] = 1 - boxes[:, [4, 2]]
        return self.transform.applied(pixels, *chosen), boxes
