"""Who walks here? Enrol people by their walks, then ask for the name of another walk.

    python tools/identify.py calibrate people.npz --features eval/feat/walkers-tr36-test-0123456789abcdef.npz
    python tools/identify.py enroll people.npz anna=walks/anna bert=walks/bert.avi
    python tools/identify.py query people.npz walks/somebody walks/stranger.avi

A walk is a folder of frames or a video, cropped around the person as the training data are; --crop cuts the person out
of full frames of a camera that stands still. One walk from one view is enough to enrol; more, from other views, help.

calibrate learns from walks of people who neither trained the net nor are enrolled (an evaluation leaves the features of
such walks in eval/feat/) how far apart walks of one person and of two are: this gives scores their meaning, and fixes
the distance beyond which the answer is "unknown", so that --false-alarms of strangers at most are taken for someone.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from eval.cli import weights_file
from eval.deploy import open_net
from eval.ending import exit_status
from eval.extract import window_sums
from eval.features import read_cache
from eval.people import People, calibrate
from eval.seen import LEAKED
from eval.weights import read_weights
from layers.datasets import DATASETS, MIN_FRAMES, SIZE
from layers.frames import PLANES, image_names, read_image, read_video
from tools.one_run import only_writer
from tools.person import cut_pair, follow

MOST_BYTES = 2**31  # of the frames of a walk, which are held together: half a minute of 720p, longer than a walk
BACKGROUND_FRAMES = 50  # at most, for the picture without the person
DIFFERENCE = 25  # grey levels from the background that make a pixel the person's


def main(argv=None):
    args = parse(argv)
    return exit_status(args.run, args, stopped="nothing was written; the same command begins anew")


def run_calibrate(args):
    features, _, key = read_cache(args.features)
    with only_writer(args.people, f"{args.people}.lock"):
        people = open_people(args, create=True)
        if key.get("weights_sha256") != people.weights_sha256:
            raise ValueError(f"{args.features}: features of other weights than those of {args.people}")
        if key.get("part") != "test":
            raise ValueError(f"{args.features}: features of {key.get('part')} subjects; wanted those of test subjects")
        if key.get("training") == LEAKED:
            raise ValueError(f"{args.features}: {key['training_told']}; wanted people whom training has not seen")
        found = calibrate(features.gallery, features.probe, args.false_alarms)
        replace(people, calibration=found).write(args.people)
    print(
        f"{args.people}: calibrated on {found.trials} trials of {found.people} people; unknown beyond distance "
        f"{found.threshold:.3f}, where {100 * found.false_alarm_rate:g}% of strangers are taken for someone and "
        f"{100 * found.detection_rate:.1f}% of the others are recognised"
    )


def run_enroll(args):
    walks = [parse_walk(text) for text in args.walks]
    with only_writer(args.people, f"{args.people}.lock"):
        people = open_people(args, create=True)
        net = open_net(weights_of(args), args.gpu)
        for name, path in walks:
            vector, frames = feature(net, path, args.crop)
            people = people.enrolled(name, vector, str(path))
            print(f"{name}: {path}, {frames} frames")
        people.write(args.people)
    print(f"{args.people}: {len(people.names)} walks of {len(set(people.names.tolist()))} people")


def run_query(args):
    people = open_people(args)
    if not len(people.names):
        raise ValueError(f"{args.people}: nobody is enrolled; run identify.py enroll")
    if people.calibration is None:
        raise ValueError(f"{args.people}: is not calibrated, so no score has a meaning; run identify.py calibrate")
    net = open_net(weights_of(args), args.gpu)
    results = [query(net, people, path, args) for path in args.walks]
    print(json.dumps(results, indent=1) if args.json else "\n".join(map(text_of, results)))


def query(net, people, path, args):
    vector, frames = feature(net, path, args.crop)
    answers = people.answer(vector)
    name, apart, _ = answers[0]
    known = apart <= people.calibration.threshold
    return {
        "walk": str(path),
        "frames": frames,
        "answer": name if known else "unknown",
        "threshold": people.calibration.threshold,
        "false_alarm_rate": people.calibration.false_alarm_rate,
        "ranking": [{"name": name, "score": score, "distance": apart} for name, apart, score in answers[: args.top]],
    }


def text_of(result):
    lines = [f"{result['walk']} ({result['frames']} frames): {result['answer']}"]
    for place, row in enumerate(result["ranking"], 1):
        beyond = "   beyond the threshold" if row["distance"] > result["threshold"] else ""
        lines.append(f"  {place}. {row['name']:20s} score {row['score']:.3f}   distance {row['distance']:.3f}{beyond}")
    return "\n".join(lines)


def open_people(args, create=False):
    """The enrolled people; with `create` none yet, where there is no file. Refuses another net than enrolled them."""
    weights_sha256 = read_weights(weights_of(args)).sha256
    if create and not args.people.exists():
        return People(np.empty(0, str), np.empty((0, 256), np.float32), np.empty(0, str), weights_sha256)
    if not args.people.exists():
        raise ValueError(f"{args.people}: no such file; run identify.py enroll")
    people = People.read(args.people)
    if people.weights_sha256 != weights_sha256:
        raise ValueError(
            f"{args.people}: made with other weights than {weights_of(args)}; say the right --weights, or "
            "enrol anew: features of two nets cannot be compared"
        )
    return people


def weights_of(args):
    return weights_file(args.weights, args.dataset)


def parse_walk(text):
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ValueError(f"{text}: wanted NAME=WALK, such as anna=walks/anna")
    return name, Path(path)


def feature(net, path, cropping):
    """(feature (256,), number of frames) of a walk: the mean over all its clips."""
    frames = whole_walk(path)
    total = len(frames)
    frames = cut_out(frames, path) if cropping and frames else frames
    if len(frames) < MIN_FRAMES:
        whole = f" of which a whole person was found in {len(frames)}" if cropping else ""
        whole += " (--crop is for full frames of a still camera; leave it out for cropped ones)" if cropping else ""
        raise ValueError(f"{path}: {total} frames{whole}; wanted {MIN_FRAMES} or more")
    planes = np.zeros((len(frames), *PLANES), np.uint8)
    for plane, frame in zip(planes, frames):
        plane[:3] = cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    return net.features(window_sums(net.masks(planes))).mean(axis=0), len(frames)


def whole_walk(path):
    """The frames of a video or a folder."""
    images = (read_image(path / name, cv2.IMREAD_COLOR) for name in ([] if path.is_file() else image_names(path)))
    frames, size = [], 0
    for frame in read_video(path) if path.is_file() else images:
        frames.append(frame)
        size += frame.nbytes
        if size > MOST_BYTES:
            raise ValueError(f"{path}: more than {MOST_BYTES} bytes of frames; cut the walk out of it")
    return frames


def cut_out(frames, path):
    """The frames in which the person is whole, cropped; the background is what most of the frames show."""
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"{path}: its frames are of different sizes, as cropped ones are; leave --crop out")
    some = frames[:: -(-len(frames) // BACKGROUND_FRAMES)]
    background = np.median(some, axis=0).astype(np.uint8)
    masks = [255 * (cv2.absdiff(frame, background).max(axis=2) > DIFFERENCE).astype(np.uint8) for frame in frames]
    followed = follow(cv2.medianBlur(mask, 5) for mask in masks)
    return [cut_pair(frame, part)[0] for frame, (part, _) in zip(frames, followed) if part is not None]


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="tools/identify.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="calibrate|enroll|query")
    calibrating = command(
        commands,
        "calibrate",
        run_calibrate,
        "learn what distances mean",
        "calibrate people.npz --features eval/feat/FILE.npz",
    )
    calibrating.add_argument(
        "--features", type=Path, required=True, metavar="FILE", help="features of validation walks, from eval/feat/"
    )
    calibrating.add_argument(
        "--false-alarms",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="of strangers who may be taken for someone (default %(default)s)",
    )
    enrolling = command(commands, "enroll", run_enroll, "add walks of people", "enroll people.npz anna=walks/anna")
    enrolling.add_argument("walks", nargs="+", metavar="NAME=WALK", help="a name, and a folder of frames or a video")
    asking = command(commands, "query", run_query, "who is it?", "query people.npz walks/somebody --json")
    asking.add_argument("walks", nargs="+", type=Path, metavar="WALK", help="folder of frames, or video")
    asking.add_argument("--top", type=int, default=5, metavar="N", help="names to show (default %(default)s)")
    asking.add_argument("--json", action="store_true", help="print JSON")
    for walking in (enrolling, asking):
        walking.add_argument("--crop", action="store_true", help="cut the person out of full frames of a still camera")
        walking.add_argument("--gpu", type=int, metavar="N", help="run the net on this GPU (default: CPU)")
    return parser.parse_args(argv)


def command(commands, name, run, about, example):
    parser = commands.add_parser(
        name, help=about, description=about, epilog=f"example: python tools/identify.py {example}"
    )
    parser.add_argument("people", type=Path, metavar="PEOPLE", help="file of enrolled people (.npz)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained net (default: that of --dataset)")
    parser.add_argument(
        "--dataset",
        choices=sorted(DATASETS),
        default="walkers",
        help="whose net, from models/ or the last of experiments/ (default %(default)s)",
    )
    parser.set_defaults(run=run)
    return parser


def share(text):
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a number between 0 and 1")
    return number


if __name__ == "__main__":
    sys.exit(program.run(main))
