"""The data layers named in the prototxts: GaitNet_Seg, GaitNet, GaitNet_Sia (paper, section 4).

    layer { name: "data"  type: "Python"  top: "im0" ... top: "im5"  top: "gt0" ... top: "gt5"  top: "label"
            python_param { module: "layers"  layer: "GaitNet"  param_str: "{'dataset': 'casiab', 'batch_size': 128,
            'train_num': 74, 'im_path': '...', 'gt_path': '...', 'mode': 'TRAIN'}" } }

They run in any Caffe: of `caffe` they use `Layer` and, where several solvers share the work, their number.
"""

import hashlib
import json
import sys
from dataclasses import dataclass

import numpy as np

import caffe
from layers import hygiene, people
from layers.datasets import DATASETS, MIN_FRAMES, NUM_FRAMES, SIZE
from layers.frames import IMAGE_MEAN, MASK_VALUES, PLANES, DataError, fill_image_blob, fill_mask_blob
from layers.names import some
from layers.pack import Pack
from layers.pack import fingerprint as times_of
from layers.params import parse
from layers.prefetch import Prefetcher
from layers.sampling import ClipSampler, PairSampler, ScatteredSampler
from layers.sources import open_frames
from layers.split import IDLE, split_of

IMAGES = tuple(f"im{k}" for k in range(NUM_FRAMES))
MASKS = tuple(f"gt{k}" for k in range(NUM_FRAMES))


class DataLayer(caffe.Layer):
    """Clips of six frames with their masks; what its subclasses share."""

    tops: tuple[str, ...] = ()
    can_scatter = False  # may a clip's frames come from several sequences?
    runtime_seed: int | None = None

    def __caffe_seed__(self, seed):
        """The runtime's word before `setup`, and when a run goes on from a snapshot. BVLC Caffe has none."""
        self.runtime_seed = seed

    def setup(self, bottom, top):
        name = type(self).__name__
        if len(bottom) or len(top) != len(self.tops):
            raise DataError(
                f"{name}: has {len(bottom)} bottoms and {len(top)} tops, "
                f"wanted no bottom and {len(self.tops)} tops: {' '.join(self.tops)}"
            )
        params = parse(self.param_str, name)
        self.frames = frames = self.open(params, name)
        sequences, lengths = training_sequences(params, frames)
        if "label" in self.tops and len({seq.subject for seq in sequences}) < 2:
            raise DataError(
                f"{name}: all training sequences in {place_of(params)} are of one subject, {sequences[0].subject}; "
                "identification needs two or more"
            )
        if params.scattered and not self.can_scatter:
            raise DataError(f"{name}: param_str has scattered True, which is for GaitNet_Seg alone; leave it out")
        self.scattered = params.scattered
        self.people = {params.dataset: sorted({seq.subject for seq in sequences})}
        self.given_seed = params.seed
        self.seed = seed = self._seed()
        self.drawn_from = sequences, lengths, params.batch_size
        self.loader = Loader(frames, sequences, self.shuffled(seed))
        self.batches = Prefetcher(self.loader)
        data = f"{len(sequences)} sequences, {sum(lengths)} frames, fingerprint {fingerprint(frames, sequences)}"
        _log(f"{name}: {params.dataset}, {describe(frames)}: {data}; seed {seed}")

    def open(self, params, name):
        """The frames and masks that param_str names."""
        if not params.im_path:
            raise DataError(f"{name}: param_str has no 'im_path'; add it")
        frames = open_frames(params.im_path, params.gt_path)
        if not frames.gt_path:
            raise DataError(f"{name}: param_str has no 'gt_path', which a tree of frames needs; add it")
        if not frames.has_frames:
            raise DataError(
                f"{params.im_path}: holds silhouettes alone, which train the recognition branch alone: "
                f"python tools/make_prototxt.py {params.dataset} --silhouettes --out experiments/NAME"
            )
        return frames

    def _seed(self):
        """Without one in `param_str`, what follows from the net's: a resumed run has that of the run it continues.

        Under a Caffe whose nets have none, as in the original, NumPy's global state decides."""
        if self.given_seed is not None:
            return self.given_seed
        return int(np.random.randint(2**31)) if self.runtime_seed is None else self.runtime_seed

    def shuffled(self, seed):
        return self.sampler(*self.drawn_from, (seed, int(self.phase)))

    def sampler(self, sequences, lengths, num, seed):
        return (ScatteredSampler if self.scattered else ClipSampler)(lengths, num, seed)

    def reshape(self, bottom, top):
        """Draw the next batch. Caffe calls this before each forward, and once when the net is built.

        As in the original, the batch of that first call is never used."""
        self.batch = self.batches.get()
        for i, name in enumerate(self.tops):
            top[i].reshape(*self.batch.shape(name))

    def forward(self, bottom, top):
        for i, name in enumerate(self.tops):
            self.batch.fill(name, top[i].data)

    def backward(self, top, propagate_down, bottom):
        pass

    def __caffe_pack__(self):
        """The batch in a quarter of its size, in place of `forward`, for a runtime that sends it to a GPU."""
        return [self.batch.planes, self.batch.label, MASK_VALUES]

    def __caffe_unpack__(self, planes, label, mask_values):
        """The values of the tops, from tensors of what `__caffe_pack__` gave; those of `forward`, bit by bit."""
        tops = [planes[:, k, :3].float() - IMAGE_MEAN for k in range(NUM_FRAMES) if IMAGES[k] in self.tops]
        tops += [mask_values[planes[:, k, 3:].long()] for k in range(NUM_FRAMES)]
        if "label" in self.tops:
            tops.append(label)
        if "sim" in self.tops:
            first, second = label.chunk(2)
            tops.append((first == second).float())
        return tops

    def __caffe_saved__(self, weights, started_from):
        """The bundled Caffe has written `weights`, of a net that was loaded from the files `started_from`: tell beside
        them who trained them. Under another Caffe, experiments/train_steps.sh does that."""
        try:
            people.write(weights, self.people, started_from)
        except OSError as e:
            _log(f"{type(self).__name__}: cannot write {people.record_path(weights)}: {e.strerror or e}")

    def __caffe_seek__(self, batch):
        """The next reshape draws batch number `batch`, where 0 is the first one after the net was built."""
        if (seed := self._seed()) != self.seed:
            self.seed, self.loader.sampler = seed, self.shuffled(seed)
            _log(f"{type(self).__name__}: the run that goes on has seed {seed}")
        self.batches.seek(batch + 1)


class GaitNet_Seg(DataLayer):
    """top: im0..im5 (N, 3, 64, 64) BGR minus 127.5; gt0..gt5 (N, 1, 64, 64) in 0..1."""

    tops = (*IMAGES, *MASKS)
    can_scatter = True


class GaitNet(DataLayer):
    """top: as GaitNet_Seg, then label (N,)."""

    tops = (*IMAGES, *MASKS, "label")


class GaitNet_Sia(DataLayer):
    """N pairs. top: as GaitNet, with 2N clips, the first halves of all pairs and then the second halves;
    then sim (N,), 1 where both are of one subject, else 0."""

    tops = (*IMAGES, *MASKS, "label", "sim")

    def sampler(self, sequences, lengths, num, seed):
        return PairSampler(lengths, [seq.subject for seq in sequences], num, seed)


class GaitNet_Silhouettes(DataLayer):
    """Silhouettes alone, for the recognition branch alone. top: gt0..gt5 (N, 1, 64, 64) in 0..1; label (N,)."""

    tops = (*MASKS, "label")

    def open(self, params, name):
        return open_frames(None, params.gt_path or params.im_path)


def place_of(params):
    """The path that a sentence about the data names."""
    return params.im_path or params.gt_path


def training_sequences(params, frames):
    """The sequences to draw from and their lengths.

    They are of training subjects and of a condition that trains, longer than 10 frames, with as many masks as frames.
    As in the original, `mode` makes no difference: phase TEST draws from the training subjects too."""
    dataset, place = DATASETS[params.dataset], f"{'im_path' if params.im_path else 'gt_path'} {place_of(params)}"
    try:
        split = split_of(dataset, dataset.subjects(frames), params.train_num, params.partition, params.excluded)
        found = [seq for seq in split.sequences(dataset, frames, split.training) if dataset.trains(seq)]
    except (ValueError, OSError) as e:
        raise DataError(f"{place}: {e}") from e
    if split.absent:
        hygiene.warn(f"{place}: {params.partition} names ids that are not there: {some(split.absent)}")
    if idle := split.idle(frames):
        hygiene.warn(f"{place}: {params.excluded}: {len(idle)} {IDLE}: {some(idle)}")
    if found and (most := max(seq.label for seq in found)) >= split.num_labels:
        hygiene.warn(
            f"{place}: the largest label of a training subject is {most}, but {split.num_labels} subjects train and "
            f"fc_id has labels 0 to {split.num_labels - 1}: no id may be missing; "
            f"run python tools/check_data.py {params.dataset}"
        )
    usable = hygiene.fit(frames, found, place)
    if doubtful := hygiene.partial(dataset, frames, [seq.path for seq in usable]):
        hygiene.warn(f"{place}: {len(doubtful)} sequences {hygiene.NO_WHOLE_PERSON}: {some(doubtful)}")
    if same := hygiene.copies(frames, [seq.path for seq in usable]):
        hygiene.warn(f"{place}: {len(same)} sequences {hygiene.COPIES}: {some(same)}")
    if not usable:
        first = f", first {found[0].path}: {frames.length(found[0].path)} frames, " if found else ""
        raise DataError(
            f"{place}: none of its {len(found)} training sequences has {MIN_FRAMES} frames or more and as many masks"
            f"{first and first + str(frames.num_masks(found[0].path)) + ' masks'}; "
            f"run python tools/check_data.py {params.dataset}"
        )
    return usable, [frames.length(seq.path) for seq in usable]


def describe(frames):
    return f"pack {frames.folder}" if isinstance(frames, Pack) else f"tree {frames.root}"


def fingerprint(frames, sequences):
    """16 hexadecimal digits that tell these sequences from others; no frame is read.

    Of a pack: the checksums of its frames, so equal data has it on any machine. Of a tree: the numbers of files, and
    when their folders last changed."""
    if isinstance(frames, Pack):
        known = {
            seq.path: [frames.sequences[seq.path][key] for key in ("frames", "masks", "crc32")] for seq in sequences
        }
    else:
        known = {
            seq.path: [
                frames.length(seq.path),
                frames.num_masks(seq.path),
                *times_of(frames.root, frames.gt_path, seq.path).values(),
            ]
            for seq in sequences
        }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


class Loader:
    """Makes batch number n."""

    def __init__(self, frames, sequences, sampler):
        self.frames, self.sampler = frames, sampler
        self.paths = [seq.path for seq in sequences]
        self.labels = np.array([seq.label for seq in sequences], np.float32)
        self.rank, self.count = _solver()

    def __call__(self, number):
        # Solvers that share the work take every count-th batch each: together one big batch, no clip twice.
        index, start = self.sampler.batch(number * self.count + self.rank)
        run = self.sampler.consecutive
        planes = np.empty((len(index), run, *PLANES), np.uint8)
        self.frames.read_clips([self.paths[i] for i in index], start, planes)
        clips = planes.reshape(-1, NUM_FRAMES, *PLANES)
        return Batch(clips, self.labels[index[:: NUM_FRAMES // run]])


@dataclass(frozen=True)
class Batch:
    planes: np.ndarray  # uint8 (clips, 6, 4, 64, 64)
    label: np.ndarray  # float32 (clips,)

    def shape(self, top):
        """Shape of the top of this name."""
        clips = len(self.label)
        if top in IMAGES:
            return clips, 3, SIZE, SIZE
        if top in MASKS:
            return clips, 1, SIZE, SIZE
        return (clips,) if top == "label" else (clips // 2,)

    def fill(self, top, out):
        """Write what the top of this name holds into the array `out`."""
        if top in IMAGES:
            fill_image_blob(self.planes[:, IMAGES.index(top)], out)
        elif top in MASKS:
            fill_mask_blob(self.planes[:, MASKS.index(top)], out)
        elif top == "label":
            out[...] = self.label
        else:
            first, second = np.split(self.label, 2)
            out[...] = first == second


def _solver():
    """(rank, count) of this solver among those that train together."""
    count = getattr(caffe, "solver_count", lambda: 1)()
    return (caffe.solver_rank() if count > 1 else 0), count


def _log(text):
    """An INFO line of Caffe's log, or of stderr under a Caffe that has no `caffe.log`."""
    getattr(caffe, "log", lambda line: print(line, file=sys.stderr))(text)
