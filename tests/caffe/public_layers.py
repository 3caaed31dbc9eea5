"""Python layers in the manner of those that people have published for Caffe: they keep what they need on themselves,
under whatever names, reshape where they please and load their data as they go. Python 2 habits are left out, no more.

The manners are those of: data layers of fully convolutional nets, one image of any size at a time; region data, made in
`forward`, with anchors and their targets; batch loaders for several labels; losses in NumPy; samplers of pairs and
triplets."""

import queue
import random
import threading

import numpy as np

import caffe

IMAGES, CLASSES = 6, 4


def picture(index, side=8):
    """BGR (3, H, W), of sizes that differ, and what is to be found in it."""
    rng = np.random.RandomState(index)
    shape = side + index % 3, side + 1
    return rng.uniform(0, 255, (3, *shape)).astype(np.float32), rng.randint(0, CLASSES, (1, *shape)).astype(np.uint8)


class SegDataLayer(caffe.Layer):
    """An image and the classes of its pixels, in order or at random."""

    def setup(self, bottom, top):
        params = eval(self.param_str)
        self.split = params["split"]
        self.mean = np.array(params["mean"])
        self.random = params.get("randomize", True)
        self.seed = params.get("seed", None)
        if len(top) != 2:
            raise Exception("Need to define two tops: data and label.")
        if len(bottom) != 0:
            raise Exception("Do not define a bottom.")
        self.indices = list(range(IMAGES))
        self.idx = 0
        if "train" not in self.split:
            self.random = False
        if self.random:
            random.seed(self.seed)
            self.idx = random.randint(0, len(self.indices) - 1)

    def reshape(self, bottom, top):
        self.data = self.load_image(self.indices[self.idx])
        self.label = self.load_label(self.indices[self.idx])
        top[0].reshape(1, *self.data.shape)
        top[1].reshape(1, *self.label.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.data
        top[1].data[...] = self.label
        if self.random:
            self.idx = random.randint(0, len(self.indices) - 1)
        else:
            self.idx += 1
            if self.idx == len(self.indices):
                self.idx = 0

    def backward(self, top, propagate_down, bottom):
        pass

    def load_image(self, idx):
        return picture(idx)[0] - self.mean.reshape(3, 1, 1)

    def load_label(self, idx):
        return picture(idx)[1]


class RegionDataLayer(caffe.Layer):
    """An image, its size and boxes, handed over by the script (`set_roidb`) and reshaped in `forward`."""

    def _shuffle_roidb_inds(self):
        self._perm = np.random.permutation(np.arange(len(self._roidb)))
        self._cur = 0

    def _get_next_minibatch_inds(self):
        if self._cur + 1 >= len(self._roidb):
            self._shuffle_roidb_inds()
        db_inds = self._perm[self._cur : self._cur + 1]
        self._cur += 1
        return db_inds

    def set_roidb(self, roidb):
        self._roidb = roidb
        self._shuffle_roidb_inds()

    def setup(self, bottom, top):
        self.param = layer_params = eval(self.param_str_)
        self._num_classes = layer_params["num_classes"]
        self._name_to_top_map = {}
        for idx, (name, shape) in enumerate([("data", (1, 3, 10, 10)), ("im_info", (1, 3)), ("gt_boxes", (1, 4))]):
            top[idx].reshape(*shape)
            self._name_to_top_map[name] = idx
        assert len(top) == len(self._name_to_top_map)

    def forward(self, bottom, top):
        blobs = self._roidb[self._get_next_minibatch_inds()[0]]
        for blob_name, blob in blobs.items():
            top_ind = self._name_to_top_map[blob_name]
            top[top_ind].reshape(*(blob.shape))
            top[top_ind].data[...] = blob.astype(np.float32, copy=False)

    def backward(self, top, propagate_down, bottom):
        """This layer does not propagate gradients."""

    def reshape(self, bottom, top):
        """Reshaping happens during the call to forward."""


class AnchorTargets(caffe.Layer):
    """A label for each place of a score map: 1 inside the box, 0 outside, -1 where it does not count."""

    def setup(self, bottom, top):
        layer_params = eval(self.param_str_)
        self.shape = self._feat_stride = layer_params["feat_stride"]
        self.name, self.data, self.weights = "anchors", None, {}
        height, width = bottom[0].data.shape[-2:]
        top[0].reshape(1, 1, height, width)

    def forward(self, bottom, top):
        assert bottom[0].data.shape[0] == 1, "Only single item batches are supported"
        height, width = bottom[0].data.shape[-2:]
        x1, y1, x2, y2 = bottom[1].data[0, :4]
        y, x = np.mgrid[:height, :width] * self._feat_stride
        labels = ((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)).astype(np.float32)
        labels[0, 0] = -1
        labels = labels.reshape((1, 1, height, width))
        top[0].reshape(*labels.shape)
        top[0].data[...] = labels

    def backward(self, top, propagate_down, bottom):
        pass

    def reshape(self, bottom, top):
        pass


class BatchLoader:
    def __init__(self, params, result):
        self.result, self.batch_size, self.im_shape = result, params["batch_size"], params["im_shape"]
        self._cur, self.indexlist = 0, list(range(IMAGES))

    def load_next_image(self):
        if self._cur == len(self.indexlist):
            self._cur = 0
            random.shuffle(self.indexlist)
        index = self.indexlist[self._cur]
        self._cur += 1
        im, label = picture(index)
        multilabel = np.zeros(CLASSES).astype(np.float32)
        multilabel[np.unique(label) % CLASSES] = 1
        return im[:, : self.im_shape[0], : self.im_shape[1]], multilabel


class MultilabelDataLayer(caffe.Layer):
    """A whole batch at a time."""

    def setup(self, bottom, top):
        self.top_names = ["data", "label"]
        params = eval(self.param_str)
        self.batch_size = params["batch_size"]
        self.batch_loader = BatchLoader(params, None)
        top[0].reshape(self.batch_size, 3, params["im_shape"][0], params["im_shape"][1])
        top[1].reshape(self.batch_size, CLASSES)

    def forward(self, bottom, top):
        for itt in range(self.batch_size):
            im, multilabel = self.batch_loader.load_next_image()
            top[0].data[itt, ...] = im
            top[1].data[itt, ...] = multilabel

    def reshape(self, bottom, top):
        pass

    def backward(self, top, propagate_down, bottom):
        pass


class EuclideanLossLayer(caffe.Layer):
    """1 / 2N of the squared distance, in NumPy."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if not propagate_down[i]:
                continue
            sign = 1 if i == 0 else -1
            bottom[i].diff[...] = sign * self.diff / bottom[i].num


class TripletSampler(caffe.Layer):
    """Anchor, positive and negative, made ahead by a thread; the constructor hands everything on."""

    def __init__(self, p_object, *args, **kwargs):
        super().__init__(p_object, *args, **kwargs)
        self.net = self.seek = self.pack = None

    def setup(self, bottom, top):
        self.params = eval(self.param_str)
        self.name, self.index, self.layer = self.params["name"], 0, self
        self.blob_queue = self.pending = queue.Queue(3)
        self.prefetch = threading.Thread(target=self.fetch, daemon=True)
        self.prefetch.start()
        for blob in top:
            blob.reshape(self.params["batch"], 5)

    def fetch(self):
        rng = np.random.RandomState(3)
        while True:
            people = rng.permutation(4)[:2]
            same, other = (rng.randn(self.params["batch"], 5) + 3 * person for person in people)
            self.blob_queue.put((same, same + 0.1, other))

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        for blob, value in zip(top, self.blob_queue.get()):
            blob.data[...] = value

    def backward(self, top, propagate_down, bottom):
        pass


class TripletLoss(caffe.Layer):
    """max(0, margin + |a - p|^2 - |a - n|^2), the mean over the batch."""

    def setup(self, bottom, top):
        assert len(bottom) == 3
        self.margin = eval(self.param_str)["margin"]
        self.a, self.loss_weight = 1, None
        top[0].reshape(1)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        a, p, n = (np.array(blob.data) for blob in bottom)
        self.residual = self.margin + ((a - p) ** 2 - (a - n) ** 2).sum(1)
        self.no_residual_list = [i for i, r in enumerate(self.residual) if r <= 0]
        top[0].data[...] = np.maximum(self.residual, 0).mean()

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            for i in range(bottom[0].num):
                if i in self.no_residual_list:
                    for blob in bottom:
                        blob.diff[i] = np.zeros(blob.data.shape[1])
                    continue
                x_a, x_p, x_n = (blob.data[i] for blob in bottom)
                scale = 2.0 / bottom[0].num
                bottom[0].diff[i] = scale * (x_n - x_p)
                bottom[1].diff[i] = scale * (x_p - x_a)
                bottom[2].diff[i] = scale * (x_a - x_n)
