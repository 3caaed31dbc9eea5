#!/usr/bin/env python
"""What a folder of experiments/ trains, asked before it does: experiments/train_steps.sh runs this.

    python tools/experiment.py show experiments/casiab      data set, folder, subjects that train, steps
    python tools/experiment.py check experiments/casiab     can every step be trained, and do old weights fit?
    python tools/experiment.py record experiments/casiab rec --new gaitnet-rec_iter_100.caffemodel

check builds the nets of all steps, so that a mistake in the last is found before the first has trained for a day, and
compares the people that would train with those whom the weights lying there were trained on. record writes beside new
snapshots who trained them, where the Caffe of CAFFE_ROOT cannot.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import re
from dataclasses import dataclass

from caffe.errors import CaffeError
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.read import read_net_file, read_text
from eval.card import write_card
from eval.ending import exit_status
from eval.weights import read_weights
from layers import people
from layers.data_layers import training_sequences
from layers.datasets import DATASETS, NUM_FRAMES
from layers.frames import DataError
from layers.params import Params, parse
from layers.sources import open_frames
from models.gaitnet import STEPS
from models.summary import fed

PHASES = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}


@dataclass
class Step:
    """One step of an experiment: its files, and what its data layer is told in phase TRAIN."""

    name: str
    folder: Path
    path: Path  # the net's prototxt
    net: caffe_pb2.NetParameter
    max_iter: int
    data: Params | None  # None: no data layer of GaitNet

    def snapshots(self):
        """Weights that lie there, up to max_iter, newest first."""
        found = snapshots_of(self.folder, self.name)
        return [found[n] for n in sorted(found, reverse=True) if n <= self.max_iter]


def snapshots_of(folder, step):
    """{iteration: file of weights} of a step's snapshots in a folder."""
    name = re.compile(rf"gaitnet-{step}_iter_(\d{{1,9}})\.caffemodel(\.h5)?")
    return {int(match[1]): file for file in folder.iterdir() if (match := name.fullmatch(file.name))}


def main(argv=None):
    return exit_status(run_there, parse_arguments(argv), stopped="nothing was trained")


def run_there(args):
    os.chdir(args.folder)  # where the paths in its files begin
    args.run(args)


# ---- show


def show(args):
    steps = steps_of(args.folder)
    step = read_step(args.folder, steps[-1])
    if step.data is None:
        raise ValueError(f"{step.path}: no data layer of GaitNet in phase TRAIN; wanted a net of experiments/")
    dataset = DATASETS[step.data.dataset]
    print(f"dataset={dataset.name}\nfolder={dataset.folder}\ntrain_num={step.data.train_num or dataset.train_num}")
    print(f"steps={' '.join(steps)}")
    if not step.data.im_path:
        print("kind=--silhouettes")
    for name in ("partition", "excluded"):
        if path := getattr(step.data, name):
            print(f"option=--{name}={os.path.abspath(path)}")


# ---- check


def check(args):
    steps = [read_step(args.folder, name) for name in args.steps or steps_of(args.folder)]
    for step in steps:
        require_net(step)
    require_same_people(steps)
    who: dict = {}
    for step in steps:
        require_fitting_weights(step, who)


def require_net(step):
    """ValueError, CaffeError: the net cannot be built in one of the phases, or its parts do not fit together."""
    for name, phase in PHASES.items():
        data = data_layer(step.net, phase)
        if data is None:
            continue
        params = parse(data.python_param.param_str, f"{step.path}: {data.name}")
        pairs = data.python_param.layer == "GaitNet_Sia"
        clips = params.batch_size * (2 if pairs else 1)
        size = f"batch_size {params.batch_size}" + (" pairs" if pairs else "")
        for layer in step.net.layer:
            if layer.type != "Slice" or not in_phase(layer, phase) or not layer.bottom:
                continue
            if layer.bottom[0] == "fc_fea":
                wanted = [params.batch_size]
            elif len(layer.top) == NUM_FRAMES:
                wanted = [k * clips for k in range(1, NUM_FRAMES)]
            else:
                continue
            found = list(layer.slice_param.slice_point)
            if found and found != wanted:
                raise ValueError(
                    f"{step.path}: layer {layer.name} of phase {name} has slice_point {listed(found)}; with {size} "
                    f"wanted {listed(wanted)}. Edit them, or make an experiment: "
                    f"python tools/make_prototxt.py {params.dataset} --batch N --out experiments/NAME"
                )
        train_num = params.train_num or DATASETS[params.dataset].train_num
        for layer in step.net.layer:
            if layer.name == "fc_id" and layer.inner_product_param.num_output < train_num:
                raise ValueError(
                    f"{step.path}: fc_id has num_output {layer.inner_product_param.num_output}, but the data layer of "
                    f"phase {name} gives {train_num} people (train_num); make them equal"
                )
    for phase in PHASES.values():
        net = fed(step.net, phase)
        net.state.phase = phase
        try:
            Net.from_proto(net)
        except CaffeError as e:
            raise ValueError(f"{step.path}: {e}") from e


def require_same_people(steps):
    fed_by_us = [step for step in steps if step.data]
    for step in fed_by_us:
        first = fed_by_us[0]
        if chosen(step.data) != chosen(first.data):
            raise ValueError(
                f"{step.path} trains {told(step.data)}, {first.path.name} {told(first.data)}; "
                "make them equal, or train the steps one by one: cd experiments/NAME && sh train_net.sh seg"
            )


def chosen(data):
    """What says who trains."""
    return data.dataset, data.train_num, data.partition, data.excluded


def told(data):
    return f"{data.train_num or DATASETS[data.dataset].train_num} people of {data.dataset}"


def require_fitting_weights(step, who):
    """ValueError: weights of this step lie there that other people trained, or that tell more or fewer apart."""
    partition = step.data.partition if step.data else ""
    remedy = (
        f"sh train_net.sh {name_of(step.folder)} --fresh, in the repository's folder, moves what was trained aside and "
        f"trains anew; or put {step.path.name}{partition and ' and ' + partition} back as it was"
    )
    for weights in step.snapshots()[:1]:
        known = people.read_or_none(weights) if weights.stat().st_size else None
        if known is not None and step.data is not None:
            was, now = known.here, {step.data.dataset: people_of(step.data, who)}
            if now[step.data.dataset] is not None and was != now:
                raise ValueError(f"{weights} was trained on {counted(was)}; now {counted(now)} would train; {remedy}")
        outputs = [layer.inner_product_param.num_output for layer in step.net.layer if layer.name == "fc_id"]
        found = shape_of_identity(weights) if outputs else None
        if found and found != outputs[0]:
            raise ValueError(
                f"{weights} tells {found} people apart, fc_id of {step.path.name} has num_output {outputs[0]}; {remedy}"
            )


def people_of(data, who):
    """Ids that `data` trains on, sorted; None where the data cannot be read: then training will say so. `who` keeps
    what was found."""
    key = (*chosen(data), data.im_path, data.gt_path)
    if key not in who:
        try:
            sequences, _ = training_sequences(data, open_frames(data.im_path or None, data.gt_path))
            who[key] = sorted({sequence.subject for sequence in sequences})
        except (DataError, OSError):
            who[key] = None
    return who[key]


def counted(here):
    """{"casiab": ["001", ..]} -> "74 people of casiab (001 .. 074)" """
    return ", ".join(
        f"{len(ids)} people of {dataset}" + (f" ({ids[0]} .. {ids[-1]})" if ids else "")
        for dataset, ids in here.items()
    )


def shape_of_identity(weights):
    return read_weights(weights).people if weights.stat().st_size else None


def name_of(folder):
    return (
        folder.name
        if folder.parent == ROOT / "experiments" and folder.name in DATASETS
        else f"experiments/{folder.name}"
    )


def listed(numbers):
    return ", ".join(map(str, numbers))


# ---- record


def record(args):
    step = read_step(args.folder, args.step)
    if step.data is None:
        return
    here = {step.data.dataset: people_of(step.data, {})}
    if here[step.data.dataset] is None:
        return
    for weights in step.snapshots():
        if weights.name in args.new and people.read_or_none(weights) is None:
            people.write(weights, here, args.started_from)
            write_card(weights, DATASETS[step.data.dataset])


# ---- reading


def steps_of(folder):
    """The steps that an experiment has: silhouettes alone have one."""
    return [name for name in STEPS if (folder / f"solver-{name}.prototxt").is_file()] or list(STEPS)


def read_step(folder, name):
    solver = read_text(str(folder / f"solver-{name}.prototxt"), caffe_pb2.SolverParameter)
    path = Path(os.path.normpath(folder / (solver.net or f"gaitnet-{name}.prototxt")))
    net = read_net_file(str(path))
    data = data_layer(net, caffe_pb2.TRAIN)
    params = parse(data.python_param.param_str, f"{path}: {data.name}") if data is not None else None
    return Step(name, folder, path, net, solver.max_iter, params)


def data_layer(net, phase):
    return next(
        (
            layer
            for layer in net.layer
            if layer.type == "Python" and layer.python_param.module == "layers" and in_phase(layer, phase)
        ),
        None,
    )


def in_phase(layer, phase):
    rules = [rule.phase for rule in layer.include if rule.HasField("phase")]
    return not rules or phase in rules


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="tools/experiment.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="show|check|record")
    for name, run, about in (
        ("show", show, "data set, folder and training subjects, as lines name=value"),
        ("check", check, "exit status 1 and one sentence, where a step cannot be trained or old weights do not fit"),
        ("record", record, "write who trained the snapshots of a step that say nothing of it"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("folder", type=folder_of, metavar="DIR", help="such as experiments/casiab")
        command.set_defaults(run=run)
        if name == "check":
            command.add_argument("steps", nargs="*", metavar="STEP", help="seg, rec, joint, sia (default: all)")
        if name == "record":
            command.add_argument("step", choices=STEPS, help="whose snapshots")
            command.add_argument("--new", nargs="+", required=True, metavar="FILE", help="in DIR, that it has written")
            command.add_argument(
                "--started-from", nargs="*", default=[], metavar="FILE", help="its first weights, in DIR"
            )
    return parser.parse_args(argv)


def folder_of(text):
    path = Path(os.path.abspath(text))
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such folder")
    return path


if __name__ == "__main__":
    sys.exit(program.run(main))
