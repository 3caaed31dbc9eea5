"""Made-up data trees of tiny random images, for the tests of layers and tools."""

import cv2
import numpy as np


def write_sequence(root, path, num_frames, rng, size=(20, 13), im_dir="crop-im", gt_dir="crop-seg"):
    """Random frames and masks 001.png, 002.png, ... of `size` (height, width) in both trees below `root`."""
    for tree, shape in ((im_dir, (*size, 3)), (gt_dir, size)):
        folder = root / tree / path
        folder.mkdir(parents=True)
        for i in range(num_frames):
            cv2.imwrite(str(folder / f"{i + 1:03d}.png"), rng.integers(0, 256, shape, np.uint8))


def write_walkers(root, subjects=3, conditions=("nm-01", "nm-02", "bg-01"), views=("000", "090")):
    """A tree of the CASIA-B kind below `root`: sequences of 11, 12, 13 frames in turn."""
    rng = np.random.default_rng(7)
    n = 0
    for subject in range(1, subjects + 1):
        for condition in conditions:
            for view in views:
                write_sequence(root, f"{subject:03d}/{condition}/{view}", 11 + n % 3, rng)
                n += 1
    return root
