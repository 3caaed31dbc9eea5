"""From what was downloaded to the tree that a data set is to have: archives are unpacked, deeper folders are linked.

Archives lie in data/<folder>/, at any depth above the walks, or in data/ under a name that begins as the folder's does.
A member is written where the tree wants it and nowhere else: of its path, that of the archive included, only the last
parts count: tree, ids and file. What is there stays as it is, and archives that come later are looked at, too.
"""

import contextlib
import itertools
import json
import lzma
import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from layers.bundled import load, regular, whole
from layers.datasets import data_root
from layers.frames import IMAGE_SUFFIXES, VIDEO_SUFFIXES, DataError
from layers.names import folders, some

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
UNREADABLE = (".rar", ".7z", ".001", ".part", ".crdownload", ".zst", ".gz", ".xz", ".bz2")
DAMAGED = zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError
BROKEN = (*DAMAGED, RuntimeError, OSError)  # what reading one may raise; a RuntimeError for a password or an odd method
STAGING, INNER = ".unpacking", ".archives"  # the second in the first: archives out of archives
RECORD = ".unpacked.json"  # in data/<folder>: {archive: [size, time of change]} of those that are done with
DEEPEST = 4  # folders above the trees
POLL = 0.2  # seconds
INSIDE = 2  # archives that an archive may lie in: a download, im.zip, 001.zip
LARGEST_IMAGE = 2**26  # bytes
MOST_MEMBERS = 10**7
SPARE = 2**30  # bytes of the disk that stay free


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, size, and a function that opens it."""

    name: str
    size: int
    open: object


def settle(dataset, tell=print):
    """Bring data/<folder> of a `layers.datasets.Dataset` to have its two trees, whole.

    tell: called with a sentence for each thing done. Another process that does the same is waited for. DataError: an
    archive that cannot be unpacked, or not safely."""
    home = data_root() / dataset.folder
    with alone(home, tell):
        settle_alone(home, dataset, tell)


@contextlib.contextmanager
def alone(home, tell):
    """Only one process at a time unpacks into `home`; where nobody can write there is nobody to wait for."""
    try:
        locks = load("locks")
    except ImportError:  # another Caffe's Python, without filelock
        yield
        return
    with contextlib.ExitStack() as held:
        for attempt in itertools.count():
            try:
                held.enter_context(locks.hold(home.with_name(f".{home.name}.lock")))
            except locks.Held as e:
                if not attempt:
                    tell(f"{home}: process {e.process} is unpacking there; waiting for it")
                time.sleep(POLL)
                continue
            except OSError:
                pass
            break
        yield


def settle_alone(home, dataset, tell):
    shutil.rmtree(home / STAGING, ignore_errors=True)  # of a run that was killed
    for tree in trees_of(dataset):
        link_deeper(home, tree, dataset, tell)
    missing = [tree for tree in trees_of(dataset) if not has_subjects(at(home, tree), dataset)]
    record = read_record(home)
    # What somebody took out of a tree that is there is not to come back, unless this is known to be a further archive.
    place = Place(home, dataset, set(trees_of(dataset)) - set(missing) if missing or record is None else set())
    looked_at = {} if missing else dict(record or {})
    for archive in archives_of(dataset, missing):
        stamp = [os.stat(archive).st_size, os.stat(archive).st_mtime_ns]
        if looked_at.get(name := os.path.relpath(archive, home)) == stamp:
            continue
        try:
            unpack(archive, place, tell)
        except DataError as e:
            if missing:
                raise
            shutil.rmtree(home / STAGING, ignore_errors=True)
            tell(f"warning: {e}")
            continue
        if not missing:
            bring_in(place, tell)
        looked_at[name] = stamp
    bring_in(place, tell)
    if looked_at not in ({}, record) and all(has_subjects(at(home, tree), dataset) for tree in trees_of(dataset)):
        write_record(home, looked_at)


def trees_of(dataset):
    return dataset.im_dir, dataset.gt_dir


def tree_named(name, dataset):
    """The tree that a folder is by its name, where crop_im and Crop-IM are crop-im; or None."""
    return next((tree for tree in trees_of(dataset) if name.replace("_", "-").lower() == tree), None)


def at(home, tree):
    """Where a tree lies, crop-im or crop_im."""
    other = home / tree.replace("-", "_")
    return other if other.is_dir() and not (home / tree).is_dir() else home / tree


def has_subjects(folder, dataset):
    """Does a folder hold frames as deep as the data set's tree says?"""
    levels = len(dataset.tree)
    here = [folder]
    for _ in range(levels):
        here = [Path(entry.path) for path in here[:3] for entry in entries(path) if entry.is_dir()]
    return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for path in here[:20] for entry in entries(path))


def entries(folder):
    """What a folder holds, by name, without hidden files; () where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    except OSError:
        return ()


# ---- folders that lie deeper


def link_deeper(home, tree, dataset, tell):
    """data/Outdoor-Gait/Outdoor-Gait/im -> a link data/Outdoor-Gait/im to it; of several folders, to their people."""
    place, found = at(home, tree), deeper_trees(home, tree, dataset)
    there = has_subjects(place, dataset)
    if len(found) == 1 and not there:
        put_in_place(found[0], place)
        tell(f"{place}: is now {found[0]}")
    elif len(found) > 1 and (not there or leads_to(place, found)):
        if join(found, place):
            tell(f"{place}: is now the people of {some([str(folder) for folder in found])}")
    else:
        for folder in found:
            if lacking := sorted(set(folders(folder)) - set(folders(place))):
                tell(f"{folder}: has {len(lacking)} people that {place} lacks ({some(lacking)}); move them there")


def deeper_trees(home, tree, dataset):
    """Every folder below `home` that is such a tree, but for the one in its place."""
    here, found = [home], []
    for _ in range(DEEPEST):
        here = [Path(e.path) for folder in here[:50] for e in entries(folder) if e.is_dir(follow_symlinks=False)]
        trees = [folder for folder in here if tree_named(folder.name, dataset) and has_subjects(folder, dataset)]
        found += [folder for folder in trees if tree_named(folder.name, dataset) == tree and folder != at(home, tree)]
        here = [folder for folder in here if folder not in trees]
    return found


def put_in_place(folder, place):
    """A link `place` to the folder; where the folder is inside of `place` (im/im/001), it takes that name itself."""
    if place in folder.parents:
        before = place.with_name(f"{place.name}-before")
        os.rename(place, before)
        os.rename(before / folder.relative_to(place), place)
        with contextlib.suppress(OSError):  # other things are in it, and stay there
            os.removedirs(before)
        return
    make_room(place, folder)
    place.symlink_to(os.path.relpath(folder, place.parent), target_is_directory=True)


def make_room(place, folder):
    """Remove a link, or an empty folder, in the `place` that the folder is to take."""
    if place.is_symlink():  # to what is not there, or is no such tree, or is one of several
        place.unlink()
    elif place.is_dir():
        if any(not (place / name).is_symlink() for name in os.listdir(place)):
            raise DataError(f"{place}: holds no walks, but {folder} does; remove the one that you do not mean")
        shutil.rmtree(place)  # of links, which go without what they point to


def leads_to(place, found):
    """Is it a link to one of the folders `found`, or a folder of links to what is in them, as `join` makes it?"""
    if place.is_symlink():
        return place.resolve() in [folder.resolve() for folder in found]
    inside = [place / name for name in folders(place)]
    return all(path.is_symlink() and path.resolve().parent in [f.resolve() for f in found] for path in inside)


def join(found, place):
    """Make the folder `place` of links to the people of several folders; was there anything to do?"""
    people: dict[str, Path] = {}
    for folder in found:
        for name in folders(folder):
            if name in people:
                raise DataError(f"{folder} and {people[name].parent} both hold {name}; remove the one you do not mean")
            people[name] = folder / name
    if place.is_dir() and not place.is_symlink() and set(folders(place)) == people.keys():
        return False
    make_room(place, found[0])
    place.mkdir()
    for name, folder in people.items():
        (place / name).symlink_to(os.path.relpath(folder, place), target_is_directory=True)
    return True


# ---- archives


def archives_of(dataset, missing):
    """Archives that may hold the data set, sorted. DataError: trees are `missing`, and none of them can be read."""
    root, home = data_root(), data_root() / dataset.folder
    found = [*files_above_walks(home, dataset, DEEPEST)]
    found += [
        Path(e.path) for e in entries(root) if e.is_file() and letters(e.name).startswith(letters(dataset.folder))
    ]
    good = [path for path in found if path.name.lower().endswith(ARCHIVES)]
    other = [path for path in found if path.name.lower().endswith(UNREADABLE)]
    if missing and other and not good:
        raise DataError(f"{other[0]}: cannot be unpacked here; unpack it there by the program that it is for")
    return sorted(good)


def files_above_walks(folder, dataset, depth, in_tree=False):
    """Files in the folder and below, so many folders deep; below a tree's folder as deep as its levels say."""
    for entry in entries(folder):
        if entry.is_file():
            yield Path(entry.path)
        elif depth and entry.is_dir(follow_symlinks=False):
            tree = not in_tree and tree_named(entry.name, dataset) is not None
            below = len(dataset.tree) if tree else depth
            yield from files_above_walks(entry.path, dataset, below - 1, in_tree or tree)


def letters(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Place:
    """Where members go. kept: trees that get new people, but no further files of those who are there."""

    home: Path
    dataset: Any
    kept: set

    def lacks(self, path):
        """Is it ("im/001/walk/00.png") to be written?"""
        tree, subject, *_ = path.split("/")
        there = at(self.home, tree) / (subject if tree in self.kept else path.removeprefix(f"{tree}/"))
        return not os.path.exists(there)


def unpack(archive, place, tell, path=None, called=None, deep=0):
    """Write the images that `archive` has and the `place` lacks into the staging folder, and nothing else.

    Of one that lay `deep` in others: its path below theirs, and what sentences call it."""
    staging, called = place.home / STAGING, called or str(archive)
    above = above_members(path or os.path.relpath(archive, place.home))
    try:
        with members_of(archive) as members:
            belong = [(m, path) for m in members if (path := path_of(m.name, above, place.dataset))]
            wanted = [(m, staging / path) for m, path in belong if place.lacks(path)]
            inner = [m.name for m in members if m.name.lower().endswith(ARCHIVES)] if deep < INSIDE else []
            inside = {name: "/".join([*above, safe]) for name in inner if (safe := safe_path(name))}
            if not belong and not inside and members:
                tell(nothing_in(called, members, place.dataset))
            wanted += [(m, staging / INNER / inside[m.name]) for m in members if m.name in inside]
            size = sum(member.size for member, _ in wanted)
            whole.make_folder(place.home)
            free = shutil.disk_usage(place.home).free
            if size > free - SPARE:
                raise DataError(f"{called}: unpacks to {size} bytes, and the disk has {free} free; make room")
            if wanted:
                tell(f"{called}: unpacking {len(wanted)} files, {size / 2**20:.0f} MB")
            for member, path in wanted:
                if member.name not in inside and member.size > LARGEST_IMAGE:
                    raise DataError(f"{called}: {member.name} has {member.size} bytes, too many for an image")
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target)
        for name, path in inside.items():
            unpack(staging / INNER / path, place, tell, path, f"{called}: {name}", deep + 1)
            (staging / INNER / path).unlink()
    except BROKEN as e:
        reason = "it is a web page" if begins_as_page(archive) else " ".join(str(e).split())
        raise DataError(
            f"{called}: cannot be unpacked ({reason}); is the download complete? Fetch it again, or "
            f"unpack it yourself into {place.home}"
        ) from e


def begins_as_page(archive):
    """Is it a page that says why there is no download, as Google Drive's is?"""
    with contextlib.suppress(OSError), regular.open_file(archive) as file:
        return file.read(100).lstrip().startswith(b"<")
    return False


def nothing_in(called, members, dataset):
    """A sentence on an archive that has nothing for the trees."""
    if any(member.name.lower().endswith(VIDEO_SUFFIXES) for member in members):
        how = f"unpack it yourself, and cut the people out: python tools/crop.py {dataset.name} --help"
        return f"{called}: holds videos, from which the person is to be cut out; {how}"
    wanted = "/".join(f"<{level}>" for level in dataset.tree)
    trees = " or ".join(trees_of(dataset))
    return f"{called}: holds no pictures {trees}/{wanted}/, but {some([m.name for m in members], 1)}; it is left alone"


def bring_in(place, tell):
    """Move what was unpacked from the staging folder into the trees."""
    staging = place.home / STAGING
    for tree in trees_of(place.dataset):
        if (staging / tree).is_dir():
            whole.sync(staging / tree)
            move_into(staging / tree, at(place.home, tree))
            tell(f"{at(place.home, tree)}: unpacked")
    shutil.rmtree(staging, ignore_errors=True)


def move_into(source, target):
    """Rename `source`, or as much of what is in it as the folder `target` lacks."""
    if target.is_symlink() and not target.exists():
        target.unlink()
    if not target.exists():
        os.rename(source, target)
        whole.sync_folder(target.parent)
    elif source.is_dir():
        for name in os.listdir(source):
            move_into(source / name, target / name)


def read_record(home):
    """{archive: [size, time]} of the archives that are done with; None where nobody has kept a record."""
    try:
        found = json.loads(regular.read_text(home / RECORD))
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def write_record(home, record):
    with contextlib.suppress(OSError):  # a folder that cannot be written to has its archives looked at every time
        whole.write(home / RECORD, json.dumps(record, indent=1) + "\n")


class members_of:
    """with members_of(path) as members: the plain files of an archive, as a list of Member."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        if self.path.name.lower().endswith(".zip"):
            self.archive: Any = zipfile.ZipFile(self.path)
            infos = self.archive.infolist()
            require_few(self.path, infos)
            return [
                Member(info.filename, info.file_size, lambda info=info: self.archive.open(info))
                for info in infos
                if not info.is_dir() and not is_link(info)
            ]
        self.archive = tarfile.open(self.path)
        infos = self.archive.getmembers()
        require_few(self.path, infos)
        return [
            Member(info.name, info.size, lambda info=info: self.archive.extractfile(info))
            for info in infos
            if info.isreg()
        ]

    def __exit__(self, *_):
        self.archive.close()


def require_few(path, infos):
    if len(infos) > MOST_MEMBERS:
        raise DataError(f"{path}: has {len(infos)} members, wanted {MOST_MEMBERS} at most")


def is_link(info):
    return info.external_attr >> 16 & 0o170000 == 0o120000


# ---- names in archives


def above_members(path):
    """What stands above the members of the archive at `path`: its folders, and its own name without the ending."""
    *above, name = PurePosixPath(safe_path(path) or PurePosixPath(path).name).parts
    ending = next(ending for ending in sorted(ARCHIVES, key=len, reverse=True) if name.lower().endswith(ending))
    return [*above, name[: -len(ending)]]


def safe_path(name):
    """The path of a member, below the folder that it is put into; None where it would lead out of it, or is noise."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if any(part == ".." or part.startswith((".", "__MACOSX", "/")) or "\0" in part or ":" in part for part in parts):
        return None
    return "/".join(parts)


def path_of(name, above, dataset):
    """Where a member belongs, "im/001/walk/00.png", from the last parts of its path; None: it is none of the images.

    above: see `above_members`. Below the tree's name come the ids. They may be in the archive im.zip, or in archives
    that lie in im/, one for each person (001.zip) or for several (part-1.zip)."""
    safe = safe_path(name)
    if safe is None or not safe.lower().endswith(IMAGE_SUFFIXES):
        return None
    parts = (*above, *safe.split("/"))
    below = len(dataset.tree) + 1  # folders of the tree, and the file
    tree, last = list(parts[:-below]), parts[-below:]
    named_by_archive = len(parts) - below == len(above) - 1  # its own name is the id
    if named_by_archive and not above[-1].isdecimal():
        return None
    while tree and len(tree) <= len(above) and not tree_named(tree[-1], dataset):
        tree.pop()  # the archive's own name, and what is around it, say nothing
    named = tree_named(tree[-1], dataset) if tree else None
    return "/".join((named, *last)) if named else None
