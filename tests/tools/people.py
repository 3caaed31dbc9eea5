"""Made-up people of known place, for the tests of cropping, and the command that crops."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

CROP = Path(__file__).resolve().parents[2] / "tools" / "crop.py"
HEIGHT, WIDTH = 120, 160


def person(left, top, width, height, shape=(HEIGHT, WIDTH)):
    mask = np.zeros(shape, np.uint8)
    mask[max(top, 0) : top + height, max(left, 0) : left + width] = 255
    return mask


def picture(mask):
    """Green people on grey."""
    frame = np.full((*mask.shape, 3), 90, np.uint8)
    frame[mask > 0] = (40, 200, 60)
    return frame


def figure(left, top, height=80, stride=10, shape=(HEIGHT, WIDTH)):
    """Head, trunk and two legs."""
    mask, h = np.zeros(shape, np.uint8), height
    middle, hip = left + h // 4, top + h // 2
    cv2.ellipse(mask, (middle, top + h // 14), (h // 20, h // 14), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (middle, top + h // 3), (h // 8, h // 4), 0, 0, 360, 255, -1)
    for side in (-1, 1):
        feet = (middle + side * stride, top + h - 3)
        cv2.line(mask, (middle, hip), feet, 255, max(h // 12, 3))
    return mask


def crop(dataset, *, frames=(), masks, out, words=()):
    """tools/crop.py on trees, each one path or several; what subprocess tells of it."""
    done = subprocess.run(crop_command(dataset, frames, masks, out, *words), capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done


def crop_command(dataset, frames, masks, out, *words):
    command = [sys.executable, CROP, dataset, "--out", out]
    for option, given in (("--frames", frames), ("--masks", masks)):
        paths = [given] if isinstance(given, Path) else given
        command += [option, *paths] if paths else []
    return [str(word) for word in (*command, *words)]
