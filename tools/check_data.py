"""Look a dataset over before hours of training: what is missing, short, unreadable, or does not fit together.

    python tools/check_data.py casiab                      decodes every file, minutes for a million
    python tools/check_data.py casiab --quick              lists folders only
    python tools/check_data.py casiab --json report.json   writes the whole report too
    python tools/check_data.py casiab --silhouettes        masks alone; --im-path DIR also takes OpenGait's pickles

Exit status 0: training can start. 1: it cannot, or would stop on the way. 2: wrong usage.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import json
import statistics
from collections import Counter

from eval.ending import exit_status
from eval.progress import Progress
from layers import hygiene
from layers.bundled import whole
from layers.datasets import DATASETS, MIN_FRAMES
from layers.names import some
from layers.shape import parts_of_people
from layers.sources import open_trees
from layers.split import IDLE, split_of
from tools.look import Found, look_into
from tools.trees import add_trees, trees_of
from tools.workers import in_order, workers

SHOWN = 10  # examples in the text; the JSON has all
CROPPED = 0.6  # of a picture's height that the person fills, at least, where pictures are cropped


def main(argv=None):
    return exit_status(look_over, parse_args(argv), stopped="the same command begins anew")


def look_over(args):
    """The exit status: 0 where training can start."""
    dataset = DATASETS[args.dataset]
    im_path, gt_path = trees_of(dataset, args)
    source = open_trees(im_path, gt_path, args.mask_max or 255)
    report = check(dataset, source, args)
    if args.json:
        write_json(report, args.json)
    print(to_text(report))
    return 0 if report["can_train"] else 1


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    add_trees(parser)
    parser.add_argument("--train-num", type=int, help="training subjects (default: as published)")
    parser.add_argument("--partition", default="", metavar="FILE", help="who trains: JSON with TRAIN_SET and TEST_SET")
    parser.add_argument("--excluded", default="", metavar="FILE", help="walks that take no part, one a line")
    parser.add_argument("--quick", action="store_true", help="list folders only, decode nothing")
    parser.add_argument("--json", metavar="FILE", help="write the report here as well")
    parser.add_argument(
        "--jobs", type=workers, default=os.cpu_count(), help="threads that decode (default: one a core)"
    )
    return parser.parse_args(argv)


def check(dataset, source, args):
    """The report, ready for JSON. What is in "stops" keeps training from running to its end, "warnings" do not."""
    where = {"dataset": dataset.name, "im_path": source.im_path, "gt_path": source.gt_path}
    subjects = dataset.subjects(source)
    try:
        dataset.labels(subjects)
        split = split_of(dataset, subjects, args.train_num, args.partition, args.excluded)
        sequences = split.sequences(dataset, source, [s for s in subjects if s in split.labels])
    except ValueError as e:
        return {**where, "stops": [str(e)], "warnings": [], "can_train": False}
    idle = split.idle(source)

    def look(seq):
        return look_into(Found(seq.path, seq.subject in split.training and dataset.trains(seq)), source, args.quick)

    with Progress(len(sequences), "sequences", "checking") as progress:
        all_found = []
        for found in in_order(look, sequences, args.jobs):
            all_found.append(found)
            progress.update()
    report = summarise(dataset, subjects, split, sequences, all_found)
    stops, warnings = judge(dataset, report, split, sequences, all_found, args)
    warnings += [f"{args.excluded}: {len(idle)} {IDLE}: {some(idle)}"] if idle else []
    return {
        **where,
        "decoded": not args.quick,
        **report,
        "stops": stops,
        "warnings": warnings,
        "can_train": not stops,
    }


def summarise(dataset, subjects, split, sequences, all_found):
    """Counts and lists of what was found."""
    per_subject = Counter(seq.subject for seq in sequences)
    sizes: Counter = sum((found.sizes for found in all_found), Counter())
    left_out: Counter = sum((found.left_out for found in all_found), Counter())
    paths = [seq.path for seq in sequences]
    return {
        "subjects": {
            "found": len(subjects),
            "published": dataset.num_subjects,
            "training": len(split.training),
            "missing": missing_ids(dataset, subjects),
        },
        "sequences": {
            "found": len(sequences),
            "training": sum(found.trains for found in all_found),
            "usable": sum(found.usable for found in all_found),
            "usable_training": sum(found.usable and found.trains for found in all_found),
            "per_subject": dict(sorted(per_subject.items())),
            "short": {found.path: found.frames for found in all_found if found.frames < MIN_FRAMES},
            "mismatched": {
                found.path: [found.frames, found.masks] for found in all_found if found.frames != found.masks
            },
            "missing": [
                path for path in hygiene.absent(dataset, paths, subjects) if not split.excludes(path.split(",")[0])
            ],
            "unknown": [path for path in paths if not dataset.knows(path)],
            "suspects": {found.path: jumps for found in all_found if (jumps := found.jumps())},
            "still": [found.path for found in all_found if found.stands_still],
            "copies": hygiene.equal({found.path: found.pictures.digest() for found in all_found if found.sizes}),
            "partial": parts_of_people({found.path: found.shape for found in all_found}, dataset.tree),
        },
        "frames": {
            "found": sum(found.frames for found in all_found),
            "without_mask": [f"{found.path}/{name}" for found in all_found for name in found.without_mask],
            "broken": [sentence for found in all_found for sentence in found.broken],
            "sizes": dict(sizes.most_common()),
            "left_out_by_crop": dict(left_out.most_common()),
        },
        "masks": {
            "found": sum(found.masks for found in all_found),
            "empty": sum(found.empty for found in all_found),
            "full": sum(found.full for found in all_found),
            "without_frame": [f"{found.path}/{name}" for found in all_found for name in found.without_frame],
            "dim": {found.path: found.brightest for found in all_found if hygiene.dim(found.brightest)},
            "inverted": [found.path for found in all_found if found.inverted],
            "blank": [found.path for found in all_found if found.rims and found.empty == len(found.rims)],
        },
        "test": test_part(dataset, subjects, split, sequences, all_found),
    }


def test_part(dataset, subjects, split, sequences, all_found):
    """Who is tested, and how many walks each cell of the tables has: {"gallery" or probes: {group: walks}}."""
    cells: dict[str, Counter] = {}
    for seq, found in zip(sequences, all_found):
        group = dataset.protocol.group(seq)
        for kind in kinds(dataset.protocol, seq) if seq.subject in split.test and group else ():
            cells.setdefault(kind, Counter())[group] += found.frames >= MIN_FRAMES
    groups = dataset.protocol.groups
    return {
        "subjects": len(split.test),
        "published": dataset.num_subjects - dataset.train_num,
        "walks": {kind: {group: cells[kind][group] for group in groups} for kind in sorted(cells)},
        "first": next(iter(split.test), ""),
        "last": next(iter(reversed(split.test)), ""),
    }


def kinds(protocol, seq):
    """The parts that a walk has in the tables: gallery, probes, or those of a further table, such as BG."""
    named = protocol.covariate(seq)
    if named:
        return [f"probes {named}"]
    role = protocol.role(seq)
    return [] if role is None else ["gallery" if role == "gallery" else "probes"]


def missing_ids(dataset, subjects):
    """Numbers of 001..<published> that no folder bears, where ids are numbers from 1 on."""
    if not dataset.label_is_id:
        return []
    numbers = {int(subject) for subject in subjects}
    return [f"{number:03d}" for number in range(1, dataset.num_subjects + 1) if number not in numbers]


def judge(dataset, report, split, sequences, all_found, args):
    """(what keeps training from running to its end, what does not): sentences."""
    stops, warnings = [], []
    usable = {seq.subject for seq, found in zip(sequences, all_found) if found.usable and found.trains}
    if len(usable) < 2:
        stops.append(f"{len(usable)} training subjects have a usable sequence, two are needed")
    labels = [seq.label for seq, found in zip(sequences, all_found) if found.trains]
    if labels and max(labels) >= split.num_labels:
        stops.append(
            f"the largest label of a training subject is {max(labels)}, fc_id has room for "
            f"0..{split.num_labels - 1}: {dataset.title} labels are id - 1, so no id may be missing; or say who trains "
            "by a partition file: python tools/make_prototxt.py --help"
        )
    whole = [found for found in all_found if found.trains and found.usable]
    strange = [found for found in whole if len(found.without_mask) == found.frames]
    if strange:
        stops.append(
            f"{len(strange)} training sequences have masks, but none of a frame's name, first {strange[0].path}, "
            f"frame {strange[0].without_mask[0]}: a mask must be named as its frame is"
        )
    dim = [found for found in whole if hygiene.dim(found.brightest)]
    if dim:
        fault = hygiene.dim(dim[0].brightest).replace("<dataset>", dataset.name)
        stops.append(
            f"{len(dim)} training sequences have dim masks, first {dim[0].path}: {fault}; "
            f"and check them with --mask-max {dim[0].brightest}"
        )
    inverted = [found for found in whole if found.inverted]
    if inverted:
        stops.append(
            f"{len(inverted)} training sequences have inverted masks, first {inverted[0].path}: {hygiene.INVERTED}"
        )
    blank = set(report["masks"]["blank"])
    if whole and blank >= {found.path for found in whole}:
        stops.append(f"the masks of all {len(whole)} training sequences are empty; wanted 255 where the person is")
    broken = [sentence for found in all_found if found.trains for sentence in found.broken]
    if broken:
        stops.append(f"{len(broken)} files that training reads are broken, first {broken[0]}")
    tall = [statistics.median(person[2] for person in found.people) for found in all_found if found.people]
    if tall and (share := statistics.median(tall)) < CROPPED:
        warnings.append(
            f"the people fill {100 * share:.0f}% of the height of the pictures, so these are not cropped around them: "
            f"python tools/crop.py {dataset.name} --help"
        )
    if missing := report["subjects"]["missing"]:
        warnings.append(f"{len(missing)} ids are missing: " + some(missing, SHOWN) + consequence(dataset, split, args))
    lacking = report["subjects"]["training"] - len(usable)
    stopped = {found.path for found in whole}  # what is wrong with their masks is told above
    dim_too, inverted_too = ([p for p in report["masks"][kind] if p not in stopped] for kind in ("dim", "inverted"))
    frames, masks, found = report["frames"], report["masks"], report["sequences"]
    for number, text in (
        (len(split.absent), f"ids of the partition are not there: {some(split.absent, SHOWN)}"),
        (len(found["missing"]), f"of what the protocol wants is missing: {some(found['missing'], SHOWN)}"),
        (
            len(found["unknown"]),
            "sequences are of no condition that the protocol knows, so that nobody uses them; "
            f"rename or remove them: {some(found['unknown'], SHOWN)}",
        ),
        (lacking, "training subjects have no usable sequence"),
        (len(found["short"]), f"sequences are shorter than {MIN_FRAMES} frames and are left out"),
        (len(found["mismatched"]), "sequences have not as many masks as frames and are left out"),
        (len(frames["broken"]) - len(broken), "files that training does not read are broken"),
        (len(frames["without_mask"]), "frames have no mask of their name; it counts as empty"),
        (len(masks["without_frame"]), f"masks have no frame of their name: {some(masks['without_frame'])}"),
        (masks["empty"], "masks are empty" + (f", all of {some(masks['blank'])}" if blank else "")),
        (len(dim_too), f"further sequences have dim masks: {some(dim_too)}"),
        (len(inverted_too), f"further sequences have inverted masks: {some(inverted_too)}"),
        (masks["full"], "masks are full"),
        (
            len(found["suspects"]),
            "sequences have frames in which the box or the person in it jumps, such as legs alone "
            f"or another person; look at them: {some([f'{p}/{n[0]}' for p, n in found['suspects'].items()])}",
        ),
        (len(found["still"]), f"sequences show the same picture in every frame: {some(found['still'])}"),
        (
            len(found["copies"]),
            f"sequences {hygiene.COPIES}: {some([' = '.join(paths) for paths in found['copies']])}",
        ),
        (
            len(found["partial"]),
            f"sequences {hygiene.NO_WHOLE_PERSON}: "
            f"{some([f'{path} ({why})' for path, why in found['partial'].items()])}",
        ),
    ):
        if number:
            warnings.append(f"{number} {text}")
    for reason, number in frames["left_out_by_crop"].items():
        warnings.append(f"{number} frames were left out when cropping: {reason}")
    return stops, warnings


def consequence(dataset, split, args):
    """What missing ids do to a split by number."""
    train_num = args.train_num or dataset.train_num
    published = {f"{number:03d}" for number in range(1, train_num + 1)}
    if args.partition or published == set(split.training):
        tested = dataset.num_subjects - train_num
        return "" if len(split.test) == tested else f"; {len(split.test)} people are tested, not {tested}"
    return (
        f"; the first {train_num} are {split.training[0]}..{split.training[-1]} now, not 001..{train_num:03d}, "
        f"and {len(split.test)} people are tested, not {dataset.num_subjects - train_num}"
    )


def to_text(report):
    """The report for reading."""
    lines = [f"{report['dataset']}: {report['im_path'] or report['gt_path']}"]
    if "subjects" in report:
        subjects, sequences, frames, masks = (report[key] for key in ("subjects", "sequences", "frames", "masks"))
        per_subject = sequences["per_subject"].values() or [0]
        lines += [
            f"  subjects   {subjects['found']} of {subjects['published']}, {subjects['training']} train",
            f"  sequences  {sequences['found']}, {sequences['usable']} usable; a subject has {min(per_subject)} to "
            f"{max(per_subject)}, median {statistics.median(per_subject):g}; "
            f"training uses {sequences['usable_training']} of {sequences['training']}",
            f"  frames     {frames['found']}, sizes {_sizes(frames['sizes'])}"
            if report["decoded"]
            else f"  frames     {frames['found']}, not decoded",
            f"  masks      {masks['found']}" + (f", {masks['empty']} empty, {masks['full']} full" * report["decoded"]),
            f"  test       {report['test']['subjects']} subjects, published {report['test']['published']}",
            *(f"  {kind:10s} {_walks(walks)}" for kind, walks in report["test"]["walks"].items()),
        ]
        lines += _examples("missing", sequences["missing"])
        lines += _examples("short", [f"{path}: {n} frames" for path, n in sequences["short"].items()])
        lines += _examples(
            "mismatched", [f"{path}: {n} frames, {m} masks" for path, (n, m) in sequences["mismatched"].items()]
        )
        lines += _examples("broken", frames["broken"])
    lines += [f"warning: {sentence}" for sentence in report["warnings"]]
    lines += [f"stop: {sentence}" for sentence in report["stops"]]
    lines.append("training can start" if report["can_train"] else "training cannot run: mend what is marked stop")
    return "\n".join(lines)


def _walks(walks):
    """{group: walks} in words: those of most groups, and the groups that have fewer."""
    most = max(walks.values())
    fewer = [f"{group}: {n}" for group, n in walks.items() if n < most]
    return f"{most} walks a cell" + (f"; fewer in {some(fewer, len(walks))}" if fewer else "")


def _sizes(sizes):
    if not sizes:
        return "none"
    common = ", ".join(f"{size} ({n})" for size, n in list(sizes.items())[:3])
    return common + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")


def _examples(title, sentences):
    more = [f"    ... and {len(sentences) - SHOWN} more (--json has all)"] if len(sentences) > SHOWN else []
    return [f"  {title}:", *(f"    {sentence}" for sentence in sentences[:SHOWN]), *more] if sentences else []


def write_json(report, file):
    whole.write(file, json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(program.run(main))
