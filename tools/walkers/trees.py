"""The trees that walkers are written in: crops as training reads them, or full frames as the owners hand them out."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from layers.bundled import whole
from layers.datasets import DATASETS
from tools.walkers.gait import FPS

UNFINISHED = ".unfinished"  # folder of sequences being written
RLE = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
STORED = (cv2.IMWRITE_PNG_COMPRESSION, 0)  # noise would shrink to two thirds and take twice as long


@dataclass(frozen=True)
class Tree:
    """How one dataset names its sequences."""

    dataset: str
    conditions: tuple[str, ...]
    usual: tuple[tuple[str, str], ...]  # (condition, view) of the walks of one subject, unless told otherwise
    views: tuple[str, ...]
    path: str  # of a sequence, of id, condition and view
    tested: tuple[tuple[str, str], ...] = ()  # of a test subject, where its usual walks are others

    def walks(self, subjects, conditions=None, views=None):
        """Of subjects 001 to `subjects`, each walk of these conditions and views; None: of the usual ones."""
        return [
            Walk(self, number, condition, view)
            for number in range(1, subjects + 1)
            for condition, view in (product(conditions, self.views) if conditions else self.usual_walks(number))
            if not views or view in views
        ]

    def usual_walks(self, number):
        return self.tested if self.tested and number > DATASETS[self.dataset].train_num else self.usual


@dataclass(frozen=True)
class Walk:
    """One sequence to be rendered."""

    tree: Tree
    subject: int
    condition: str
    view: str

    @property
    def path(self):
        return self.tree.path.format(id=f"{self.subject:03d}", condition=self.condition, view=self.view)

    @property
    def stem(self):
        return self.path.replace("/", "-")

    @property
    def kind(self):
        """nm, bg (carries a bag) or cl (wears a coat), as the condition's name says; SZU's are all nm."""
        found = re.search("nm|bg|cl", self.condition)
        return found[0] if found else "nm"


def _numbered(names, counts):
    return tuple(f"{name}-{i:02d}" for name, count in zip(names, counts) for i in range(1, count + 1))


_VIEWS = tuple(f"{view:03d}" for view in range(0, 181, 18))
_CASIAB = _numbered(("nm", "bg", "cl"), (6, 2, 2))
_CASIAB_PATH = "{id}/{condition}/{view}"


def _each(conditions, views):
    return tuple(product(conditions, views))


_OUTDOOR = tuple(f"scene{s}_{cloth}_L_090_{n}" for s in (1, 2, 3) for cloth in ("nm", "cl", "bg") for n in (1, 2, 3, 4))
_SZU = tuple("12345678")

TREES = {
    # Fewer walks of more people than CASIA-B has: many to tell apart, and still minutes. All test in normal walks,
    # bags and coats at every second camera.
    "walkers": Tree(
        "walkers",
        _CASIAB,
        _each(_CASIAB[:3], _VIEWS),
        _VIEWS,
        _CASIAB_PATH,
        tested=_each(("nm-01", "nm-05"), _VIEWS) + _each(("bg-01", "cl-01"), _VIEWS[::2]),
    ),
    "casiab": Tree("casiab", _CASIAB, _each(_CASIAB[:6], _VIEWS), _VIEWS, _CASIAB_PATH),
    "outdoor": Tree("outdoor", _OUTDOOR, _each(_OUTDOOR, ("090",)), ("090",), "{id}/{id}_{condition}"),
    "szu": Tree("szu", _SZU, _each(_SZU, ("090",)), ("090",), "{id}/{condition}"),
}


LOOKS = ("drawn", "own", "swapped")


def looks_of(walk, looks):
    """Whose room, light and outfit a walk has under one of LOOKS; None: they are drawn for it alone."""
    if looks == "drawn":
        return None
    gallery = DATASETS[walk.tree.dataset].protocol.role(walk) == "gallery"
    return walk.subject if looks == "own" or gallery else partner(walk.subject)


def partner(subject):
    """Who has changed places with `subject`: 1 with 2, 3 with 4, ..."""
    return subject + 1 if subject % 2 else subject - 1


class Store:
    """The folder that walks are written in: crops, or with `full` the pictures that crops are cut from.

    A walk is there when its frames are: everything is written in a hidden folder first, and moved, frames last.
    """

    def __init__(self, folder, tree, full=False):
        self.folder, self.full, dataset = Path(folder), full, DATASETS[tree.dataset]
        self.videos = full and len(dataset.tree) == 3  # CASIA-B's owners hand out videos and silhouettes
        self.frames, self.masks = ("videos", "silhouettes") if self.videos else (dataset.im_dir, dataset.gt_dir)

    def places(self, walk):
        """What a walk is made of, relative to the folder; the frames come last."""
        boxes = [f"boxes/{walk.stem}.json"] if self.full else []
        return [
            *boxes,
            f"{self.masks}/{walk.path}",
            f"{self.frames}/{f'{walk.stem}.avi' if self.videos else walk.path}",
        ]

    def __contains__(self, walk):
        return (self.folder / self.places(walk)[-1]).exists()

    def write(self, walk, frames, masks):
        """frames (T, H, W, 3), masks (T, H, W), uint8. Masks of full frames are cut to 0 and 255, as their owners'."""
        finished = [self.folder / place for place in self.places(walk)]
        unfinished = self.folder / UNFINISHED
        unfinished.mkdir(exist_ok=True)
        drafts = [unfinished / f"{walk.stem}-{i}{place.suffix}" for i, place in enumerate(finished)]
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        prefix = f"{walk.stem}-" if self.videos else ""
        names = [f"{prefix}{number:03d}" for number in range(1, len(frames) + 1)]
        if self.full:
            masks = np.where(masks > 127, 255, 0).astype(np.uint8)
            drafts[0].write_text(json.dumps({name: find_box(mask) for name, mask in zip(names, masks)}, indent=0))
        write_images(drafts[-2], names, masks, RLE)
        if self.videos:
            write_video(drafts[-1], frames)
        else:
            write_images(drafts[-1], names, frames, STORED)
        for source, target in zip(drafts, finished):
            whole.make_folder(target.parent)
            if target.is_dir():  # masks without frames: killed between two moves
                shutil.rmtree(target)
            whole.put(source, target)


def find_box(mask):
    """[left, top, width, height] of the person in pixels; None when nobody is in the picture."""
    left, top, width, height = cv2.boundingRect(mask)
    return [left, top, width, height] if width else None


def write_images(folder, names, images, options):
    folder.mkdir()
    for name, image in zip(names, images):
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", image, options)[1])


def write_video(file, frames):
    height, width = frames.shape[1:3]
    if str(file).encode(errors="replace") != os.fsencode(file):
        raise OSError(f"{file}: OpenCV writes no video whose path is not UTF-8; wanted another folder")
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (width, height))
    if not video.isOpened():
        raise OSError(f"{file}: OpenCV cannot write this video")
    for frame in frames:
        video.write(frame)
    video.release()
