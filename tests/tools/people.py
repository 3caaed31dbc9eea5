"""Made-up people of known place, for the tests of cropping."""

import numpy as np

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
