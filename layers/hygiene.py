"""What makes sequences unfit: the one place for these rules, which training, evaluation and the tools follow.

A sequence counts when it has more than 10 frames and as many masks as frames (paper, section 4)."""

import contextlib
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from layers import shape
from layers.datasets import MIN_FRAMES
from layers.frames import PLANES, DataError
from layers.names import some

BRIGHT = 128  # what the person is in a mask, at least; a net would learn masks of 1/255 without a word
RIM = 0.75  # share of a mask's outermost pixels that are bright where it is inverted; around people none or few are
COPIES = "have the same pictures as others, by which they are found; leave out all but one by --excluded"
NO_WHOLE_PERSON = "may show no whole person in any frame; look at them, and leave them out by --excluded"
INVERTED = "its masks are white around the person; wanted 0 there, and 255 where the person is: invert them"
LOOKED_AT = 24  # sequences whose middle mask is read when training starts


def unfit(num_frames, num_masks):
    """Why a sequence with so many frames and masks does not count, or None."""
    if num_frames < MIN_FRAMES:
        return f"shorter than {MIN_FRAMES} frames"
    if num_frames != num_masks:
        return "not as many masks as frames"
    return None


def fit(frames, sequences, place, log=None):
    """Those of the `sequences` that count; a warning for every reason why others do not, with their names.

    DataError: masks are there but none bears a frame's name, or they show nobody, see `require_masks`. `place`: of the
    data, for the sentences."""
    left_out: dict[str, list] = {}
    kept = []
    for seq in sequences:
        numbers = frames.length(seq.path), frames.num_masks(seq.path)
        reason = unfit(*numbers)
        if reason:
            left_out.setdefault(reason, []).append(f"{seq.path} ({numbers[0]} frames, {numbers[1]} masks)")
        else:
            kept.append(seq)
    for reason, names in left_out.items():
        warn(f"{place}: {len(names)} of {len(sequences)} sequences are left out, {reason}: {some(names)}", log)
    nameless = [seq.path for seq in kept if frames.num_without_mask(seq.path) == frames.length(seq.path)]
    if nameless:
        raise DataError(
            f"{place}: {len(nameless)} sequences have masks, but none of a frame's name, first {nameless[0]}; "
            "a mask must be named as its frame is"
        )
    require_masks(frames, [seq.path for seq in kept], place)
    return kept


def require_masks(frames, paths, place):
    """DataError where masks are dim, such as those of 0 and 1, or most are inverted, or all are empty.

    A few sequences, spread over all that have masks, are looked at."""
    paths = [path for path in paths if frames.num_masks(path)]
    looked_at = [paths[i] for i in np.unique(np.linspace(0, max(len(paths) - 1, 0), LOOKED_AT).astype(int)) if paths]
    masks = {}
    for path in looked_at:
        planes = np.zeros((1, *PLANES), np.uint8)
        with contextlib.suppress(DataError):  # a broken file is told of when its turn comes
            masks[path] = frames.read(path, frames.length(path) // 2, planes)[0, 3]
    for path, mask in masks.items():
        if fault := dim(int(mask.max())):
            raise DataError(f"{place}: {path}: {fault}")
    wrong = [path for path, mask in masks.items() if rim(mask) > RIM]
    if len(wrong) > len(masks) / 2:
        raise DataError(
            f"{place}: {len(wrong)} of {len(masks)} masks looked at are wrong, first {wrong[0]}: {INVERTED}"
        )
    if masks and not any(mask.any() for mask in masks.values()):
        raise DataError(
            f"{place}: all {len(masks)} masks looked at are empty, first {next(iter(masks))}; wanted 255 where the "
            "person is, in 8 bits"
        )


def mask_fault(masks):
    """What is wrong with the masks of a walk, uint8 (F, H, W), or None. Empty ones are no fault of this kind."""
    if not len(masks):
        return None
    inverted = np.median([rim(mask) for mask in masks]) > RIM
    return INVERTED if inverted else dim(int(masks.max()))


def rim(mask):
    """The share of the outermost pixels of a mask uint8 (H, W) that are bright."""
    return (np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]) >= BRIGHT).mean()


def dim(brightest):
    """What is wrong with masks whose brightest pixel is this, or None."""
    if not 0 < brightest < BRIGHT:
        return None
    return (
        f"its masks say {brightest} where the person is, wanted 255; pack them so: "
        f"python tools/pack_frames.py <dataset> --mask-max {brightest}"
    )


def absent(dataset, paths, subjects):
    """What the protocol wants of `subjects` and is not among the `paths`: names such as "076/cl-02, 11 views"."""
    there = {_plain(path) for path in paths}
    found = []
    for subject in subjects:
        wanted: dict[str, list[str]] = {}
        for path in dataset.wanted_of(subject):
            wanted.setdefault(path.rpartition("/")[0] if len(dataset.tree) == 3 else path, []).append(path)
        for above, walks in wanted.items():
            lacking = [path for path in walks if _plain(path) not in there]
            if len(lacking) == len(walks) > 1:
                found.append(f"{above}, {len(walks)} views")
            else:
                found += lacking
    return found


def partial(dataset, frames, paths):
    """Walks that may show no whole person in any frame: "001/nm-01/090 (why)". So far as tools/crop.py cut them."""
    root = Path(frames.im_path or frames.gt_path)  # of a pack: the tree that it was made from, which may be gone
    shapes = {path: shape.read_shape(root / path / shape.FILE) for path in paths}
    return [f"{path} ({why})" for path, why in sorted(shape.parts_of_people(shapes, dataset.tree).items())]


def copies(frames, paths):
    """Walks that have the same pictures, as "001/nm-01/090 = 001/nm-05/090"; a pack's checksums tell, trees do not."""
    entries = {path: frames.sequences[path] for path in paths if hasattr(frames, "sequences")}
    return [" = ".join(same) for same in equal({path: (e["frames"], e["crc32"]) for path, e in entries.items()})]


def equal(values):
    """[[name, name, ..], ..] of those of a dict {name: value} that have one value together."""
    names: dict[Any, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return [alike for alike in names.values() if len(alike) > 1]


def _plain(path):
    """Outdoor-Gait writes scene1 or 1, and 1 or 01."""
    return re.sub(r"_scene(?=\d)|_0(?=\d$)", "_", path)


def warn(sentence, log=None):
    (log or logging.getLogger("layers").warning)("%s", sentence)
