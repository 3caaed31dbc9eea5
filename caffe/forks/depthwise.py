"""Convolution of each channel by itself under the names of MobileNet's forks: a grouped Convolution, run as one."""

from caffe.layer import register
from caffe.ops.vision import Convolution


@register("DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """A Convolution with the `group` that the prototxt gives. DepthwiseConvolution: depthwise_conv_layer.cpp."""


@register("ConvolutionDepthwise")
class ConvolutionDepthwise(Convolution):
    """A Convolution with as many groups and outputs as there are channels, whatever num_output and `group` say: weights
    (C, 1, kernel..), bias (C,). Caffe for MobileNet: conv_dw_layer.cpp."""

    def configure(self, bottom):
        p = self.param.convolution_param
        if p.axis != 1 or len(bottom[0].shape) < 2:
            self.fail(f"bottom has shape {bottom[0].shape}; wanted (N, C, ...) with axis 1")
        p.group = p.num_output = bottom[0].shape[1]
        super().configure(bottom)
