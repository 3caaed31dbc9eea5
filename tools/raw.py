"""What the owners of a dataset hand out: videos or folders of frames, and folders of masks, found and named."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from layers.frames import VIDEO_SUFFIXES, DataError
from layers.names import folders, is_noise, some

_WALK = re.compile(r"(\d+)-([a-z]+)-(\d+)-(\d+)", re.IGNORECASE)  # 001-nm-01-090
_BACKGROUND = re.compile(r"\d+-bkgrd-\d+", re.IGNORECASE)  # CASIA-B has one of each person and view


@dataclass(frozen=True)
class Walk:
    """One sequence before cropping."""

    path: str  # in the trees: "001/nm-01/090"
    frames: Path | None  # a video, or a folder; None: there are silhouettes alone
    masks: Path  # a folder


def find_walks(dataset, frames, masks):
    """Every sequence of the folders `frames`, as videos or folders, and where its masks lie in the folders `masks`.

    `frames` None: silhouettes alone. DataError: a folder is missing or holds no walk, or a walk is there twice."""
    for folder in (*(frames or ()), *masks):
        if not os.path.isdir(folder):
            raise DataError(f"{folder}: no such folder; {dataset.title}: {dataset.source}")
    for folder in frames or ():
        if any(os.path.samefile(folder, other) for other in masks):
            raise DataError(f"{folder}: is named both as frames and as masks; silhouettes alone: leave --frames out")
    walks: dict[str, Walk] = {}
    for root in map(Path, frames or masks):
        found = list(_videos(root, dataset) if frames else []) or [
            (canonical(dataset, path), root / path) for path in dataset.paths(root)
        ]
        deeper = _deeper_videos(root) if frames and not any(place.is_file() for _, place in found) else []
        if len(dataset.tree) == 3 and deeper:
            raise DataError(
                f"{root}: its {len(deeper)} videos lie in folders below ({some(deeper)}); name these instead"
            )
        if not found:
            wanted = "/".join(f"<{level}>" for level in dataset.tree)
            raise DataError(f"{root}: holds neither videos {wanted.replace('/', '-')}.avi nor folders {wanted}")
        for path, place in found:
            if path in walks:
                other = walks[path].frames or walks[path].masks
                raise DataError(f"{place}: {path} is there twice, also as {other}; remove one of them")
            walks[path] = Walk(path, place, _folder_of(masks, path)) if frames else Walk(path, None, place)
    if not any(walk.masks.is_dir() for walk in walks.values()):
        first = min(walks)
        raise DataError(
            f"{some([str(root) for root in masks])}: holds masks of none of the {len(walks)} walks, such as {first}/; "
            f"it holds {some(folders(masks[0])) or 'no folder'}"
        )
    return [walks[path] for path in sorted(walks)]


def canonical(dataset, path):
    """`path`, in lower case where the protocol knows it only so: 010/NM-01/090 -> 010/nm-01/090."""
    return path.lower() if not dataset.knows(path) and dataset.knows(path.lower()) else path


def _videos(root, dataset):
    """(path, file) of every video in a folder that is a walk; stderr says which are none."""
    files = sorted(
        f for f in root.iterdir() if f.suffix.lower() in VIDEO_SUFFIXES and not f.is_dir() and not is_noise(f.name)
    )
    others, lost = [], [file.name for file in files if not file.is_file()]
    for file in filter(Path.is_file, files):
        found = _WALK.fullmatch(file.stem.strip()) if len(dataset.tree) == 3 else None
        if found:
            subject, kind, number, view = found.groups()
            yield canonical(dataset, f"{int(subject):03d}/{kind}-{int(number):02d}/{int(view):03d}"), file
        elif not _BACKGROUND.fullmatch(file.stem.strip()):
            others.append(file.name)
    if others:
        print(f"{root}: {len(others)} videos are no walks by their names: {some(others)}", file=sys.stderr)
    if lost:
        print(f"{root}: {len(lost)} videos are links to what is not there: {some(lost)}", file=sys.stderr)
    if files and (deeper := _deeper_videos(root)):
        told = f"{len(deeper)} videos lie in folders below and are not read: {some(deeper)}"
        print(f"{root}: {told}; name these folders in --frames, too", file=sys.stderr)


def _deeper_videos(root):
    """Paths below `root` of videos that are walks by their names and lie in folders of it."""
    found = [f for f in root.glob("*/*") if f.suffix.lower() in VIDEO_SUFFIXES and _WALK.fullmatch(f.stem.strip())]
    return sorted(str(file.relative_to(root)) for file in found)


def _folder_of(roots, path):
    """The folder of masks of a walk in the first of the roots that has one, whatever its upper and lower case."""
    for root in map(Path, roots):
        place = root
        for name in path.split("/"):
            there = [name] if (place / name).is_dir() else [n for n in folders(place) if n.lower() == name.lower()]
            if not there:
                break
            place /= there[0]
        else:
            return place
    return Path(roots[0]) / path
