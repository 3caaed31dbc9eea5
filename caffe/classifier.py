"""Classifier: a net whose input is an image and whose output is a score for each class (pycaffe's Classifier)."""

import numpy as np

from caffe.errors import CaffeError
from caffe.io import Transformer, oversample, resize_image
from caffe.layer import TEST
from caffe.net import Net


def image_transformer(net, mean=None, input_scale=None, raw_scale=None, channel_swap=None):
    """A Transformer for the first input of `net`, from height x width x channels, with the settings that are given."""
    if not net.inputs:
        raise CaffeError(f"net '{net.name}' has no input for images; wanted a deploy net, whose data is an Input layer")
    name = net.inputs[0]
    transformer = Transformer({name: net.blobs[name].data.shape})
    transformer.set_transpose(name, (2, 0, 1))
    for set_value, value in (
        (transformer.set_mean, mean),
        (transformer.set_input_scale, input_scale),
        (transformer.set_raw_scale, raw_scale),
        (transformer.set_channel_swap, channel_swap),
    ):
        if value is not None:
            set_value(name, value)
    return transformer


class Classifier(Net):
    """A net for classifying images.

    model_file, pretrained_file   prototxt and weights
    image_dims                    (height, width) images are scaled to before they are cropped; default: the net's input
    mean, input_scale, raw_scale, channel_swap   as in `caffe.io.Transformer`
    """

    def __init__(
        self,
        model_file,
        pretrained_file,
        image_dims=None,
        mean=None,
        input_scale=None,
        raw_scale=None,
        channel_swap=None,
    ):
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else image_dims

    def predict(self, inputs, oversample=True):
        """Scores (number of images, classes) of a list of images (height, width, channels).

        oversample: the mean over ten crops (corners, center, mirrors); otherwise the center crop alone."""
        images = np.stack([resize_image(image, self.image_dims) for image in inputs])
        crops = _ten_crops(images, self.crop_dims) if oversample else _center_crops(images, self.crop_dims)
        name = self.inputs[0]
        ready = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        scores = self.forward_all(**{name: ready})[self.outputs[0]]
        if oversample:
            scores = scores.reshape(len(images), 10, -1).mean(1)
        return scores


_ten_crops = oversample


def _center_crops(images, crop_dims):
    top, left = ((np.array(images.shape[1:3]) - crop_dims) // 2).tolist()
    return images[:, top : top + crop_dims[0], left : left + crop_dims[1]]
