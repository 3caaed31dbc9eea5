"""Is it a whole person? Legs alone are cut to their own height, and in every frame of a walk they jump nowhere.

A shape is how wide the person is from top to bottom, in shares of the height, whatever the distance. Two things tell a
part from a whole: a head is narrower than hips or a chest; and the frames of a walk, and the walks that one camera has
seen, have much the same shape.
"""

import json

import numpy as np

from layers.bundled import regular

STRIPS = 16  # of the height
HEAD = 2  # of them, an eighth of the height
WIDEST_HEAD = 0.2  # heights; heads have 0.08 to 0.13 of them, hips and chests at the top 0.2 to 0.7
UNLIKE = 0.45  # mean difference from the others' median, as a share of their mean width
OTHERS = 4  # walks of a camera, at least, that say what is usual

FILE = ".shape.json"  # in a walk's folder of frames, by tools/crop.py; hidden, so that no reader takes it for a frame

HEADLESS = "no head in any frame: legs alone?"
STRANGE = "another shape than the camera's other walks, all along: a part of a person?"


def shape_of(pixels):
    """(STRIPS,) widths of a person bool (h, w), in heights; None where there are too few rows."""
    height = len(pixels)
    if height < STRIPS:
        return None
    return np.array([strip.mean() for strip in np.array_split(pixels.sum(axis=1) / height, STRIPS)])


def shape_of_walk(shapes):
    """The median over frames; None where there is none. `shapes`: of `shape_of`."""
    known = [shape for shape in shapes if shape is not None]
    return np.median(known, axis=0) if known else None


def parts_of_people(shapes, tree):
    """{path: why} of walks that show no whole person. shapes: {path: shape or None}; tree: levels of the paths."""
    known = {path: shape for path, shape in shapes.items() if shape is not None}
    cameras: dict[str, list[str]] = {}
    for path in known if "view" in tree else ():
        cameras.setdefault(path.split("/")[tree.index("view")], []).append(path)
    found = {path: STRANGE for paths in cameras.values() for path in unlike(known, paths)}
    return found | {path: HEADLESS for path, shape in known.items() if headless(shape)}


def unlike(shapes, paths):
    """Those of the walks of one camera that are unlike the others."""
    if len(paths) <= OTHERS:
        return []
    usual = np.median([shapes[path] for path in paths], axis=0)
    return [path for path in paths if differs(shapes[path], usual)]


def strange_frames(shapes):
    """bool (frames,): is a frame's shape no whole person's, though that of the walk is? `shapes`: of `shape_of`."""
    usual = shape_of_walk(shapes)
    return np.array(
        [shape is not None and (differs(shape, usual) or headless(shape) and not headless(usual)) for shape in shapes]
    )


def headless(shape):
    return shape[:HEAD].mean() > WIDEST_HEAD


def differs(shape, usual):
    return np.abs(shape - usual).mean() > UNLIKE * usual.mean()


def write_shape(file, shape):
    file.write_text(json.dumps(None if shape is None else np.round(shape, 4).tolist()), encoding="utf-8")


def read_shape(file):
    """What `write_shape` wrote; None where it is not there, or is none."""
    try:
        shape = np.array(json.loads(regular.read_text(file)), float)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return shape if shape.shape == (STRIPS,) and np.isfinite(shape).all() else None
