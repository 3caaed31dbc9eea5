"""Walks as OpenGait keeps them: pickled arrays in folders <id>/<condition>/<view>/.

    <view>.pkl                 silhouettes (F, 64, 64), the person cut out and centred
    <view>-rgbs.pkl            frames (F, 3, H, W) or (F, H, W, 3), in the order R, G, B
    <view>-sils.pkl            their masks (F, H, W)
    <view>-aligned-rgbs.pkl, <view>-aligned-sils.pkl
                               the same, aligned; read where there is nothing else
    <view>-ratios.pkl          widths by heights of the boxes; not read

All uint8. They are turned into what a tree of images gives: B, G, R and mask, 64x64. Pictures that are not square, such
as 64x44, get margins at their sides, so that nobody is widened.
"""

import os

import cv2
import numpy as np

from layers.frames import DataError, Folders, full_range, require_length, resize
from layers.names import is_noise, of_data
from layers.unpickle import UnsafePickleError, array_like, load_array

SUFFIX = ".pkl"
FRAMES = ("-rgbs", "-aligned-rgbs")  # the first that is there is read
MASKS = {"-rgbs": ("-sils",), "-aligned-rgbs": ("-aligned-sils",), None: ("", "-sils", "-aligned-sils")}
OTHERS = ("-ratios",)


def holds_pickles(root):
    """Is the first file below `root` a pickle? `root` may lack."""
    for folder, below, files in os.walk(root):
        below[:] = of_data(below)
        if seen := of_data(files):
            return folder != str(root) and any(name.endswith(SUFFIX) for name in seen)
    return False


class Pickles(Folders):
    """Frames from the pickles below `im_path`, masks from those below `gt_path`, which may be the same folder."""

    def __init__(self, im_path=None, gt_path=None, mask_max=255):
        super().__init__(im_path, gt_path, mask_max)
        self._lengths: dict[str, tuple[int, int]] = {}  # (frames, masks) of a sequence

    @staticmethod
    def readers():
        return 4  # each holds a walk

    def length(self, seq_path):
        """Number of frames."""
        return self._numbers(seq_path)[0]

    def num_masks(self, seq_path):
        """Number of masks."""
        return self._numbers(seq_path)[1]

    def num_without_mask(self, seq_path):
        """Number of frames beyond the last mask: in a pickle they have no names."""
        return max(self.length(seq_path) - self.num_masks(seq_path), 0)

    def read(self, seq_path, start, planes):
        """Fill `planes` (n, 4, 64, 64) with n frames from `start` on, and return it."""
        frames, masks = self.arrays(seq_path)
        whole = masks if frames is None else frames
        require_length(os.path.join(self.root, seq_path), 0 if whole is None else len(whole), start, len(planes))
        planes[:] = 0
        for i, plane in enumerate(planes, start):
            if frames is not None:
                plane[:3] = resize(frames[i]).transpose(2, 0, 1)
            if masks is not None and i < len(masks):
                plane[3] = resize(masks[i])
        return planes

    def arrays(self, seq_path):
        """(frames (F, H, W, 3) in the order B, G, R, masks (F, H, W) of 0..255), square; None for what is not there."""
        frames, masks = self._files(seq_path)
        return (
            None if frames is None else square(_blue_first(_load(frames, load_array, (4,))), cv2.BORDER_REPLICATE),
            None if masks is None else square(self._full_range(_load(masks, load_array, (3,))), cv2.BORDER_CONSTANT),
        )

    def _full_range(self, masks):
        if not len(masks):
            return masks
        return full_range(masks.reshape(len(masks), -1), self.mask_max).reshape(masks.shape)

    def _numbers(self, seq_path):
        found = self._lengths.get(seq_path)
        if found is None:
            frames, masks = self._files(seq_path)
            num_masks = len(_load(masks, array_like, (3,))) if masks else 0
            num_frames = len(_load(frames, array_like, (4,))) if frames else 0 if self.im_path else num_masks
            self._lengths[seq_path] = found = num_frames, num_masks
        return found

    def _files(self, seq_path):
        """(pickle of frames, pickle of masks) of a sequence; None where there is none."""
        kind, frames = self._first(self.im_path, seq_path, FRAMES)
        return frames, self._first(self.gt_path, seq_path, MASKS[kind])[1]

    def _first(self, root, seq_path, kinds):
        """(kind, file) of the first of these kinds that lies there."""
        there = pickles(os.path.join(root, seq_path)) if root else {}
        return next(((kind, there[kind]) for kind in kinds if kind in there), (None, None))


def pickles(folder):
    """{kind: file} of the pickles in `folder`. DataError: two of a kind, or a stranger."""
    if not os.path.isdir(folder):
        return {}
    found: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if is_noise(name):
            continue
        if not name.endswith(SUFFIX):
            raise DataError(f"{path}: is not a pickle (*{SUFFIX}) as those beside it are; remove it")
        known = sorted({*FRAMES, *OTHERS, *(kind for kinds in MASKS.values() for kind in kinds)}, key=len, reverse=True)
        kind = next(kind for kind in known if name.removesuffix(SUFFIX).endswith(kind))
        if kind in found:
            raise DataError(f"{path}: is a second pickle of the kind of {found[kind]}; remove one of them")
        found[kind] = path
    return found


def square(pictures, border):
    """Margins at the sides, or above and below, of pictures (F, H, W, ...), so that H = W."""
    height, width = pictures.shape[1:3]
    if height == width or not len(pictures):
        return pictures
    wider, higher = max(height - width, 0), max(width - height, 0)
    margins = (higher // 2, higher - higher // 2, wider // 2, wider - wider // 2)
    return np.stack([cv2.copyMakeBorder(picture, *margins, border, value=0) for picture in pictures])


def _blue_first(frames):
    """(F, 3, H, W) or (F, H, W, 3), red first -> (F, H, W, 3), blue first."""
    frames = frames.transpose(0, 2, 3, 1) if frames.shape[1] == 3 else frames
    return np.ascontiguousarray(frames[..., ::-1])


def _load(path, load, axes):
    """The array in a pickle, of uint8 with so many axes. DataError: it holds anything else."""
    try:
        array = load(path)
    except UnsafePickleError as e:
        raise DataError(f"{e}; remove it or restore it") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror})") from e
    wanted = "uint8 (F, 3, H, W) or (F, H, W, 3)" if axes == (4,) else "uint8 (F, H, W)"
    fits = array.dtype in (np.uint8, bool) and array.ndim in axes and 0 not in array.shape[1:]
    if not fits or (array.ndim == 4 and 3 not in (array.shape[1], array.shape[3])):
        raise DataError(f"{path}: holds {array.dtype} {array.shape}, wanted {wanted}")
    return array if array.dtype == np.uint8 or load is array_like else array.astype(np.uint8) * 255
