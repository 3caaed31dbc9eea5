"""The Caffe that runs the nets: the bundled one, or the one that CAFFE_ROOT points to."""

import os
import sys


def choose_caffe():
    """Let `import caffe` give the Caffe that CAFFE_ROOT names; to be called before the first import."""
    root = os.environ.get("CAFFE_ROOT")
    if root and "caffe" not in sys.modules:
        if not os.path.isdir(os.path.join(root, "python", "caffe")):
            raise ValueError(f"CAFFE_ROOT is {root}, which has no folder python/caffe; wanted that of a built Caffe")
        sys.path.insert(0, os.path.join(root, "python"))


def load_caffe(gpu=None):
    """The module `caffe`, on the CPU or on GPU number `gpu`."""
    choose_caffe()
    import caffe

    if gpu is None:
        caffe.set_mode_cpu()
    else:
        os.environ["CAFFE_REQUIRE_GPU"] = "1"  # who names a GPU wants no other; the bundled Caffe would go on without
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    return caffe
