"""`param_str` of the data layers, read strictly."""

import reprlib
from dataclasses import MISSING, dataclass, fields

import yaml

from layers.datasets import DATASETS, under_data_root
from layers.frames import DataError, expand

LONGEST = 5000  # characters
PATHS = ("im_path", "gt_path", "partition", "excluded")
MOST_CLIPS = 2**12  # or pairs, which are 800 MB of frames; four batches are held at a time


@dataclass(frozen=True)
class Params:
    dataset: str  # a name in layers/datasets.py
    batch_size: int  # clips; GaitNet_Sia: pairs
    im_path: str = ""  # tree of frames, or a pack; silhouettes alone have none
    gt_path: str = ""  # tree of masks; a pack needs none
    train_num: int | None = None  # training subjects; None: as published
    mode: str = "TRAIN"  # as in the original: accepted, makes no difference
    seed: int | None = None  # a number makes the batches repeatable
    scattered: bool = False  # GaitNet_Seg: the six frames of a clip come from six sequences
    partition: str = ""  # file that says who trains, in place of train_num; see layers/split.py
    excluded: str = ""  # file of walks that take no part


def parse(param_str, layer):
    """Params of `layer` from YAML, which a Python dict of numbers and strings also is.

    DataError: names the key, its value and what is allowed."""
    known = {field.name: field for field in fields(Params)}
    given = _load(layer, param_str)
    if not isinstance(given, dict):
        raise DataError(
            f"{layer}: param_str is {reprlib.repr(param_str)}, wanted {{'dataset': 'casiab', 'batch_size': 128, ...}} "
            f"(keys: {', '.join(known)})"
        )
    for key in given:
        if key not in known:
            raise DataError(f"{layer}: param_str has the unknown key {reprlib.repr(key)} (known: {', '.join(known)})")
    for key, field in known.items():
        if key not in given and (field.default is MISSING or key == "im_path" and "gt_path" not in given):
            raise DataError(f"{layer}: param_str has no {key!r}; add it")
    for key, value in given.items():
        _check(layer, key, value)
    paths = {key: under_data_root(expand(given[key])) for key in PATHS if given.get(key)}
    return Params(**{**given, **paths})


def _load(layer, param_str):
    if len(param_str) > LONGEST:
        raise DataError(f"{layer}: param_str has {len(param_str)} characters, wanted {LONGEST} or fewer")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(param_str)):
            raise DataError(f"{layer}: param_str has an alias (*name), which it has no use for; write the value out")
        return yaml.safe_load(param_str)
    except (yaml.YAMLError, ValueError, RecursionError) as e:  # ValueError: a number or date that Python cannot hold
        raise DataError(f"{layer}: param_str is not YAML: {' '.join(str(e).split())}") from e


def _check(layer, key, value):
    wanted = {
        "dataset": ("one of " + ", ".join(DATASETS), lambda v: isinstance(v, str) and v in DATASETS),
        "mode": ("TRAIN or TEST", lambda v: v in ("TRAIN", "TEST")),
        "batch_size": (f"a number from 1 to {MOST_CLIPS}", lambda v: _is_int(v) and 1 <= v <= MOST_CLIPS),
        "train_num": ("a number of 1 or more", lambda v: _is_int(v) and v >= 1),
        "seed": ("a number of 0 or more", lambda v: _is_int(v) and v >= 0),
        "scattered": ("True or False", lambda v: isinstance(v, bool)),
    }.get(key, ("a path", lambda v: isinstance(v, str) and v != "" and "\0" not in v))
    if not wanted[1](value):
        raise DataError(f"{layer}: param_str has {key} {reprlib.repr(value)}, wanted {wanted[0]}")


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)
