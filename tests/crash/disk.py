"""What a disk may hold after a power cut, from what a program wrote, synced, renamed and removed.

In the manner of ALICE (Pillai et al., All File Systems Are Not Created Equal, OSDI 2014). POSIX promises no more than:
what was written to a file is there once the file was synced, and what was done to the names in a folder once the folder
was. Before that each piece of data and each name may have reached the disk or not, in any order. Of a write sectors may
be there (a sector is never torn), and a file may have grown without its data, which then reads as zeros.
"""

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512


@dataclass
class Inode:
    """A file, or a folder; `start` is what it held when the recording began."""

    folder: bool
    start: bytes = b""


@dataclass
class Op:
    """One thing done: "write", "truncate" (data of `inode`), "name", "unname", "rename" (in the folder `parent`),
    "sync" (of `inode`, data or names), "sync all", or "say" (what the program told its user)."""

    kind: str
    inode: int = 0
    parent: int = 0
    name: str = ""
    before: tuple[int, str] | None = None  # of a rename: folder and name that it had
    at: int = 0
    data: bytes = b""
    size: int = 0
    text: str = ""


@dataclass
class Recording:
    """Inode 0 is the folder that was watched; `names` are those of each folder when the recording began."""

    inodes: list[Inode] = field(default_factory=lambda: [Inode(True)])
    names: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    ops: list[Op] = field(default_factory=list)

    def add(self, inode: Inode) -> int:
        self.inodes.append(inode)
        if inode.folder:
            self.names[len(self.inodes) - 1] = {}
        return len(self.inodes) - 1


@dataclass(frozen=True)
class State:
    """Files {path: content} and folders that a cut after `op` things leaves, and what the program had said by then."""

    op: int
    why: str
    files: tuple[tuple[str, bytes], ...]
    folders: tuple[str, ...]
    said: str

    def digest(self):
        return hashlib.sha256(repr((self.files, self.folders, self.said.count("\n"))).encode()).hexdigest()

    def write(self, root: Path):
        for folder in self.folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
        for path, content in self.files:
            (root / path).write_bytes(content)


def end(recording):
    """The state when all has been done and written: what the folder really holds, if the recording is right."""
    return next(_cut(recording, len(recording.ops), random.Random(0), only_whole=True))


def states(recording, seed, rounds=3):
    """Every cut, each with the states that matter: nothing, all, or one thing of what was not synced; each but one;
    names without data; data torn or zero; and `rounds` random choices. Without those that are equal."""
    rng, seen = random.Random(seed), set()
    for op in range(len(recording.ops) + 1):
        if op and recording.ops[op - 1].kind == "say" and op != len(recording.ops):
            continue
        for state in _cut(recording, op, rng, rounds):
            if (digest := state.digest()) not in seen:
                seen.add(digest)
                yield state


def _cut(recording, op, rng, rounds=3, only_whole=False):
    done = recording.ops[:op]
    said = "".join(one.text for one in done if one.kind == "say")
    names, data = _pending(done)

    def state(why, kept_names, kept_data, sizes=frozenset(), torn=None):
        files, folders = _tree(recording, done, names, kept_names, data, kept_data, sizes, torn or {})
        return State(op, why, files, folders, said)

    yield state("all", names, data)
    if only_whole:
        return
    yield state("nothing that was not synced", set(), set())
    yield state("names without data", names, set())
    yield state("names, and sizes without data", names, set(), frozenset(done[i].inode for i in data))
    yield state("data without names", set(), data)
    for i in sorted(names):
        yield state(f"of the names only {i}", {i}, data)
        yield state(f"of the names only {i}, without data", {i}, set())
        yield state(f"all names but {i}", names - {i}, data)
    last: dict[int, int] = {}
    for i in sorted(data):
        last[done[i].inode] = i
        yield state(f"all data but {i}", names, data - {i})
    for inode, i in last.items():
        if done[i].kind == "write" and len(done[i].data) > SECTOR:
            yield state(f"write {i} torn", names, data, torn={i: _sectors(done[i], rng)})
        yield state(f"all but the data of file {inode}", names, {j for j in data if done[j].inode != inode})
        yield state(f"file {inode} as zeros", names, {j for j in data if done[j].inode != inode}, frozenset({inode}))
    for _ in range(rounds if names or data else 0):
        kept = {i for i in names if rng.random() < 0.5}, {i for i in data if rng.random() < 0.5}
        yield state("some", *kept, frozenset(done[i].inode for i in data if rng.random() < 0.5))


def _pending(done):
    """(numbers of the names, numbers of the data) that nothing has synced yet."""
    names, data = set(), set()
    for i, op in enumerate(done):
        if op.kind in ("write", "truncate"):
            data.add(i)
        elif op.kind in ("name", "unname", "rename"):
            names.add(i)
        elif op.kind == "sync":
            names = {j for j in names if done[j].parent != op.inode}
            data = {j for j in data if done[j].inode != op.inode}
        elif op.kind == "sync all":
            names, data = set(), set()
    return names, data


def _tree(recording, done, names, kept_names, data, kept_data, sizes, torn):
    entries = {folder: dict(held) for folder, held in recording.names.items()}
    content = {i: bytearray(inode.start) for i, inode in enumerate(recording.inodes) if not inode.folder}
    wanted: dict[int, int] = {}  # sizes had all been written
    for i, op in enumerate(done):
        if op.kind in ("write", "truncate"):
            have = wanted.get(op.inode, len(recording.inodes[op.inode].start))
            wanted[op.inode] = max(have, op.at + len(op.data)) if op.kind == "write" else op.size
        if (i in data and i not in kept_data) or (i in names and i not in kept_names):
            continue
        if op.kind == "write":
            _put(content[op.inode], op.at, op.data[: torn.get(i, len(op.data))])
        elif op.kind == "truncate":
            held = content[op.inode]
            del held[op.size :]
            held.extend(bytes(op.size - len(held)))
        elif op.kind == "name":
            entries[op.parent][op.name] = op.inode
        elif op.kind == "unname":
            if entries[op.parent].get(op.name) == op.inode:
                del entries[op.parent][op.name]
        elif op.kind == "rename":
            folder, name = op.before
            if entries[folder].get(name) == op.inode:
                del entries[folder][name]
            entries[op.parent][op.name] = op.inode
    for inode in sizes:
        content[inode].extend(bytes(max(0, wanted.get(inode, 0) - len(content[inode]))))
    files, folders = [], []

    def visit(folder, path):
        for name, inode in sorted(entries[folder].items()):
            if recording.inodes[inode].folder:
                folders.append(path + name)
                visit(inode, f"{path}{name}/")
            else:
                files.append((path + name, bytes(content[inode])))

    visit(0, "")
    return tuple(files), tuple(folders)


def _put(held, at, data):
    held.extend(bytes(max(0, at - len(held))))
    held[at : at + len(data)] = data


def _sectors(op, rng):
    """How many bytes of a write reach the disk when it is torn between two sectors."""
    edges = [edge - op.at for edge in range(op.at // SECTOR * SECTOR + SECTOR, op.at + len(op.data), SECTOR)]
    return rng.choice(edges) if edges else 0
