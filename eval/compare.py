#!/usr/bin/env python
"""Compare features of two or more runs in one table: ours, the released ones, a baseline, other people's.

    python eval/compare.py casiab ours=results/casiab-tr74/features.npz authors=casiab_fea_-tr74 --published
    python eval/compare.py casiab ours=a.npz,b.npz,c.npz GEI=gei:eval/feat/casiab-tr74-test-0123.npz --out results/mine

A run is NAME=FILE: a file of eval/feat/, a feature file of the original release, features.npz of results/, or what any
network gives as .npz or pickle in OpenGait's form (embeddings, labels, types, views). gei:FILE takes the gait energy
images that a file of eval/feat/ holds. Several files, separated by commas, are several trainings of one method: mean
and standard deviation. The last lines say how much each run differs from the first, with a 95% interval from a paired
bootstrap over subjects.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eval import metrics, papers, tables
from eval.baseline import flat
from eval.cli import read_features, training_of
from eval.ending import exit_status
from eval.features import Features, is_embeddings, read_embeddings, training_told
from eval.protocol import Trials
from eval.score import SIMILARITIES, parts
from eval.seen import LEAKED, UNSEEN, unknown
from layers.datasets import DATASETS

PUBLISHED = Path(__file__).resolve().parent / "published.json"
UNNAMED = ""  # the one kind of probes, where the protocol has no further ones


@dataclass(frozen=True)
class Walks:
    """Probes and gallery walks: how many, and their names where the file has them, as no file of the release does."""

    probes: int
    gallery: int
    names: frozenset[str] | None

    def differ(self, other):
        named = None not in (self.names, other.names) and self.names != other.names
        return named or (self.probes, self.gallery) != (other.probes, other.gallery)

    def __str__(self):
        return f"{self.probes} probes, {self.gallery} gallery walks"


@dataclass
class Scored:
    """One file: {kind of probes: (hits (P, T), groups (P,), subjects (P,))}, and what is known of its training."""

    cells: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    training: dict
    walks: dict[str, Walks] = field(default_factory=dict)  # {kind of probes: those that its cells are of}

    def table(self, kind, num_groups):
        hits, groups, _ = self.cells[kind]
        return metrics.cell_means(hits, groups, num_groups)


def main(argv=None):
    return exit_status(tabulate, parse(argv), stopped="the same command begins anew")


def tabulate(args):
    dataset = DATASETS[args.dataset]
    runs = {name: [score(dataset, file, args.similarity) for file in files] for name, files in args.runs}
    table = compare(dataset, runs, args.seed)
    embolden(table, add_published(dataset, table) if args.published else ())
    write(table, args.out)


def score(dataset, file, similarity):
    features, training = read(dataset, file)
    dissimilarity = parts if features.vectors.ndim == 3 else SIMILARITIES[similarity]
    gallery, num_groups = features.gallery, len(dataset.protocol.groups)
    if not len(gallery):
        raise ValueError(f"{file}: has no gallery walks")
    kinds = [name for name, _ in dataset.protocol.covariates if (features.covariates == name).any()]
    probes = {name: features.take(features.covariates == name) for name in kinds} or {
        dataset.protocol.covariates[0][0] if dataset.protocol.covariates else UNNAMED: features.probe
    }
    subjects = subjects_of(dataset, features)
    cells, walks = {}, {}
    for name, some in probes.items():
        trials = Trials(gallery, some, num_groups, dissimilarity)
        cells[name] = trials.within(1), some.groups, np.array([subjects[label] for label in some.labels.tolist()])
        names = [str(walk) for walk in (*some.names, *gallery.names)]
        walks[name] = Walks(len(some), len(gallery), frozenset(names) if "/" in names[0] else None)
    return Scored(cells, training, walks)


def read(dataset, file):
    """(Features, what is known of their training) of whatever kind of file."""
    if file.startswith("gei:"):
        features, extras, origin = read_features(dataset, Path(file[4:]))
        if "energy" not in extras:
            raise ValueError(f"{file[4:]}: holds no gait energy images; wanted a file of eval/feat/")
        return features.with_vectors(flat(extras["energy"])), training_of(origin)
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if is_embeddings(path):
        told = training_told(path)
        return read_embeddings(path, dataset), training_of(told) if told else unknown(f"{path.name} does not tell")
    features, _, origin = read_features(dataset, path)
    return features, training_of(origin)


def subjects_of(dataset, features: Features):
    """{label: id}, by which the people of two files are told to be the same."""
    if "/" in str(features.names[0]):
        return dict(zip(features.labels.tolist(), (str(name).split("/")[0] for name in features.names)))
    return {n: f"{n + 1:03d}" if dataset.label_is_id else str(n) for n in set(features.labels.tolist())}


def compare(dataset, runs, seed):
    """The papers.Table of runs {name: [Scored, one a training]}."""
    groups, views = dataset.protocol.groups, dataset.kind == "view"
    kinds = list(dict.fromkeys(kind for scored in runs.values() for one in scored for kind in one.cells))
    left_out = ", identical view left out" if views else ""
    table = papers.Table(f"{dataset.title}: rank-1 (%){left_out}", "", papers.columns_of(groups, views))
    for kind in kinds:
        table.rules.add(len(table.rows))
        for name, scored in runs.items():
            some = [papers.figures(one.table(kind, len(groups)), views) for one in scored if kind in one.cells]
            if some:
                row = row_name(kind, name, scored)
                table.rows.append((row, spread(some, table.columns)))
                lacking = papers.some_lack(row, groups, table.rows[-1][1]) if views else ""
                table.notes += [lacking] if lacking else []
    for name, scored in runs.items():
        for training in {one.training["told"]: one.training for one in scored}.values():
            if training["verdict"] != UNSEEN:
                table.notes.append(
                    f"{papers.LEAKED_MARK if training['verdict'] == LEAKED else '?'} {name}: {training['told']}"
                )
    first, *others = runs
    for kind in kinds:
        for name in others:
            if told := difference(kind, runs[first], runs[name], len(groups), seed):
                label = papers.LABELS.get(kind, kind)
                table.notes.append(f"{name} minus {first}{label and f', {label}'}: {told}")
    for kind in kinds:
        for name, scored in runs.items():
            if told := other_walks(kind, runs[first], scored):
                label = papers.LABELS.get(kind, kind)
                table.notes.append(f"{' '.join(filter(None, [label, name]))} was tested on other walks: {told}")
    return table


def row_name(kind, name, scored):
    mark = papers.LEAKED_MARK if any(one.training["verdict"] == LEAKED for one in scored) else ""
    return " ".join(filter(None, [papers.LABELS.get(kind, kind), name + mark]))


def spread(some, columns):
    """Cells of one training, or means over several; those of the means with their standard deviation."""
    cells = papers.percents([metrics.mean_of(column) for column in np.array(some).T])
    for k, (name, values) in enumerate(zip(columns, np.array(some).T)):
        if len(some) > 1 and name.startswith(("mean", "rank-1")) and np.isfinite(values).all():
            cells[k] += f" ± {100 * np.std(values, ddof=1):.1f}"
    return cells


def difference(kind, first, other, num_groups, seed):
    """ "+3.2 (95% interval 1.0 .. 5.4)" of the mean, without identical groups where there are more than one; "" where
    one of them lacks these probes, or has no mean."""
    sides = [[one.cells[kind] for one in scored if kind in one.cells] for scored in (first, other)]
    if not all(sides):
        return ""
    identical = num_groups == 1
    means = [
        np.mean([metrics.overall(metrics.cell_means(h, g, num_groups), identical) for h, g, _ in side])
        for side in sides
    ]
    if not np.isfinite(means).all():  # no cell has both gallery and probes
        return ""
    told = f"{100 * (means[1] - means[0]):+.1f}"
    people = [np.unique(subjects) for side in sides for _, _, subjects in side]
    if any(not np.array_equal(people[0], some) for some in people[1:]):
        return f"{told}; no interval, for they were tested on other people"
    draws = metrics.draws_of(len(people[0]), np.random.default_rng(seed))  # the same for both: paired
    drawn = [
        np.mean([metrics.resampled(h, g, subjects, num_groups, draws, identical) for h, g, subjects in side], axis=0)
        for side in sides
    ]
    low, high = metrics.interval(drawn[1] - drawn[0])
    return f"{told} (95% interval {100 * low:+.1f} .. {100 * high:+.1f})"


def other_walks(kind, first, scored):
    """How the walks of some training differ from those of the first run's first; "" where they do not."""
    usual = first[0].walks.get(kind)
    for one in scored:
        if usual and kind in one.walks and one.walks[kind].differ(usual):
            others = "by their names those" if str(one.walks[kind]) == str(usual) else usual
            return f"{one.walks[kind]}, not {others} of the first run"
    return ""


def add_published(dataset, table):
    """Rows of eval/published.json, with their source; they stand below those of the same probes.

    The names of those that are made otherwise than the rest of the table."""
    otherwise = set()
    for row in json.loads(PUBLISHED.read_text(encoding="utf-8")):
        if row["dataset"] != dataset.name:
            continue
        for kind, numbers in row["rank1"].items():
            label = papers.LABELS.get(kind, kind)
            places = [i for i, (name, _) in enumerate(table.rows) if name.split(" ")[0] == label]
            if places:
                place = places[-1] + 1
                cells = [f"{number:.1f}" for number in [*numbers, row.get("mean", {}).get(kind, np.mean(numbers))]]
                table.rows.insert(place, (f"{label} {row['name']}, published", cells))
                table.rules = {rule + (rule >= place) for rule in table.rules}
                otherwise |= {table.rows[place][0]} if row.get("identical_view") else set()
        table.notes.append(f"{row['name']}, published: {row['source']}")
    return otherwise


def embolden(table, but=()):
    """The best of every column between two rules, where there is something to choose from; rows named `but` are none
    to choose."""
    starts = sorted(table.rules) + [len(table.rows)]
    for first, last in zip(starts, starts[1:]):
        for column in range(len(table.columns)):
            values = [
                np.nan if name in but or cells[column] == "-" else float(cells[column].split(" ")[0])
                for name, cells in table.rows[first:last]
            ]
            if last - first > 1 and np.isfinite(values).any():
                best = np.nanmax(values)
                table.bold |= {(first + i, column) for i, value in enumerate(values) if value == best}


def write(table, out):
    print(papers.terminal(table))
    if out:
        for ending, text in papers.FORMATS.items():
            tables.write_text(out / f"compare.{ending}", text(table))
        print(f"tables: {out}")


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="eval/compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(DATASETS), help="whose protocol")
    parser.add_argument("runs", nargs="+", type=run, metavar="NAME=FILE", help="a run, or FILE,FILE,.. its trainings")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write compare.csv, .md and .tex there")
    parser.add_argument("--published", action="store_true", help="add published numbers, with their sources")
    parser.add_argument(
        "--similarity", choices=sorted(SIMILARITIES), default="distance", help="as in evaluation (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    args = parser.parse_args(argv)
    names = [name for name, _ in args.runs]
    if len(set(names)) < len(names):
        parser.error("two runs have one name; several trainings of one method are NAME=FILE,FILE")
    return args


def run(text):
    name, equals, files = text.partition("=")
    if not (name and equals and files.strip(",")):
        raise argparse.ArgumentTypeError(f"{text}: wanted NAME=FILE, such as ours=results/casiab-tr74/features.npz")
    return name, [file for file in files.split(",") if file]


if __name__ == "__main__":
    sys.exit(program.run(main))
