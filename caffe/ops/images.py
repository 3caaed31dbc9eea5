"""ImageData: images and labels from a list of files."""

import os

import cv2
import numpy as np

from caffe.io import decode, planes
from caffe.layer import register
from caffe.ops.batches import BatchLayer, Order


@register("ImageData")
class ImageData(BatchLayer):
    """Tops: images (N, C, H, W) and labels (N) of the files listed in `source`, a line each: path, space, label.

    Resized to new_height x new_width when given (bilinear), then transform_param. Caffe: image_data_layer.cpp."""

    num_top = 2

    def open(self, top):
        p = self.param.image_data_param
        self.batch_size = p.batch_size
        if bool(p.new_height) != bool(p.new_width):
            self.fail("Current implementation requires new_height and new_width to be set at the same time.")
        self.require_memory(self.batch_size, p.new_height, p.new_width)
        self.images = [self.entry(line) for line in self.lines(p.source)]
        if p.rand_skip >= len(self.images):
            self.fail(f"Not enough points to skip: rand_skip is {p.rand_skip}, {p.source!r} lists {len(self.images)}")
        self.order = Order(len(self.images), p.shuffle, self.random)

    def entry(self, line):
        path, _, label = line.strip().rpartition(" ")
        try:
            return path, int(label)
        except ValueError:
            self.fail(f"line {line!r} of {self.param.image_data_param.source!r}; wanted a path, a space and a number")

    def read(self, numbers, rng):
        p = self.param.image_data_param
        skip = self.skipped(p.rand_skip)
        chosen = [self.images[self.order(k + skip)] for k in numbers]
        images = [self.load(os.path.join(p.root_folder, path)) for path, _ in chosen]
        labels = np.array([label for _, label in chosen], np.float32)
        return [self.transformed(images, rng, [path for path, _ in chosen]), labels]

    def load(self, path):
        p = self.param.image_data_param
        image = decode(self.image_file(path), cv2.IMREAD_COLOR if p.is_color else cv2.IMREAD_GRAYSCALE)
        if image is None:
            self.fail(f"Could not open or find file {path} (an image, listed in {p.source!r})")
        if p.new_height:
            image = cv2.resize(image, (p.new_width, p.new_height))
        return planes(image)
