"""Who trains and who is tested: the first ids, as published, or a partition file; and walks that take no part.

{"TRAIN_SET": ["001", "002"], "TEST_SET": ["075", "076"]}    a partition, as OpenGait writes them (JSON)
079/cl-02/090                                                excluded walks, one a line, or a JSON list of them;
                                                             079/cl-02 and 079 leave out all that is below
"""

import json
from dataclasses import dataclass

from layers.bundled import regular
from layers.frames import DataError
from layers.names import some

LONGEST = 2**24  # bytes of a file


@dataclass(frozen=True)
class Split:
    """Ids, sorted: those that train and are there, and those that are tested. labels: {id: label} of everybody.

    absent: ids that the partition names and that are not there. excluded: paths of walks, or of what is above them."""

    training: tuple[str, ...]
    test: tuple[str, ...]
    labels: dict
    num_labels: int  # that fc_id needs
    absent: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def sequences(self, dataset, frames, subjects):
        """Every sequence of `subjects` that is not excluded, sorted, with its label."""
        return [seq for seq in dataset.sequences(frames, subjects, self.labels) if not self.excludes(seq.path)]

    def excludes(self, path):
        return any(path == out or path.startswith(out + "/") for out in self.excluded)

    def idle(self, frames):
        """Excluded paths at which `frames` has nothing, such as misspelt ones: they leave nothing out."""
        return [path for path in self.excluded if not _is_there(frames, path)]


def split_of(dataset, subjects, train_num=None, partition="", excluded=""):
    """The Split of the `subjects` that are there. `partition`, `excluded`: files, "" for none.

    Labels of a partition count from 0 in the order of its ids. ValueError, DataError: it does not fit the subjects."""
    require_distinct(subjects)
    left_out = read_excluded(excluded) if excluded else ()
    if not partition:
        training, test = dataset.split(subjects, train_num)
        return Split(tuple(training), tuple(test), dataset.labels(sorted(subjects)), len(training), (), left_out)
    named = read_partition(partition)
    training, test = (tuple(sorted(ids & set(subjects))) for ids in named)
    if not training or not test:
        raise DataError(
            f"{partition}: of its {len(named[0])} and {len(named[1])} ids {len(training)} train and {len(test)} are "
            f"tested here, where the ids are {some(sorted(subjects))}; is it of another data set?"
        )
    labels = {subject: i for i, subject in enumerate([*sorted(named[0]), *sorted(named[1])])}
    return Split(training, test, labels, len(named[0]), tuple(sorted((named[0] | named[1]) - set(subjects))), left_out)


IDLE = "excluded walks are not there under such a name, as in 079/cl-02/090, and leave nothing out"


def _is_there(frames, path):
    above, _, name = path.rpartition("/")
    try:
        return name in frames.folders(above)
    except (OSError, KeyError):  # of a tree, of a pack
        return False


def require_distinct(subjects):
    """ValueError: two ids are one number, so that one person would be two."""
    numbers: dict[int, str] = {}
    for subject in sorted(subjects):
        if subject.isdecimal() and (other := numbers.setdefault(int(subject), subject)) != subject:
            raise ValueError(f"ids {other} and {subject}: are they one person? Put the walks of both into one folder")


def read_partition(path):
    """(ids that train, ids that are tested), two sets that have none in common. DataError: the file says otherwise."""
    wanted = 'wanted {"TRAIN_SET": ["001", ..], "TEST_SET": ["075", ..]}'
    found = _json(path, _read(path), wanted)
    if not isinstance(found, dict) or not {"TRAIN_SET", "TEST_SET"} <= found.keys():
        raise DataError(f"{path}: is no partition; {wanted}")
    for key in ("TRAIN_SET", "TEST_SET"):
        if not isinstance(found[key], list) or not found[key] or not all(type(x) is str and x for x in found[key]):
            raise DataError(f"{path}: {key} is no list of ids in quotes; {wanted}")
    training, test = set(found["TRAIN_SET"]), set(found["TEST_SET"])
    if both := sorted(training & test):
        raise DataError(f"{path}: {some(both)} would train and be tested; remove them from one of the two sets")
    return training, test


def read_excluded(path):
    """Paths of excluded walks, or of what is above them. DataError: it is neither lines nor a list of paths."""
    text = _read(path)
    if text.lstrip().startswith("["):
        found = _json(path, text, 'wanted ["079/cl-02/090", ..] or one walk a line')
        if not all(type(line) is str for line in found):
            raise DataError(f"{path}: wanted a list of walks in quotes, such as 079/cl-02/090")
    else:
        found = [line.split("#")[0].strip() for line in text.splitlines()]
    return tuple(line.strip().strip("/") for line in found if line.strip().strip("/"))


def _read(path):
    try:
        return regular.read_text(path, LONGEST, "utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: is not text ({e.reason})") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror})") from e


def _json(path, text, wanted):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path}: is not JSON ({e}); {wanted}") from e
