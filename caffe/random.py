"""Randomness as a function of (seed, pass, layer): what a resumed run needs to continue exactly."""

import hashlib
import os

import torch

from caffe.ranks import solver_rank

_seed = None
_nets = 0
_calls = 0  # of set_random_seed


def set_random_seed(seed: int) -> None:
    """Make fillers, dropout and shuffling of all nets built from now on repeatable, and what the forward passes of
    nets draw that are there (those of solvers follow the solver's seed)."""
    global _seed, _nets, _calls
    _seed, _nets, _calls = int(seed), 0, _calls + 1


def next_seed() -> int:
    """A seed for the next net: derived from `set_random_seed`'s, else from the system's entropy."""
    global _nets
    if _seed is None:
        return int.from_bytes(os.urandom(7), "little")
    _nets += 1
    return mix(_seed, _nets)


def mix(*parts) -> int:
    """One 63-bit seed out of several numbers or names."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Seeds:
    """What the random numbers of one net follow from: `seed`, or None for that of `set_random_seed`."""

    def __init__(self, seed=None):
        self.seed = next_seed() if seed is None else seed
        self.pass_index = 0  # counts forward passes
        self.rank = solver_rank()
        self._calls = _calls if seed is None else None
        self._anew: tuple[int, int] | None = None

    def of_pass(self) -> tuple[int, int]:
        """The seed and the number of this pass, which count anew where `set_random_seed` has been called."""
        if self._calls not in (None, _calls):
            self._calls, self._anew = _calls, (next_seed(), self.pass_index)
        if self._anew is None:
            return self.seed, self.pass_index
        seed, first = self._anew
        return seed, self.pass_index - first


class Stream:
    """Gives a layer its generator: freshly seeded for every pass, so that skipping passes changes nothing.

    Ranks that train together draw different numbers in a pass (they drop out different units), and the same where
    numbers last longer: one order of the data, of which each rank takes its part."""

    def __init__(self, seeds, layer_index):
        self._seeds, self._layer = seeds, layer_index
        self._generators = {}

    def __call__(self, device="cpu") -> torch.Generator:
        device = torch.device(device)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
        return self._generators[device].manual_seed(self._seed())

    def reseed(self) -> list:
        """The generators given so far, seeded for this pass: what a captured layer draws from, which does not ask."""
        return [generator.manual_seed(self._seed()) for generator in self._generators.values()]

    def _seed(self):
        seeds = self._seeds
        return mix(*seeds.of_pass(), self._layer, *([seeds.rank] if seeds.rank else []))

    def fixed(self, *parts) -> torch.Generator:
        """A generator for what lasts longer than a pass: a function of the net's seed, the layer and `parts`."""
        return torch.Generator().manual_seed(mix(self._seeds.seed, self._layer, *parts))
