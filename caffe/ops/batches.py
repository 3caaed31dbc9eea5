"""What the layers that read files share: a batch a forward pass, always the same items for the same batch number."""

import io

import numpy as np
import torch

from caffe.blob import Blob, require_memory
from caffe.builtin_layer import BuiltinLayer
from caffe.data_transformer import Transformer
from caffe.errors import CaffeError
from caffe.ranks import solver_count, solver_rank
from caffe.regular import MOST_IMAGE, MOST_LIST, open_file

MOST_ITEMS = 2**20  # of a batch: they are read one by one
COPIES = 3  # of a batch that are held at a time: its items, their array, the blob


class BatchLayer(BuiltinLayer):
    """Reads `batch_size` items in every forward pass. A type defines `open`, which sets `batch_size`, and
    `read(numbers, rng)`: the tops' arrays for the items of these numbers, counted on and on from the start of training.
    `rng` is a function of the pass, so a resumed run (`seek`) gets the same crops.

    Of solvers that train together (phase TRAIN), each reads every n-th item, as in Caffe's Data layer."""

    num_bottom = 0
    with_boxes = False  # transform_param may hold what changes images and boxes together
    batch_size: int

    def setup(self, bottom, top):
        self.transform = Transformer(self.param.transform_param, self.phase, self.fail, self.with_boxes)
        self.open(top)
        if not 1 <= self.batch_size <= MOST_ITEMS:
            self.fail(f"batch_size is {self.batch_size}; wanted at least 1 and at most {MOST_ITEMS}")
        self.seek(0)
        for item in self.read([0], np.random.default_rng(0)):
            self.require_memory(self.batch_size, *item.shape[1:])
        put(self.batch(np.random.default_rng(0)), top)  # for the shapes; the first forward reads it again

    def open(self, top):
        raise NotImplementedError

    def read(self, numbers, rng):
        raise NotImplementedError

    def seek(self, batch):
        self.position = batch * self.batch_size

    def forward(self, bottom, top):
        put(self.batch(np.random.default_rng(self.random().initial_seed())), top)
        self.position += self.batch_size

    def batch(self, rng):
        rank, count = (solver_rank(), solver_count()) if self.phase == 0 else (0, 1)
        return self.read([k * count + rank for k in range(self.position, self.position + self.batch_size)], rng)

    def require_memory(self, *shape):
        """Fail where no blob can have this shape, or there is no room for a batch of it."""
        try:
            require_memory(Blob(shape).shape, COPIES)
        except CaffeError as e:
            self.fail(str(e))

    def skipped(self, most):
        """rand_skip: how many items are left out at the start, a random number below `most`."""
        return int(np.random.default_rng(self.random.fixed("skip").initial_seed()).integers(most)) if most else 0

    def transformed(self, images, rng, names):
        """All `images`, (C, H, W) each, transformed and stacked; `names` tells which is which in errors."""
        return self.stacked([self.transform(image, rng) for image in images], names)

    def stacked(self, images, names):
        """Images of one shape as one array."""
        for image, name in zip(images, names):
            if image.shape != images[0].shape:
                self.fail(
                    f"{name} has shape {image.shape}, but {names[0]} in the same batch has {images[0].shape}; "
                    "set crop_size, or bring them to one size"
                )
        return np.stack(images)

    def lines(self, path):
        """The lines of the text file `path` that are not empty; at least one."""
        try:
            with open_file(path, MOST_LIST) as f:
                text = io.TextIOWrapper(f, encoding="utf-8-sig", errors="surrogateescape")
                lines = [line.rstrip("\n") for line in text if line.strip()]
        except OSError as e:
            self.fail(f"cannot read source {path!r}: {e.strerror}")
        if not lines:
            self.fail(f"source {path!r} is empty")
        if any("\0" in line for line in lines[:3]):  # an .h5 or an image itself
            self.fail(f"source {path!r} is binary; wanted a text file that lists such files, one a line")
        return lines

    def image_file(self, path):
        """The bytes of the image file `path`."""
        try:
            with open_file(path, MOST_IMAGE) as f:
                return f.read()
        except OSError as e:
            self.fail(f"Could not open or find file {path}: {e.strerror}")


class Order:
    """Which item comes k-th: one after another, or in a new order in each epoch."""

    def __init__(self, count, shuffle, stream):
        self.count, self.shuffle, self._stream = count, shuffle, stream
        self._epoch = self._order = None

    def __call__(self, k):
        epoch, i = divmod(k, self.count)
        return int(self.permutation(epoch)[i]) if self.shuffle else i

    def permutation(self, epoch, *parts):
        """The order of the items in this epoch: a function of the net's seed, the layer, the epoch and `parts`."""
        generator = self._stream.fixed("order", epoch, *parts)
        key = (generator.initial_seed(), self.count)
        if key != self._epoch:
            self._epoch, self._order = key, np.random.default_rng(generator.initial_seed()).permutation(self.count)
        return self._order


def put(arrays, top):
    """Make `arrays` the tops' contents."""
    for blob, array in zip(top, arrays):
        blob.reshape(*array.shape)
        blob.memory.assign(torch.from_numpy(np.array(array, np.float32, order="C")))
