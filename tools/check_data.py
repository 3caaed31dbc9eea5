"""Look a dataset over before hours of training: what is missing, short, unreadable, or does not fit together.

    python tools/check_data.py casiab                      decodes every file, minutes for a million
    python tools/check_data.py casiab --quick              lists folders only
    python tools/check_data.py casiab --json report.json   writes the whole report too

Exit status 0: training can start. 1: it cannot, or would stop on the way. 2: wrong usage.
"""

import argparse
import json
import os
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2

from layers.datasets import DATASETS, MIN_FRAMES, data_root
from layers.frames import DataError, image_names, read_image
from tools.work import Progress, in_order, workers

SHOWN = 10  # examples in the text; the JSON has all


def main(argv=None):
    args = parse_args(argv)
    dataset = DATASETS[args.dataset]
    folder = data_root() / dataset.folder
    im_path = args.im_path or str(folder / dataset.im_dir)
    gt_path = args.gt_path or str(folder / dataset.gt_dir)
    try:
        for path in (im_path, gt_path):
            if not os.path.isdir(path):
                where = "data/README.md says what goes where and how it is cropped"
                raise DataError(f"{path}: no such folder. {dataset.title}: {dataset.source}; {where}")
        report = check(dataset, im_path, gt_path, args.train_num, args.quick, args.jobs)
        if args.json:
            write_json(report, args.json)
    except (DataError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(to_text(report))
    return 0 if report["can_train"] else 1


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--im-path", help="tree of frames (default: where data/README.md puts it)")
    parser.add_argument("--gt-path", help="tree of masks (default: where data/README.md puts it)")
    parser.add_argument("--train-num", type=int, help="training subjects (default: as published)")
    parser.add_argument("--quick", action="store_true", help="list folders only, decode nothing")
    parser.add_argument("--json", metavar="FILE", help="write the report here as well")
    parser.add_argument(
        "--jobs", type=workers, default=os.cpu_count(), help="threads that decode (default: one a core)"
    )
    return parser.parse_args(argv)


@dataclass
class Found:
    """What lies in the two folders of one sequence."""

    path: str
    trains: bool
    frames: int = 0
    masks: int = 0
    broken: list = field(default_factory=list)  # sentences that name a file
    without_mask: list = field(default_factory=list)  # frames; their masks count as zero
    sizes: Counter = field(default_factory=Counter)  # of frames, "64x64"
    empty: int = 0  # masks all zero
    full: int = 0  # masks without a zero

    @property
    def usable(self):
        return self.frames >= MIN_FRAMES and self.frames == self.masks and not self.broken


def check(dataset, im_path, gt_path, train_num=None, quick=False, jobs=1):
    """The report, ready for JSON. What is in "stops" keeps training from running to its end, "warnings" do not."""
    subjects = dataset.subjects(im_path)
    try:
        dataset.labels(subjects)
        training = set(dataset.split(subjects, train_num)[0])
        sequences = dataset.sequences(im_path, subjects)
    except ValueError as e:
        return {"dataset": dataset.name, "im_path": im_path, "stops": [str(e)], "warnings": [], "can_train": False}

    def look(seq):
        trains = seq.subject in training and dataset.trains(seq)
        return look_into(Found(seq.path, trains), im_path, gt_path, quick)

    with Progress(len(sequences), "sequences", "checking") as progress:
        all_found = []
        for found in in_order(look, sequences, jobs):
            all_found.append(found)
            progress.update()
    report = summarise(dataset, subjects, training, sequences, all_found)
    stops, warnings = judge(dataset, report, sequences, all_found)
    return {
        "dataset": dataset.name, "im_path": im_path, "gt_path": gt_path, "decoded": not quick,
        **report, "stops": stops, "warnings": warnings, "can_train": not stops,
    }  # fmt: skip


def look_into(found, im_path, gt_path, quick):
    """Fill in `found`: list the two folders, and unless `quick` decode every file."""
    names = _names(im_path, found)
    masks = _names(gt_path, found)
    found.frames, found.masks = len(names), len(masks)
    found.without_mask = sorted(set(names) - set(masks))
    if quick:
        return found
    for name in names:
        frame = _decode(os.path.join(im_path, found.path, name), cv2.IMREAD_COLOR, found)
        mask = None
        if name not in found.without_mask:
            mask = _decode(os.path.join(gt_path, found.path, name), cv2.IMREAD_GRAYSCALE, found)
        if frame is not None:
            found.sizes[f"{frame.shape[1]}x{frame.shape[0]}"] += 1
        if mask is not None:
            found.empty += not mask.any()
            found.full += bool(mask.all())
        if frame is not None and mask is not None and frame.shape[:2] != mask.shape:
            file = os.path.join(gt_path, found.path, name)
            found.broken.append(f"{file}: the mask has not the size of its frame: {mask.shape}, {frame.shape[:2]}")
    return found


def _names(root, found):
    folder = os.path.join(root, found.path)
    try:
        return image_names(folder) if os.path.isdir(folder) else []
    except DataError as e:
        found.broken.append(str(e))
        return []


def _decode(path, flags, found):
    try:
        return read_image(path, flags)
    except DataError as e:
        found.broken.append(str(e))
        return None


def summarise(dataset, subjects, training, sequences, all_found):
    """Counts and lists of what was found."""
    per_subject = Counter(seq.subject for seq in sequences)
    sizes: Counter = sum((found.sizes for found in all_found), Counter())
    return {
        "subjects": {"found": len(subjects), "published": dataset.num_subjects, "training": len(training),
                     "missing": missing_ids(dataset, subjects)},
        "sequences": {"found": len(sequences), "training": sum(found.trains for found in all_found),
                      "usable": sum(found.usable for found in all_found),
                      "usable_training": sum(found.usable and found.trains for found in all_found),
                      "per_subject": dict(sorted(per_subject.items())),
                      "short": {found.path: found.frames for found in all_found if found.frames < MIN_FRAMES},
                      "mismatched": {found.path: [found.frames, found.masks] for found in all_found
                                     if found.frames != found.masks}},
        "frames": {"found": sum(found.frames for found in all_found),
                   "without_mask": [f"{found.path}/{name}" for found in all_found for name in found.without_mask],
                   "broken": [sentence for found in all_found for sentence in found.broken],
                   "sizes": dict(sizes.most_common())},
        "masks": {"found": sum(found.masks for found in all_found), "empty": sum(found.empty for found in all_found),
                  "full": sum(found.full for found in all_found)},
    }  # fmt: skip


def missing_ids(dataset, subjects):
    """Numbers of 001..<published> that no folder bears, where ids are numbers from 1 on."""
    if not dataset.label_is_id:
        return []
    numbers = {int(subject) for subject in subjects}
    return [f"{number:03d}" for number in range(1, dataset.num_subjects + 1) if number not in numbers]


def judge(dataset, report, sequences, all_found):
    """(what keeps training from running to its end, what does not): sentences."""
    stops, warnings = [], []
    usable = {seq.subject for seq, found in zip(sequences, all_found) if found.usable and found.trains}
    if len(usable) < 2:
        stops.append(f"{len(usable)} training subjects have a usable sequence, two are needed")
    labels = [seq.label for seq, found in zip(sequences, all_found) if found.trains]
    if labels and max(labels) >= report["subjects"]["training"]:
        stops.append(
            f"the largest label of a training subject is {max(labels)}, fc_id has room for "
            f"0..{report['subjects']['training'] - 1}: {dataset.title} labels are id - 1, so no id may be missing"
        )
    whole = [found for found in all_found if found.trains and found.usable]
    strange = [found for found in whole if len(found.without_mask) == found.frames]
    if strange:
        stops.append(
            f"{len(strange)} training sequences have masks, but none of a frame's name, first {strange[0].path}, "
            f"frame {strange[0].without_mask[0]}: a mask must be named as its frame is"
        )
    broken = [sentence for found in all_found if found.trains for sentence in found.broken]
    if broken:
        stops.append(f"{len(broken)} files that training reads are broken, first {broken[0]}")
    lacking = report["subjects"]["training"] - len(usable)
    frames, masks = report["frames"], report["masks"]
    for number, text in (
        (len(report["subjects"]["missing"]), "ids are missing: " + " ".join(report["subjects"]["missing"][:SHOWN])),
        (lacking, "training subjects have no usable sequence"),
        (len(report["sequences"]["short"]), f"sequences are shorter than {MIN_FRAMES} frames and are left out"),
        (len(report["sequences"]["mismatched"]), "sequences have not as many masks as frames and are left out"),
        (len(frames["broken"]) - len(broken), "files that training does not read are broken"),
        (len(frames["without_mask"]), "frames have no mask of their name; it counts as empty"),
        (masks["empty"], "masks are empty"),
        (masks["full"], "masks are full"),
    ):
        if number:
            warnings.append(f"{number} {text}")
    return stops, warnings


def to_text(report):
    """The report for reading."""
    lines = [f"{report['dataset']}: {report['im_path']}"]
    if "subjects" in report:
        subjects, sequences, frames, masks = (report[key] for key in ("subjects", "sequences", "frames", "masks"))
        per_subject = sequences["per_subject"].values() or [0]
        lines += [
            f"  subjects   {subjects['found']} of {subjects['published']}, {subjects['training']} train",
            f"  sequences  {sequences['found']}, {sequences['usable']} usable; a subject has {min(per_subject)} to "
            f"{max(per_subject)}, median {statistics.median(per_subject):g}; "
            f"training uses {sequences['usable_training']} of {sequences['training']}",
            f"  frames     {frames['found']}, sizes {_sizes(frames['sizes'])}" if report["decoded"] else
            f"  frames     {frames['found']}, not decoded",
            f"  masks      {masks['found']}" + (f", {masks['empty']} empty, {masks['full']} full" * report["decoded"]),
        ]  # fmt: skip
        lines += _examples("short", [f"{path}: {n} frames" for path, n in sequences["short"].items()])
        lines += _examples(
            "mismatched", [f"{path}: {n} frames, {m} masks" for path, (n, m) in sequences["mismatched"].items()]
        )
        lines += _examples("broken", frames["broken"])
    lines += [f"warning: {sentence}" for sentence in report["warnings"]]
    lines += [f"stop: {sentence}" for sentence in report["stops"]]
    lines.append("training can start" if report["can_train"] else "training cannot run: mend what is marked stop")
    return "\n".join(lines)


def _sizes(sizes):
    if not sizes:
        return "none"
    common = ", ".join(f"{size} ({n})" for size, n in list(sizes.items())[:3])
    return common + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")


def _examples(title, sentences):
    more = [f"    ... and {len(sentences) - SHOWN} more (--json has all)"] if len(sentences) > SHOWN else []
    return [f"  {title}:", *(f"    {sentence}" for sentence in sentences[:SHOWN]), *more] if sentences else []


def write_json(report, file):
    with open(file + ".partial", "w") as out:
        json.dump(report, out, indent=1)
    os.replace(file + ".partial", file)


if __name__ == "__main__":
    sys.exit(main())
