"""Crop what the owners of a dataset hand out around the walking person, into the trees that training reads.

    python tools/crop.py casiab --frames DatasetB/videos --masks DatasetB/silhouettes
    python tools/crop.py outdoor --frames Outdoor-Gait-raw/im --masks Outdoor-Gait-raw/seg
    python tools/crop.py szu --frames SZU-raw/rgb --masks SZU-raw/mask

Frames are videos <id>-<condition>-<view>.avi in one folder, masks <id>/<condition>/<view>/<...>-<number>.png, where
number 1 is the first frame of the video; or both are folders of images, <id>/<condition>[/<view>]/, and a mask bears
its frame's name.

The rule, with the same box for a frame and its mask:
1. The mask is cut at half its range, gaps of up to 4 pixels are bridged, and only the largest part stays.
2. The box is a square, 1.125 times as high as the person (as wide, where that is more). Its centre is the middle of the
   person's height and the median column of the person's pixels. Nothing is scaled, so the aspect ratio stays.
3. Where the box leaves the picture, the border pixels of the frame are repeated and the mask is zero.
4. A frame is left out of both trees when it has no mask, no person 16 pixels high, or a person that touches the border.

A sequence appears when it is complete; killed and started again, the tool goes on with the missing ones. What was left
out and why: left-out.csv beside the trees.
"""

import argparse
import csv
import os
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from scipy import ndimage

from layers.datasets import DATASETS, data_root
from layers.frames import DataError, image_names, read_image, read_video
from tools.work import Progress, in_order, only_run, processes

MARGIN = 1.125  # side of the box in heights of the person
BRIDGED = 4  # pixels between parts of one person, such as head and shoulders
SMALLEST = 16  # pixels of height
RECORD = ".left-out.csv"  # in each folder of frames; hidden, so that no reader takes it for a frame
COLUMNS = ("sequence", "frame", "reason")


def main(argv=None):
    args = parse_args(argv)
    dataset = DATASETS[args.dataset]
    out = Path(args.out) if args.out else data_root() / dataset.folder
    try:
        walks = find_walks(dataset, Path(args.frames), Path(args.masks))
        with only_run(out):
            failures = crop_all(walks, out / dataset.im_dir, out / dataset.gt_dir, args.jobs)
            left_out = gather(walks, out / dataset.im_dir, out / "left-out.csv")
    except (DataError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    print(f"{out}: {len(walks) - len(failures)} of {len(walks)} sequences are cropped")
    for reason, n in left_out.most_common():
        print(f"  {n} frames left out: {reason}")
    return 1 if failures else 0


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--frames", required=True, help="folder of videos, or of folders of frames")
    parser.add_argument("--masks", required=True, help="folder of folders of masks")
    parser.add_argument("--out", help="where the two trees go (default: where data/README.md puts them)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Walk:
    """One sequence before cropping."""

    path: str  # in the trees: "001/nm-01/090"
    frames: Path  # a video, or a folder
    masks: Path  # a folder


def find_walks(dataset, frames, masks):
    """Every sequence below `frames`, as videos or as folders."""
    for folder in (frames, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; {dataset.title}: {dataset.source}")
    videos = sorted(frames.glob("*.avi"))
    if videos:
        walks = [Walk(path, video, masks / path) for video in videos if (path := _path_of(video.stem, dataset))]
    else:
        walks = [Walk(path, frames / path, masks / path) for path in dataset.paths(frames)]
    if not walks:
        wanted = "/".join(f"<{level}>" for level in dataset.tree)
        raise DataError(f"{frames}: holds neither videos {wanted.replace('/', '-')}.avi nor folders {wanted}")
    return walks


def _path_of(stem, dataset):
    """Path of the sequence in 001-nm-01-090.avi; None for what is no walk, such as CASIA-B's 001-bkgrd-090.avi."""
    subject, _, rest = stem.partition("-")
    condition, _, view = rest.rpartition("-")
    return f"{subject}/{condition}/{view}" if len(dataset.tree) == 3 and "-" in condition else None


def crop_all(walks, im_path, gt_path, jobs):
    """Crop the sequences that are not there yet; a list of sentences about those that cannot be cropped."""
    todo = [walk for walk in walks if not (im_path / walk.path).is_dir()]
    if len(todo) < len(walks):
        print(f"{im_path}: {len(walks) - len(todo)} of {len(walks)} sequences are there already", file=sys.stderr)
    failures = []
    with Progress(len(todo), "sequences", "cropping") as progress:
        work = partial(crop_walk, im_path=im_path, gt_path=gt_path)
        for failure in in_order(work, todo, jobs, processes):
            failures += [failure] if failure else []
            progress.update()
    return failures


def crop_walk(walk, im_path, gt_path):
    """Write one sequence to both trees. None, or why that cannot be done."""
    folders = [root / walk.path for root in (gt_path, im_path)]
    unfinished = [folder.with_name(f".{folder.name}.partial") for folder in folders]
    for folder in (folders[0], *unfinished):  # of a run that was killed
        shutil.rmtree(folder, ignore_errors=True)
    for folder in unfinished:
        folder.mkdir(parents=True)
    try:
        left_out = []
        for name, frame, mask in read_walk(walk):
            cropped, reason = (None, "no mask") if mask is None else crop(frame, mask)
            if cropped is None:
                left_out.append((walk.path, name, reason))
                continue
            for folder, image in zip(unfinished, (cropped[1], cropped[0])):
                _write_image(folder / f"{name}.png", image)
        with open(unfinished[1] / RECORD, "w", newline="") as out:
            csv.writer(out).writerows(left_out)
    except (DataError, OSError) as e:
        for folder in unfinished:
            shutil.rmtree(folder)
        return str(e)
    for folder, name in zip(unfinished, folders):  # frames last: a sequence is there when its frames are
        os.rename(folder, name)
    return None


def read_walk(walk):
    """(name, frame, mask or None) of every frame."""
    if not walk.masks.is_dir():
        raise DataError(f"{walk.masks}: no such folder of masks, wanted for {walk.frames}")
    masks = {Path(name).stem: walk.masks / name for name in image_names(walk.masks)}
    for name, frame in _read_video(walk) if walk.frames.is_file() else _read_folder(walk):
        file = masks.get(name)
        mask = read_image(file, cv2.IMREAD_GRAYSCALE) if file else None
        if mask is not None and mask.shape != frame.shape[:2]:
            raise DataError(f"{file}: the mask is {mask.shape}, its frame {frame.shape[:2]}, wanted the same")
        yield name, frame, mask


def _read_folder(walk):
    for name in image_names(walk.frames):
        yield Path(name).stem, read_image(walk.frames / name, cv2.IMREAD_COLOR)


def _read_video(walk):
    """Named as the masks of CASIA-B: 001-nm-01-090-017 is the 17th frame."""
    for number, frame in enumerate(read_video(walk.frames), 1):
        yield f"{walk.frames.stem}-{number:03d}", frame


def crop(frame, mask):
    """((frame, mask) in the box, None), or (None, why not). frame: uint8 (H, W, 3), mask: uint8 (H, W)."""
    person = clean(mask)
    box, reason = find_box(person)
    if box is None:
        return None, reason
    return (_cut(frame, box, cv2.BORDER_REPLICATE), _cut(person, box, cv2.BORDER_CONSTANT)), None


def clean(mask):
    """The person alone: uint8 (H, W), 0 or 255."""
    inside = mask > 127
    bridged = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((BRIDGED + 1, BRIDGED + 1), np.uint8))
    parts, num_parts = ndimage.label(bridged)
    if num_parts == 0:
        return np.zeros(mask.shape, np.uint8)
    largest = 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return np.where(inside & (parts == largest), 255, 0).astype(np.uint8)


def find_box(person):
    """((left, top, side), None) in pixels, which may lie outside the picture; or (None, why there is no box)."""
    rows, columns = np.flatnonzero(person.any(axis=1)), np.flatnonzero(person.any(axis=0))
    if len(rows) == 0 or rows[-1] - rows[0] + 1 < SMALLEST:
        return None, "no person"
    height, width = person.shape
    if rows[0] == 0 or columns[0] == 0 or rows[-1] == height - 1 or columns[-1] == width - 1:
        return None, "cut off by the border"
    side = round(MARGIN * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    across = np.median(np.nonzero(person)[1])
    return (round(across - (side - 1) / 2), round((rows[0] + rows[-1] - side + 1) / 2), side), None


def _cut(image, box, border):
    left, top, side = box
    height, width = image.shape[:2]
    beyond = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    image = cv2.copyMakeBorder(image, *beyond, border, value=0)
    return image[top + beyond[0] :][:side, left + beyond[2] :][:, :side]


def _write_image(file, image):
    if not cv2.imwrite(str(file), image):
        raise DataError(f"{file}: cannot be written")


def gather(walks, im_path, file):
    """Collect the records of all sequences in one CSV; how often each reason occurs."""
    reasons: Counter[str] = Counter()
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{file}.partial", "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        for walk in walks:
            record = im_path / walk.path / RECORD
            if record.is_file():
                with open(record, newline="") as rows:
                    for row in csv.reader(rows):
                        writer.writerow(row)
                        reasons[row[-1]] += 1
    os.replace(f"{file}.partial", file)
    return reasons


if __name__ == "__main__":
    sys.exit(main())
