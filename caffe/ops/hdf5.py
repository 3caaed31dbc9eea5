"""HDF5Data and HDF5Output: blobs from and to HDF5 files."""

import bisect
import os
from itertools import accumulate

import h5py
import numpy as np

from caffe.builtin_layer import BuiltinLayer
from caffe.layer import register
from caffe.ops.batches import BatchLayer, Order
from caffe.regular import open_file


@register("HDF5Data")
class HDF5Data(BatchLayer):
    """Each top is the data set of its name, `batch_size` rows at a time, from the files listed in `source` (a path a
    line). `shuffle`: files in a new order each epoch, rows in a new order within each file.

    Caffe: hdf5_data_layer.cpp."""

    num_top = (1, None)

    def open(self, top):
        p = self.param.hdf5_data_param
        if self.param.HasField("transform_param"):
            self.fail(f"{self.type} does not transform data.")
        self.batch_size = p.batch_size
        self.names = list(self.param.top)
        self.files = [line.strip() for line in self.lines(p.source)]
        self.rows = [self.count_rows(path) for path in self.files]
        self.epoch_rows = sum(self.rows)
        self.file_order = Order(len(self.files), p.shuffle, self.random)
        self.row_orders = [Order(rows, p.shuffle, self.random) for rows in self.rows]
        self._loaded = None

    def count_rows(self, path):
        counts = {name: self.dataset(path, name, lambda d: d.shape[0] if d.shape else 0) for name in self.names}
        if len(set(counts.values())) > 1 or not all(counts.values()):
            self.fail(f"data sets of {path} must have the same number of rows, at least 1; found {counts}")
        return counts[self.names[0]]

    def dataset(self, path, name, take):
        """`take(data set)` of the file."""
        try:
            with open_file(path), h5py.File(path, "r") as f:
                found = f.get(name)
                if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
                    self.fail(f"Failed to find HDF5 dataset {name} of numbers in {path}; it holds {', '.join(f)}")
                return take(found)
        except (OSError, LookupError, TypeError, ValueError, RuntimeError) as e:  # h5py, of a damaged file
            self.fail(f"Failed opening HDF5 file: {path}: {' '.join(str(e).split())}")

    def values(self, data):
        """All of a data set, which compressed may claim any size, as float32."""
        self.require_memory(*data.shape)
        return data[()].astype(np.float32)

    def load(self, number):
        """The data sets of file `number`; the last one read is kept."""
        if self._loaded is None or self._loaded[0] != number:
            path = self.files[number]
            self._loaded = number, [self.dataset(path, n, self.values) for n in self.names]
        return self._loaded[1]

    def read(self, numbers, rng):
        pieces: list[list] = [[] for _ in self.names]
        for k in numbers:
            epoch, row = divmod(k, self.epoch_rows)
            files = self.file_order.permutation(epoch) if self.file_order.shuffle else range(len(self.files))
            ends = list(accumulate(self.rows[f] for f in files))
            slot = bisect.bisect_right(ends, row)
            file = int(files[slot])
            order = self.row_orders[file]
            row -= ends[slot] - self.rows[file]
            if order.shuffle:
                row = order.permutation(epoch, file)[row]
            for piece, values in zip(pieces, self.load(file)):
                piece.append(values[row])
        try:
            return [np.stack(piece) for piece in pieces]
        except ValueError:
            self.fail(f"rows of {', '.join(self.files)} differ in shape")


@register("HDF5Output")
class HDF5Output(BuiltinLayer):
    """Writes its two bottoms to the data sets "data" and "label" of `file_name`, each with four axes. The first forward
    pass makes the file anew (BVLC Caffe: the net, whatever the file was), every other one appends its rows (BVLC Caffe
    fails at the second). An existing file that is neither HDF5 nor empty is left alone.

    Caffe: hdf5_output_layer.cpp."""

    num_bottom, num_top = 2, 0
    no_gradient = (0, 1)
    gradient_checked = False

    def setup(self, bottom, top):
        self.path = self.param.hdf5_output_param.file_name
        empty = os.path.isfile(self.path) and not os.path.getsize(self.path)
        self.write("w" if empty else "a", lambda f: None)  # it can be written to, and is HDF5
        self.mode = "w"

    def reshape(self, bottom, top):
        if bottom[0].num != bottom[1].num:
            self.fail(f"bottoms have shapes {bottom[0].shape} and {bottom[1].shape}; wanted the same first dimension")

    def forward(self, bottom, top):
        def append(f):
            for name, blob in zip(("data", "label"), bottom):
                shape = self.legacy_shape(blob.shape)
                if name not in f:
                    f.create_dataset(name, (0, *shape[1:]), "f4", maxshape=(None, *shape[1:]))
                rows = f[name]
                if rows.shape[1:] != shape[1:]:
                    self.fail(f"{self.path} holds rows of shape {rows.shape[1:]} in {name!r}; now they are {shape[1:]}")
                rows.resize(len(rows) + shape[0], 0)
                rows[len(rows) - shape[0] :] = blob.tensor().detach().to("cpu").reshape(shape).numpy()

        self.write(self.mode, append)
        self.mode = "a"

    def write(self, mode, change):
        try:
            with h5py.File(self.path, mode) as f:
                change(f)
        except OSError as e:
            raise self.error(f"Failed to open HDF5 file {self.path!r}: {' '.join(str(e).split())}") from e
