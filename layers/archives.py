"""From what was downloaded to the tree that a data set is to have: archives are unpacked, deeper folders are linked.

Archives lie in data/<folder>/, or in data/ under a name that begins as the folder's does. A member is written where
the tree wants it and nowhere else: of its name in the archive only the last parts count, tree, ids and file.
"""

import contextlib
import os
import re
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from layers import whole
from layers.datasets import data_root
from layers.frames import DataError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
UNREADABLE = (".rar", ".7z", ".001", ".part")
STAGING = ".unpacking"
DEEPEST = 4  # folders above the trees
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
    """Bring data/<folder> of a `layers.datasets.Dataset` to have its two trees; nothing is done where they are there.

    tell: called with a sentence for each thing done. DataError: an archive that cannot be unpacked, or not safely."""
    home = data_root() / dataset.folder
    missing = [tree for tree in (dataset.im_dir, dataset.gt_dir) if not has_subjects(home / tree, dataset)]
    if not missing:
        return
    missing = [tree for tree in missing if not link_deeper(home, tree, dataset, tell)]
    shutil.rmtree(home / STAGING, ignore_errors=True)  # of a run that was killed
    for archive in archives_of(dataset) if missing else ():
        unpack(archive, home, dataset, missing, tell)
    if missing and (home / STAGING).is_dir():
        for tree in missing:
            if (home / STAGING / tree).is_dir():
                if (home / tree).is_dir() and not any((home / tree).iterdir()):
                    (home / tree).rmdir()
                whole.put(home / STAGING / tree, home / tree)
                tell(f"{home / tree}: unpacked")
        shutil.rmtree(home / STAGING)


def has_subjects(folder, dataset):
    """Does a folder hold frames as deep as the data set's tree says?"""
    levels = len(dataset.tree)
    here = [folder]
    for _ in range(levels):
        here = [Path(entry.path) for path in here[:3] for entry in entries(path) if entry.is_dir()]
    return any(entry.name.lower().endswith(IMAGES) for path in here[:20] for entry in entries(path))


def entries(folder):
    """What a folder holds, by name, without hidden files; () where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    except OSError:
        return ()


def link_deeper(home, tree, dataset, tell):
    """data/Outdoor-Gait/Outdoor-Gait/im -> a link data/Outdoor-Gait/im to it."""
    folders = [home]
    for _ in range(DEEPEST):
        folders = [Path(e.path) for folder in folders[:50] for e in entries(folder) if e.is_dir(follow_symlinks=False)]
        for folder in folders:
            if folder.name == tree and folder != home / tree and has_subjects(folder, dataset):
                put_in_place(folder, home / tree)
                tell(f"{home / tree}: is now {folder}")
                return True
    return False


def put_in_place(folder, place):
    """A link `place` to the folder; where the folder is inside of `place` (im/im/001), it takes that name itself."""
    if place in folder.parents:
        before = place.with_name(f"{place.name}-before")
        os.rename(place, before)
        os.rename(before / folder.relative_to(place), place)
        with contextlib.suppress(OSError):  # other things are in it, and stay there
            os.removedirs(before)
        return
    if place.is_symlink():  # to what is not there, or is no such tree
        place.unlink()
    elif place.is_dir():
        if any(place.iterdir()):
            raise DataError(f"{place}: holds no walks, but {folder} does; remove the one that you do not mean")
        place.rmdir()
    place.symlink_to(os.path.relpath(folder, place.parent), target_is_directory=True)


def archives_of(dataset):
    """Archives that may hold the data set, sorted. DataError: there are only such as cannot be read."""
    root, home = data_root(), data_root() / dataset.folder
    found = [Path(e.path) for folder in (home, *(Path(e.path) for e in entries(home) if e.is_dir()))
             for e in entries(folder) if e.is_file()]  # fmt: skip
    found += [
        Path(e.path) for e in entries(root) if e.is_file() and letters(e.name).startswith(letters(dataset.folder))
    ]
    good = [path for path in found if path.name.lower().endswith(ARCHIVES)]
    other = [path for path in found if path.name.lower().endswith(UNREADABLE)]
    if other and not good:
        raise DataError(f"{other[0]}: cannot be unpacked here; unpack it there by the program that it is for")
    return sorted(good)


def letters(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def unpack(archive, home, dataset, trees, tell, nested=False):
    """Write the images that `archive` has of the `trees` into the staging folder of `home`, and nothing else."""
    try:
        with members_of(archive) as members:
            wanted = [
                (member, place) for member in members if (place := place_of(member.name, archive, dataset, trees))
            ]
            if not wanted and not nested:  # an archive of archives: those are unpacked first
                wanted = [(member, PurePosixPath(member.name.replace("\\", "/")).name)
                          for member in members if member.name.lower().endswith(ARCHIVES)]  # fmt: skip
                wanted = [(member, name) for member, name in wanted if not name.startswith(".")]
            size = sum(member.size for member, _ in wanted)
            whole.make_folder(home)
            free = shutil.disk_usage(home).free
            if size > free - SPARE:
                raise DataError(f"{archive}: unpacks to {size} bytes, and the disk has {free} free; make room")
            inside = []
            if wanted:
                tell(f"{archive}: unpacking {len(wanted)} files, {size / 2**20:.0f} MB")
            for member, place in wanted:
                path = home / STAGING / place
                inside += [path] if path.name.lower().endswith(ARCHIVES) else []
                if not inside and member.size > LARGEST_IMAGE:
                    raise DataError(f"{archive}: {member.name} has {member.size} bytes, too many for an image")
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target)
        for path in inside:
            unpack(path, home, dataset, trees, tell, nested=True)
            path.unlink()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError, OSError) as e:
        raise DataError(
            f"{archive}: cannot be unpacked ({' '.join(str(e).split())}); is the download complete? Fetch it again, or "
            f"unpack it yourself into {home}"
        ) from e


class members_of:
    """with members_of(path) as members: the plain files of an archive, as a list of Member."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        if self.path.name.lower().endswith(".zip"):
            self.archive: Any = zipfile.ZipFile(self.path)
            infos = self.archive.infolist()
            require_few(self.path, infos)
            return [Member(info.filename, info.file_size, lambda info=info: self.archive.open(info))
                    for info in infos if not info.is_dir() and not is_link(info)]  # fmt: skip
        self.archive = tarfile.open(self.path)
        infos = self.archive.getmembers()
        require_few(self.path, infos)
        return [Member(info.name, info.size, lambda info=info: self.archive.extractfile(info))
                for info in infos if info.isreg()]  # fmt: skip

    def __exit__(self, *_):
        self.archive.close()


def require_few(path, infos):
    if len(infos) > MOST_MEMBERS:
        raise DataError(f"{path}: has {len(infos)} members, wanted {MOST_MEMBERS} at most")


def is_link(info):
    return info.external_attr >> 16 & 0o170000 == 0o120000


def place_of(name, archive, dataset, trees):
    """Where a member belongs, "im/001/walk/00.png", from the last parts of its name; None: it is none of the images.

    The tree's name is a folder above the ids or, in an archive im.zip of the ids alone, the archive's own."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if any(part == ".." or part.startswith((".", "__MACOSX", "/")) or "\0" in part or ":" in part for part in parts):
        return None
    below = len(dataset.tree) + 1  # folders of the tree, and the file
    if len(parts) < below or not parts[-1].lower().endswith(IMAGES):
        return None
    above = [*parts[:-below]]
    if len(above) and above[-1] in trees:
        tree = above[-1]
    elif not above and archive.name.split(".")[0] in trees:
        tree = archive.name.split(".")[0]
    else:
        return None
    return os.path.join(tree, *parts[-below:])
