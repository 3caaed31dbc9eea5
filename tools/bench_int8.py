#!/usr/bin/env python3
"""What 8-bit integers cost and bring: rank-1, IoU and time of two exported models, on test walks of a dataset.

    tools/export.py --weights W --outputs fc_fea,conv8_0 --onnx float.onnx --int8 int8.onnx --calibrate walkers
    tools/bench_int8.py walkers float.onnx int8.onnx

Both models get the same clips in turns, one thread; seconds are CPU time a clip. Rank-1 is over all pairs of views.
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
import time

import numpy as np

from eval.ending import exit_status
from eval.metrics import rank
from eval.score import distance
from eval.segmentation import THRESHOLD, agreement
from layers.datasets import DATASETS, NUM_FRAMES, SIZE, data_root
from layers.frames import PLANES, fill_image_blob
from layers.sources import open_frames


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("models", nargs=2, metavar="MODEL", help=".onnx with the outputs fc_fea and conv8_0")
    parser.add_argument("--clips", type=int, default=4, help="of each walk, evenly spread (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="take each such walk only (default: all)")
    return exit_status(show, parser.parse_args(argv), errors=(ImportError,), stopped="nothing was measured")


def show(args):
    print(json.dumps(measure(args.dataset, args.models, args.clips, args.every), indent=1))


def measure(name, models, clips, every):
    """For each model {"rank1", "iou", "seconds_a_clip", "mb"}; percent, mean IoU of the masks."""
    sessions = {model: session(model) for model in models}
    dataset = DATASETS[name]
    folder = data_root() / dataset.folder
    frames = open_frames(str(folder / dataset.im_dir), str(folder / dataset.gt_dir))
    _, tested = dataset.split(dataset.subjects(frames))
    walks = [w for w in dataset.sequences(frames, tested) if dataset.protocol.role(w)][::every]
    vectors: dict[str, list] = {model: [] for model in models}
    ious: dict[str, list] = {model: [] for model in models}
    times: dict[str, list] = {model: [] for model in models}
    for walk in walks:
        given, truth = clips_of(frames, walk.path, clips)
        for model, run in sessions.items():
            begin = time.process_time()
            feature, masks = run(given)
            times[model].append((time.process_time() - begin) / clips)
            vectors[model].append(feature.mean(axis=0))
            ious[model].append(agreement(masks[:, 0] > THRESHOLD, truth)[:, 0].mean())
    roles, labels = np.array([dataset.protocol.role(w) for w in walks]), np.array([w.label for w in walks])
    probe, gallery = roles == "probe", roles == "gallery"
    told: dict = {"walks": len(walks), "clips": clips}
    for model in models:
        rows = np.stack(vectors[model])
        first = rank(distance(rows[probe], rows[gallery]), labels[probe], labels[gallery])[0]
        told[model] = {
            "rank1": 100 * float((first == 1).mean()),
            "iou": float(np.mean(ious[model])),
            "seconds_a_clip": statistics.median(times[model]),
            "mb": Path(model).stat().st_size / 1e6,
        }
    return told


def session(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # of many classes, which have no base of their own
        raise ValueError(f"{model}: ONNX Runtime cannot read it ({' '.join(str(e).split())})") from e
    return lambda given: made.run(["fc_fea", "conv8_0"], given)


def clips_of(frames, path, clips):
    """({input: (clips, 3, 64, 64)}, true masks (6 clips, 64, 64), all first frames before all second ones)."""
    planes = np.empty((clips, NUM_FRAMES, *PLANES), np.uint8)
    starts = np.linspace(0, frames.length(path) - NUM_FRAMES, clips).astype(int)
    for start, into in zip(starts, planes):
        frames.read(path, start, into)
    given = {f"im{i}": np.empty((clips, 3, SIZE, SIZE), np.float32) for i in range(NUM_FRAMES)}
    for i in range(NUM_FRAMES):
        fill_image_blob(np.ascontiguousarray(planes[:, i]), given[f"im{i}"])
    return given, planes[:, :, 3].swapaxes(0, 1).reshape(-1, SIZE, SIZE) > 127


if __name__ == "__main__":
    sys.exit(program.run(main))
