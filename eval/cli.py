"""The command line of an evaluation: behind eval-casiab.py and its like, and `python -m eval DATASET`."""

import argparse
import reprlib
import shlex
import sys
import zipfile
from pathlib import Path

import numpy as np

from eval import plots, provenance, tables
from eval.baseline import baselines
from eval.card import write_card
from eval.deploy import PROTOTXT
from eval.ending import exit_status
from eval.features import (
    EXTRAS,
    FeatureFileError,
    is_embeddings,
    read_cache,
    read_embeddings,
    read_original,
    training_told,
    write_embeddings,
)
from eval.papers import FORMATS, LABELS, by_probe_views, of_result, terminal
from eval.protocol import evaluate
from eval.report import write_report
from eval.runtime import BUNDLED, import_caffe, which_caffe
from eval.score import SIMILARITIES
from eval.seen import LEAKED, UNKNOWN, UNSEEN, require_unseen, unknown
from eval.segmentation import over_all_frames
from eval.walks import CLIPS, Source, features_of
from layers.archives import settle
from layers.bundled import whole
from layers.datasets import DATASETS, RELEASED_WEIGHTS, data_root
from layers.digest import sha256
from layers.frames import DataError
from layers.opengait import holds_pickles
from layers.sources import existing
from layers.split import read_partition

ROOT = provenance.ROOT
MOST_SUBJECTS = 10**6  # that train
MODEL_FOLDERS = {"casiab": "casiab-tr74", "outdoor": "outdoor-gait"}  # in models/; the others by their own name


def main(name, argv=None):
    """Evaluate on one dataset; returns the exit status: 0, or 1 after one line `error: ...`."""
    dataset = DATASETS[name]
    argv = sys.argv[1:] if argv is None else argv
    args = parse(dataset, argv)
    typed = shlex.join([*script_of(name).split(), *argv])
    return exit_status(evaluate_as_expected, dataset, args, typed, stopped="the same command begins anew")


def evaluate_as_expected(dataset, args, typed):
    """ValueError: the result is not what --expect says."""
    mean = 100 * run(dataset, args, typed)["identification"]["with_identical"]["rank1"]
    if args.expect is not None and not abs(mean - args.expect) <= args.tol:
        raise ValueError(f"mean rank-1 is {mean:.3f}, expected {args.expect} within {args.tol}")


def run(dataset, args, typed):
    if args.features:
        features, extras, origin = read_features(dataset, args.features)
        if not args.leaked:
            require_unseen(training_of(origin), args.features)
        source = None
    else:
        source = source_of(dataset, args)
        features, extras, origin = features_of(source)
    result = evaluate(features, dataset.protocol.groups, args.similarity, args.seed)
    result |= {"training": training_of(origin), "by_probe": by_probe_views(result)}
    training = features_of(source, "train")[:2] if args.baselines else None
    result |= over_all_frames(extras, origin)
    result |= baselines(features, extras, origin, result["groups"], args.seed, training)
    train_num = origin.setdefault("train_num", args.train_num)  # a feature file of ours knows it
    result["provenance"] = {
        **origin,
        "command": typed,
        "options": options(args),
        "device": provenance.device(args.gpu),
        "versions": provenance.versions(),
    }
    out = args.out or ROOT / "results" / f"{dataset.name}-tr{train_num}"
    write_outputs(dataset, train_num, result, out)
    if "/" in str(features.names[0]):  # walks of a tree, not places in a file
        write_embeddings(out / "features.npz", features, dataset.tree, origin)
    if args.report:
        write_report(out / "report.html", dataset, result, features, extras)
    if source is not None and (written := write_card(source.weights, dataset, result)):
        print(f"card of the weights: {written}", file=sys.stderr)
    show(dataset, result, out)
    return result


def read_features(dataset, path):
    """Features, extras and origin, from a file of ours, of the original, or of OpenGait's form."""
    origin = {"dataset": dataset.name, "features": str(path)}
    try:
        origin["features_sha256"] = sha256(path)
        if is_embeddings(path):
            return of_one_part(path, dataset), {}, origin | training_told(path)
        if not zipfile.is_zipfile(path):
            return read_original(path, len(dataset.protocol.groups)), {}, origin
        features, extras, key = read_cache(path)
    except OSError as e:
        raise FeatureFileError(f"{path}: {e.strerror or e}; --features wants an existing feature file") from e
    if (key.get("dataset"), key.get("part")) != (dataset.name, "test"):
        raise FeatureFileError(
            f"{path}: features of the {key.get('part')} subjects of {key.get('dataset')}, "
            f"wanted those of the test subjects of {dataset.name}"
        )
    train_num, groups = key.get("train_num"), len(dataset.protocol.groups)
    if type(train_num) is not int or not 1 <= train_num <= MOST_SUBJECTS:  # it becomes part of the names of files
        raise FeatureFileError(f"{path}: its train_num is {reprlib.repr(train_num)}, wanted 1 to {MOST_SUBJECTS}")
    if not np.isin(features.groups, np.arange(groups)).all() or not {"gallery", "probe"} <= set(features.roles):
        raise FeatureFileError(f"{path}: wanted gallery and probe walks, of the groups 0..{groups - 1} alone")
    if (extras or key.get("ground_truth")) and (lacking := EXTRAS.keys() - extras.keys()):
        raise FeatureFileError(f"{path}: has no {', '.join(sorted(lacking))}")
    return features, extras, origin | key


def of_one_part(path, dataset):
    features = read_embeddings(path, dataset)
    if features.vectors.ndim == 3:
        parts = features.vectors.shape[2]
        raise FeatureFileError(f"{path}: has {parts} parts a walk, which eval/compare.py takes; wanted one here")
    return features


def training_of(origin):
    """{"verdict", "told", "leaked"} of where features come from."""
    if origin.get("training") not in (UNSEEN, UNKNOWN, LEAKED) or not origin.get("training_told"):
        return unknown("a feature file of another origin does not tell")
    return {
        "verdict": origin["training"],
        "told": str(origin["training_told"]),
        "leaked": str(origin.get("training_leaked") or "").split(),
    }


def source_of(dataset, args):
    if which_caffe() != BUNDLED:  # what is wrong with it is told before anything is read
        import_caffe()
    folder = data_root() / dataset.folder
    if not (args.im_path or args.gt_path):
        settle(dataset, lambda told: print(told, file=sys.stderr))
    im_path, gt_path = paths_of(dataset, args, folder)
    weights = weights_file(args.weights, dataset.name)
    print(f"weights {weights}", file=sys.stderr)
    train_num = len(read_partition(args.partition)[0]) if args.partition else args.train_num
    return Source(
        dataset,
        train_num,
        im_path,
        gt_path,
        args.model,
        weights,
        args.clips,
        args.seed,
        args.gpu,
        args.cache,
        args.leaked,
        args.partition,
        args.excluded,
    )


def paths_of(dataset, args, folder):
    """(tree of frames, None with --silhouettes; tree of masks, None where there is no ground truth)."""
    if args.silhouettes:
        return None, Path(existing("--gt-path", args.gt_path or folder / dataset.gt_dir))
    try:
        im_path = Path(existing("--im-path", args.im_path or folder / dataset.im_dir))
    except DataError:
        raise ValueError(
            f"{args.im_path or folder / dataset.im_dir}: no such folder; get {dataset.title} ({dataset.source}) and "
            f"put it or its archive into {folder}, or say --im-path"
        ) from None
    if args.gt_path or args.im_path:
        return im_path, args.gt_path or (im_path if holds_pickles(im_path) else None)
    try:
        return im_path, Path(existing("", folder / dataset.gt_dir))
    except DataError:
        print(f"no ground truth in {folder / dataset.gt_dir}: masks are not scored", file=sys.stderr)
        return im_path, None


def model_folder(name):
    """Where released weights of a dataset belong."""
    return f"models/{MODEL_FOLDERS.get(name, name)}"


def weights_file(given, name):
    """The weights `given` on the command line, or the default ones of a dataset. ValueError: there is no such file."""
    weights = given or default_weights(name)
    if not weights.is_file():
        raise ValueError(f"{weights}: no such file of weights; see --weights, or get the authors': {RELEASED_WEIGHTS}")
    return weights


def default_weights(name):
    """Released weights in models/, else the last of step sia in experiments/."""
    folder = model_folder(name)
    released = sorted((ROOT / folder).glob("*.caffemodel")) or sorted((ROOT / folder).glob("*/*.caffemodel"))
    if len(released) > 1:
        raise ValueError(f"{released[0].parent}: holds {len(released)} files of weights; choose one by --weights")
    trained = sorted(
        (ROOT / "experiments" / name).glob("gaitnet-sia_iter_*.caffemodel"),
        key=lambda path: int(path.stem.rpartition("_")[2]),
    )
    if not released + trained:
        raise ValueError(
            f"no weights in {folder}/ or experiments/{name}/; train them (sh train_net.sh {name}), say --weights, "
            f"or put the authors' there: {RELEASED_WEIGHTS}"
        )
    return (released + trained[-1:])[0]


def write_outputs(dataset, train_num, result, out):
    whole.make_folder(out)
    groups, table = result["groups"], result["identification"]["rank1_table"]
    tables.write_text(out / tables.result_file(dataset.name, train_num), tables.original_text(groups, table))
    tables.write_text(out / "metrics.csv", tables.csv_text(result))
    tables.write_text(out / "metrics.json", tables.json_text(result))
    paper = of_result(result, dataset.title, dataset.kind == "view")
    for ending, text in FORMATS.items():
        tables.write_text(out / f"table.{ending}", text(paper))
    plots.write_png(out / "rank1.png", plots.heat_map(groups, table, f"{dataset.title}, rank-1 (%)"))
    for name, part in result.get("covariates", {}).items():
        if name != "NM":  # which is the first
            title = f"{dataset.title}, {LABELS.get(name, name)}, rank-1 (%)"
            plots.write_png(out / f"rank1-{name.lower()}.png", plots.heat_map(groups, part["rank1_table"], title))
    plots.write_png(out / "curves.png", plots.curves(result, dataset.kind))


def show(dataset, result, out):
    kind = dataset.kind
    if result["training"]["verdict"] != UNSEEN:
        print(f"test people: {result['training']['told']}")
    print(tables.terminal_text(result["groups"], result["identification"]["rank1_table"], kind))
    if len(result["groups"]) > 1:
        paper = of_result(result, dataset.title, kind == "view")
        if result["training"]["verdict"] != UNSEEN:
            del paper.notes[0]  # said above
        print(terminal(paper))
    for line in tables.further_lines(result, kind):
        print(line)
    print(f"tables and pictures: {out}")
    print(tables.closing_line(result, kind))


def options(args):
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def script_of(name):
    script = f"eval/eval-{name}.py"
    return script if (ROOT / script).exists() else f"-m eval {name}"


def parse(dataset, argv):
    script = script_of(dataset.name)
    trees = f"{dataset.folder}/{dataset.im_dir}"
    parser = argparse.ArgumentParser(
        prog=script,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Evaluate GaitNet on {dataset.title}: the original's table, CMC, mAP, verification, and pictures.",
        epilog=f"""examples:
  python {script} --weights models/mine.caffemodel --report
  python {script} --features features.npz --out results/mine""",
    )
    net = parser.add_argument_group("what to evaluate")
    net.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help=f"trained net (default: {model_folder(dataset.name)}/*.caffemodel, or the last "
        f"experiments/{dataset.name}/gaitnet-sia_iter_*.caffemodel)",
    )
    net.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        default=PROTOTXT,
        help="deploy net (default eval/deploy_gaitnet.prototxt)",
    )
    net.add_argument("--im-path", type=Path, metavar="DIR", help=f"tree of frames, or a pack (default data/{trees})")
    net.add_argument(
        "--gt-path",
        type=Path,
        metavar="DIR",
        help=f"tree of masks, to score the segmentation (default data/{dataset.folder}/{dataset.gt_dir})",
    )
    net.add_argument(
        "--silhouettes", action="store_true", help="there are no frames: true masks in place of predicted ones"
    )
    net.add_argument(
        "--partition", default="", metavar="FILE", help="who trained and who is tested: JSON, TRAIN_SET and TEST_SET"
    )
    net.add_argument("--excluded", default="", metavar="FILE", help="walks that take no part, one a line")
    net.add_argument(
        "--train-num",
        type=positive,
        default=dataset.train_num,
        metavar="N",
        help="subjects that trained; the others are tested (default %(default)s)",
    )
    net.add_argument(
        "--leaked",
        action="store_true",
        help="go on where training has seen some of the test people; every output says so",
    )
    net.add_argument(
        "--clips",
        choices=[str(CLIPS), "all"],
        default=str(CLIPS),
        help="random clips of a walk, as in the original, or every window (default %(default)s)",
    )
    net.add_argument("--gpu", type=int, metavar="N", help="run the net on this GPU (default: CPU)")
    net.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=ROOT / "eval" / "feat",
        help="where extracted features are kept (default eval/feat)",
    )
    net.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="score this feature file instead, of ours (.npz) or of the original release",
    )
    score = parser.add_argument_group("how to score")
    score.add_argument(
        "--similarity",
        choices=sorted(SIMILARITIES),
        default="distance",
        help="rank by the distance, or by the original's float32 exponential with its ties (default %(default)s)",
    )
    score.add_argument(
        "--baselines",
        action="store_true",
        help="add gait energy images with PCA and LDA, which the training subjects are segmented for",
    )
    score.add_argument(
        "--seed", type=int, default=0, help="of random clips and bootstrap intervals (default %(default)s)"
    )
    score.add_argument("--expect", type=float, metavar="X", help="exit 1 unless the mean rank-1 (%%) is X ...")
    score.add_argument("--tol", type=float, default=0.3, metavar="Y", help="... within Y (default %(default)s)")
    out = parser.add_argument_group("what to write")
    out.add_argument("--out", type=Path, metavar="DIR", help=f"folder (default results/{dataset.name}-tr<N>)")
    out.add_argument("--report", action="store_true", help="write report.html as well, one file with everything")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed}: wanted 0 or more")
    if args.features and (args.weights or args.im_path or args.gt_path or args.baselines):
        parser.error(
            "argument --features: scores features that exist; leave out --weights, --im-path, --gt-path and --baselines"
        )
    return args


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a number of at least 1")
    return number
