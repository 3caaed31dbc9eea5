"""Who trained a net: the record that lies beside its weights, `<weights>.people.json`.

Test people whom training has seen make a result look better than it is, so the ids travel with the weights: the record
of a snapshot names everybody whom the net was trained on, in its own training and in all that it started from. It holds
the SHA-256 of the weights: beside other weights it counts for nothing.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from layers.bundled import regular, whole
from layers.digest import sha256

ENDING = ".people.json"
LONGEST = 2**24  # bytes; a million ids take less


@dataclass(frozen=True)
class People:
    """Who trained some weights.

    here: {data set: ids}, of the training that wrote them. all: of what that started from as well. unknown: names of
    files of weights that it started from and of which nobody knows who trained them.
    """

    here: dict[str, list[str]]
    all: dict[str, list[str]]
    unknown: tuple[str, ...] = ()

    def seen(self, dataset, ids):
        """Those of the `ids` of a data set that training has seen, sorted."""
        return sorted(set(ids) & set(self.all.get(dataset, ())))


def record_path(weights):
    """models/a.caffemodel, models/a.caffemodel.h5 -> models/a.people.json"""
    return beside(weights, ENDING)


def beside(weights, ending):
    """The path of a file that goes with weights: their name with another ending."""
    return Path(str(weights).removesuffix(".h5").removesuffix(".caffemodel") + ending)


def read(weights, digest=None):
    """People of a file of weights; None where there is no record, or it is of other weights.

    digest: the weights' SHA-256, where it is known. ValueError: the record is damaged."""
    path = record_path(weights)
    try:
        told = json.loads(regular.read_text(path, LONGEST))
        here, everybody, unknown, of = (told[key] for key in ("here", "all", "unknown", "weights_sha256"))
        for people in (here, everybody):
            if not all(type(x) is str for ids in people.values() for x in ids):
                raise TypeError("ids are text")
        if not all(type(name) is str for name in unknown):
            raise TypeError("names of files are text")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ValueError(
            f"{path}: not a record of who trained {Path(weights).name} ({type(e).__name__}: {e}); remove it, "
            "and who trained these weights counts as unknown"
        ) from e
    if of != (digest or sha256(weights)):
        return None
    return People(here, everybody, tuple(unknown))


def write(weights, here, started_from=()):
    """Write the record of new weights: trained on the people `here` ({data set: ids}), from the files `started_from`.

    A second call adds to the first, as where a net has two data layers."""
    digest = sha256(weights)
    parts = [People(here, here)]
    unknown = set()
    for origin in started_from:
        try:
            known = read(origin)
        except (ValueError, OSError):
            known = None
        if known is None:
            unknown.add(os.path.basename(str(origin)))
        else:
            parts.append(People({}, known.all, known.unknown))
    if (before := read_or_none(weights, digest)) is not None:
        parts.append(before)
    told = {
        "what": "the people whom these weights were trained on: here, and with all that they started from",
        "weights_sha256": digest,
        "here": _union(part.here for part in parts),
        "all": _union(part.all for part in parts),
        "unknown": sorted(unknown.union(*(part.unknown for part in parts))),
    }
    whole.write(record_path(weights), json.dumps(told, indent=1) + "\n")


def read_or_none(weights, digest=None):
    """As `read`; None also for a damaged record."""
    try:
        return read(weights, digest)
    except ValueError:
        return None


def _union(groups):
    union: dict[str, set[str]] = {}
    for people in groups:
        for dataset, ids in people.items():
            union.setdefault(dataset, set()).update(ids)
    return {dataset: sorted(ids) for dataset, ids in sorted(union.items())}
