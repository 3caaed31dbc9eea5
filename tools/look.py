"""What lies in the folders of one sequence: numbers, broken files, and how the person stands in the pictures."""

import csv
import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from layers import hygiene
from layers.frames import DataError, full_range, image_names, read_image, read_mask
from layers.opengait import Pickles
from layers.shape import FILE, read_shape, shape_of, shape_of_walk, strange_frames
from tools.crop import RECORD
from tools.person import OFF_CENTRE, OFF_HEIGHT, running_median


@dataclass
class Found:
    """What there is of one sequence."""

    path: str
    trains: bool
    frames: int = 0
    masks: int = 0
    broken: list = field(default_factory=list)  # sentences that name a file
    without_mask: list = field(default_factory=list)  # frames; their masks count as zero
    without_frame: list = field(default_factory=list)  # masks
    sizes: Counter = field(default_factory=Counter)  # of frames, "64x64"
    empty: int = 0  # masks all zero
    full: int = 0  # masks without a zero
    brightest: int = 0  # of all masks
    rims: list = field(default_factory=list)  # of each mask, see layers/hygiene.py
    pictures: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))  # of all frames, or all masks
    changes: int = 0  # frames that differ from the one before
    last: bytes = b""  # frame
    people: list = field(default_factory=list)  # (frame, side of the picture, height and centre as shares of it)
    left_out: Counter = field(default_factory=Counter)  # reasons of tools/crop.py
    shapes: list = field(default_factory=list)  # of the person in each mask, see layers/shape.py

    @property
    def shape(self):
        return shape_of_walk(self.shapes)

    @property
    def inverted(self):
        return bool(self.rims) and np.median(self.rims) > hygiene.RIM

    @property
    def stands_still(self):
        """Are all frames the same?"""
        return self.sizes.total() > 1 and not self.changes

    @property
    def usable(self):
        return not hygiene.unfit(self.frames, self.masks) and not self.broken

    def jumps(self):
        """Frames in which the box, or the person in it, jumps against the frames around."""
        if len(self.people) < 3:
            return []
        names, *columns = zip(*self.people)
        side, _, centre = (np.array(column, float) for column in columns)
        off = strange_frames(self.shapes)
        off |= np.abs(np.log(side / running_median(side))) > np.log(OFF_HEIGHT)
        off |= np.abs(centre - running_median(centre)) > OFF_CENTRE
        return [name for name, jumps in zip(names, off) if jumps]


def look_into(found, source, quick):
    """Fill in `found`: list what is there, and unless `quick` decode all of it. source: a Tree or Pickles."""
    try:
        look = look_into_pickles if isinstance(source, Pickles) else look_into_folders
        look(found, source, quick)
    except DataError as e:
        found.broken.append(str(e))
    return found


def look_into_pickles(found, source, quick):
    found.frames, found.masks = source.length(found.path), source.num_masks(found.path)
    found.without_mask = [f"{n:03d}" for n in range(found.masks, found.frames)]
    found.without_frame = [f"{n:03d}" for n in range(found.frames, found.masks)]
    if quick:
        return
    frames, masks = source.arrays(found.path)
    for picture in next((pictures for pictures in (frames, masks) if pictures is not None), ()):
        look_at_picture(found, picture)
    for number, mask in enumerate(() if masks is None else masks):
        look_at_mask(found, f"{number:03d}", mask)


def look_into_folders(found, source, quick):
    read_record(found, source.root)
    if quick:
        found.shapes.append(read_shape(Path(source.root, found.path, FILE)))
    masks = _names(source.gt_path, found)
    names = _names(source.im_path, found) if source.has_frames else masks
    found.frames, found.masks = len(names), len(masks)
    found.without_mask, found.without_frame = sorted(set(names) - set(masks)), sorted(set(masks) - set(names))
    for name in () if quick else names:
        frame = (
            _decode(partial(read_image, flags=cv2.IMREAD_COLOR), os.path.join(source.im_path, found.path, name), found)
            if source.has_frames
            else None
        )
        file = os.path.join(source.gt_path, found.path, name)
        mask = None if name in found.without_mask else _decode(read_mask, file, found)
        shown = mask if not source.has_frames else frame
        if shown is not None:
            look_at_picture(found, shown)
        if mask is not None:
            look_at_mask(found, name, full_range(mask, source.mask_max))
        if frame is not None and mask is not None and frame.shape[:2] != mask.shape:
            found.broken.append(f"{file}: the mask has not the size of its frame: {mask.shape}, {frame.shape[:2]}")


def look_at_picture(found, picture):
    found.sizes[f"{picture.shape[1]}x{picture.shape[0]}"] += 1
    now = hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=16).digest()
    found.changes += bool(found.last) and now != found.last
    found.last = now
    found.pictures.update(now)


def look_at_mask(found, name, mask):
    found.rims.append(hygiene.rim(mask))
    found.empty += not mask.any()
    found.full += bool(mask.all())
    found.brightest = max(found.brightest, int(mask.max()))
    person = mask > 127
    _, top, _, height = cv2.boundingRect(person.astype(np.uint8))
    if height:
        found.shapes.append(shape_of(person[top : top + height]))
        side = len(mask)
        found.people.append((name, side, height / side, (top + height / 2) / side))


def read_record(found, root):
    """What tools/crop.py left out of this sequence, and why."""
    record = os.path.join(root, found.path, RECORD)
    if os.path.isfile(record):
        with open(record, newline="", errors="replace") as rows:
            found.left_out = Counter(row[-1] for row in csv.reader(rows) if row)


def _names(root, found):
    folder = os.path.join(root, found.path)
    try:
        return image_names(folder) if os.path.isdir(folder) else []
    except DataError as e:
        found.broken.append(str(e))
        return []


def _decode(read, path, found):
    try:
        return read(path)
    except DataError as e:
        found.broken.append(str(e))
        return None
