"""Data that attacks: one DataError each, within a second or so and half a gigabyte, whatever a file claims to hold."""

import os
import random
import reprlib
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from layers import pack
from layers.datasets import DATASETS
from layers.frames import DataError, Tree, read_image, read_video
from layers.params import parse
from layers.sources import open_frames
from tests.layers.packs import index_of, write_index
from tests.layers.trees import write_sequence, write_walkers
from tools import pack_frames

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 2**29
WALK = "001/nm-01/000"


@pytest.fixture(autouse=True)
def bounded():
    """What allocates more than MEMORY on top gets a MemoryError, which no test expects; what hangs is killed."""
    limit = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limit)


# ---- images


def png(width, height, rows):
    """A PNG of one bit a pixel that says width x height and holds `rows` rows of zeros."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(9)
    data = b"".join(deflate.compress(bytes(1 + (width + 7) // 8)) for _ in range(rows)) + deflate.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(width, height):
    whole = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1])
    at = whole.find(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def bmp(width, height):
    whole = bytearray(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1])
    whole[18:26] = struct.pack("<ii", width, height)
    return bytes(whole)


def scans(count, side=1024):
    """A progressive JPEG that is nothing but empty scans over all its pixels."""
    head = b"\xff\xdb" + struct.pack(">H", 67) + b"\0" + b"\1" * 64
    head += b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\1\x11\0"
    head += b"\xff\xc4" + struct.pack(">H", 20) + b"\x10\1" + bytes(15) + b"\xe0"  # one code: 2^14 and more blocks
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0\1\x3f\0\0\0"
    return b"\xff\xd8" + head + scan * count + b"\xff\xd9"


IMAGES = {
    "png of 60000x60000 in 69 bytes": png(60000, 60000, 1),
    "png of 60000x60000, whole": png(60000, 60000, 60000),
    "png of 30000x30000, whole": png(30000, 30000, 30000),
    "png of 2^31-1 a side": png(2**31 - 1, 2**31 - 1, 0),
    "png of no pixel": png(0, 5, 0),
    "png that ends after its magic": b"\x89PNG\r\n\x1a\nIEND",
    "jpeg of 65535x65535": jpeg(65535, 65535),
    "jpeg of endless padding": b"\xff\xd8" + b"\xff" * 100_000 + b"\xff\xd9",
    "jpeg with a segment of length 0": b"\xff\xd8\xff\xe0\0\0" * 1000 + b"\xff\xd9",
    "bmp of 2^31-1 a side": bmp(2**31 - 1, 2**31 - 1),
    "bmp of -60000x-60000": bmp(-60000, -60000),
    "another format": b"II*\0" + bytes(1000),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", [0x00, 0x01, 0xD0, 0xD7])
def test_a_jpeg_with_a_marker_that_has_no_length(tmp_path, kind):
    """Whoever takes what follows for its length goes on in the midst of a comment, where this says that it is 8x8."""
    decoy = b"\xff\xfe\xff\xff" + bytes(65530) + b"\xff\xc0\0" + b"\xff\xfe\0\x08\0\x08" + bytes(4)
    whole = jpeg(9000, 9000)
    (tmp_path / "x.jpg").write_bytes(whole[:2] + bytes([0xFF, kind]) + decoy + whole[2:])
    with pytest.raises(DataError, match="is not a whole image" if kind == 0 else "says that it is 9000x9000"):
        read_image(tmp_path / "x.jpg", cv2.IMREAD_COLOR)


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path):
    """200 kB may take ten seconds. Photographs have up to a dozen, and some more in what is embedded in them."""
    for count, message in ((2, None), (2000, "is a JPEG of 2000 scans, wanted 100 at most")):
        (tmp_path / "x.jpg").write_bytes(scans(count))
        if message:
            with pytest.raises(DataError, match=message):
                read_image(tmp_path / "x.jpg", cv2.IMREAD_COLOR)
        else:
            assert read_image(tmp_path / "x.jpg", cv2.IMREAD_COLOR).shape == (1024, 1024, 3)


def test_opencv_has_a_bound_of_its_own():
    """Should a head deceive: 2^27 pixels, unless the user said otherwise."""
    says = "import os, layers.frames; print(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    for given, wanted in (({}, str(2**27)), ({"OPENCV_IO_MAX_IMAGE_PIXELS": "9"}, "9")):
        environment = {k: v for k, v in os.environ.items() if k != "OPENCV_IO_MAX_IMAGE_PIXELS"} | given
        done = subprocess.run([sys.executable, "-c", says], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == wanted, done.stderr


@pytest.fixture
def tree(tmp_path):
    write_sequence(tmp_path, WALK, 12, np.random.default_rng(1))
    return tmp_path


def read_all(root):
    tree = Tree(str(root / "crop-im"), str(root / "crop-seg"))
    for seq in DATASETS["walkers"].sequences(tree.im_path, DATASETS["walkers"].subjects(tree.im_path)):
        tree.clip(seq.path, 0, tree.length(seq.path))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("part", ["crop-im", "crop-seg"])
def test_images(tree, part, name):
    file = tree / part / WALK / "004.png"
    file.write_bytes(IMAGES[name])
    with pytest.raises(DataError, match=r"004\.png: (is not a whole image|says that it is)"):
        read_all(tree)


def test_damaged_images_are_refused_or_read(tmp_path):
    """600 files: bits flipped, bytes cut off."""
    rng, taken = random.Random(1), 0
    picture = np.random.default_rng(1).integers(0, 256, (20, 13, 3), np.uint8)
    for n in range(600):
        suffix = (".png", ".jpg", ".bmp")[n % 3]
        data = bytearray(cv2.imencode(suffix, picture)[1])
        for _ in range(rng.choice([1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file = tmp_path / f"x{suffix}"
        file.write_bytes(data[: rng.randrange(len(data))] if n % 5 == 0 else data)
        try:
            taken += read_image(file, cv2.IMREAD_COLOR) is not None
        except DataError as e:
            assert len(str(e)) < 1000
    assert 50 < taken < 550


# ---- videos


def avi(path, codec, **changed):
    """A video of five frames of 64x64, with the sizes in its headers changed."""
    writer = cv2.VideoWriter(str(path), codec, 25, (64, 64))
    for shade in range(5):
        writer.write(np.full((64, 64, 3), 40 * shade, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    for header, at in changed.items():
        start = data.find(header.encode()) + 8 + at
        data[start : start + 8] = struct.pack("<ii", 60000, 60000)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("codec", [0, cv2.VideoWriter_fourcc(*"MJPG")])
@pytest.mark.parametrize("changed", [{}, {"avih": 32}, {"strf": 4}, {"avih": 32, "strf": 4}])
def test_videos_that_claim_60000x60000(tmp_path, codec, changed):
    """Read with the size that the frames have, or refused."""
    try:
        assert {frame.shape for frame in read_video(avi(tmp_path / "x.avi", codec, **changed))} == {(64, 64, 3)}
    except DataError as e:
        assert changed and len(str(e)) < 1000


def test_damaged_videos(tmp_path):
    """100 files: bits flipped, bytes cut off, noise, another kind of file, no file."""
    rng, taken = random.Random(1), 0
    whole = avi(tmp_path / "whole.avi", cv2.VideoWriter_fourcc(*"MJPG")).read_bytes()
    for n in range(100):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 8, 64])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        data = rng.randbytes(2000) if n % 10 == 0 else data[: rng.randrange(len(data))] if n % 5 == 0 else data
        (tmp_path / "x.avi").write_bytes(data)
        try:
            taken += sum(frame.nbytes < 2**26 for frame in read_video(tmp_path / "x.avi")) > 0
        except DataError as e:
            assert len(str(e)) < 1000
    assert 10 < taken < 90
    for bad in (tmp_path, tmp_path / "absent.avi", "/dev/zero"):
        with pytest.raises(DataError, match="is not a video"):
            next(read_video(bad))


# ---- trees


def special_file(kind, path):
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(2**40)
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "nowhere": "/nowhere/at/all"}[kind])


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "sparse"])
@pytest.mark.parametrize("part", ["crop-im", "crop-seg"])
def test_what_is_no_image_file_is_never_opened(tree, part, kind):
    special_file(kind, tree / part / WALK / "004.png")
    with pytest.raises(DataError, match=r"004\.png: (is no image file|cannot be read)"):
        read_all(tree)


@pytest.mark.parametrize("target", [".", "..", "../../..", "/", "/proc/self/fd", "nowhere"])
@pytest.mark.parametrize("level", ["001", "001/nm-01", "001/nm-01/018"])
def test_links_in_place_of_folders(tree, level, target):
    """A loop is walked no deeper than a tree goes. Links to frames elsewhere are followed, reading only."""
    link = tree / "crop-im" / level
    if link.is_dir():
        link.rename(tree / "aside")
    link.symlink_to(target)
    try:
        read_all(tree)
    except (DataError, ValueError, OSError) as e:
        assert 0 < len(str(e)) < 1000
    assert not any(name.endswith(".partial") for name in os.listdir(tree))


@pytest.mark.parametrize(
    "name", ["-rf.png", "a\nb.png", "ä€😀.png", os.fsdecode(b"\xff\xfe.png"), "x" * 251 + ".png", "$HOME.png"]
)
def test_odd_names_are_read_like_others(tree, name):
    for part in ("crop-im", "crop-seg"):
        folder = tree / part / WALK
        (folder / "004.png").rename(folder / name)
    read_all(tree)
    (tree / "crop-im" / WALK / name).write_bytes(b"")
    with pytest.raises(DataError, match="is not a whole image"):
        read_all(tree)


@pytest.mark.parametrize("name", ["..", "-1", "a\nb", "001 ", "٣"])
def test_odd_subjects(tree, name):
    if name != "..":
        (tree / "crop-im" / name).mkdir()
    try:
        read_all(tree)
    except (DataError, ValueError) as e:
        assert 0 < len(str(e)) < 1000


# ---- param_str

GOOD = "dataset: walkers, batch_size: 1, im_path: a"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)
MERGES = "a: &a {dataset: walkers}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi")
)
PARAM_STRS = [
    LAUGHS,
    MERGES,
    "&a {dataset: *a}",
    "!!python/object/apply:os.system ['touch pwned']",
    "!!python/name:os.system",
    f"{{{GOOD}, gt_path: !!python/object/new:os.system [touch pwned]}}",
    "!<tag:yaml.org,2002:python/module:os> a",
    "[" * 5000,
    "{a: " * 2000,
    f"{{{GOOD}, seed: {'9' * 5000}}}",
    f"{{{GOOD}, seed: 1e999}}",
    f"{{{GOOD}, seed: .nan}}",
    f"{{{GOOD}, seed: 2001-13-45}}",
    "{[a]: 1}",
    "{? {a: b} : 1}",
    "\0",
    "\udc80",
    "x" * 10**7,
    "- " * 10**6,
    f'{{{GOOD}, gt_path: "a\\0b"}}',
    f"{{{GOOD}, seed: true}}",
    f"{{{GOOD}, {'x' * 4000}: 1}}",
    f"{{{GOOD.replace('1', '4097')}}}",
    "--- a\n--- b",
    "%YAML 9.9\n---\na",
    f"{{{GOOD}, mode: !!binary 'a==b'}}",
    f"{{{GOOD}, mode: [{'[' * 500}{']' * 500}]}}",
    "",
    "null",
    "7",
]


@pytest.mark.parametrize("text", PARAM_STRS, ids=lambda text: ascii(text)[1:40])
@pytest.mark.medium
def test_param_str(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="^GaitNet: param_str ") as e:
        parse(text, "GaitNet")
    assert len(str(e.value)) < 1000 and not Path("pwned").exists()


# ---- packs


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The bytes of a pack whose trees are gone."""
    root = write_walkers(tmp_path_factory.mktemp("packed"), subjects=2, conditions=("nm-01",))
    folders = ["--im-path", str(root / "crop-im"), "--gt-path", str(root / "crop-seg"), "--out", str(root / "pack")]
    assert pack_frames.main(["walkers", *folders]) == 0
    return (root / "pack" / pack.FILE).read_bytes()


WRONG = ["", [], {}, None, 7, "x" * 10**6]
NUMBERS = {"frames": 12, "masks": 12, "crc32": 0, "offset": 4096}
ENTRIES = [
    *WRONG,
    *(
        {**NUMBERS, **change}
        for change in (
            {"frames": -1},
            {"frames": 2**53},
            {"frames": "12"},
            {"frames": 1.5},
            {"frames": True},
            {"frames": None},
            {"masks": -1},
            {"offset": -4096},
            {"offset": 2**62},
            {"offset": 10**30},
            {"offset": 1e300},
            {"offset": []},
        )
    ),
]
INDEXES = [
    *({"sequences": {WALK: entry}} for entry in ENTRIES),
    *({"sequences": wrong} for wrong in WRONG),
    *({"dataset": wrong} for wrong in (*WRONG, "corridor")),
    *({"format": wrong} for wrong in WRONG),
    *({"size": wrong} for wrong in (*WRONG, -1, 2**62)),
    *({"head_crc32": wrong} for wrong in WRONG),
    *({"im_path": wrong} for wrong in (7, "\0", None, ["a"])),
    *({"gt_path": wrong} for wrong in (7, "\0", {})),
]
TEXTS = [
    b"",
    b"[]",
    b"{}",
    b"null",
    b"7",
    b"\xff\xfe",
    b"[" * 10**6,
    b" " * 10**6,
    b"[" + b"9" * 10**5 + b"]",
    b"{" * 9,
]


def write_pack(folder, content, index):
    """A pack of these bytes, with some values of its index replaced, or all of it."""
    folder.mkdir()
    with open(folder / pack.FILE, "w+b") as file:
        file.write(content)
        whole = index_of(file)
        file.truncate(whole["size"])
        write_index(file, {**whole, **index} if isinstance(index, dict) else index)
    return folder


@pytest.mark.parametrize("index", [*INDEXES, *TEXTS], ids=lambda index: reprlib.repr(index))
def test_packs_of_hostile_contents(packed, tmp_path, index):
    folder = write_pack(tmp_path / "pack", packed, index)
    with pytest.raises(DataError) as e:
        frames = open_frames(folder)
        for path in frames.sequences:
            frames.clip(path, 0, frames.length(path))
    assert len(str(e.value)) < 1000


@pytest.mark.parametrize(
    "path", ["/".join("a" * 5_000), "001/nm-01", f"{WALK}/1", f"001/nm-01/{'0' * 500}"], ids=reprlib.repr
)
def test_a_pack_of_a_path_that_no_tree_has(packed, tmp_path, path):
    folder = write_pack(tmp_path / "pack", packed, {"sequences": {path: NUMBERS}})
    with pytest.raises(DataError, match="the path of a sequence is .*, wanted 3 names, 500 characters at most"):
        open_frames(folder)


def test_a_pack_made_from_folders_that_may_not_be_listed(packed, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    folder = write_pack(tmp_path / "pack", packed, {"im_path": "/", "gt_path": "/"})
    monkeypatch.setattr("layers.datasets.os.scandir", refuse)
    with pytest.raises(DataError, match="pack: its source cannot be compared with it .*Permission denied"):
        open_frames(folder)


@pytest.mark.parametrize("length", [1 << 20, 1 << 26, 1 << 63, (1 << 64) - 1])
def test_a_pack_whose_index_claims_to_be_long(packed, tmp_path, length):
    (tmp_path / pack.FILE).write_bytes(packed[: -pack.END.size] + pack.END.pack(length, 0, pack.MAGIC))
    with pytest.raises(DataError, match="its index is damaged|an index of [0-9]+ bytes, where at most"):
        open_frames(tmp_path)


def test_a_pack_in_order_is_read(packed, tmp_path):
    assert open_frames(write_pack(tmp_path / "pack", packed, {})).length(WALK) == 11


READ = """
import sys
from layers import pack
from layers.frames import DataError
for folder in sys.argv[1:]:
    try:
        frames = pack.Pack(folder)
        for path in frames.sequences:
            frames.clip(path, 0, min(6, frames.length(path)))
        print("read", flush=True)
    except DataError as e:
        assert len(str(e)) < 1000
        print("refused", flush=True)
"""


def test_damaged_packs(packed, tmp_path):
    """150 files cut off, overwritten or all noise: refused, or read where only frames were hit."""
    rng, folders = random.Random(1), []
    for n in range(150):
        content = bytearray(packed)
        if n % 3 == 0:
            content = content[: rng.randrange(len(content))]
        elif n % 3 == 1:
            content = bytearray(rng.randbytes(rng.randrange(20000)))
        else:
            at = rng.randrange(len(content))
            content[at : at + 16] = rng.randbytes(len(content[at : at + 16]))
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / pack.FILE).write_bytes(content)
        folders.append(str(folder))
    done = subprocess.run([sys.executable, "-c", READ, *folders], capture_output=True, text=True, cwd=ROOT, timeout=100)
    said = done.stdout.split()
    assert len(said) == 150, done.stderr[-500:]
    assert 20 < said.count("read") < 60
