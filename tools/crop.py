"""Crop what the owners of a dataset hand out around the walking person, into the trees that training reads.

    python tools/crop.py casiab --frames DatasetB/videos --masks DatasetB/silhouettes
    python tools/crop.py casiab --frames DatasetB-1/video DatasetB-2/video --masks DatasetB/silhouettes
    python tools/crop.py casiab --masks GaitDatasetB-silh                 silhouettes alone, no frames
    python tools/crop.py outdoor --frames Outdoor-Gait-raw/im --masks Outdoor-Gait-raw/seg

Frames are videos <id>-<condition>-<view>.avi in one folder, masks <id>/<condition>/<view>/<...>-<number>.png, where
number 1 is the first frame of the video (or 0, with --numbered-from 0); or both are folders of images,
<id>/<condition>[/<view>]/, and a mask bears its frame's name.

The rule, with the same box for a frame and its mask:
1. The mask is cut at half its range, gaps of up to 4 pixels are bridged, and of its parts the person's stays, who is
   followed through the walk: another who comes and goes is dropped, however large.
2. The box is a square, 1.125 times as high as the person (as wide, where that is more). Its centre is the middle of the
   person's height and the median column of the person's pixels. Nothing is scaled, so the aspect ratio stays.
3. Where the box leaves the picture, the border pixels of the frame are repeated and the mask is zero.
4. A frame is left out of both trees when it has no mask, no person 16 pixels high, a person that touches the border, or
   one whose height or place jumps off the walk's course, such as legs alone.

A sequence appears when it is complete; killed and started again, the tool goes on with the missing ones, and those that
had no usable frame are done again. What was left out and why, of all that lies in the trees: left-out.csv beside them.
It also names, without a frame, walks that may show no whole person in any frame, by the width of the head and by the
other walks of the camera: they are cropped; look at them.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import csv
import shutil
import statistics
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2

from eval.ending import exit_status
from eval.progress import Progress
from layers import hygiene, shape
from layers.bundled import whole
from layers.datasets import DATASETS, MIN_FRAMES, data_root
from layers.frames import DataError, full_range, image_names, read_image, read_mask, read_video
from layers.names import is_noise, some
from tools.one_run import only_run
from tools.person import cut_pair, follow, numbers_of
from tools.raw import find_walks
from tools.trees import add_mask_max
from tools.workers import in_order, processes, workers

RECORD = ".left-out.csv"  # in each folder of frames; hidden, so that no reader takes it for a frame
COLUMNS = ("sequence", "frame", "reason")
NO_FRAME = "mask without a frame"
SHOWN = 20  # failures


def main(argv=None):
    args = parse_args(argv)
    return exit_status(crop, args)


def crop(args):
    """The exit status: 1 where a walk could not be cropped."""
    dataset = DATASETS[args.dataset]
    out = Path(args.out) if args.out else data_root() / dataset.folder
    trees = Trees(out / dataset.im_dir if args.frames else None, out / dataset.gt_dir)
    walks = find_walks(dataset, args.frames, args.masks)
    require_first(walks, args.numbered_from)
    with only_run(out):
        outcomes = crop_all(walks, trees, Told(args.mask_max or 255, args.numbered_from), args.jobs)
        failures = [outcome for outcome in outcomes if outcome.failure]
        for outcome in failures:  # only now: a folder that one process removes, another may be about to fill
            for folder in trees.folders(outcome.path):
                remove_empty(folder.parent, len(Path(outcome.path).parts))
        left_out, doubtful = gather(dataset, trees.main, failures, out / "left-out.csv")
    for outcome in failures[:SHOWN]:
        print(f"error: {outcome.failure}", file=sys.stderr)
    if len(failures) > SHOWN:
        print(f"error: and {len(failures) - SHOWN} more; {out / 'left-out.csv'} has all", file=sys.stderr)
    for sentence in warnings(outcomes, doubtful):
        print(f"warning: {sentence}", file=sys.stderr)
    print(f"{out}: {len(walks) - len(failures)} of {len(walks)} sequences are cropped")
    for reason, n in left_out.most_common():
        print(f"  {n} frames left out: {reason}")
    return 1 if failures else 0


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument(
        "--frames", nargs="+", metavar="DIR", help="folders of videos, or of folders of frames; without: masks alone"
    )
    parser.add_argument("--masks", nargs="+", metavar="DIR", required=True, help="folders of folders of masks")
    parser.add_argument("--out", help="where the two trees go (default: where data/README.md puts them)")
    parser.add_argument("--jobs", type=workers, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument(
        "--numbered-from",
        type=int,
        choices=(0, 1),
        default=1,
        help="number in the mask's name of the first frame of a video (default %(default)s)",
    )
    add_mask_max(parser)
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Told:
    """What the command line says of the masks: their brightest value, and the number of a video's first frame."""

    mask_max: int
    first: int


@dataclass(frozen=True)
class Trees:
    """Where crops go: frames (None: there are none), and masks."""

    frames: Path | None
    masks: Path

    @property
    def main(self):
        return self.frames or self.masks

    def folders(self, path):
        """The folders of one sequence, that of masks first."""
        return [tree / path for tree in (self.masks, self.frames) if tree]


@dataclass
class Outcome:
    """What became of one walk."""

    path: str
    frames: int = 0
    masks: int = 0
    cropped: int = 0
    left_out: list = field(default_factory=list)  # (sequence, frame, reason)
    shapes: list = field(default_factory=list)  # of the person, see layers/shape.py
    failure: str = ""


def crop_all(walks, trees, told, jobs):
    """Crop the sequences that are not there yet; their outcomes."""
    todo = [walk for walk in walks if not is_there(trees.main / walk.path)]
    if len(todo) < len(walks):
        print(f"{trees.main}: {len(walks) - len(todo)} of {len(walks)} sequences are there already", file=sys.stderr)
    outcomes = []
    with Progress(len(todo), "sequences", "cropping") as progress:
        for outcome in in_order(partial(crop_walk, trees=trees, told=told), todo, jobs, processes):
            outcomes.append(outcome)
            progress.update()
    return outcomes


def is_there(folder):
    """Does it hold an image?"""
    return folder.is_dir() and any(not is_noise(name) for name in os.listdir(folder))


def crop_walk(walk, trees, told):
    """Write one sequence to the trees, or nothing where that cannot be done or no frame is usable."""
    folders = trees.folders(walk.path)
    unfinished = [folder.with_name(f".{folder.name}.partial") for folder in folders]
    for folder in (*folders, *unfinished):  # of a run that was killed, or that found no usable frame
        shutil.rmtree(folder, ignore_errors=True)
    for folder in unfinished:
        whole.make_folder(folder)
    outcome = Outcome(walk.path)
    try:
        crop_frames(walk, told, unfinished, outcome)
        if not outcome.cropped:
            raise DataError(total_loss(walk, outcome))
        with open(unfinished[-1] / RECORD, "w", newline="") as out:
            csv.writer(out).writerows(outcome.left_out)
        shape.write_shape(unfinished[-1] / shape.FILE, shape.shape_of_walk(outcome.shapes))
    except (DataError, OSError) as e:
        no_name = isinstance(e, OSError) and e.filename is None  # a write to a full disk tells none
        outcome.failure = f"cannot write into {trees.folders(walk.path)[-1]}: {e}" if no_name else str(e)
        for folder in unfinished:
            shutil.rmtree(folder)
        return outcome
    for folder, name in zip(unfinished, folders):  # frames last: a sequence is there when its frames are
        whole.put(folder, name)
    return outcome


def remove_empty(folder, levels):
    """Remove it and up to so many above, as far as they are empty."""
    for empty in [folder, *folder.parents][:levels]:
        try:
            empty.rmdir()
        except OSError:
            return


def crop_frames(walk, told, folders, outcome):
    """Write every usable frame and its mask into the `folders`; tell the outcome what was there and what not."""
    masks = mask_files(walk)
    placed, sizes = place(masks, told.mask_max)
    outcome.masks = len(masks)
    seen = set()
    for name, frame in read_frames(walk, masks, told.first):
        outcome.frames += 1
        seen.add(name.casefold())
        part, reason = placed.get(name.casefold(), (None, "no mask"))
        size = sizes.get(name.casefold())
        wanted = frame.shape[:2] if frame is not None else next(iter(sizes.values()))
        if size and size != wanted:
            of = "its frame" if frame is not None else "the first of the walk"
            raise DataError(f"{masks[name.casefold()]}: the mask is {size}, {of} {wanted}, wanted the same")
        if part is None:
            outcome.left_out.append((walk.path, name, reason))
            continue
        if frame is None:
            pictures = [cut_pair(part.mask(), part)[1]]
        else:
            pictures = list(cut_pair(frame, part)[::-1])
        for folder, picture in zip(folders, pictures):
            _write_image(folder / f"{name}.png", picture)
        outcome.shapes.append(shape.shape_of(part.pixels))
        outcome.cropped += 1
    without_frame = [file.stem for name, file in masks.items() if name not in seen]
    outcome.left_out += [(walk.path, name, NO_FRAME) for name in without_frame]


def mask_files(walk):
    """{name of a mask in lower case: its file}, in order."""
    if not walk.masks.is_dir():
        raise DataError(f"{walk.masks}: no such folder of masks, wanted for {walk.frames}")
    files = [walk.masks / name for name in image_names(walk.masks)]
    return {file.stem.casefold(): file for file in files}


def place(masks, mask_max):
    """{name: (part of the mask that is the person, None) or (None, why there is none)}, {name: (height, width)}."""
    brightest, rims, sizes = 0, [], {}

    def read():
        nonlocal brightest
        for name, file in masks.items():
            mask = full_range(read_mask(file), mask_max)
            sizes[name] = mask.shape
            brightest = max(brightest, int(mask.max()))
            rims.append(hygiene.rim(mask))
            yield mask

    placed = dict(zip(masks, follow(read(), numbers_of(list(masks)))))
    if hygiene.dim(brightest):
        raise DataError(
            f"{next(iter(masks.values())).parent}: masks say {brightest} where the person is, wanted 255; "
            f"say --mask-max {brightest}"
        )
    if rims and statistics.median(rims) > hygiene.RIM:
        raise DataError(f"{next(iter(masks.values())).parent}: {hygiene.INVERTED}")
    return placed, sizes


def read_frames(walk, masks, first):
    """(name, frame) of every frame; silhouettes alone have None in the frames' place."""
    if walk.frames is None:
        for file in masks.values():
            yield file.stem, None
    elif walk.frames.is_file():  # named as the masks of CASIA-B: 001-nm-01-090-017 is the 17th frame
        for number, frame in enumerate(read_video(walk.frames), first):
            yield frame_of_video(walk, number), frame
    else:
        for name in image_names(walk.frames):
            yield Path(name).stem, read_image(walk.frames / name, cv2.IMREAD_COLOR)


def frame_of_video(walk, number):
    return f"{walk.path.replace('/', '-')}-{number:03d}"


def require_first(walks, first):
    """DataError: masks of videos begin with number 0 though `first` is 1, which puts each on the frame before it."""
    early = [
        walk.path
        for walk in walks
        if first and walk.frames and walk.frames.is_file() and walk.masks.is_dir()
        if frame_of_video(walk, 0) in {Path(name).stem.casefold() for name in os.listdir(walk.masks)}
    ]
    if early:
        raise DataError(
            f"{len(early)} walks have a mask of number 0 ({some(early)}), but 1 is the first frame of a video; say "
            "--numbered-from 0 if all are numbered so, else rename these"
        )


def total_loss(walk, outcome):
    """Why a walk has no usable frame: one sentence."""
    source = walk.frames or walk.masks
    reasons = Counter(reason for _, _, reason in outcome.left_out)
    if outcome.frames and outcome.masks and reasons["no mask"] == outcome.frames:
        of_frame, of_mask = (next(n for _, n, why in outcome.left_out if why == x) for x in ("no mask", NO_FRAME))
        return (
            f"{source}: none of its {outcome.frames} frames has a mask: frames are named as {of_frame}, "
            f"masks in {walk.masks} as {of_mask}; rename the masks"
        )
    told = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or f"no masks in {walk.masks}"
    return f"{source}: none of its {outcome.frames} frames can be used: {told}"


def warnings(outcomes, doubtful):
    """Sentences about walks that were cropped and yet are not as they should be. `doubtful`: {path: why}."""
    done = [outcome for outcome in outcomes if not outcome.failure]
    for title, found in (
        (
            "have masks without a frame (a video that was cut off, or masks of another recording?)",
            [f"{o.path} ({o.frames} frames, {o.masks} masks)" for o in done if _count(o, NO_FRAME)],
        ),
        (
            "have frames without a mask, which are left out",
            [f"{o.path} ({_count(o, 'no mask')} of {o.frames})" for o in done if _count(o, "no mask")],
        ),
        (
            f"have fewer than {MIN_FRAMES} usable frames, and will not count",
            [f"{o.path} ({o.cropped} of {o.frames})" for o in done if o.cropped < MIN_FRAMES],
        ),
        (
            hygiene.NO_WHOLE_PERSON,
            [f"{path} ({why})" for path, why in doubtful.items()],
        ),
    ):
        if found:
            yield f"{len(found)} sequences {title}: {some(found)}"


def _count(outcome, reason):
    return sum(why == reason for _, _, why in outcome.left_out)


def _write_image(file, image):
    file.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def gather(dataset, tree, failures, file):
    """Collect the records of all sequences in the tree in one CSV, with doubts about whole walks, and the failures.

    How often each reason for a frame occurs, and {path: why} of the doubtful walks."""
    reasons: Counter[str] = Counter()
    paths = dataset.paths(tree) if tree.is_dir() else []
    doubtful = shape.parts_of_people({path: shape.read_shape(tree / path / shape.FILE) for path in paths}, dataset.tree)
    whole.make_folder(file.parent)
    with whole.atomic_path(file) as temporary, open(temporary, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        for path in paths:
            record = tree / path / RECORD
            if record.is_file():
                with open(record, newline="") as rows:
                    for row in csv.reader(rows):
                        writer.writerow(row)
                        reasons[row[-1]] += 1
            if path in doubtful:
                writer.writerow((path, "", doubtful[path]))
        for outcome in failures:
            writer.writerow((outcome.path, "", outcome.failure))
    return reasons, dict(sorted(doubtful.items()))


if __name__ == "__main__":
    sys.exit(program.run(main))
