"""Which walks are evaluated, and their features: from the cache, or from frames and weights."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval import provenance
from eval.deploy import CPU_BATCH, GPU_BATCH, DeployNet, SilhouetteNet
from eval.extract import CLIPS, Extraction, all_starts, extract, random_starts
from eval.features import Features, read_cache, write_cache
from eval.runtime import load_caffe, told, which_caffe
from eval.seen import judge, require_unseen
from eval.weights import read_weights
from layers import hygiene
from layers.datasets import MIN_FRAMES
from layers.digest import sha256
from layers.names import some
from layers.sources import open_frames
from layers.split import IDLE, split_of

SHOWN = 12  # walks of which the cache keeps a frame and its mask
VERSION = 2  # of what the cache holds: raise it when extraction changes


@dataclass(frozen=True)
class Source:
    """All that determines features: a trained net, a dataset on disk, and how clips are drawn.

    im_path None: silhouettes alone, true masks in place of predicted ones. gt_path None: no ground truth.
    clips: "20", or "all" windows, which needs no seed. gpu: number, or None for the CPU.
    cache: folder where features are kept. leaked: test people whom training has seen are no error.
    """

    dataset: object
    train_num: int
    im_path: Path | None
    gt_path: Path | None
    prototxt: Path
    weights: Path
    clips: str = str(CLIPS)
    seed: int = 0
    gpu: int | None = None
    cache: Path = provenance.ROOT / "eval" / "feat"
    leaked: bool = False
    partition: str = ""  # files, see layers/split.py
    excluded: str = ""

    @property
    def place(self):
        """The path that sentences about the data name."""
        return self.im_path or self.gt_path


def features_of(source, part="test"):
    """(Features, extras, key) of the test or training walks.

    extras: energy, true_energy (N, 64, 64); agreement (N, 3), frames (N,); shown, shown_mask, of a few walks: see
    eval.extract.Extraction. They are read from the cache if everything in the key is the same, else computed and kept.
    """
    frames = open_frames(source.im_path, source.gt_path)
    walks = choose(source, frames, part)
    weights = read_weights(source.weights)
    training = None
    if part == "test":
        ids = sorted({walk.subject for walk in walks})
        training = judge(weights, source.dataset, source.dataset.subjects(frames), ids)
        if not source.leaked:
            require_unseen(training, source.weights)
    key = {
        "version": VERSION,
        "caffe": which_caffe(),
        "dataset": source.dataset.name,
        "train_num": source.train_num,
        "part": part,
        "weights_sha256": weights.sha256,
        "training": training and training["verdict"],
        "training_told": training and training["told"],
        "training_leaked": training and " ".join(training["leaked"]),
        "prototxt_sha256": sha256(source.prototxt),
        "data_sha256": data_fingerprint(source, frames, walks),
        "ground_truth": None not in (source.gt_path, source.im_path),
        "masks": "predicted" if source.im_path else "true",
        "partition_sha256": source.partition and sha256(source.partition),
        "excluded_sha256": source.excluded and sha256(source.excluded),
        "clips": source.clips,
        "seed": None if source.clips == "all" else source.seed,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    cache = source.cache / f"{source.dataset.name}-tr{source.train_num}-{part}-{name}.npz"
    if not cache.exists():
        write_cache(cache, *compute(source, frames, walks, key))
    return read_cache(cache, key)


def compute(source, frames, walks, key):
    """(Features, key, extras) by running the net."""
    caffe = load_caffe(source.gpu)
    print(told(caffe), file=sys.stderr)
    build = DeployNet if source.im_path else SilhouetteNet
    net = build(caffe, source.prototxt, source.weights, CPU_BATCH if source.gpu is None else GPU_BATCH)
    starts = all_starts if source.clips == "all" else random_starts(source.seed)
    found = extract(net, frames, [walk.path for walk in walks], starts, f"{key['part']} subjects")
    return described(found, source.dataset, walks), key, few_shown(found)


def described(found: Extraction, dataset, walks):
    """The Features of walks, of which `found` was made."""
    groups = [dataset.protocol.group(walk) for walk in walks]
    return Features(
        found.vectors,
        np.array([walk.label for walk in walks]),
        np.array([dataset.protocol.groups.index(group) if group else -1 for group in groups]),
        np.array([dataset.protocol.role(walk) or "" for walk in walks]),
        np.array([dataset.protocol.covariate(walk) or "" for walk in walks]),
        np.array([walk.path for walk in walks]),
    )


def few_shown(found: Extraction):
    extras = {name: value for name, value in vars(found).items() if name != "vectors"}
    few = np.unique(np.linspace(0, len(found.frames) - 1, SHOWN).astype(int))
    return extras | {"shown": found.shown[few], "shown_mask": found.shown_mask[few], "shown_walks": few}


def choose(source, frames, part):
    """The walks of the test subjects that the protocol uses, or those of the training subjects that train."""
    dataset = source.dataset
    if source.im_path and not frames.has_frames:
        raise ValueError(f"{source.im_path}: holds silhouettes alone; say --silhouettes and name them by --gt-path")
    split = split_of(dataset, dataset.subjects(frames), source.train_num, source.partition, source.excluded)
    if part == "train":
        walks = [walk for walk in split.sequences(dataset, frames, split.training) if dataset.trains(walk)]
    else:
        tell_who_is_missing(source, split)
        tell(split.idle(frames), IDLE)
        found = split.sequences(dataset, frames, split.test)
        walks = [walk for walk in found if used(dataset.protocol, walk)]
        tell(
            hygiene.absent(dataset, [walk.path for walk in found], split.test), "of what the protocol wants is missing"
        )
    long = [walk for walk in walks if frames.length(walk.path) >= MIN_FRAMES]  # as in the original: more than 10
    if len(long) < len(walks):
        short = sorted({walk.path for walk in walks} - {walk.path for walk in long})
        print(f"left out: {len(short)} walks of fewer than {MIN_FRAMES} frames, first {short[0]}", file=sys.stderr)
    tell(hygiene.partial(dataset, frames, [walk.path for walk in long]), f"walks {hygiene.NO_WHOLE_PERSON}")
    tell(hygiene.copies(frames, [walk.path for walk in long]), f"walks {hygiene.COPIES}")
    if source.gt_path:
        paths = [walk.path for walk in long]
        hygiene.require_masks(frames, paths, source.gt_path)
        numbers = [(path, frames.length(path), frames.num_masks(path)) for path in paths]
        unequal = [f"{path} ({n} frames, {m} masks)" for path, n, m in numbers if n != m]
        tell(unequal, "walks have not as many masks as frames; a frame without a mask counts as empty")
    roles = {dataset.protocol.role(walk) for walk in long}
    if part == "test" and not {"gallery", "probe"} <= roles:
        raise ValueError(
            f"{source.place}: {len(long)} walks of {len(split.test)} test subjects, and no "
            f"{' or '.join(sorted({'gallery', 'probe'} - roles))} walk among them; "
            f"check --im-path and --train-num (now {source.train_num})"
        )
    return long


def tell_who_is_missing(source, split):
    """People whom the partition names, or the published split has, and who are not there."""
    tell(split.absent, "ids of the partition are not there")
    published = source.dataset.num_subjects - source.train_num
    if not source.partition and len(split.test) != published:
        print(
            f"warning: {len(split.test)} people are tested, where {source.dataset.title} has {published} beside the "
            f"{source.train_num} who train",
            file=sys.stderr,
        )


def tell(names, what):
    if names:
        print(f"warning: {len(names)} {what}: {some(names)}", file=sys.stderr)


def used(protocol, walk):
    return protocol.group(walk) is not None and bool(protocol.role(walk) or protocol.covariate(walk))


def data_fingerprint(source, frames, walks):
    """Hash of what the frames of these walks are: a pack's own checksums, or the files' names, sizes and times."""
    if hasattr(frames, "sequences"):
        entries = {walk.path: frames.sequences[walk.path] for walk in walks}
        return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
    roots = [root for root in (source.im_path, source.gt_path) if root is not None]
    return "-".join(provenance.fingerprint(root, [walk.path for walk in walks]) for root in roots)
