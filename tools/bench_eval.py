"""How fast evaluation is, against the original's procedures on the same machine.

    python tools/bench_eval.py                                    # a minute or so
    python tools/bench_eval.py --probes 10000 --gallery 1000000   # the large search in full
    python tools/bench_eval.py --gpu 0

Features: every frame through the segmentation branch once and clips in batches, against 20 clips through the deploy net
one by one; of short walks (15 frames) and of walks about as long as those of CASIA-B (70). The ratio of CPU time, of
all threads, is given too, for it suffers less when other programs want the cores. Scores: a matrix of distances,
against a loop over probes and gallery. Search: the ten nearest of a large gallery, with the memory it takes.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import json
import resource
import tempfile
import time

import numpy as np

from eval.deploy import CPU_BATCH, GPU_BATCH, PROTOTXT, DeployNet, literal_features
from eval.extract import CLIPS, random_starts, walks_through_net
from eval.runtime import load_caffe
from eval.score import distance, top_k

DIM = 256
NEAREST = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=24, help="for features (default %(default)s)")
    parser.add_argument("--frames", type=int, nargs="+", default=[15, 70], help="of each walk (default 15 70)")
    parser.add_argument("--probes", type=int, default=1000, help="of the large search (default %(default)s)")
    parser.add_argument("--gallery", type=int, default=100_000, help="of the large search (default %(default)s)")
    parser.add_argument("--gpu", type=int, metavar="N", help="extract features on this GPU (default: CPU)")
    args = parser.parse_args()
    print(json.dumps(measure(args.walks, args.frames, args.probes, args.gallery, args.gpu), indent=1))


def measure(walks=24, frames=(15, 70), probes=1000, gallery=100_000, gpu=None):
    """{"features": ..., "scores": ..., "search": ...}: seconds, ratios, and peak memory of the search in MB."""
    return {
        "load": os.getloadavg()[0],
        "features": features(walks, frames, gpu),
        "scores": scores(),
        "search": search(probes, gallery),
    }


def features(walks, frames, gpu):
    """For each length of a walk: seconds a walk by both procedures, wall and CPU, and how far their features differ."""
    caffe = load_caffe(gpu)
    rng = np.random.default_rng(0)
    whole = caffe.Net(str(PROTOTXT), caffe.TEST)
    with tempfile.TemporaryDirectory() as folder:
        fill(whole, rng)
        whole.save(f"{folder}/weights.caffemodel")
        fast = DeployNet(caffe, PROTOTXT, f"{folder}/weights.caffemodel", CPU_BATCH if gpu is None else GPU_BATCH)
    return [one_length(whole, fast, walks, length, rng) for length in frames]


def one_length(whole, fast, walks, frames, rng):
    planes = [rng.integers(0, 256, (frames, 4, 64, 64)).astype(np.uint8) for _ in range(walks)]
    starts = random_starts(seed=0)
    few = min(walks, 4)
    literal_features(whole, planes[0], [0, 1])  # both have run once before they are timed
    walks_through_net(fast, planes, starts, 0)
    want, slow, slow_cpu = timed(
        lambda: [literal_features(whole, planes[i], starts(i, frames)).mean(axis=0) for i in range(few)]
    )
    rows, ours, ours_cpu = timed(lambda: walks_through_net(fast, planes, starts, 0))
    return {
        "frames_a_walk": frames,
        "clips": CLIPS,
        "literal_s": slow / few,
        "ours_s": ours / walks,
        "ratio": slow / few * walks / ours,
        "cpu_ratio": slow_cpu / few * walks / ours_cpu,
        "largest_difference": max(
            float(np.abs(row[0] - mean).max() / np.abs(mean).max()) for row, mean in zip(rows, want)
        ),
    }


def fill(net, rng):
    """Weights that keep numbers in range; how fast a net runs does not depend on them."""
    for name, blobs in net.params.items():
        for blob in blobs:
            shape = blob.data.shape
            blob.data[...] = 1 if name.startswith("bn") else rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        if name == "conv1_0":
            blobs[0].data[...] /= 64  # inputs reach 127


def scores(probes=1239, gallery=1240, looped=20):
    """Seconds for all pairs, as many as Outdoor-Gait has, by a loop (from some probes) and by `distance`."""
    rng = np.random.default_rng(0)
    probe, items = (rng.random((n, DIM), np.float32) for n in (probes, gallery))

    def loop():
        return [[np.exp(-(np.linalg.norm((p - g) / DIM) ** 2)) for g in items] for p in probe[:looped]]

    _, loop_s, _ = timed(loop)
    ours_s = min(timed(lambda: distance(probe, items))[1] for _ in range(3))
    loop_s *= probes / looped
    return {"probes": probes, "gallery": gallery, "loop_s": loop_s, "ours_s": ours_s, "ratio": loop_s / ours_s}


def search(probes, gallery):
    """Seconds and peak memory (MB) of the nearest of a large gallery, and whether some of them are right."""
    rng = np.random.default_rng(0)
    items = rng.random((gallery, DIM), np.float32)
    probe = items[rng.integers(gallery, size=probes)] + 0.1 * rng.standard_normal((probes, DIM), np.float32)
    (found, _), seconds, _ = timed(lambda: top_k(probe, items, NEAREST))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the check, which takes more
    some = slice(0, 5)
    exact = np.argsort(distance(probe[some], items), axis=1)[:, :NEAREST]
    return {
        "probes": probes,
        "gallery": gallery,
        "nearest": NEAREST,
        "seconds": seconds,
        "peak_mb": peak_mb,
        "as_exact_search": bool((found[some] == exact).all()),
    }


def timed(function):
    """(what it gives, seconds, seconds of CPU time of all threads)"""
    began, cpu = time.perf_counter(), time.process_time()
    return function(), time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    sys.exit(program.run(main))
