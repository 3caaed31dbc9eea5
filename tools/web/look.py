"""What the page shows of a walk: its frames, masks over them, their sum, and who is near."""

import base64
from dataclasses import replace

import cv2
import numpy as np

from eval.extract import window_sums
from eval.people import People, calibrate
from eval.segmentation import THRESHOLD
from layers.datasets import NUM_FRAMES
from layers.frames import PLANES

BATCH = 32  # frames between two signs of progress
SHOWN = 60  # frames of a long walk that are sent to the page
NEAREST = 8
TINT = np.array([60, 60, 255], np.float32)  # of masks over frames, BGR
FALSE_ALARMS = 0.05


def people_of(features, weights_sha256):
    """People to compare with, from the features of an evaluation: every other test person is enrolled by the gallery
    walks, and the distances are calibrated on the rest, who stay strangers."""
    numbers = np.unique(features.labels)
    enrolled, rest = (features.take(np.isin(features.labels, numbers[k::2])) for k in (0, 1))
    gallery = enrolled.gallery
    names = np.array([f"person {path.split('/')[0]}" for path in gallery.names])
    people = People(names, gallery.vectors, gallery.names, weights_sha256)
    return replace(people, calibration=calibrate(rest.gallery, rest.probe, FALSE_ALARMS))


def look(net, people, planes, progress):
    """The answer, as JSON, to a walk (F, 4, 64, 64) uint8; progress(share done, what is being done)."""
    masks = []
    for start in range(0, len(planes), BATCH):
        progress(0.1 + 0.7 * start / len(planes), f"finding the person in frames {start + 1} to {len(planes)}")
        masks.append(net.masks(planes[start : start + BATCH]))
    mask = np.concatenate(masks)
    progress(0.8, "computing the gait feature")
    sums = window_sums(mask)
    vector = net.features(sums).mean(axis=0)
    progress(0.95, "comparing")
    ranking = people.answer(vector)
    calibration = people.calibration
    name, apart, _ = ranking[0]
    some = np.unique(np.linspace(0, len(planes) - 1, min(len(planes), SHOWN)).round().astype(int))
    frames = planes[some, :3].transpose(0, 2, 3, 1)
    return {
        "frames": len(planes),
        "answer": name if apart <= calibration.threshold else "unknown",
        "threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "calibrated_on": calibration.people,
        "ranking": [{"name": n, "distance": d, "score": s} for n, d, s in ranking[:NEAREST]],
        "pictures": [picture(frame) for frame in frames],
        "overlays": [picture(overlay(frame, m)) for frame, m in zip(frames, mask[some])],
        "sum": picture(np.rint(sums[len(sums) // 2] * 255 / NUM_FRAMES).astype(np.uint8)),
    }


def planes_of(frames):
    """(F, 4, 64, 64) uint8 of cropped frames, each height x width x 3; masks are left empty."""
    planes = np.zeros((len(frames), *PLANES), np.uint8)
    for plane, frame in zip(planes, frames):
        plane[:3] = cv2.resize(frame, PLANES[:0:-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    return planes


def overlay(frame, mask):
    """The frame (64, 64, 3) with the mask over it, its outline drawn."""
    tinted = frame + 0.45 * np.clip(mask, 0, 1)[..., None] * (TINT - frame)
    out = np.ascontiguousarray(np.rint(tinted).astype(np.uint8))
    outlines, _ = cv2.findContours((mask > THRESHOLD).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(out, outlines, -1, TINT.tolist(), 1)


def picture(pixels):
    """As a data URI."""
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
