#!/usr/bin/env python3
"""Draw clips of six frames with the masks that the net predicts, and the true ones below, into one picture.

    python tools/show_masks.py --weights experiments/walkers/gaitnet-sia_iter_10.caffemodel --data data/Walkers \\
        --out masks.png 037/nm-05/090 040/nm-05/036 043/nm-05/000
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

import argparse

import cv2
import numpy as np

from eval.deploy import PROTOTXT
from layers.bundled import whole
from layers.datasets import DATASETS, NUM_FRAMES
from layers.frames import DataError
from layers.sources import open_frames

ZOOM = 2  # pictures of 64 x 64 are small


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog=__doc__.split("\n\n")[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("walks", nargs="+", help="sequences, as their path below the folder of frames")
    parser.add_argument("--weights", required=True, help="a .caffemodel")
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset, with frames and masks")
    parser.add_argument("--start", type=int, default=0, help="first frame of each clip (default: %(default)s)")
    parser.add_argument("--out", required=True, help="the PNG to write")
    args = parser.parse_args(argv)

    import caffe

    try:
        net = caffe.Net(str(PROTOTXT), caffe.TEST, weights=args.weights)
        names = [(d.im_dir, d.gt_dir) for d in DATASETS.values() if (args.data / d.im_dir).is_dir()]
        if not names:
            wanted = ", ".join(sorted({d.im_dir for d in DATASETS.values()}))
            sys.exit(f"error: {args.data}: has none of the folders of frames: {wanted}")
        frames = open_frames(*(str(args.data / name) for name in names[0]))
        sheet = np.vstack([clip_rows(net, *frames.clip(walk, args.start, NUM_FRAMES)) for walk in args.walks])
    except (caffe.CaffeError, DataError, OSError) as e:
        sys.exit(f"error: {e}")
    size = (sheet.shape[1] * ZOOM, sheet.shape[0] * ZOOM)
    try:
        picture = cv2.imencode(".png", cv2.resize(sheet, size, interpolation=cv2.INTER_NEAREST))[1]
        whole.write(args.out, picture.tobytes())
    except OSError as e:
        sys.exit(f"error: cannot write {args.out}: {e.strerror}")


def clip_rows(net, frames, truth):
    """Three rows of one clip: frames, predicted masks, true masks; (3 * 64, 6 * 64, 3)."""
    for i, frame in enumerate(frames):
        net.blobs[f"im{i}"].data[0] = frame.transpose(2, 0, 1).astype(np.float32) - 127.5
    net.forward()
    predicted = net.blobs["conv8_0"].data[:, 0] * 255  # (6, 64, 64)
    return np.vstack([np.hstack(list(frames)), *(grey(masks) for masks in (predicted, truth))])


def grey(masks):
    return cv2.cvtColor(np.hstack([np.asarray(m, np.uint8) for m in masks]), cv2.COLOR_GRAY2BGR)


if __name__ == "__main__":
    sys.exit(program.run(main))
