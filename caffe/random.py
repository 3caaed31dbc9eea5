"""Randomness as a function of (seed, pass, layer): what a resumed run needs to continue exactly."""

import hashlib
import os

import torch

from caffe.ranks import solver_rank

_seed = None
_nets = 0


def set_random_seed(seed: int) -> None:
    """Make fillers, dropout and shuffling of all nets built from now on repeatable."""
    global _seed, _nets
    _seed, _nets = int(seed), 0


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
    """What the random numbers of one net follow from."""

    def __init__(self, seed):
        self.seed = seed
        self.pass_index = 0  # counts forward passes
        self.rank = solver_rank()


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
        return mix(seeds.seed, seeds.pass_index, self._layer, *([seeds.rank] if seeds.rank else []))

    def fixed(self, *parts) -> torch.Generator:
        """A generator for what lasts longer than a pass: a function of the net's seed, the layer and `parts`."""
        return torch.Generator().manual_seed(mix(self._seeds.seed, self._layer, *parts))
