#!/usr/bin/env python3
"""Passes of whole nets, in one run: forward beside ONNX Runtime, forward and backward beside plain PyTorch modules, and
both beside busy processes.

    python tools/bench_forward.py                                # deploy net, AlexNet, ResNet-50, MobileNet, all cores
    python tools/bench_forward.py --threads 1 --nets deploy:1 deploy:64
    python tools/bench_forward.py --busy --nets deploy:1 lenet:64   # ours alone, quiet and beside busy processes

ONNX Runtime gets the file that tools/export.py writes. Each kind runs in a process of its own, in turns (A B A B ...);
seconds are medians, of wall time, or with one thread of CPU time, which neighbours disturb less. Memory is the peak of
the process (VmHWM); `grown` is the part of it that the net brought, above the libraries.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

import argparse
import json
import statistics
import subprocess
import tempfile
import time

from tools.bench_train import Worker, peak_memory

FORWARD = ("deploy:1", "deploy:4", "deploy:64", "alexnet:1", "resnet50:1", "mobilenet:1")
TRAINED = ("lenet:64", "caffenet:8")
LIBGOMP = "300000"  # its own GOMP_SPINCOUNT
SECONDS = 1.0  # of each turn, about


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=[*FORWARD, *TRAINED], metavar="NET:BATCH", help="(default: all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: as many as cores)")
    parser.add_argument("--turns", type=int, default=5, help="of all kinds (default: %(default)s)")
    parser.add_argument("--busy", action="store_true", help="ours, quiet and beside as many busy processes as cores")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(*args.worker)
        return
    look = busy if args.busy else measure
    print(json.dumps([look(net, args.threads, args.turns) for net in args.nets], indent=1))


def measure(net, threads, turns, seconds=SECONDS):
    """{"net", "threads", kind: {"seconds", "mb", "grown_mb"}} for ours, optimized, and what both are held against."""
    with tempfile.TemporaryDirectory() as folder:
        against = ("plain",) if trains(net) else ("optimized", "onnx")
        write_files(net, folder, against)
        workers = {kind: Passes(kind, net, folder, threads) for kind in ("ours", *against)}
        times = seconds_of(turns, workers, seconds)
        found = {kind: {"seconds": times[kind], **worker.close()} for kind, worker in workers.items()}
    return {"net": net, "threads": threads, **found}


def busy(net, threads, turns, seconds=SECONDS):
    """{"net", "threads", "quiet", "busy", ...}: seconds of ours, without and with busy processes beside it; with
    "_spinning" where OpenMP's threads wait as libgomp has it, "busy_one_thread" with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(net, folder, ())
        kinds = {"": (threads, {}), "_spinning": (threads, {"GOMP_SPINCOUNT": LIBGOMP}), "_one_thread": (1, {})}
        workers = {kind: Passes("ours", net, folder, n, True, more) for kind, (n, more) in kinds.items()}
        times = {f"quiet{kind}": seconds_of(turns, {kind: worker}, seconds)[kind] for kind, worker in workers.items()}
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
        try:
            times |= {f"busy{kind}": found for kind, found in seconds_of(turns, workers, seconds).items()}
        finally:
            for other in others:
                other.kill()
                other.wait()
        for worker in workers.values():
            worker.close()
    return {"net": net, "threads": threads, **times}


def seconds_of(turns, workers, seconds):
    """The median of each worker, all in turns."""
    times: dict[str, list[float]] = {kind: [] for kind in workers}
    for _ in range(turns):
        for kind, worker in workers.items():
            times[kind] += worker.run(seconds)
    return {kind: statistics.median(found) for kind, found in times.items()}


def write_files(net, folder, against):
    """net.prototxt and weights.caffemodel in `folder`, and net.onnx where that is asked for."""
    import caffe
    from caffe.text import message_to_text
    from eval.deploy import PROTOTXT
    from tools.bench_nets import NETS

    name, batch = net.split(":")
    model, weights = f"{folder}/net.prototxt", f"{folder}/weights.caffemodel"
    Path(model).write_text(message_to_text(NETS[name](int(batch))))
    if trains(net):
        return
    built = caffe.Net(model, caffe.TEST)  # weights as its fillers draw them
    for node in built.nodes:
        if node.type == "BatchNorm":
            for blob, value in zip(node.layer.blobs, (0.05, 1.2, 1)):
                blob.data[...] = value
    built.save(weights)
    if "onnx" in against:
        one = str(PROTOTXT) if name == "deploy" else f"{folder}/one.prototxt"
        if name != "deploy":
            Path(one).write_text(message_to_text(NETS[name](1)))
        caffe.to_onnx(one, weights, f"{folder}/net.onnx")


def trains(net):
    """Whether `net` is one whose backward pass counts, too."""
    return net.split(":")[0] in [trained.split(":")[0] for trained in TRAINED]


# ---- the processes


class Passes(Worker):
    """One kind of `measure` in a process of its own."""

    def __init__(self, kind, net, folder, threads, wall=False, more=None):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **(more or {})}
        super().__init__([kind, net, folder], environment, __file__)
        self.clock = 0 if wall or threads > 1 else 1

    def run(self, seconds):
        """Seconds of each pass in a turn of about `seconds`."""
        return [pair[self.clock] for pair in self.ask(seconds)]


def work(kind, net, folder):
    """Passes as told on stdin: a line of seconds each, answered by [[wall, CPU], ...]; "end" ends it."""
    run, before = KINDS[kind](net, folder)
    run()
    run()
    print("true", flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            print(json.dumps({"mb": peak_memory(), "grown_mb": peak_memory() - before}), flush=True)
            return
        run()  # the others have had the caches meanwhile
        times: list = []
        end = time.perf_counter() + float(line)
        while not times or time.perf_counter() < end:
            begin, cpu = time.perf_counter(), time.process_time()
            run()
            times.append((time.perf_counter() - begin, time.process_time() - cpu))
        print(json.dumps(times), flush=True)


def ours(net, folder, faster=False):
    """A forward pass as pycaffe users write it, and a backward pass in nets with a loss."""
    import caffe.net

    before = peak_memory()
    if trains(net):
        trained = caffe.Net(f"{folder}/net.prototxt", caffe.TRAIN)
        given = inputs_of({name: trained.blobs[name].shape for name in trained.inputs})

        def run():
            trained.forward(**given)
            trained.backward()

        return run, before
    made = caffe.Net(f"{folder}/net.prototxt", caffe.TEST, weights=f"{folder}/weights.caffemodel")
    if faster:
        caffe.optimize(made)
    given = inputs_of({name: made.blobs[name].shape for name in made.inputs})
    return lambda: made.forward(**given), before


def optimized(net, folder):
    """The same after `caffe.optimize`."""
    return ours(net, folder, faster=True)


def onnx(net, folder):
    """ONNX Runtime's session of the exported net."""
    import onnxruntime

    before = peak_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(f"{folder}/net.onnx", options, providers=["CPUExecutionProvider"])
    batch = int(net.split(":")[1])
    given = inputs_of({i.name: (batch, *i.shape[1:]) for i in session.get_inputs()})
    return lambda: session.run(None, given), before


def plain(net, folder):
    """Forward and backward of plain PyTorch modules."""
    import torch

    from tools.bench_plain import PLAIN

    before = peak_memory()
    name, batch = net.split(":")
    module, shape = PLAIN[name]
    module = module().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which takes it
    given = inputs_of({"data": (int(batch), *shape), "label": (int(batch),)})
    data, label = torch.from_numpy(given["data"]), torch.from_numpy(given["label"]).long()

    def run():
        module.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(module(data), label).backward()

    return run, before


KINDS = {"ours": ours, "optimized": optimized, "onnx": onnx, "plain": plain}


def inputs_of(shapes):
    import numpy as np

    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 10, shape).astype(np.float32)
        if name == "label"
        else rng.uniform(-127.5, 127.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


if __name__ == "__main__":
    sys.exit(program.run(main))
