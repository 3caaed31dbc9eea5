"""From the paths in a prototxt or on a command line to what frames are read from."""

import os

from layers import pack
from layers.frames import DataError, Tree, expand


def open_frames(im_path, gt_path=None):
    """Frames and masks of the two trees `im_path`, `gt_path`, or of the pack in the folder `im_path`.

    A whole and fresh pack of these trees, beside the tree of frames (`../pack`), is read in their place. Without
    `gt_path` a tree gives masks of zeros. DataError: a folder is missing, or the pack must not be served."""
    im_path, gt_path = expand(im_path), expand(gt_path) if gt_path else None
    _require_folder("im_path", im_path)
    if pack.is_pack(im_path):
        if gt_path and os.path.realpath(gt_path) not in (os.path.realpath(im_path), pack.open_pack(im_path).gt_path):
            raise DataError(
                f"gt_path {gt_path}: the pack {im_path} holds other masks; leave gt_path out or repeat im_path"
            )
        return pack.open_pack(im_path)
    if gt_path:
        _require_folder("gt_path", gt_path)
    return pack.beside(im_path, gt_path) or Tree(im_path, gt_path)


def _require_folder(key, path):
    if not os.path.isdir(path):
        raise DataError(
            f"{key} {path}: no such folder (looked from {os.getcwd()}); data/README.md says where each dataset belongs"
        )
