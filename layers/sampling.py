"""Which clips make up a batch: a pure function of seed, phase and batch number.

So a batch can be assembled ahead of time, and a resumed run goes on with the batch it would have had.
"""

import numpy as np

from layers.datasets import NUM_FRAMES

POSITIVE_SHARE = 0.3  # of the pairs, mined to be of one subject


class ClipSampler:
    """Batches of `num` clips out of sequences with the given `lengths` (frames, each more than 6)."""

    consecutive = NUM_FRAMES  # frames that are read from each start

    def __init__(self, lengths, num, seed):
        """`seed`: a tuple of integers >= 0."""
        self.lengths, self.num, self.seed = np.asarray(lengths), num, seed
        # as in the original: shuffled once, then taken in that order for ever
        self.order = np.random.default_rng(seed).permutation(len(self.lengths))

    def batch(self, number):
        """(sequence index, first frame) of every clip of batch `number` >= 0."""
        rng = self._rng(number)
        index = self._next(number * self.num, self.num)
        return index, self._starts(rng, index)

    def _rng(self, number):
        return np.random.default_rng((*self.seed, number + 1))

    def _next(self, position, n):
        return self.order[(position + np.arange(n)) % len(self.order)]

    def _starts(self, rng, index):
        # as in the original: randint(F - 6) never draws the last window
        return rng.integers(self.lengths[index] - NUM_FRAMES)


class ScatteredSampler(ClipSampler):
    """Batches of `num` clips whose six frames come from six sequences.

    For what looks at frames one by one: the six of a walk are nearly the same picture, and six rooms teach more."""

    consecutive = 1

    def __init__(self, lengths, num, seed):
        super().__init__(lengths, num * NUM_FRAMES, seed)

    def _starts(self, rng, index):
        return rng.integers(self.lengths[index])


class PairSampler(ClipSampler):
    """Batches of `num` pairs, i.e. 2 num clips: the first halves of all pairs, then the second halves."""

    def __init__(self, lengths, subjects, num, seed):
        """`subjects`: the subject of each sequence."""
        super().__init__(lengths, num, seed)
        _, subject_index = np.unique(subjects, return_inverse=True)
        self.siblings = [np.flatnonzero(subject_index == i) for i in range(subject_index.max() + 1)]
        self.subject_index = subject_index
        # as in the original: pairs 0..int(0.3 N), that is 20, not 19, of 64
        self.mined = min(int(POSITIVE_SHARE * num) + 1, num)

    def batch(self, number):
        """(sequence index, first frame), each of shape (2 num,)."""
        rng = self._rng(number)
        index = self._next(number * (2 * self.num - self.mined), 2 * self.num - self.mined)
        first, following = index[: self.num], index[self.num :]
        mined = [rng.choice(self.siblings[self.subject_index[i]]) for i in first[: self.mined]]
        index = np.concatenate([first, mined, following]).astype(np.intp)  # (2N,)
        return index, self._starts(rng, index)
