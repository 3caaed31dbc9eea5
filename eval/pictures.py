"""Pictures of walks for the report: masks over frames, and which gallery walks a probe finds."""

import base64

import cv2
import numpy as np

from eval.score import distance

ENLARGED = 4  # outlines are drawn between the pixels of an enlarged frame
GREEN, RED = (60, 200, 60), (60, 60, 230)  # BGR
FOUND = 5  # gallery walks shown for a probe
ROWS = 8  # probes shown, half of them errors
EXAMINED = 500  # probes among which these are sought


def overlay(planes, mask, with_truth):
    """Frame (4, 64, 64) with the outline of the predicted mask (64, 64), 0..255, and of the true one: (256, 256, 3)."""
    picture = np.ascontiguousarray(planes[:3].transpose(1, 2, 0))
    picture = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)
    for plane, colour in ([(planes[3], RED)] if with_truth else []) + [(mask, GREEN)]:
        large = cv2.resize(plane, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_LINEAR)
        lines, _ = cv2.findContours((large > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour, 2)
    return picture


def retrievals(features):
    """[(probe, nearest gallery walks)], as row numbers of `features`: errors and successes in turn, evenly spread.

    Where there is more than one group, walks of the probe's own group are not searched.
    """
    probes, gallery = (np.flatnonzero(features.roles == role) for role in ("probe", "gallery"))
    probes = probes[np.unique(np.linspace(0, len(probes) - 1, EXAMINED).astype(int))]
    distances = distance(features.vectors[probes], features.vectors[gallery])
    if len(set(features.groups[gallery])) > 1:
        distances[features.groups[probes][:, None] == features.groups[gallery]] = np.inf
    found = gallery[np.argsort(distances, axis=1, kind="stable")[:, :FOUND]]
    right = features.labels[found[:, 0]] == features.labels[probes]
    wrong, right = np.flatnonzero(~right), np.flatnonzero(right)
    half = min(len(wrong), ROWS // 2)
    chosen = np.concatenate([spread(wrong, half), spread(right, ROWS - half)])
    return [(probes[i], found[i]) for i in chosen]


def spread(items, count):
    return items[np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def png_uri(image):
    """An image (H, W) or (H, W, 3) BGR as a data: address."""
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()
