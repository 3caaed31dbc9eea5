"""From frames and weights to features: each frame is segmented once, clips of many walks share a batch."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from eval.baseline import energy_image
from eval.progress import Progress
from eval.segmentation import THRESHOLD, agreement
from layers.datasets import NUM_FRAMES
from layers.frames import PLANES

GROUP = 16  # batches of frames that are read, and held, together
CLIPS = 20  # drawn from each walk by the original
READERS = 4  # threads that decode images


@dataclass(frozen=True)
class Extraction:
    """What the net makes of N walks.

    vectors (N, 256) float32, features. energy, true_energy (N, 64, 64) float16, gait energy images from predicted
    masks (above 0.5) and from ground truth. agreement (N, 3): means over the frames of a walk of what
    eval.segmentation.MEASURES names. frames (N,), how many a walk has. shown (N, 4, 64, 64) uint8, its middle frame,
    blue green red and mask;
    shown_mask (N, 64, 64) uint8, what was predicted for that, 0..255.
    """

    vectors: np.ndarray
    energy: np.ndarray
    true_energy: np.ndarray
    agreement: np.ndarray
    frames: np.ndarray
    shown: np.ndarray
    shown_mask: np.ndarray


def extract(net, frames, paths, starts, label):
    """Features of the walks at `paths`, in that order; what else comes along, see Extraction.

    net: an eval.deploy.DeployNet. frames: from layers.frames.open_frames. starts: function of a walk's number and its
    length that gives the first frames of its clips. label: what the progress bar says.
    """
    results: list = []
    with ThreadPoolExecutor(READERS) as readers, Progress(len(paths), "walks", label) as bar:
        groups = group_walks(paths, [frames.length(path) for path in paths], GROUP * net.frames)
        waiting = None
        for group in [*groups, []]:  # reads one group ahead of the net
            coming = [readers.submit(read_walk, frames, path, n) for path, n in group]
            try:
                if waiting:
                    results += walks_through_net(net, [walk.result() for walk in waiting], starts, len(results))
                    bar.update(len(waiting))
            except BaseException:  # Ctrl-C among them: what is not begun need not be read
                readers.shutdown(cancel_futures=True)
                raise
            waiting = coming
    return Extraction(*(np.stack(column) for column in zip(*results)))


def walks_through_net(net, walks, starts, first):
    """One row of Extraction for each of the walks, uint8 (F, 4, 64, 64) each."""
    masks = np.split(net.masks(np.concatenate(walks)), np.cumsum([len(walk) for walk in walks])[:-1])
    clips = [starts(first + i, len(walk)) for i, walk in enumerate(walks)]
    needed = [np.unique(some, return_inverse=True) for some in clips]  # a window drawn twice is computed once
    sums = np.concatenate([window_sums(mask)[windows] for mask, (windows, _) in zip(masks, needed)])
    features = np.split(net.features(sums), np.cumsum([len(windows) for windows, _ in needed])[:-1])
    return [
        row(walk, mask, feature[drawn].mean(axis=0))
        for walk, mask, feature, (_, drawn) in zip(walks, masks, features, needed)
    ]


def row(walk, mask, vector):
    predicted, truth = mask > THRESHOLD, walk[:, 3] > 127
    middle = len(walk) // 2
    return (
        vector,
        energy_image(predicted),
        energy_image(truth),
        agreement(predicted, truth).mean(axis=0),
        len(walk),
        walk[middle],
        np.rint(255 * mask[middle]).astype(np.uint8),
    )


def window_sums(masks):
    """Sums over six consecutive masks: (F, 64, 64) -> (F - 5, 64, 64), from sums over all before."""
    total = np.concatenate([np.zeros((1, *masks.shape[1:])), masks.cumsum(axis=0, dtype=np.float64)])
    return (total[NUM_FRAMES:] - total[:-NUM_FRAMES]).astype(np.float32)


def random_starts(seed, clips=CLIPS):
    """Starts as the original draws them, randint(F - 6), so that the last window is never drawn; fixed by the seed."""
    return lambda number, length: np.random.default_rng((seed, number)).integers(length - NUM_FRAMES, size=clips)


def all_starts(_number, length):
    """Every window, the last one included."""
    return np.arange(length - NUM_FRAMES + 1)


def read_walk(frames, path, length):
    return frames.read(path, 0, np.empty((length, *PLANES), np.uint8))


def group_walks(paths, lengths, most):
    """Lists of (path, length), each of at most `most` frames or of one walk."""
    groups: list[list[tuple[str, int]]] = [[]]
    size = 0
    for path, length in zip(paths, lengths):
        if groups[-1] and size + length > most:
            groups.append([])
            size = 0
        groups[-1].append((path, length))
        size += length
    return groups
