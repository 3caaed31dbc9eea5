"""The Caffe that runs the nets: the bundled one, or the one that CAFFE_ROOT points to."""

import os
import sys
from pathlib import Path

BUNDLED = "bundled"


def which_caffe():
    """What stands for it in results: "bundled", or the folder that CAFFE_ROOT names."""
    return os.environ.get("CAFFE_ROOT") or BUNDLED


def import_caffe():
    """The module `caffe` of that Caffe. ValueError: CAFFE_ROOT is none, or this Python cannot import it."""
    root = which_caffe()
    if root != BUNDLED:
        put_first(Path(root).absolute() / "python")
    try:
        import caffe
    except (ImportError, AttributeError, RuntimeError, SystemError) as e:  # each of these, by a NumPy of other kind
        if root == BUNDLED:
            raise
        raise ValueError(
            f"CAFFE_ROOT is {root}, whose Python package cannot be imported by {sys.executable} "
            f"({type(e).__name__}: {' '.join(str(e).split())}); name the Python that goes with that Caffe: "
            "CAFFE_PYTHON=/path/to/python3 sh train_net.sh, or run this script with it"
        ) from e
    return caffe


def put_first(python):
    """Let `import caffe` find the package in the folder `python`."""
    if not (python / "caffe").is_dir():
        raise ValueError(
            f"CAFFE_ROOT is {python.parent}, which has no folder python/caffe; wanted that of a built Caffe"
        )
    if str(python) not in sys.path:
        sys.path.insert(0, str(python))
    if "caffe" in sys.modules and not Path(str(sys.modules["caffe"].__file__)).is_relative_to(python):
        raise ValueError(f"CAFFE_ROOT is {python.parent}, but {sys.modules['caffe'].__file__} was imported before")


def load_caffe(gpu=None):
    """The module `caffe`, on the CPU or on GPU number `gpu`."""
    caffe = import_caffe()
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        os.environ["CAFFE_REQUIRE_GPU"] = "1"  # who names a GPU wants no other; the bundled Caffe would go on without
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    return caffe


def told(caffe):
    """Version, kind and place of the module `caffe`, for a log."""
    return f"Caffe {getattr(caffe, '__version__', 'of no version')}, {which_caffe()}: {os.path.dirname(caffe.__file__)}"
