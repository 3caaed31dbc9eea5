"""The datasets as data: trees, labels, splits, evaluation protocols. The one place for these facts.

A dataset of your own is one more `Dataset` entry; data/README.md shows how.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from layers import names

NUM_FRAMES, SIZE = 6, 64  # frames a clip, pixels
MIN_FRAMES = 11  # a sequence counts when it has more than 10 frames


@dataclass(frozen=True)
class Sequence:
    """One walk: a folder of frames, and the folder of the same relative path in the tree of masks."""

    subject: str  # "001"
    label: int  # what fc_id is trained on
    condition: str  # "nm-01"; Outdoor-Gait: the folder's name; SZU: "1".."8"
    view: str  # "090"; "" where a dataset has one view only
    path: str  # below the trees of frames and masks: "001/nm-01/090"


@dataclass(frozen=True)
class Protocol:
    """Who is compared with whom in evaluation (paper, section 4). Patterns stand for the whole `Sequence.path`."""

    groups: tuple[str, ...]  # rows and columns of the table
    gallery: str
    probe: str
    grouped_by: str = ""  # its first group is the row or column; "": the only one there is
    covariates: tuple[tuple[str, str], ...] = ()  # (name, probes) of further tables against the same gallery

    def role(self, seq):
        """ "gallery", "probe", or None for a sequence that takes no part."""
        for role in ("gallery", "probe"):
            if re.fullmatch(getattr(self, role), seq.path):
                return role
        return None

    def group(self, seq):
        """Row or column of the table that `seq` belongs to; None where it fits none of them."""
        if not self.grouped_by:
            return self.groups[0]
        found = re.fullmatch(self.grouped_by, seq.path)
        return found[1] if found and found[1] in self.groups else None

    def covariate(self, seq):
        """Name of the further table that `seq` is a probe of, or None."""
        return next((name for name, pattern in self.covariates if re.fullmatch(pattern, seq.path)), None)


@dataclass(frozen=True)
class Dataset:
    """One dataset: where it lies, how its tree is read, who trains and who is tested."""

    name: str  # "casiab", what `dataset` in param_str says
    title: str
    folder: str  # below data_root()
    im_dir: str
    gt_dir: str
    train_num: int  # subjects, of the sorted ids, that train; the others test
    num_subjects: int
    tree: tuple[str, ...]  # the levels of folders above the frames; the first is the subject
    training: str  # sequences that train: a pattern for the whole `Sequence.path`
    label_is_id: bool  # label int(id) - 1; else the index of the id among the sorted ids
    protocol: Protocol
    source: str  # where to get it
    wanted: tuple[str, ...] = ()  # the sequences that owners hand out of each subject, {id}; none: as rendered

    @property
    def kind(self):
        """What the rows and columns of its tables are: "view" or "condition"."""
        return "view" if "view" in self.tree else "condition"

    def subjects(self, root):
        """Sorted ids found in `root`: the folder of a tree, or what `layers.sources.open_frames` gives."""
        return _folders(root)

    def split(self, subjects, train_num=None):
        """(training ids, test ids); `train_num` None takes the published split. ValueError: there are too few ids."""
        train_num = self.train_num if train_num is None else train_num
        subjects = sorted(subjects)
        if not subjects:
            raise ValueError(f"{self.name}: no subjects were found; {self.title}: {self.source}")
        if not 0 < train_num <= len(subjects):
            raise ValueError(
                f"{self.name}: train_num is {train_num}, but {len(subjects)} subjects were found; "
                f"set train_num to 1..{len(subjects)} or complete the dataset"
            )
        return subjects[:train_num], subjects[train_num:]

    def labels(self, subjects):
        """{id: label} of the sorted ids `subjects`. ValueError: an id is no number where it should be."""
        if not self.label_is_id:
            return {subject: i for i, subject in enumerate(subjects)}
        for subject in subjects:
            if not subject.isdecimal():
                raise ValueError(
                    f"{self.name}: the folder {subject!r} should be the number of a subject, such as 001; "
                    "rename or remove it"
                )
        return {subject: int(subject) - 1 for subject in subjects}

    def sequences(self, root, subjects, labels=None):
        """Every sequence of `subjects` in `root`, sorted, whatever its condition and length. `labels`: {id: label}."""
        labels = self.labels(self.subjects(root)) if labels is None else labels
        return [self._sequence(path, labels) for path in self.paths(root, subjects)]

    def paths(self, root, subjects=None):
        """Path of every sequence of `subjects` (None: of all) in `root`, sorted."""
        paths = self.subjects(root) if subjects is None else sorted(subjects)
        for _ in self.tree[1:]:
            paths = [f"{path}/{name}" for path in paths for name in _folders(root, path)]
        return paths

    def trains(self, seq):
        """Is `seq` of a condition that training uses? (CASIA-B and walkers: nm-01..nm-06.)"""
        return re.fullmatch(self.training, seq.path) is not None

    def knows(self, path):
        """Does training, gallery, probe or a further table use a sequence of this path?"""
        protocol = self.protocol
        patterns = (self.training, protocol.gallery, protocol.probe, *(probes for _, probes in protocol.covariates))
        return any(re.fullmatch(pattern, path) for pattern in patterns)

    def wanted_of(self, subject):
        """Paths of the sequences that the protocol has of a subject."""
        return [f"{subject}/{path.format(id=subject)}" for path in self.wanted]

    def _sequence(self, path, labels):
        level = dict(zip(self.tree, path.split("/")))
        return Sequence(level["subject"], labels[level["subject"]], level["condition"], level.get("view", ""), path)


# The authors' trained nets, one .caffemodel for each of CASIA-B, Outdoor-Gait and SZU; models/README.md says where to.
RELEASED_WEIGHTS = "https://pan.baidu.com/s/111N5wcsZ09jjA9rpMrM1Qw (extract code ne65)"
HERE = Path(__file__).resolve().parent.parent / "data"


def data_root():
    """The folder that holds the datasets: $GAITNET_DATA, or data/ of this repository."""
    return Path(os.environ.get("GAITNET_DATA") or HERE)


def under_data_root(path):
    """The prototxts say ../../data/...: where $GAITNET_DATA is set, the same path below that."""
    moved, absolute = os.environ.get("GAITNET_DATA"), os.path.abspath(path)
    if not moved or os.path.commonpath([absolute, HERE]) != str(HERE):
        return path
    return os.path.join(moved, os.path.relpath(absolute, HERE))


def _folders(root, path=""):
    return names.folders(root, path) if isinstance(root, (str, os.PathLike)) else root.folders(path)


_VIEWS = tuple(f"{view:03d}" for view in range(0, 181, 18))
_CROSS_VIEW = Protocol(
    groups=_VIEWS,
    gallery=r"[^/]+/nm-0[1-4]/[^/]+",
    probe=r"[^/]+/nm-0[56]/[^/]+",
    grouped_by=r".*/([^/]+)",
    covariates=(("NM", r"[^/]+/nm-0[56]/[^/]+"), ("BG", r"[^/]+/bg-0[12]/[^/]+"), ("CL", r"[^/]+/cl-0[12]/[^/]+")),
)
_SIX_NORMAL_WALKS = rf"[^/]+/nm-0[1-6]/({'|'.join(_VIEWS)})"
_NORMAL, _OTHERS = tuple(f"nm-0{n}" for n in range(1, 7)), ("bg-01", "bg-02", "cl-01", "cl-02")


def _seen_from_all_sides(conditions):
    return tuple(f"{condition}/{view}" for condition in conditions for view in _VIEWS)


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="casiab",
            title="CASIA-B",
            folder="CASIA-B",
            im_dir="crop-im",
            gt_dir="crop-seg",
            train_num=74,
            num_subjects=124,
            tree=("subject", "condition", "view"),
            training=_SIX_NORMAL_WALKS,
            label_is_id=True,
            protocol=_CROSS_VIEW,
            wanted=_seen_from_all_sides((*_NORMAL, *_OTHERS)),
            source="by application to the Institute of Automation, Chinese Academy of Sciences: "
            "http://www.cbsr.ia.ac.cn/english/Gait%20Databases.asp (CASIA Gait Database, dataset B)",
        ),
        Dataset(
            name="outdoor",
            title="Outdoor-Gait",
            folder="Outdoor-Gait",
            im_dir="im",
            gt_dir="seg",
            train_num=69,
            num_subjects=138,
            tree=("subject", "condition"),
            training=".*",
            label_is_id=False,
            protocol=Protocol(
                groups=("nm", "cl", "bg"),
                gallery=r".*_(nm|cl|bg)_L_090_0?[12]",
                probe=r".*_(nm|cl|bg)_L_090_0?[34]",
                grouped_by=r".*_(nm|cl|bg)_L_090_\d+",
            ),
            wanted=tuple(
                f"{{id}}_scene{scene}_{cloth}_L_090_{n}"
                for scene in (1, 2, 3)
                for cloth in ("nm", "cl", "bg")
                for n in (1, 2, 3, 4)
            ),
            source="direct download: "
            "https://drive.google.com/drive/folders/1XRWq40G3Zk03YaELywxuVKNodul4TziG?usp=sharing or "
            "https://pan.baidu.com/s/1oW6u9olOZtQTYOW_8wgLow (extract code tjw0)",
        ),
        Dataset(
            name="szu",
            title="SZU RGB-D Gait",
            folder="SZU-Gait",
            im_dir="crop-im",
            gt_dir="crop-seg",
            train_num=49,
            num_subjects=99,
            tree=("subject", "condition"),
            training=".*",
            label_is_id=False,
            protocol=Protocol(groups=("all",), gallery=r"[^/]+/[1-4]", probe=r"[^/]+/[5-8]"),
            wanted=tuple(str(n) for n in range(1, 9)),
            source="by application: https://faculty.sustech.edu.cn/yusq/ (SZU RGB-D Gait Dataset)",
        ),
        Dataset(
            name="walkers",
            title="Walkers",
            folder="Walkers",
            im_dir="crop-im",
            gt_dir="crop-seg",
            train_num=60,
            num_subjects=100,
            tree=("subject", "condition", "view"),
            training=_SIX_NORMAL_WALKS,
            label_is_id=True,
            protocol=_CROSS_VIEW,
            source="rendered on this machine: python tools/make_walkers.py",
        ),
    )
}
