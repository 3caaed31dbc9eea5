"""Features of sequences: the table that scoring reads, the authors' feature files, and our own cache."""

import contextlib
import json
import os
import reprlib
import zipfile
from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from layers.bundled import regular, whole
from layers.datasets import Sequence
from layers.names import some
from layers.unpickle import MOST_BYTES as MOST_PICKLED
from layers.unpickle import UnsafePickleError, load_arrays

TRAINING = ("training", "training_told", "training_leaked")  # what a cache's key says of it, see eval.seen
MOST_BYTES = 2**30  # of a cache, unpacked; that of all of CASIA-B takes a tenth
# What a cache holds: kind and axes of each array (N sequences, of which K are shown), as eval.extract explains them.
FEATURES = dict(vectors="f N D", labels="i N", groups="i N", roles="U N", covariates="U N", names="U N")
EXTRAS = dict(
    energy="f N 64 64",
    true_energy="f N 64 64",
    agreement="f N 3",
    frames="i N",
    shown="u1 K 4 64 64",
    shown_mask="u1 K 64 64",
    shown_walks="i K",
)


class FeatureFileError(ValueError):
    """A feature file that does not fit; the message names the file, what was found and what is wanted."""


@dataclass(frozen=True)
class Features:
    """One row a sequence, of N sequences.

    vectors (N, D) float32; labels (N,) int64, equal for one person; groups (N,) int64, the row or column of the
    dataset's table; roles (N,) "gallery", "probe" or ""; covariates (N,) "NM", "BG", "CL" of a probe, "" elsewhere;
    names (N,), the sequence's path in the tree, or its place in the file.
    """

    vectors: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    roles: np.ndarray
    covariates: np.ndarray
    names: np.ndarray

    def __len__(self):
        return len(self.labels)

    def take(self, which):
        return Features(*(getattr(self, field.name)[which] for field in fields(self)))

    def with_vectors(self, vectors):
        """The same sequences described by other vectors, for instance by energy images."""
        return Features(vectors, *(getattr(self, field.name) for field in fields(self)[1:]))

    @property
    def gallery(self):
        return self.take(self.roles == "gallery")

    @property
    def probe(self):
        return self.take(self.roles == "probe")


def read_original(path, num_groups):
    """The original's cache: for gallery and probe `_features` (T, G, D), `_labels` (T, G), `_valid` (T,).

    T is the number of groups, or more (SZU has 3 rows and fills the first). FeatureFileError says what does not fit.
    """
    try:
        arrays = load_arrays(path)
    except UnsafePickleError as e:
        raise FeatureFileError(str(e)) from e
    parts = [one_side(path, arrays, role, num_groups) for role in ("gallery", "probe")]
    return Features(*(np.concatenate(columns) for columns in zip(*parts)))


def one_side(path, arrays, role, num_groups):
    try:
        vectors, labels, valid = (arrays[f"{role}_{part}"] for part in ("features", "labels", "valid"))
    except KeyError as e:
        raise FeatureFileError(f"{path}: no entry {e}; found {sorted(arrays)}") from None
    if vectors.ndim != 3 or labels.shape != vectors.shape[:2] or valid.shape != vectors.shape[:1]:
        raise FeatureFileError(
            f"{path}: {role}: features {vectors.shape}, labels {labels.shape}, valid {valid.shape} "
            "do not fit together; wanted (T, G, D), (T, G), (T,)"
        )
    counts = np.arange(vectors.shape[1] + 1)
    if len(valid) < num_groups or not np.isin(valid, counts).all() or valid[num_groups:].any():
        raise FeatureFileError(
            f"{path}: {role}_valid is {valid.tolist()}; this dataset has {num_groups} "
            f"groups of at most {vectors.shape[1]} sequences: is it another dataset's file?"
        )
    rows = [(t, n) for t in range(num_groups) for n in range(int(valid[t]))]
    if not rows:
        raise FeatureFileError(f"{path}: {role}_valid is {valid.tolist()}: no {role} sequence")
    t, n = np.array(rows).T
    if not np.isfinite(vectors[t, n]).all():
        raise FeatureFileError(f"{path}: {role}_features holds numbers that are not finite")
    return (
        vectors[t, n].astype(np.float32),
        labels[t, n].astype(np.int64),
        t,
        np.full(len(t), role),
        np.full(len(t), ""),
        np.array([f"{role}[{a},{b}]" for a, b in rows]),
    )


def write_embeddings(path, features, tree, origin):
    """Features as OpenGait holds them, in an .npz: embeddings (N, D, 1), and labels, types, views (N,), text.

    tree: `layers.datasets.Dataset.tree`, the levels of a walk's path. origin: says who trained, see `training_told`."""
    levels = [dict(zip(tree, str(name).split("/"))) for name in features.names]
    columns = {"labels": "subject", "types": "condition", "views": "view"}
    told = {name: np.array([level.get(key, "") for level in levels]) for name, key in columns.items()}
    write_arrays(path, embeddings=features.vectors[:, :, None], **told, **training_array(origin))


def training_array(origin):
    """{"training": an array of text}: what the key of a cache says of the training, for an .npz of OpenGait's form."""
    known = {name: origin[name] for name in TRAINING if origin.get(name) is not None}
    return {"training": np.array(json.dumps(known))} if known else {}


def training_told(path):
    """What `training_array` put into a file; {} for one that does not tell."""
    if not zipfile.is_zipfile(path):
        return {}
    with arrays_of(path, "a file of features") as arrays:
        told = json.loads(str(arrays["training"])) if "training" in arrays else {}
        return {name: str(told[name]) for name in TRAINING if name in told}


def is_embeddings(path):
    """Is it a file of OpenGait's form, .npz or a pickled dict? OSError: it cannot be read."""
    with regular.open_file(path, MOST_PICKLED) as file:
        if zipfile.is_zipfile(file):
            try:
                return "embeddings.npy" in zipfile.ZipFile(file).namelist()
            except zipfile.BadZipFile:
                return False
        file.seek(0)
        content = file.read()
    return b"embeddings" in content and b"gallery_features" not in content


def read_embeddings(path, dataset):
    """Features of such a file, .npz or a pickled dict, by whatever network: those of the walks that take part in the
    protocol of a `layers.datasets.Dataset`. Vectors are (N, C, P) where there is more than one part P."""
    arrays = load_arrays(path) if not zipfile.is_zipfile(path) else None
    if arrays is None:
        with arrays_of(path, "a file of features") as found:
            arrays = found
    lacking = sorted({"embeddings", "labels", "types", "views"} - arrays.keys())
    if lacking:
        raise FeatureFileError(f"{path}: has no {', '.join(lacking)}; found {', '.join(sorted(arrays))}")
    vectors = np.asarray(arrays["embeddings"], np.float32)
    if vectors.ndim not in (2, 3) or any(
        arrays[name].shape != vectors.shape[:1] for name in ("labels", "types", "views")
    ):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))
        raise FeatureFileError(f"{path}: {shapes}; wanted embeddings (N, C, P) or (N, C), and the others (N,)")
    if not np.isfinite(vectors).all():
        raise FeatureFileError(f"{path}: embeddings holds numbers that are not finite")
    level = {"subject": arrays["labels"], "condition": arrays["types"], "view": arrays["views"]}
    if dataset.label_is_id and level["subject"].dtype.kind in "iu":
        level["subject"] = np.array([f"{number:03d}" for number in level["subject"]])
    if level["view"].dtype.kind in "iu":
        level["view"] = np.array([f"{number:03d}" for number in level["view"]])
    paths = ["/".join(str(level[part][i]) for part in dataset.tree) for i in range(len(vectors))]
    subjects = sorted({path.split("/")[0] for path in paths})
    protocol, rows = dataset.protocol, []
    for i, name in enumerate(paths):
        subject = name.split("/")[0]
        walk = Sequence(subject, subjects.index(subject), "", "", name)
        group, role, covariate = protocol.group(walk), protocol.role(walk), protocol.covariate(walk)
        if group is not None and (role or covariate):
            rows.append((i, walk.label, protocol.groups.index(group), role or "", covariate or "", name))
    if not rows or not {"gallery", "probe"} <= {row[3] for row in rows}:
        raise FeatureFileError(
            f"{path}: none of its {len(paths)} walks, such as {paths[0] if paths else ''}, takes part as gallery, or "
            f"none as probe, in the protocol of {dataset.title}"
        )
    if twice := [name for name, times in Counter(row[-1] for row in rows).items() if times > 1]:
        raise FeatureFileError(f"{path}: {len(twice)} walks are there twice: {some(twice)}; leave one of each")
    which, *columns = map(np.array, zip(*rows))
    flat = vectors.reshape(len(vectors), -1) if vectors.ndim == 2 or vectors.shape[2] == 1 else vectors
    return Features(flat[which], *columns)


def read_cache(path, key=None):
    """(Features, extras, key) from our .npz; with a key given, a file made from anything else is refused.

    key: a JSON-able dict of all that determines the features. extras: the arrays stored beside them.
    """
    remedy = "" if key is None else "; delete it to extract anew"
    with arrays_of(path, "a feature file of this project", remedy) as arrays:
        found = json.loads(str(arrays.pop("key")))
        if not isinstance(found, dict) or any(isinstance(value, (dict, list)) for value in found.values()):
            raise ValueError(f"its key is {reprlib.repr(found)}")
        require_fit(arrays, FEATURES | EXTRAS)
        features = Features(*(arrays.pop(field.name) for field in fields(Features)))
        frames, shown = (arrays.get(name, np.zeros(0)) for name in ("frames", "shown_walks"))
        if (frames < 1).any() or not np.isin(shown, np.arange(len(features))).all():
            raise ValueError("it tells of walks without frames, or shows one that it does not hold")
    if key is not None and found != json.loads(json.dumps(key)):
        differing = sorted(k for k in key.keys() | found.keys() if key.get(k) != found.get(k))
        raise FeatureFileError(f"{path}: made with another {', '.join(differing)}; delete it to extract anew")
    return features, arrays, found


@contextlib.contextmanager
def arrays_of(path, what, remedy=""):
    """{name: array} of our .npz, which is `what`. Any exception, those of the `with` block too, is a FeatureFileError
    that ends with the `remedy`."""
    with regular.open_file(path, MOST_PICKLED) as file:
        try:
            with zipfile.ZipFile(file) as members:
                unpacked = sum(member.file_size for member in members.infolist())
            if unpacked > MOST_BYTES:
                raise ValueError(f"it unpacks to {unpacked} bytes, wanted {MOST_BYTES} at most")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            yield arrays
        except Exception as e:  # a damaged .npz raises nearly any exception
            reason = " ".join(f"{type(e).__name__}: {e}".split())[:300]
            raise FeatureFileError(f"{path}: not {what} ({reason}){remedy}") from e


def require_fit(arrays, wanted):
    """ValueError where an array that `wanted` describes (see FEATURES) is another, does not fit to those before, or
    holds numbers that are not finite."""
    lengths: dict[str, int] = {}
    for name in [name for name in wanted if name in arrays]:
        kind, *axes = wanted[name].split()
        array = arrays[name]
        shape = [lengths.setdefault(axis, int(axis) if axis.isdecimal() else n) for axis, n in zip(axes, array.shape)]
        if not array.dtype.str[1:].startswith(kind) or array.ndim != len(axes) or list(array.shape) != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, wanted {kind} ({', '.join(axes)}) with {lengths}")
        if kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def write_cache(path, features, key, extras):
    """Write `.npz`; the file appears whole or not at all."""
    arrays = {field.name: getattr(features, field.name) for field in fields(features)}
    write_arrays(path, key=np.array(json.dumps(key, sort_keys=True)), **arrays, **extras)


def write_arrays(path, **arrays):
    """Write them as .npz; the file appears whole or not at all."""
    try:
        whole.make_folder(os.path.dirname(path))
        with whole.atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    except OSError as e:
        raise FeatureFileError(f"cannot write {path}: {e.strerror or e}") from e
