#!/usr/bin/env python3
"""How fast everything is, in one table; every figure stands beside another one measured in the same run.

    python tools/bench.py                              # all parts: minutes, on an otherwise idle machine
    python tools/bench.py --quick --only train start   # small sizes, two parts
    CAFFE_ROOT=/opt/caffe python tools/bench.py --only caffe

What is compared is timed in turns (A B A B ...), so that both meet the same machine. Parts: train (training step and
memory against a plain PyTorch loop, and its arithmetic against a large matrix product), forward (deploy net), onnx
(forward and memory of nets of several kinds beside ONNX Runtime, on all cores and on one), passes (LeNet and CaffeNet
forward and backward beside plain PyTorch modules), busy (nets beside as many busy processes as there are cores), data
(data layer), eval (features and scores), start (import, building nets, a process), launch (`caffe train` up to its
first iteration), gpu (the published steps, where there is a GPU), caffe (`caffe time` of the Caffe that CAFFE_ROOT
points to).
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

import argparse
import importlib.util
import json
import platform
import re
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass

TOOLS = ROOT / "tools"

from caffe.files import atomic_path
from caffe.text import message_to_text
from layers.datasets import DATASETS, NUM_FRAMES, SIZE, data_root
from models.gaitnet import STEPS, solver


@dataclass(frozen=True)
class Row:
    """One figure and what it is held against, in the same unit."""

    part: str
    what: str
    value: float
    reference: float
    unit: str
    against: str
    better: str = "below"  # where the ratio wants to be: below, above or, as a limit, towards `limit`
    limit: float = 1

    @property
    def ratio(self):
        return self.value / self.reference


class CannotMeasure(Exception):
    """Something that a part needs is not there, or failed."""


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, few turns: only to see that it works")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--json", metavar="FILE", default="bench.json", help="where the figures go (default: bench.json)"
    )
    args = parser.parse_args(argv)
    if not os.access(os.path.dirname(os.path.abspath(args.json)), os.W_OK):
        parser.error(f"cannot write {args.json}: its folder is absent or not writable; choose another one with --json")
    rows: list[dict] = []
    left_out: dict[str, str] = {}
    figures = {"machine": machine(), "quick": args.quick, "left_out": left_out, "rows": rows}
    print(TABLE_HEAD, flush=True)
    for part in args.only or PARTS:
        print(f"# {part}", file=sys.stderr, flush=True)
        try:
            for row in PARTS[part](args.quick):  # told one by one: they take minutes
                rows.append({**asdict(row), "ratio": row.ratio})
                print(table_line(row), flush=True)
                write(args.json, figures)
        except CannotMeasure as e:
            left_out[part] = str(e)
    write(args.json, figures)
    for part, why in left_out.items():
        print(f"{part}: left out, {why}", file=sys.stderr)
    return 1 if args.only and left_out else 0  # asked for by name, it should be there


# ---- the parts: functions of `quick` that give rows


def train(quick):
    """One training iteration of each net, its memory, and the share of the machine's arithmetic that it reaches."""
    for step in STEPS:
        for batch in [2] if quick else [8, 16, 32]:
            command = [sys.executable, "tools/bench_train.py", "--steps", step, "--batches", str(batch)]
            (m,) = json.loads(run(command + (["--iterations=1", "--turns=1"] if quick else []), ROOT))
            what = f"{step}, batch {batch}"
            plain = "plain PyTorch loop"
            yield Row("train", f"{what}: iteration", m["ours_s"], m["plain_s"], "s", plain)
            yield Row("train", f"{what}: iteration with log", m["logging_s"], m["plain_s"], "s", plain)
            yield Row("train", f"{what}: memory", m["ours_mb"], m["plain_mb"], "MB", plain)
            achieved = arithmetic(step, batch) / m["ours_s"] / 1e9
            yield Row(
                "train",
                f"{what}: arithmetic",
                achieved,
                product_rate(quick),
                "GFLOP/s",
                "large matrix product",
                "towards",
            )


def arithmetic(step, clips):
    """FLOP of the products with weights in one iteration."""
    from models.gaitnet import RECIPES
    from tools.roofline import step_costs

    published = RECIPES["casiab"].steps[step].batch * (2 if step == "sia" else 1)
    return sum(cost.flop for cost in step_costs(step)) * clips / published


def product_rate(quick):
    """GFLOP/s of a float32 matrix product on the same cores."""
    import torch

    size = 512 if quick else 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = min(in_turns({"product": lambda: a @ b}, 3 if quick else 10)["product"])
    return 2 * size**3 / seconds / 1e9


def forward(quick):
    """The deploy net, clips in and features out, against the same layers as plain modules."""
    import numpy as np
    import torch

    from caffe.layer import TEST
    from caffe.net import Net
    from caffe.process import tune_allocator
    from caffe.upgrade import upgrade_net
    from models.gaitnet import deploy
    from tools.bench_plain import PlainGaitNet

    tune_allocator()
    rows = []
    for clips in [1, 3] if quick else [1, 64]:
        param = deploy(clips)
        upgrade_net(param, "deploy")  # its `input:` fields are the old way
        param.state.phase = TEST
        net, plain = Net.from_proto(param), PlainGaitNet("joint", clips)
        frames = np.random.default_rng(0).uniform(-127.5, 127.5, (NUM_FRAMES, clips, 3, SIZE, SIZE)).astype(np.float32)
        net.frugal(backward=False)
        plain.seg.eval()
        plain.rec.eval()

        def ours(net=net, frames=frames):
            net.forward(**{f"im{i}": frame for i, frame in enumerate(frames)})

        @torch.no_grad()
        def reference(plain=plain, frames=frames, clips=clips):
            masks = plain.seg(torch.from_numpy(frames.reshape(-1, 3, SIZE, SIZE)))
            plain.rec(masks.view(NUM_FRAMES, clips, 1, SIZE, SIZE).sum(0))

        times = in_turns({"ours": ours, "plain": reference}, 2 if quick else 9)
        seconds = medians(times, "ours", "plain")
        rows.append(Row("forward", f"deploy net, batch {clips}", *seconds, "s", "plain PyTorch modules"))
    return rows


def onnx(quick):
    """Forward passes and memory beside ONNX Runtime on what tools/export.py writes: pycaffe, and `caffe.optimize`."""
    from tools import bench_forward

    for module in ("onnxruntime", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise CannotMeasure(f"the package {module} is not installed")
    against = "ONNX Runtime"
    for threads in [1] if quick else sorted({os.cpu_count() or 1, 1}, reverse=True):
        for net in ["deploy:2"] if quick else bench_forward.FORWARD:
            m = bench_forward.measure(net, threads, *([1, 0.01] if quick else [5]))
            wanted = 1.1 if net.startswith("deploy") else 1.2
            for kind, way in (("ours", "pycaffe"), ("optimized", "caffe.optimize")):
                what = f"{net}, {threads} thread{'s' * (threads > 1)}, {way}"
                mine, theirs = m[kind], m["onnx"]
                yield Row("onnx", f"{what}: forward", mine["seconds"], theirs["seconds"], "s", against, limit=wanted)
                yield Row("onnx", f"{what}: memory of the process", mine["mb"], theirs["mb"], "MB", against, limit=1.3)
                told = f"{what}: memory above the libraries"
                yield Row("onnx", told, mine["grown_mb"], theirs["grown_mb"], "MB", against, limit=1.3)


def passes(quick):
    """Forward and backward of LeNet and CaffeNet, through pycaffe and through `caffe time`."""
    from tools import bench_forward
    from tools.bench_nets import NETS

    for threads in [1] if quick else sorted({os.cpu_count() or 1, 1}, reverse=True):
        for net in ["lenet:3"] if quick else bench_forward.TRAINED:
            m = bench_forward.measure(net, threads, *([1, 0.01] if quick else [5]))
            name, batch = net.split(":")
            plain, what = m["plain"]["seconds"], f"{net}, {threads} thread{'s' * (threads > 1)}"
            yield Row(
                "passes", f"{what}: pycaffe", m["ours"]["seconds"], plain, "s", "plain PyTorch modules", limit=1.1
            )
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "net.prototxt").write_text(message_to_text(NETS[name](int(batch))))
                words = ["time", "--model=net.prototxt", f"--iterations={1 if quick else 20}"]
                command = [sys.executable, "-m", "caffe", *words]
                told = caffe_time(command, folder, ROOT, {"OMP_NUM_THREADS": str(threads)}) / 1e3
            yield Row("passes", f"{what}: caffe time", told, plain, "s", "plain PyTorch modules", limit=1.1)


def busy(quick):
    """Nets beside as many busy processes as there are cores: against quiet, and against one thread beside them."""
    from tools import bench_forward

    threads = os.cpu_count() or 1
    for net in ["lenet:3"] if quick else ["deploy:1", "deploy:4", *bench_forward.TRAINED]:
        m = bench_forward.busy(net, threads, *([1, 0.01] if quick else [5]))
        what = f"{net}, {threads} threads beside {threads} busy processes"
        yield Row("busy", what, m["busy"], m["quiet"], "s", "quiet", limit=2.5)
        yield Row("busy", what, m["busy"], m["busy_one_thread"], "s", "one thread beside them")
        yield Row("busy", what, m["busy"], m["busy_spinning"], "s", "libgomp's own GOMP_SPINCOUNT, beside them")
        what, against = f"{net}, {threads} threads, quiet", "libgomp's own GOMP_SPINCOUNT, quiet"
        yield Row("busy", what, m["quiet"], m["quiet_spinning"], "s", against, limit=1.05)


def data(quick):
    """Records of an LMDB, CPU time; frames a second that reach the blobs."""
    from tools import bench_data, bench_records

    for side, count in [(8, 40)] if quick else [(32, 10000), (256, 1000)]:
        m = bench_records.measure(side, count, 1 if quick else 5)
        for way, told in (("layer", "Data layer on an LMDB"), ("rows", "bare records of an LMDB")):
            ours, theirs = (m[way][name] / count * 1e6 for name in ("ours", "lmdb"))
            yield Row("data", f"{told}, 3x{side}x{side}: CPU time", ours, theirs, "us", "package lmdb", limit=1.3)
    need_walkers()
    trees = bench_data.trees_of("walkers")
    speed = bench_data.measure("walkers", *trees, **(dict(turns=1, seconds=0.2) if quick else {}))["frames_a_second"]
    for name in ("tree", "pack"):
        what, against = f"data layer, from the {name}", "plain loop over files"
        yield Row("data", what, speed[name], speed["loop"], "frames/s", against, "above")


def evaluation(quick):
    """Features of walks and their scores, against the original's procedures; the search in a large gallery."""
    from tools import bench_eval

    m = bench_eval.measure(**(dict(walks=1, frames=[12], probes=10, gallery=2000) if quick else {}))
    scores, search = m["scores"], m["search"]
    products = 2 * search["probes"] * search["gallery"] * bench_eval.DIM / search["seconds"] / 1e9
    return [
        *(
            Row(
                "eval",
                f"feature of a walk of {row['frames_a_walk']} frames",
                row["ours_s"],
                row["literal_s"],
                "s",
                "20 clips one by one",
            )
            for row in m["features"]
        ),
        Row(
            "eval",
            f"scores of {scores['probes']} x {scores['gallery']}",
            scores["ours_s"],
            scores["loop_s"],
            "s",
            "loop over pairs",
        ),
        Row(
            "eval",
            f"search of {search['probes']} in {search['gallery']}: arithmetic",
            products,
            product_rate(quick),
            "GFLOP/s",
            "large matrix product",
            "towards",
        ),
    ]


def start(quick):
    """What passes before the work begins."""
    from caffe.layer import TRAIN
    from caffe.net import Net
    from tools import bench_train
    from tools.bench_plain import PlainGaitNet

    turns = 1 if quick else 7
    python = {what: [sys.executable, "-c", f"import {what}"] for what in ("caffe", "torch")}
    times = in_turns({what: lambda command=command: run(command) for what, command in python.items()}, turns)
    rows = [Row("start", "import caffe", *medians(times, "caffe", "torch"), "s", "import torch")]

    param = bench_train._train_net("joint", 2)
    param.state.phase = TRAIN
    times = in_turns({"ours": lambda: Net.from_proto(param), "plain": lambda: PlainGaitNet("joint", 2)}, turns)
    rows.append(Row("start", "build the joint net", *medians(times, "ours", "plain"), "s", "plain PyTorch modules"))

    plain = "from tools.bench_plain import PlainGaitNet; PlainGaitNet('joint', 2).step()"
    with tempfile.TemporaryDirectory() as folder:
        write_net(folder, "joint", 2)
        Path(folder, "solver.prototxt").write_text(
            'net: "joint.prototxt" max_iter: 1 base_lr: 1e-6 lr_policy: "fixed" momentum: 0.9 weight_decay: 5e-4\n'
            "display: 1 snapshot_after_train: false solver_mode: CPU\n"
        )
        commands = {
            "ours": [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt"],
            "plain": [sys.executable, "-c", plain],
        }
        times = in_turns({k: lambda command=command: run(command, folder) for k, command in commands.items()}, turns)
    rows.append(
        Row("start", "process of one joint iteration", *medians(times, "ours", "plain"), "s", "plain PyTorch loop")
    )
    rows += [Row("start", "import caffe", rows[0].value, 0.3, "s", "wanted")]
    return rows


def launch(quick):
    """From the command `caffe train` to its first iteration, step seg of the walkers."""
    need_walkers()
    folder, turns = ROOT / "experiments" / "walkers", 1 if quick else 5
    param = solver("walkers", "seg")
    for field in ("test_iter", "test_interval", "snapshot", "snapshot_prefix"):
        param.ClearField(field)
    param.max_iter, param.snapshot_after_train = 1, False
    times = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "solver.prototxt")
        path.write_text(message_to_text(param))
        command = [sys.executable, "-m", "caffe", "train", f"--solver={path}"]
        for _ in range(turns + 1):  # the first warms the disk
            begin = time.perf_counter()
            with subprocess.Popen(
                command, cwd=folder, env=dict(os.environ, PYTHONPATH=str(ROOT)), text=True, stderr=subprocess.PIPE
            ) as process:
                lines = []
                for line in process.stderr or ():
                    lines.append(line)
                    if "Learning Rate Policy" in line:  # the last word before the iterations
                        times.append(time.perf_counter() - begin)
            if process.returncode or not times:
                raise CannotMeasure(f"caffe train ended with {process.returncode}: {''.join(lines)[-300:]}")
    return [Row("launch", "caffe train to its first iteration", statistics.median(times[1:]), 3, "s", "wanted")]


def gpu(quick):
    """Iterations of the published steps on a GPU, against the roofline of an H200; the whole schedule."""
    from tools import bench_gpu, roofline

    if not bench_gpu.set_device("cuda"):
        raise CannotMeasure("torch finds no CUDA device")
    precisions = ["tf32"] if quick else ["tf32", "bf16", "float32"]
    rows = []
    for precision in precisions:
        figures = bench_gpu.measure(STEPS, [precision], 50 if quick else 2000, 128)
        total = 0.0
        for row in figures["rows"]:
            least = sum(cost.seconds(precision) for cost in roofline.step_costs(row["step"]))
            what = f"{row['step']}, batch 128, {precision}: iteration"
            rows.append(Row("gpu", what, row["seconds"], least, "s", "roofline of an H200", "towards"))
            total += row["seconds"] * solver("casiab", row["step"]).max_iter / 60
        rows.append(Row("gpu", f"the four steps, {precision}", total, 20, "min", "wanted"))
        for of, value in figures.get("accuracy", {}).get(precision, {}).items():
            rows.append(Row("gpu", f"joint, {precision} beside float32: {of}", value, 0.01, "", "1%"))
    return rows


def caffe(quick):
    """`caffe time`, forward and backward, ours and that of CAFFE_ROOT, on the same files."""
    root = os.environ.get("CAFFE_ROOT")
    if not root:
        raise CannotMeasure("CAFFE_ROOT is not set")
    theirs = os.path.join(root, "build", "tools", "caffe")
    if not os.access(theirs, os.X_OK):
        raise CannotMeasure(f"{theirs} not found; CAFFE_ROOT is to be the folder of a Caffe built with Python layers")
    rows, batch, iterations = [], 2 if quick else 16, 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            arguments = ["time", f"--model={write_net(folder, step, batch)}", f"--iterations={iterations}"]
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(1 if quick else 3):
                times["ours"].append(caffe_time([sys.executable, "-m", "caffe", *arguments], folder, ROOT))
                times["theirs"].append(caffe_time([theirs, *arguments], folder, os.path.join(root, "python")))
            rows.append(
                Row("caffe", f"{step}, batch {batch}: caffe time", *medians(times, "ours", "theirs"), "ms", root)
            )
    return rows


PARTS = {
    "train": train,
    "forward": forward,
    "onnx": onnx,
    "passes": passes,
    "busy": busy,
    "data": data,
    "eval": evaluation,
    "start": start,
    "launch": launch,
    "gpu": gpu,
    "caffe": caffe,
}


# ---- helpers in call order


def need_walkers():
    if not (data_root() / DATASETS["walkers"].folder).is_dir():
        raise CannotMeasure(f"no walkers in {data_root()}; make them with tools/make_walkers.py")


def in_turns(ways, turns):
    """Seconds of each of the functions in `ways`, called in turns; `turns` times, and once before that."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - begin)
    return times


def medians(times, ours, reference) -> tuple[float, float]:
    return statistics.median(times[ours]), statistics.median(times[reference])


def write_net(folder, step, clips):
    """The training net of `step` with ready-made data as <step>.prototxt in `folder`; its name."""
    from google.protobuf import text_format

    from tools.bench_train import _train_net

    net = _train_net(step, clips)
    Path(folder, f"{step}.prototxt").write_text(text_format.MessageToString(net))
    return f"{step}.prototxt"


def run(command, folder=None, pycaffe=ROOT, stream="stdout", more=None):
    """What a command prints on `stream`; `pycaffe` is where it finds the module `caffe`, `more` its environment."""
    paths = os.pathsep.join(map(str, (pycaffe, ROOT, TOOLS)))
    environment = {**os.environ, "PYTHONPATH": paths, **(more or {})}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CannotMeasure(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr[-300:]}")
    return getattr(done, stream)


def caffe_time(command, folder, pycaffe, more=None):
    """Milliseconds that `caffe time` tells for a forward and backward pass."""
    log = run(command, folder, pycaffe, "stderr", more)
    found = re.search(r"Average Forward-Backward: ([\d.e+]+) ms", log)
    if not found:
        raise CannotMeasure(f"{' '.join(command)} tells no time: {log[-300:]}")
    return float(found.group(1))


def machine():
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write(file, figures):
    with atomic_path(file) as path:
        Path(path).write_text(json.dumps(figures, indent=1))


TABLE_HEAD = "| part | what | measured | against | measured | ratio | wanted |\n|---|---|---|---|---|---|---|"


def table_line(r):
    """A row of the Markdown table."""
    return (
        f"| {r.part} | {r.what} | {r.value:.4g} {r.unit} | {r.against} | {r.reference:.4g} {r.unit} | "
        f"{r.ratio:.3g} | {r.better} {r.limit:g} |"
    )


if __name__ == "__main__":
    sys.exit(program.run(main))
