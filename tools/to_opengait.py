"""Hand masks and features on to OpenGait and other tools.

    python tools/to_opengait.py masks casiab --weights W.caffemodel --out CASIA-B-gaitnet-pkl
    python tools/to_opengait.py features eval/feat/casiab-tr74-test-0123456789abcdef.npz --out features.npz

masks: the masks that the net predicts, of every sequence, as <id>/<condition>/<view>/<view>.pkl, one uint8 array
(F, 64, 64) of 0..255 each, which OpenGait trains GaitSet or GaitBase on; view 000 where a data set has one only.
Started again, it goes on with what is missing.
features: from what an evaluation leaves in eval/feat/. An .npz has embeddings (N, 256, 1), labels, types (conditions)
and views, as OpenGait's evaluation wants them, and ids; a .csv has id, condition, view and the 256 numbers in a row.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import csv
import pickle
from pathlib import Path

import numpy as np

from eval.cli import weights_file
from eval.deploy import open_net
from eval.ending import exit_status
from eval.extract import read_walk
from eval.features import is_embeddings, read_cache, training_array, write_arrays
from eval.progress import Progress
from layers.bundled import whole
from layers.datasets import DATASETS, data_root
from layers.sources import existing, open_frames
from tools.one_run import only_run

NO_VIEW = "000"


def main(argv=None):
    args = parse(argv)
    return exit_status(args.run, args)


def write_masks(args):
    dataset = DATASETS[args.dataset]
    im_path = existing("--im-path", args.im_path or data_root() / dataset.folder / dataset.im_dir)
    frames = open_frames(im_path)
    if not frames.has_frames:
        raise ValueError(f"{im_path}: holds silhouettes alone, so there is nothing to predict masks from")
    files = {path: args.out / file_of(path) for path in dataset.paths(frames)}
    todo = [path for path, file in files.items() if not file.exists() and frames.length(path)]
    net = open_net(weights_file(args.weights, dataset.name), args.gpu, parts=("segmentation",))
    with only_run(args.out):
        with Progress(len(todo), "sequences", "predicting") as progress:
            for path in todo:
                masks = net.masks(read_walk(frames, path, frames.length(path)))
                dump(files[path], np.rint(255 * masks).astype(np.uint8))
                progress.update()
    print(f"{args.out}: masks of {len(files)} sequences")


def file_of(path):
    """001/nm-01/090 -> 001/nm-01/090/090.pkl"""
    subject, condition, *view = path.split("/")
    folder = Path(subject, condition, view[0] if view else NO_VIEW)
    return folder / f"{folder.name}.pkl"


def dump(file, array):
    """Write the pickle of an array, whole or not at all, so that any NumPy can read it."""
    content = pickle.dumps(np.ascontiguousarray(array), 3)
    content = content.replace(b"cnumpy._core.", b"cnumpy.core.", 1)  # the name before NumPy 2, which 2 knows as well
    whole.make_folder(file.parent)
    whole.write(file, content)


def write_features(args):
    if is_embeddings(args.features):
        raise ValueError(f"{args.features}: is in OpenGait's form already; this takes what lies in eval/feat/")
    features, _, origin = read_cache(args.features)
    places = [[*str(name).split("/"), NO_VIEW][:3] for name in features.names]
    if any(len(place) < 3 for place in places):
        raise ValueError(f"{args.features}: its walks have no names such as 001/nm-01/090")
    ids, conditions, views = (np.array(column) for column in zip(*places))
    if args.out.suffix == ".npz":
        labels = ids.astype(np.int64) if all(name.isdecimal() for name in ids) else features.labels
        embeddings = features.vectors[:, :, None]  # one part
        told = training_array(origin)
        write_arrays(args.out, embeddings=embeddings, labels=labels, types=conditions, views=views, ids=ids, **told)
    elif args.out.suffix == ".csv":
        with whole.atomic_path(args.out) as temporary, open(temporary, "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["id", "condition", "view", *(f"f{i}" for i in range(features.vectors.shape[1]))])
            for place, vector in zip(places, features.vectors):
                writer.writerow([*place, *(f"{value:.9g}" for value in vector)])
    else:
        raise ValueError(f"{args.out}: wanted a name that ends in .npz or .csv")
    print(f"{args.out}: {len(ids)} features of {len(set(ids.tolist()))} people")


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="tools/to_opengait.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="masks|features")
    masks = commands.add_parser("masks", help="predicted masks as pickles")
    masks.add_argument("dataset", choices=DATASETS)
    masks.add_argument("--weights", type=Path, metavar="FILE", help="trained net (default: as in evaluation)")
    masks.add_argument("--im-path", metavar="DIR", help="tree of frames, pickles, or a pack (default: data/README.md)")
    masks.add_argument("--gpu", type=int, metavar="N", help="run the net on this GPU (default: CPU)")
    masks.set_defaults(run=write_masks)
    features = commands.add_parser("features", help="features with labels, .npz or .csv")
    features.add_argument("features", type=Path, metavar="FILE", help="of an evaluation, from eval/feat/")
    features.set_defaults(run=write_features)
    for command in (masks, features):
        command.add_argument("--out", type=Path, required=True, metavar="PATH", help="where it goes")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(program.run(main))
