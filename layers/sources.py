"""From the paths in a prototxt or on a command line to what frames are read from."""

import os

from layers import pack
from layers.frames import DataError, Tree, expand
from layers.opengait import Pickles, holds_pickles


def open_frames(im_path, gt_path=None):
    """Frames and masks of the trees `im_path`, `gt_path`, of images or pickles; or the pack in the folder `im_path`.

    A whole and fresh pack of these trees, beside the tree of frames (`../pack`), is read in their place. `im_path`
    None: silhouettes alone. Without `gt_path` a tree of images gives masks of zeros, and pickles those that lie with
    the frames. DataError: a folder is missing, or the pack must not be served."""
    im_path, gt_path = (
        None if path is None else existing(key, path)
        for key, path in (("im_path", im_path), ("gt_path", gt_path or None))
    )
    main = im_path or gt_path
    if pack.is_pack(main):
        if (
            im_path
            and gt_path
            and os.path.realpath(gt_path) not in (os.path.realpath(main), pack.open_pack(main).gt_path)
        ):
            raise DataError(
                f"gt_path {gt_path}: the pack {im_path} holds other masks; leave gt_path out or repeat im_path"
            )
        return pack.open_pack(main)
    return pack.beside(im_path, gt_path) or open_trees(im_path, gt_path)


def open_trees(im_path=None, gt_path=None, mask_max=255):
    """The trees themselves, whatever packs lie beside them. `mask_max`: see `layers.frames.Folders`."""
    if holds_pickles(im_path or gt_path):
        return Pickles(im_path, gt_path or im_path, mask_max)
    return Tree(im_path, gt_path, mask_max)


def existing(key, path):
    """`path` expanded, or the same with _ for - in its last name, as in crop_im; DataError: there is no such folder."""
    path = expand(path)
    folder, name = os.path.split(path.rstrip("/"))
    for there in (path, os.path.join(folder, name.replace("-", "_"))):
        if os.path.isdir(there):
            return there
    raise DataError(
        f"{key} {path}: no such folder (looked from {os.getcwd()}); data/README.md says where each dataset belongs"
    )
