"""How fast clips reach the net: frames a second from trees and from a pack, against a plain loop over the same files.

    python tools/bench_data.py walkers --wait --memory 200   every figure of docs/DATA.md but those of --scale
    python tools/bench_data.py walkers --scale 1360000       a tree of CASIA-B's size, of so many frames (in $TMPDIR)

Speeds are measured on the dataset, and on crops of the size that CASIA-B's have: walkers rendered as videos of 320x240
and cut out by tools/crop.py. --wait trains for some iterations, for the share of a training step that waits for data;
--memory MB reads a pack of ten times that size, for the memory it takes. A frame counts with its mask: read, resized to
64x64, float32 in the blobs of the net. Prints JSON; "load" says how many processes wanted the cores beforehand.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from functools import partial

import cv2
import numpy as np

from layers import pack
from layers.data_layers import GaitNet, Loader, training_sequences
from layers.datasets import DATASETS, MIN_FRAMES, NUM_FRAMES, SIZE, data_root
from layers.frames import DataError, Tree
from layers.params import parse
from layers.prefetch import Prefetcher
from layers.sampling import ClipSampler

BATCH = 128  # clips, as in the published training
FRAME_BYTES = 4 * SIZE * SIZE
SEQUENCE = 100  # frames
CONDITIONS = [f"{name}-{n:02d}" for name, most in (("nm", 6), ("bg", 2), ("cl", 2)) for n in range(1, most + 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--wait", action="store_true", help="train for some iterations")
    parser.add_argument("--memory", type=int, metavar="MB", help="budget, a tenth of the pack's size")
    parser.add_argument("--scale", type=int, metavar="FRAMES", help="frames of the large tree, which alone is measured")
    parser.add_argument("--read", metavar="PACK", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read_all(args.dataset, args.read)))
        return 0
    try:
        print(json.dumps(figures(args), indent=1))
    except (DataError, OSError, subprocess.CalledProcessError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def figures(args):
    result: dict = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if args.scale:
        return {**result, "scale": measure_scale(args.dataset, args.scale)}
    if args.wait:
        result["wait"] = [measure_wait(args.dataset, step) for step in ("seg", "rec")]
    if args.memory:
        result["memory"] = measure_memory(args.dataset, args.memory)
    result[args.dataset] = measure(args.dataset, *trees_of(args.dataset))
    result["crops"] = measure_crops()
    return result


def trees_of(dataset):
    """The dataset's trees of frames and of masks."""
    folder = data_root() / DATASETS[dataset].folder
    return folder / DATASETS[dataset].im_dir, folder / DATASETS[dataset].gt_dir


def measure(dataset, im_path, gt_path, turns=5, seconds=1.5):
    """Frames a second of the plain loop, of trees and of a pack, taken in turns, the best turn of each."""
    with tempfile.TemporaryDirectory() as scratch:
        seconds_to_pack = make_pack(dataset, im_path, gt_path, scratch)
        tree, packed = Tree(str(im_path), str(gt_path)), pack.open_pack(scratch)
        lengths = sequences_of(dataset, packed)
        ways = {
            "loop": plain_loop(im_path, gt_path, lengths),
            "tree": feed(tree, lengths),
            "pack": feed(packed, lengths),
        }
        speeds: dict[str, list] = {name: [] for name in ways}  # (frames a second, frames a second of CPU time)
        for _ in range(turns):
            for name, way in ways.items():
                speeds[name].append(frames_a_second(way, seconds))
        steps = measure_batch(packed, lengths)
        frames = sum(entry["frames"] for entry in packed.sequences.values())
    speed, thrift = ({name: max(turn[i] for turn in speeds[name]) for name in speeds} for i in (0, 1))
    return {
        "sizes": sizes_of(im_path, lengths),
        "frames_a_second": {name: round(value) for name, value in speed.items()},
        "frames_a_cpu_second": {name: round(value) for name, value in thrift.items()},
        "tree_to_loop": round(speed["tree"] / speed["loop"], 1),
        "pack_to_loop": round(speed["pack"] / speed["loop"], 1),
        "batch_ms": steps,
        "packing": {
            "frames": frames,
            "seconds": round(seconds_to_pack, 1),
            "a_second": round(frames / seconds_to_pack),
        },
    }


def measure_crops():
    """The same on crops as tools/crop.py makes them from videos of 320x240."""
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = os.path.join(scratch, "raw"), os.path.join(scratch, "out")
        render = ["make_walkers.py", "--tree", "casiab", "--uncropped", "--out", raw, "--frames", "25"]
        crop = ["crop.py", "casiab", "--frames", f"{raw}/videos", "--masks", f"{raw}/silhouettes", "--out", out]
        for tool in ([*render, "--subjects", "2", "--conditions", "nm-01", "nm-02"], crop):
            run_tool(*tool)
        return measure("casiab", Path(out, DATASETS["casiab"].im_dir), Path(out, DATASETS["casiab"].gt_dir))


def measure_batch(packed, lengths, times=20):
    """Milliseconds of one batch, the best of some: gathered from a pack in the background, converted by the net's."""
    load = Loader(packed, list(lengths), ClipSampler(list(lengths.values()), BATCH, (0, 0)))
    tops = empty_tops(load(0))
    gather, convert = [], []
    for number in range(times):
        begin = time.perf_counter()
        batch = load(number)
        gathered = time.perf_counter()
        fill(tops, batch)
        gather.append(gathered - begin)
        convert.append(time.perf_counter() - gathered)
    return {"gather": round(1000 * min(gather), 1), "convert": round(1000 * min(convert), 1)}


def _image(path, flags=cv2.IMREAD_COLOR):
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise SystemExit(f"error: {path}: not an image, or damaged")
    return pixels


def sizes_of(im_path, lengths):
    """Smallest, median and largest size of the first frames of all sequences, "widthxheight"."""
    firsts = (next((Path(im_path) / seq.path).glob("[!.]*")) for seq in lengths)
    shapes = sorted(_image(file).shape[1::-1] for file in firsts)
    return ["{}x{}".format(*shapes[i]) for i in (0, len(shapes) // 2, -1)]


def make_pack(dataset, im_path, gt_path, out):
    """Pack the trees; the seconds it took."""
    begin = time.perf_counter()
    run_tool("pack_frames.py", dataset, "--im-path", str(im_path), "--gt-path", str(gt_path), "--out", str(out))
    return time.perf_counter() - begin


def run_tool(name, *args):
    subprocess.run([sys.executable, str(ROOT / "tools" / name), *args], check=True, stdout=subprocess.DEVNULL)


def sequences_of(dataset, frames):
    """{sequence: length} of all that are long enough."""
    dataset = DATASETS[dataset]
    lengths = {seq: frames.length(seq.path) for seq in dataset.sequences(frames, dataset.subjects(frames))}
    return {seq: length for seq, length in lengths.items() if length >= MIN_FRAMES}


def frames_a_second(way, seconds):
    """(frames a second, frames a second of CPU time of all threads); `way` gives the number of frames of each batch."""
    next(way)  # warm
    begin, cpu, frames = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        frames += next(way)
    return frames / (time.perf_counter() - begin), frames / (time.process_time() - cpu)


def plain_loop(im_path, gt_path, lengths):
    """What a script without a data layer does: read, resize, convert, one file after the other."""
    sequences = list(lengths)
    sampler = ClipSampler(list(lengths.values()), 1, (0, 0))
    for number in itertools.count():
        (index,), (start,) = sampler.batch(number)
        im_folder, gt_folder = im_path / sequences[index].path, gt_path / sequences[index].path
        names = sorted(name for name in os.listdir(im_folder) if not name.startswith("."))
        for name in names[start : start + NUM_FRAMES]:
            frame = cv2.resize(_image(im_folder / name), (SIZE, SIZE))
            mask = cv2.resize(_image(gt_folder / name, cv2.IMREAD_GRAYSCALE), (SIZE, SIZE))
            frame, mask = frame.astype(np.float32).transpose(2, 0, 1) - 127.5, mask.astype(np.float32) / 255
        yield NUM_FRAMES


def feed(frames, lengths):
    """What a data layer does for each forward: take the batch made in the background, fill the tops."""
    sampler = ClipSampler(list(lengths.values()), BATCH, (0, 0))
    batches = Prefetcher(Loader(frames, list(lengths), sampler))
    tops = None
    while True:
        batch = batches.get()
        tops = tops or empty_tops(batch)
        fill(tops, batch)
        yield BATCH * NUM_FRAMES


def empty_tops(batch):
    return {name: np.empty(batch.shape(name), np.float32) for name in GaitNet.tops}


def fill(tops, batch):
    for name, top in tops.items():
        batch.fill(name, top)


def measure_wait(dataset, step, iterations=10):
    """Percent of the time of training iterations: waiting for a batch, and all that the data layer does."""
    import caffe

    solver_file = ROOT / "experiments" / dataset / f"solver-{step}.prototxt"
    here = os.getcwd()
    os.chdir(solver_file.parent)  # its paths are relative
    solver = caffe.get_solver(str(solver_file))
    os.chdir(here)
    layer = solver.net.layers[0]
    spent = _clock(layer, "reshape", "forward")
    solver.step(2)
    spent.clear()
    begin, waited = time.perf_counter(), layer.batches.waited
    solver.step(iterations)
    seconds = time.perf_counter() - begin
    return {
        "solver": str(solver_file.relative_to(ROOT)),
        "from": type(layer.frames).__name__.lower(),
        "iteration_ms": round(1000 * seconds / iterations, 1),
        "waiting_percent": round(100 * (layer.batches.waited - waited) / seconds, 2),
        "layer_percent": round(100 * sum(spent) / seconds, 2),
    }


def _clock(layer, *methods):
    """Seconds of every call of these methods, in a list that grows."""
    spent = []

    def timed(call, *args):
        begin = time.perf_counter()
        call(*args)
        spent.append(time.perf_counter() - begin)

    for method in methods:
        setattr(layer, method, partial(timed, getattr(layer, method)))
    return spent


def measure_memory(dataset, budget_mb):
    """Memory of a process that reads clips from all over a pack ten times `budget_mb`."""
    with tempfile.TemporaryDirectory() as scratch:
        make_tree(dataset, scratch, budget_mb * 10_000_000 // FRAME_BYTES)
        out = os.path.join(scratch, "pack")
        make_pack("casiab", os.path.join(scratch, "im"), os.path.join(scratch, "gt"), out)
        done = subprocess.run([sys.executable, __file__, "casiab", "--read", out], check=True, capture_output=True)
        return {"pack_mb": round(os.path.getsize(os.path.join(out, pack.FILE)) / 1e6), **json.loads(done.stdout)}


def read_all(dataset, folder):
    """Read as many frames as the pack holds, three times over; resident megabytes before, and at the most."""
    before = resident_mb()
    packed = pack.open_pack(folder)
    wanted = 3 * sum(entry["frames"] for entry in packed.sequences.values())
    way, read, most = feed(packed, sequences_of(dataset, packed)), 0, before
    while read < wanted:
        read += next(way)
        most = max(most, resident_mb())
    return {"before_mb": before, "most_mb": most}


def resident_mb():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def measure_scale(dataset, frames):
    """Seconds to index a tree of so many frames and as many masks, twice, and to find that its pack is fresh."""
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        make_tree(dataset, scratch, frames)
        result = {"frames": frames, "making_s": round(time.perf_counter() - begin, 1)}
        tree = Tree(os.path.join(scratch, "im"), os.path.join(scratch, "gt"))
        for start in ("first_start_s", "second_start_s"):
            begin = time.perf_counter()
            params = parse(str({"dataset": "casiab", "batch_size": BATCH, "im_path": tree.im_path}), "GaitNet")
            sequences, _ = training_sequences(params, tree)
            result[start] = round(time.perf_counter() - begin, 2)
        begin = time.perf_counter()
        for path in DATASETS["casiab"].paths(tree.im_path):
            pack.fingerprint(tree.im_path, tree.gt_path, path)
        return {**result, "training_sequences": len(sequences), "fresh_s": round(time.perf_counter() - begin, 2)}


def make_tree(dataset, root, num_frames):
    """A tree of CASIA-B's form below `root`/im and /gt: hard links to the dataset's frames, 100 a sequence."""
    folder = data_root() / DATASETS[dataset].folder
    source = sorted((folder / DATASETS[dataset].im_dir).glob("*/nm-0?/*/*.png"))
    masks = [folder / DATASETS[dataset].gt_dir / file.relative_to(folder / DATASETS[dataset].im_dir) for file in source]
    sequences = (
        f"{subject:03d}/{condition}/{view:03d}"
        for subject in range(1, 1000)
        for condition in CONDITIONS
        for view in range(0, 181, 18)
    )
    for sequence, first in zip(sequences, range(0, num_frames, SEQUENCE)):
        for tree, files in (("im", source), ("gt", masks)):
            os.makedirs(f"{root}/{tree}/{sequence}")
            for i in range(first, min(first + SEQUENCE, num_frames)):
                os.link(files[i % len(files)], f"{root}/{tree}/{sequence}/{i - first + 1:03d}.png")


if __name__ == "__main__":
    sys.exit(program.run(main))
