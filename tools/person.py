"""The walking person in the masks of a walk: who of several parts it is, followed from frame to frame, and the box.

A person moves on from frame to frame, neither jumps nor changes height at once. The course of a walk is the sequence of
parts, one a frame at most, that goes on so and is the largest in sum: a second, larger person who comes and goes is
none of it, nor is a silhouette of which the upper half is missing.
"""

import re
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

MARGIN = 1.125  # side of the box in heights of the person
BRIDGED = 4  # pixels between parts of one person, such as head and shoulders
SMALLEST = 16  # pixels of height
CANDIDATES = 4  # parts of a frame that may be the person
# How much a person may change from one frame to the next, and with each frame in between; lengths in heights.
HEIGHT_RATIO, HEIGHT_MORE = 1.25, 0.03  # the logarithm of the ratio grows by the latter
ACROSS, ACROSS_MORE = 0.35, 0.15
UPWARD, UPWARD_MORE = 0.15, 0.03
AROUND = 15  # frames whose median is the course that one frame is compared with
OFF_HEIGHT, OFF_CENTRE = 1.2, 0.12  # ratio to that median, and distance from it in heights

NO_MASK, NO_PERSON, CUT_OFF = "no mask", "no person", "cut off by the border"
OFF_COURSE = "off the walk's course"


@dataclass(frozen=True)
class Part:
    """Connected pixels of a mask of the given shape: `pixels` bool (h, w), from row `top` and column `left` on."""

    top: int
    left: int
    pixels: np.ndarray
    shape: tuple

    @property
    def height(self):
        return self.pixels.shape[0]

    @property
    def width(self):
        return self.pixels.shape[1]

    @property
    def area(self):
        return int(self.pixels.sum())

    @property
    def centre(self):
        """(row of the middle of the height, median column)"""
        return self.top + (self.height - 1) / 2, self.left + float(np.median(np.nonzero(self.pixels)[1]))

    @property
    def cut_off(self):
        """Does it touch the border of the picture?"""
        beyond = self.top + self.height >= self.shape[0] or self.left + self.width >= self.shape[1]
        return self.top == 0 or self.left == 0 or beyond

    def box(self):
        """(left, top, side) of the square around the person, which may lie outside the picture."""
        side = round(MARGIN * max(self.height, self.width))
        row, column = self.centre
        return round(column - (side - 1) / 2), round((2 * row - side + 1) / 2), side

    def mask(self):
        """The person alone: uint8 (H, W), 0 or 255."""
        mask = np.zeros(self.shape, np.uint8)
        mask[self.top :][: self.height, self.left :][:, : self.width][self.pixels] = 255
        return mask


def parts(mask):
    """The largest parts of a mask uint8 (H, W), cut at half its range, that are as high as a person; largest first."""
    inside = mask > 127
    bridged = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((BRIDGED + 1, BRIDGED + 1), np.uint8))
    labels, _ = ndimage.label(bridged)
    found = []
    for number, where in enumerate(ndimage.find_objects(labels), 1):
        pixels = inside[where] & (labels[where] == number)
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if len(rows) and rows[-1] - rows[0] + 1 >= SMALLEST:
            top, left = where[0].start + int(rows[0]), where[1].start + int(columns[0])
            whole = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            found.append(Part(top, left, whole, mask.shape))
    return sorted(found, key=lambda part: part.area, reverse=True)[:CANDIDATES]


def follow(masks, numbers=None):
    """[(part, None) or (None, why not)], one for each of the masks, which may be None; one person all along.

    numbers: of the frames, growing; by default they follow each other."""
    seen = [None if mask is None else parts(mask) for mask in masks]
    numbers = range(len(seen)) if numbers is None else numbers
    whole = [(i, part) for i, found in enumerate(seen) for part in found or () if not part.cut_off]
    person = dict(steady(course(whole, numbers)))
    return [(person[i], None) if i in person else (None, _why_not(found)) for i, found in enumerate(seen)]


def _why_not(found):
    if found is None:
        return NO_MASK
    if not found:
        return NO_PERSON
    return CUT_OFF if found[0].cut_off else OFF_COURSE


def course(whole, numbers):
    """Those (index of a frame, part) that make up the course, by dynamic programming over all in their order."""
    if not whole:
        return []
    time = np.array([numbers[i] for i, _ in whole], float)
    height = np.array([part.height for _, part in whole], float)
    row, column = np.array([part.centre for _, part in whole]).T
    size = np.sqrt([part.area for _, part in whole])
    best, before = size.copy(), np.full(len(whole), -1)
    for j in range(1, len(whole)):
        gap = time[j] - time[:j] - 1
        high = np.maximum(height[:j], height[j])
        may_follow = (
            (gap >= 0)
            & (np.abs(np.log(height[:j] / height[j])) <= np.log(HEIGHT_RATIO) + HEIGHT_MORE * gap)
            & (np.abs(row[:j] - row[j]) <= high * (UPWARD + UPWARD_MORE * gap))
            & (np.abs(column[:j] - column[j]) <= high * (ACROSS + ACROSS_MORE * gap))
        )
        if may_follow.any():
            i = int(np.argmax(np.where(may_follow, best[:j], -1)))
            best[j], before[j] = best[i] + size[j], i
    j = int(np.argmax(best))
    chain = []
    while j >= 0:
        chain.append(whole[j])
        j = before[j]
    return chain[::-1]


def steady(chain):
    """Those of a course that do not leave the median of the frames around them."""
    if not chain:
        return []
    heights = np.array([part.height for _, part in chain], float)
    rows = np.array([part.centre[0] for _, part in chain])
    usual = running_median(heights)
    off = np.abs(np.log(heights / usual)) > np.log(OFF_HEIGHT)
    off |= np.abs(rows - running_median(rows)) > OFF_CENTRE * usual
    return [item for item, left in zip(chain, off) if not left]


def running_median(values):
    """The median of the AROUND values around each; beyond an end stands the value there."""
    padded = np.pad(values, AROUND // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, AROUND), axis=1)


def numbers_of(names):
    """The numbers that names of frames end with, where all do and grow; else the names' places."""
    found = [re.search(r"(\d+)$", name) for name in names]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) == len(names) and all(a < b for a, b in zip(numbers, numbers[1:])):
        return numbers
    return list(range(len(names)))


def cut_pair(frame, part):
    """(frame, mask) in the box of the person: pixels of the border are repeated where it leaves the picture."""
    return cut(frame, part.box(), cv2.BORDER_REPLICATE), cut(part.mask(), part.box(), cv2.BORDER_CONSTANT)


def cut(image, box, border):
    left, top, side = box
    height, width = image.shape[:2]
    beyond = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    image = cv2.copyMakeBorder(image, *beyond, border, value=0)
    return image[top + beyond[0] :][:side, left + beyond[2] :][:, :side]
