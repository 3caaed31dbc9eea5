"""Recording what a program does to a folder, by strace: every write of any library it uses is seen."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.crash.disk import Inode, Op, Recording

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,truncate,ftruncate,fallocate,fsync,fdatasync,sync,"
    "syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,mmap,"
    "copy_file_range,sendfile,splice,chdir,fchdir"
)
LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
FD = re.compile(r"^(-?\d+|AT_FDCWD)(?:<((?:[^<>\\]|\\.)*)>)?")


class Unmodelled(Exception):
    pass


def can_record():
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


def record(command, root: Path, scratch: Path, **options) -> Recording:
    """Run `command` in the folder `root` and tell what it did there; `options` go to subprocess.run.

    What the command says on its two streams is recorded with it. Its exit status has to be 0."""
    scratch.mkdir()
    recording = _begin(root)
    strace = [
        "strace",
        "-ff",
        "--seccomp-bpf",
        "--absolute-timestamps=format:unix,precision:ns",
        "-xx",
        "-y",
        "-s",
        str(2**26),
        "-e",
        f"trace={CALLS}",
        "-e",
        "signal=none",
        "-o",
        str(scratch / "trace"),
    ]
    with open(scratch / "said", "wb") as said:
        done = subprocess.run([*strace, *command], cwd=root, stdout=said, stderr=said, timeout=300, **options)
    if done.returncode:
        raise AssertionError(f"ended with {done.returncode}: {(scratch / 'said').read_text()[-2000:]}")
    lines: list[tuple[str, str, str]] = []
    for file in sorted(scratch.glob("trace.*")):
        for line in file.read_text().splitlines():
            found = LINE.match(line)
            if found and int(found[4]) >= 0:
                lines.append((found[1], file.suffix, line))
    reader = _Reader(recording, root.resolve(), scratch / "said")
    for _, process, line in sorted(lines, key=lambda timed: timed[0]):
        reader.read(process, *LINE.match(line).groups()[1:])  # type: ignore[union-attr]
    return recording


def _begin(root):
    """A recording that knows what the folder holds before."""
    recording = Recording()
    numbers = {root: 0}
    for folder, folders, files in os.walk(root):
        here = numbers[Path(folder)]
        for name in folders:
            numbers[Path(folder, name)] = recording.names[here][name] = recording.add(Inode(True))
        for name in files:
            recording.names[here][name] = recording.add(Inode(False, Path(folder, name).read_bytes()))
    return recording


class _Reader:
    """Turns system calls into Ops. `names` is the folder as it is in memory at the time, all done."""

    def __init__(self, recording, root, said):
        self.recording, self.root, self.said = recording, str(root), str(said)
        self.names = {folder: dict(held) for folder, held in recording.names.items()}
        self.folders: dict[str, str] = {}  # the current one of each process, where it has changed it
        self.positions: dict[tuple[int, int], int] = {}  # (number, inode) -> place of the next byte
        self.synchronous: set[tuple[int, int]] = set()

    def read(self, process, call, arguments, result, rest):
        self.process = process
        arguments = _split(arguments)
        handler = getattr(self, f"on_{call}", None)
        if handler:
            handler(arguments, int(result), rest)

    # ---- names

    def on_open(self, a, result, rest):
        self.opened(self.path(a[0]), a[1], result)

    def on_openat(self, a, result, rest):
        self.opened(self.path(a[1], a[0]), a[2], result)

    def on_creat(self, a, result, rest):
        self.opened(self.path(a[0]), "O_CREAT|O_TRUNC", result)

    def opened(self, path, flags, number):
        place = self.place(path)
        if place is None:
            return
        parent, name = place
        inode = self.names.get(parent, {}).get(name) if name else 0
        if inode is None:
            inode = self.recording.add(Inode(False))
            self.do(Op("name", inode, parent, name))
        elif "O_TRUNC" in flags:
            self.do(Op("truncate", inode, size=0))
        self.positions[number, inode] = 0
        self.synchronous.discard((number, inode))
        if "O_SYNC" in flags or "O_DSYNC" in flags:
            self.synchronous.add((number, inode))
        if "O_APPEND" in flags:
            raise Unmodelled(f"append to {path}")

    def on_mkdir(self, a, result, rest):
        self.made(self.path(a[0]))

    def on_mkdirat(self, a, result, rest):
        self.made(self.path(a[1], a[0]))

    def made(self, path):
        if place := self.place(path):
            inode = self.recording.add(Inode(True))
            self.names[inode] = {}
            self.do(Op("name", inode, *place))

    def on_rename(self, a, result, rest):
        self.renamed(self.path(a[0]), self.path(a[1]))

    def on_renameat(self, a, result, rest):
        self.renamed(self.path(a[1], a[0]), self.path(a[3], a[2]))

    on_renameat2 = on_renameat

    def renamed(self, before, path):
        source, target = self.place(before), self.place(path)
        if source is None and target is None:
            return
        if source is None or target is None:
            raise Unmodelled(f"rename of {before} to {path}")
        self.do(Op("rename", self.names[source[0]][source[1]], *target, before=source))

    def on_unlink(self, a, result, rest):
        self.removed(self.path(a[0]))

    on_rmdir = on_unlink

    def on_unlinkat(self, a, result, rest):
        self.removed(self.path(a[1], a[0]))

    def removed(self, path):
        if place := self.place(path):
            self.do(Op("unname", self.names[place[0]][place[1]], *place))

    def on_link(self, a, result, rest):
        if self.place(self.path(a[-1])) or self.place(self.path(a[1])):
            raise Unmodelled("a link")

    def on_symlink(self, a, result, rest):
        if self.place(self.path(a[-1])):
            raise Unmodelled("a symbolic link")

    def on_linkat(self, a, result, rest):
        self.on_link([a[1], a[3]], result, rest)

    def on_symlinkat(self, a, result, rest):
        self.on_symlink([a[2]], result, rest)

    def on_chdir(self, a, result, rest):
        self.folders[self.process] = self.path(a[0])

    # ---- data

    def on_write(self, a, result, rest):
        number, inode, path = self.file(a[0])
        if path == self.said:
            self.recording.ops.append(Op("say", text=_text(a[1]).decode(errors="replace")))
        elif inode is not None:
            self.wrote(number, inode, self.positions[number, inode], _text(a[1])[:result])
            self.positions[number, inode] += result

    def on_writev(self, a, result, rest):
        self.on_write([a[0], _joined(a[1])], result, rest)

    def on_pwrite64(self, a, result, rest):
        number, inode, _ = self.file(a[0])
        if inode is not None:
            self.wrote(number, inode, int(a[3]), _text(a[1])[:result])

    def on_pwritev(self, a, result, rest):
        self.on_pwrite64([a[0], _joined(a[1]), "", a[3]], result, rest)

    on_pwritev2 = on_pwritev

    def wrote(self, number, inode, at, data):
        self.do(Op("write", inode, at=at, data=data))
        if (number, inode) in self.synchronous:
            self.do(Op("sync", inode))

    def on_lseek(self, a, result, rest):
        number, inode, _ = self.file(a[0])
        if inode is not None:
            self.positions[number, inode] = result

    def on_ftruncate(self, a, result, rest):
        _, inode, _ = self.file(a[0])
        if inode is not None:
            self.do(Op("truncate", inode, size=int(a[1])))

    def on_truncate(self, a, result, rest):
        if place := self.place(self.path(a[0])):
            self.do(Op("truncate", self.names[place[0]][place[1]], size=int(a[1])))

    def on_fsync(self, a, result, rest):
        _, inode, _ = self.file(a[0])
        if inode is not None:
            self.do(Op("sync", inode))

    on_fdatasync = on_fsync

    def on_sync(self, a, result, rest):
        self.do(Op("sync all"))

    on_syncfs = on_sync

    def on_mmap(self, a, result, rest):
        if "PROT_WRITE" in a[2] and "MAP_SHARED" in a[3] and self.file(a[4])[1] is not None:
            raise Unmodelled(f"writing through a map: {a[4]}")

    def refuse(self, a, result, rest):
        if any(FD.match(word) and self.file(word)[1] is not None for word in a[:3:2]):
            raise Unmodelled(f"copying within the system: {a}")

    on_copy_file_range = on_sendfile = on_splice = refuse

    def on_fallocate(self, a, result, rest):
        if self.file(a[0])[1] is not None:
            raise Unmodelled("fallocate")

    # ---- helpers

    def do(self, op):
        self.recording.ops.append(op)
        if op.kind == "name":
            self.names[op.parent][op.name] = op.inode
        elif op.kind == "unname":
            del self.names[op.parent][op.name]
        elif op.kind == "rename":
            del self.names[op.before[0]][op.before[1]]
            self.names[op.parent][op.name] = op.inode

    def path(self, word, folder=None):
        text = os.fsdecode(_text(word))
        if folder and not folder.startswith("AT_FDCWD"):
            return os.path.join(self.file(folder)[2], text)
        return os.path.normpath(os.path.join(self.folders.get(self.process, self.root), text))

    def place(self, path):
        """(inode of the folder, name) below the root; (0, "") is the root itself; None: elsewhere."""
        if path == self.root:
            return 0, ""
        if not path.startswith(self.root + "/"):
            return None
        *folders, name = path[len(self.root) + 1 :].split("/")
        here = 0
        for folder in folders:
            here = self.names[here][folder]
        return here, name

    def file(self, word):
        """(number, inode or None, path) of the words 3</path>."""
        found = FD.match(word)
        if not found or found[2] is None:
            return -1, None, ""
        path = os.fsdecode(_bytes(found[2]))
        if path.endswith("(deleted)") or not path.startswith("/"):
            return int(found[1]), None, path
        place = self.place(path)
        if place is None:
            return int(found[1]), None, path
        parent, name = place
        return int(found[1]), (self.names[parent].get(name) if name else 0), path


def _split(arguments):
    """The arguments of a call: commas inside of texts, brackets and names of files do not count."""
    out, depth, begin, quoted = [], 0, 0, False
    for i, letter in enumerate(arguments):
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter in "<[{(":
            depth += 1
        elif not quoted and letter in ">]})":
            depth -= 1
        elif letter == "," and not quoted and depth == 0:
            out.append(arguments[begin:i].strip())
            begin = i + 1
    return [*out, arguments[begin:].strip()]


def _text(word):
    found = TEXT.search(word)
    if found is None:
        return b""
    if found[2]:
        raise Unmodelled("a text that strace cut off")
    return bytes.fromhex(found[1].replace("\\x", ""))


def _joined(vector):
    return '"' + "".join(found[0] for found in TEXT.findall(vector)) + '"'


def _bytes(text):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), os.fsencode(text))
