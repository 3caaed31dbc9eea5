"""Reading frames and masks, and turning them into what blobs hold (paper, section 4).

Inside, frames travel as planes: uint8 of shape (n, 4, 64, 64), the channels B, G, R and mask. A tree of images and a
pack of it (`layers/pack.py`) give the same planes, bit by bit; `layers/sources.py` opens either.
"""

import os
import stat
import struct
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from layers.datasets import SIZE
from layers.names import folders, in_order, of_data

PLANES = (4, SIZE, SIZE)  # B, G, R, mask
MOST_BYTES, MOST_PIXELS = 2**28, 2**26  # of an image; a hundred bytes may claim to unpack to gigabytes
MOST_SCANS = 100  # of a JPEG, each over all its pixels; encoders write ten or so
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov")
IMAGE_MEAN = 127.5
_IMAGE_VALUES = np.arange(256, dtype=np.float32) - np.float32(IMAGE_MEAN)
MASK_VALUES = np.arange(256, dtype=np.float32) / np.float32(255)
_END_OF_FILE = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}  # magic -> what a whole file ends with


class DataError(Exception):
    """Data on disk that cannot be used: its text names the file or folder, what was found, what to do."""


class MissingImage(DataError):
    """There is no such file; for a mask that is no fault."""


class Frames:
    """What all sources share; each has folders(path), length(path), num_masks(path) and read(path, start, planes)."""

    def read(self, seq_path, start, planes):
        """Fill `planes` (n, 4, 64, 64) with n frames from `start` on, and return it."""
        raise NotImplementedError

    def clip(self, seq_path, start, n):
        """Frames start..start+n-1: uint8 (n, 64, 64, 3) BGR, and masks uint8 (n, 64, 64)."""
        planes = self.read(seq_path, start, np.empty((n, *PLANES), np.uint8))
        return planes[:, :3].transpose(0, 2, 3, 1), planes[:, 3]

    def read_clips(self, seq_paths, starts, planes):
        """Fill `planes` (clips, n, 4, 64, 64), one clip from each sequence and start."""
        for clip in zip(seq_paths, starts, planes):
            self.read(*clip)


class Folders(Frames):
    """Frames below `im_path`, masks below `gt_path`, in folders named by sequences; several threads read them.

    Without `im_path` there are silhouettes alone, and every frame is black. `mask_max`: what a mask says where the
    person is; 255, or 1 in masks of 0 and 1."""

    def __init__(self, im_path=None, gt_path=None, mask_max=255):
        self.im_path, self.gt_path, self.mask_max = im_path, gt_path, mask_max
        self.root = im_path or gt_path  # whose names count
        self._pool = ThreadPoolExecutor(self.readers(), thread_name_prefix="read")

    @staticmethod
    def readers():
        """Number of threads."""
        return os.cpu_count()  # OpenCV decodes without the GIL

    @property
    def has_frames(self):
        return self.im_path is not None

    def folders(self, path=""):
        """Sorted names of what lies below `path`: ids, conditions of an id, views of a condition."""
        return folders(self.root, path)

    def read_clips(self, seq_paths, starts, planes):
        for _ in self._pool.map(self.read, seq_paths, starts, planes):
            pass  # raises what a read raised


class Tree(Folders):
    """Images: a frame in `im_path`/<sequence>/, its mask of the same name in `gt_path`/<sequence>/."""

    def length(self, seq_path):
        """Number of frames."""
        return len(image_names(os.path.join(self.root, seq_path)))

    def num_masks(self, seq_path):
        """Number of mask files; 0 where the folder of masks is missing."""
        return len(self._mask_names(seq_path))

    def num_without_mask(self, seq_path):
        """Number of frames that have no mask of their name."""
        return len(set(image_names(os.path.join(self.root, seq_path))) - set(self._mask_names(seq_path)))

    def _mask_names(self, seq_path):
        folder = os.path.join(self.gt_path or "", seq_path)
        return image_names(folder) if self.gt_path and os.path.isdir(folder) else []

    def read(self, seq_path, start, planes):
        """Fill `planes` (n, 4, 64, 64) with n frames from `start` on, and return it."""
        names = image_names(os.path.join(self.root, seq_path))
        require_length(os.path.join(self.root, seq_path), len(names), start, len(planes))
        for name, frame in zip(names[start:], planes):
            self._read_frame(os.path.join(seq_path, name), frame)
        return planes

    def _read_frame(self, file, planes):
        shape = None
        planes[:] = 0
        if self.im_path:
            image = read_image(os.path.join(self.im_path, file), cv2.IMREAD_COLOR)
            planes[:3] = resize(image).transpose(2, 0, 1)
            shape = image.shape[:2]
        if self.gt_path:
            self._read_mask(os.path.join(self.gt_path, file), shape, planes)

    def _read_mask(self, path, shape, planes):
        try:
            mask = read_mask(path)
        except MissingImage:
            if not os.path.isdir(os.path.dirname(path)):
                raise DataError(f"{os.path.dirname(path)}: the folder of masks is gone") from None
            return  # as in the original: a missing mask counts as all zero
        if shape and mask.shape != shape:
            raise DataError(
                f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its frame {shape[1]}x{shape[0]}; "
                "crop both by the same box"
            )
        planes[3] = resize(full_range(mask, self.mask_max))


def full_range(mask, mask_max):
    """A mask uint8 that says `mask_max` where the person is -> one that says 255 there."""
    if mask_max == 255:
        return mask
    return cv2.LUT(mask, np.minimum(np.rint(np.arange(256) * 255 / mask_max), 255).astype(np.uint8))


def require_length(name, found, start, n):
    if start + n > found:
        raise DataError(f"{name}: holds {found} frames, wanted {start}..{start + n - 1}; has it changed?")


def image_names(folder):
    """File names of the images in `folder`, in the order of their numbers.

    What `layers.names` calls noise is passed over; anything else that is no image raises DataError."""
    try:
        with os.scandir(folder) as entries:
            names = in_order(of_data([entry.name for entry in entries]))
    except OSError as e:
        raise DataError(f"{folder}: cannot be listed ({e.strerror})") from e
    for name in names:
        if not name.lower().endswith(IMAGE_SUFFIXES):
            raise DataError(
                f"{os.path.join(folder, name)}: is not an image ({' '.join(IMAGE_SUFFIXES)}); "
                "remove it from the folder of frames"
            )
    return names


def read_image(path, flags):
    """The image at `path`, decoded with OpenCV's `flags`. Raises MissingImage or another DataError."""
    try:
        about = os.stat(path)
        if stat.S_IFMT(about.st_mode) not in (stat.S_IFREG, stat.S_IFDIR) or about.st_size > MOST_BYTES:
            raise DataError(
                f"{path}: is no image file ({stat.filemode(about.st_mode)}, {about.st_size} bytes); remove it"
            )
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as e:
        raise MissingImage(f"{path}: is not there") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror})") from e
    if data[:3].tobytes() == b"\xff\xd8\xff" and (scans := data.tobytes().count(b"\xff\xda")) > MOST_SCANS:
        raise DataError(f"{path}: is a JPEG of {scans} scans, wanted {MOST_SCANS} at most; remove it")
    width, height = _size_of(data)
    if width * height > MOST_PIXELS:
        raise DataError(f"{path}: says that it is {width}x{height}, wanted {MOST_PIXELS} pixels at most; remove it")
    try:
        image = cv2.imdecode(data, flags) if width * height and _is_whole(data) else None
    except cv2.error:  # OpenCV has bounds of its own, of a side for instance
        image = None
    if image is None:
        raise DataError(
            f"{path}: is not a whole image ({len(data)} bytes); "
            "restore it, or remove it together with its frame or mask"
        )
    return image


def read_mask(path):
    """The mask at `path`, uint8 (height, width). Raises as `read_image`, also where the person is in the transparency
    alone, which decoding to gray would drop: such a mask would be white or black all over."""
    mask = read_image(path, cv2.IMREAD_GRAYSCALE)
    if mask.min() == mask.max():
        whole = read_image(path, cv2.IMREAD_UNCHANGED)
        alpha = whole[..., -1] if whole.ndim == 3 and whole.shape[2] in (2, 4) else whole[:1, :1]
        if alpha.min() != alpha.max():
            raise DataError(
                f"{path}: the person is in the transparency (alpha) of this mask, and its colour is one; "
                "save it as a gray picture, 255 where the person is"
            )
    return mask


def read_video(path):
    """The frames of a video one by one, uint8 (height, width, 3) BGR. DataError: OpenCV cannot read it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # at which OpenCV ends the process
        raise DataError(f"{path!r}: OpenCV opens no video whose path is not UTF-8; rename it") from None
    video = cv2.VideoCapture(str(path)) if os.path.isfile(path) else cv2.VideoCapture()
    try:
        width, height = (int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MOST_PIXELS:
            raise DataError(f"{path}: says that it is {width}x{height}, wanted {MOST_PIXELS} pixels at most; remove it")
        there, frame = video.read()
        if not there:
            raise DataError(f"{path}: is not a video that OpenCV can read")
        while there:
            yield frame
            there, frame = video.read()
    finally:
        video.release()


def fill_image_blob(planes, out):
    """planes uint8 (n, 4, 64, 64) -> out float32 (n, 3, 64, 64): BGR minus 127.5."""
    _convert(planes[:, :3], _IMAGE_VALUES, out)


def fill_mask_blob(planes, out):
    """planes uint8 (n, 4, 64, 64) -> out float32 (n, 1, 64, 64): mask in 0..1."""
    _convert(planes[:, 3:], MASK_VALUES, out)


def _convert(planes, values, out):
    # OpenCV's table look-up does it in one pass and shares it among threads; NumPy's subtraction has one thread.
    filled = cv2.LUT(planes.reshape(len(planes), -1), values, dst=out.reshape(len(out), -1))
    if not np.may_share_memory(filled, out):  # OpenCV takes a new array where it cannot fill that one
        out[...] = filled.reshape(out.shape)


def expand(path):
    """`path` with ~ and $VARIABLES filled in, as in the original, unless there is something at the path as it stands;
    a relative path starts at the current folder."""
    path = os.fspath(path)
    return path if os.path.exists(path) else os.path.expanduser(os.path.expandvars(path))


def _size_of(data):
    """(width, height) that the head of a PNG, BMP or JPEG tells, which is before anything is decoded; else (0, 0)."""
    head = data[:26].tobytes()
    try:
        if head.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", head, 16)
        if head.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", head, 18)
            return abs(width), abs(height)  # a negative height: the upper row comes first
        at = 2 if head.startswith(b"\xff\xd8\xff") else len(data)
        while at < len(data):
            mark, kind, length = struct.unpack_from(">BBH", data, at)
            if mark != 0xFF or kind == 0:  # decoders pass over what is no marker, and so may come elsewhere
                break
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a frame header
                height, width = struct.unpack_from(">HH", data, at + 5)
                return width, height
            alone = kind == 0x01 or 0xD0 <= kind <= 0xD7  # without a length
            at += 1 if kind == 0xFF else 2 if alone else 2 + length
    except struct.error:
        pass  # cut off
    return 0, 0


def _is_whole(data):
    # Some versions of OpenCV give the upper part of a truncated file and say nothing.
    head, tail = data[:4].tobytes(), data[-64:].tobytes()
    return all(end in tail for magic, end in _END_OF_FILE.items() if head.startswith(magic))


def resize(image):
    """To 64x64, bilinear."""
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
