"""The options that say which trees of a dataset a tool is to read, and where they lie when nothing is said."""

import argparse

from layers.datasets import data_root
from layers.frames import DataError
from layers.opengait import holds_pickles
from layers.sources import existing


def add_trees(parser):
    """--im-path, --gt-path, --silhouettes, --mask-max"""
    parser.add_argument("--im-path", help="tree of frames, or of OpenGait's pickles (default: see data/README.md)")
    parser.add_argument("--gt-path", help="tree of masks, or of OpenGait's pickles (default: see data/README.md)")
    parser.add_argument("--silhouettes", action="store_true", help="there are masks alone, no frames")
    add_mask_max(parser)


def add_mask_max(parser):
    parser.add_argument(
        "--mask-max", type=grey_level, metavar="N", help="what masks say where the person is (default: 255)"
    )


def grey_level(text):
    if not text.isdecimal() or not 1 <= int(text) <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 255")
    return int(text)


def trees_of(dataset, args):
    """(tree of frames, or None with --silhouettes, tree of masks). DataError: one is not there."""
    folder = data_root() / dataset.folder
    im_path = args.im_path or folder / dataset.im_dir
    gt_path = args.gt_path or (
        args.im_path if args.im_path and holds_pickles(args.im_path) else folder / dataset.gt_dir
    )
    return None if args.silhouettes else _there(dataset, im_path), _there(dataset, gt_path)


def _there(dataset, path):
    try:
        return existing("", path)
    except DataError:
        raise DataError(
            f"{path}: no such folder. {dataset.title}: {dataset.source}; data/README.md says what goes where and how "
            "it is cropped. Masks without frames: say --silhouettes"
        ) from None
