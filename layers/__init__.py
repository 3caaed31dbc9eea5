"""Data layers fed to the nets: dataset trees, clip sampling, the frame store.

Prototxts name this module and one of its layers: `module: 'layers'  layer: 'GaitNet'`.
"""

import os

# As in `caffe`; OpenCV reads this when it is first imported. What `layers.frames` refuses is told in a better way.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))

__all__ = ["GaitNet", "GaitNet_Seg", "GaitNet_Sia", "GaitNet_Silhouettes"]


def __getattr__(name):
    # Imported on demand, so that tools can read datasets and frames without starting Caffe.
    if name in __all__:
        from layers import data_layers

        return getattr(data_layers, name)
    raise AttributeError(f"module 'layers' has no attribute {name!r}")
