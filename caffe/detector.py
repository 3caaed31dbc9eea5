"""Detector: a net that scores windows of images, as in R-CNN (pycaffe's Detector)."""

import numpy as np

from caffe.classifier import image_transformer
from caffe.errors import CaffeError
from caffe.io import load_image, resize_image
from caffe.layer import TEST
from caffe.net import Net


class Detector(Net):
    """A net for scoring windows of images.

    model_file, pretrained_file   prototxt and weights
    mean, input_scale, raw_scale, channel_swap   as in `caffe.io.Transformer`
    context_pad   pixels of the net's input around a window that show its surroundings (16 in R-CNN); default: none
    """

    def __init__(
        self,
        model_file,
        pretrained_file,
        mean=None,
        input_scale=None,
        raw_scale=None,
        channel_swap=None,
        context_pad=None,
    ):
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows):
        """Scores of windows: a list of {"window", "prediction", "filename"}, in the order given.

        images_windows: (file name, windows) pairs; a window is (ymin, xmin, ymax, xmax) in pixels."""
        images_windows = [(name, list(windows)) for name, windows in images_windows]
        crops = []
        for filename, windows in images_windows:
            image = load_image(filename)
            crops += [self.crop(image, np.asarray(window)) for window in windows]
        if not crops:
            return []
        name = self.inputs[0]
        ready = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        scores = iter(self.forward_all(**{name: ready})[self.outputs[0]])
        return [
            {"window": window, "prediction": next(scores), "filename": filename}
            for filename, windows in images_windows
            for window in windows
        ]

    def detect_selective_search(self, image_fnames):
        """Windows from selective search are not to be had: its reference implementation is a MATLAB package."""
        raise CaffeError(
            "detect_selective_search needs the MATLAB package selective_search_ijcv_with_python; make the "
            "windows with a tool of your choice and call detect_windows"
        )

    def crop(self, im, window):
        """The part of image `im` in `window`; with context_pad it has the size of the net's input, and what lies
        outside the image is filled with the mean."""
        if not self.context_pad:
            return im[window[0] : window[2], window[1] : window[3]]
        size = self.blobs[self.inputs[0]].width  # the input is square
        scale = size / (size - 2.0 * self.context_pad)
        # The box of the window and its surroundings. Ends are inclusive, as in R-CNN.
        half = np.array([window[2] - window[0] + 1, window[3] - window[1] + 1]) / 2.0
        center = window[:2] + half
        box = np.round(np.concatenate([center - scale * half, center + scale * half]))
        to_input = size / (box[2:] - box[:2] + 1)
        pad = np.round(np.maximum(0, -box[:2]) * to_input).astype(int)  # what lies above and left of the image
        box = np.clip(box, 0, [*im.shape[:2], *im.shape[:2]]).astype(int)
        if np.any(box[2:] <= box[:2]):
            raise CaffeError(
                f"window {tuple(int(v) for v in window)} lies outside the image, which has "
                f"{im.shape[0]} rows and {im.shape[1]} columns"
            )
        extent = np.round((box[2:] - box[:2] + 1) * to_input).astype(int)
        extent = np.minimum(extent, size - pad)
        crop = np.ones(self.crop_dims, np.float32) * self.crop_mean
        inner = resize_image(im[box[0] : box[2], box[1] : box[3]], extent)
        crop[pad[0] : pad[0] + extent[0], pad[1] : pad[1] + extent[1]] = inner
        return crop

    def configure_crop(self, context_pad):
        """Set `context_pad`, and the mean in the values of unprocessed images (height, width, channels)."""
        name = self.inputs[0]
        channels, height, width = self.blobs[name].data.shape[1:]
        self.crop_dims = np.array([height, width, channels])
        self.context_pad = context_pad
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if context_pad and name in self.transformer.mean:
            mean = np.broadcast_to(self.transformer.mean[name], (channels, height, width)).transpose(1, 2, 0)
            if name in self.transformer.channel_swap:
                mean = mean[:, :, np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean = mean / self.transformer.raw_scale.get(name, 1)
