"""The command line behind eval-casiab.py, eval-outdoor.py, eval-szu.py and eval-walkers.py."""

import argparse
import json
import sys
from pathlib import Path

from eval import plots, provenance, tables
from eval.features import read_features
from eval.protocol import evaluate
from eval.score import SIMILARITIES
from layers.datasets import DATASETS

ROOT = provenance.ROOT


def main(name, argv=None):
    """Evaluate on one dataset; returns the exit status: 0, or 1 after one line `error: ...`."""
    dataset = DATASETS[name]
    args = parse(dataset, argv)
    try:
        result = run(dataset, args)
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return check_expected(args, result)


def run(dataset, args):
    out = args.out or ROOT / "results" / f"{dataset.name}-tr{args.train_num}"
    features, source = read_features(args.features, len(dataset.protocol.groups)), feature_file_source(args.features)
    result = evaluate(features, dataset.protocol.groups, args.similarity, args.seed)
    result["provenance"] = {"dataset": dataset.name, "train_num": args.train_num, **source,
                            "options": options(args), "versions": provenance.versions()}
    write_outputs(dataset, args.train_num, result, out)
    show(dataset, result, out)
    return result


def write_outputs(dataset, train_num, result, out):
    out.mkdir(parents=True, exist_ok=True)
    groups, table = result["groups"], result["identification"]["rank1_table"]
    tables.write_text(out / tables.RESULT_FILES[dataset.name].format(train_num), tables.original_text(groups, table))
    tables.write_text(out / "metrics.csv", tables.csv_text(result))
    tables.write_text(out / "metrics.json", json.dumps(result, indent=1) + "\n")
    plots.write_png(out / "rank1.png", plots.heat_map(groups, table, f"{dataset.title}, rank-1 (%)"))
    plots.write_png(out / "curves.png", plots.curves(result, kind_of_group(dataset)))


def show(dataset, result, out):
    kind = kind_of_group(dataset)
    print(tables.terminal_text(result["groups"], result["identification"]["rank1_table"], kind))
    print(f"tables and pictures in {out}")
    print(tables.closing_line(result, kind))


def kind_of_group(dataset):
    return "view" if "view" in dataset.tree else "condition"


def feature_file_source(path):
    return {"features": str(path), "features_sha256": provenance.sha256(path)}


def options(args):
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def check_expected(args, result):
    mean = 100 * result["identification"]["with_identical"]["rank1"]
    if args.expect is not None and not abs(mean - args.expect) <= args.tol:
        print(f"error: mean rank-1 is {mean:.3f}, expected {args.expect} within {args.tol}", file=sys.stderr)
        return 1
    return 0


def parse(dataset, argv):
    script = f"eval/eval-{dataset.name}.py"
    parser = argparse.ArgumentParser(
        prog=script, formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Evaluate GaitNet on {dataset.title}: the original's table, CMC, mAP, verification, and pictures.",
        epilog=f"example: python {script} --features features.npz --out results/mine")
    parser.add_argument("--features", type=Path, metavar="FILE",
                        help="score this feature file, of ours (.npz) or of the original release")
    parser.add_argument("--train-num", type=positive, default=dataset.train_num, metavar="N",
                        help="subjects that trained; the others are tested (default %(default)s)")
    parser.add_argument("--similarity", choices=sorted(SIMILARITIES), default="distance",
                        help="rank by the distance, or by the original's float32 exponential with its ties "
                             "(default %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of random windows and bootstrap intervals (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help=f"where results go (default results/{dataset.name}-tr<N>)")
    parser.add_argument("--expect", type=float, metavar="X", help="exit 1 unless the mean rank-1 (%%) is X ...")
    parser.add_argument("--tol", type=float, default=0.3, metavar="Y", help="... within Y (default %(default)s)")
    return parser.parse_args(argv)


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a number of at least 1")
    return number
