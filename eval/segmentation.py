"""How well predicted masks agree with the ground truth, frame by frame."""

import cv2
import numpy as np

MEASURES = ("iou", "pixel_accuracy", "boundary_f")
THRESHOLD = 0.5
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # reaches 1 pixel: 0.8% of a 64 x 64 diagonal


def agreement(predicted, truth):
    """IoU, pixel accuracy and boundary F of each frame: (n, 3), in the order of MEASURES.

    predicted, truth (n, H, W) bool, True on the person.
    IoU: intersection over union (Everingham et al., PASCAL VOC, IJCV 2010), 1 where both masks are empty.
    Pixel accuracy: share of equal pixels (Long et al., FCN, CVPR 2015).
    Boundary F: see `boundary_f`.
    """
    intersection = (predicted & truth).sum(axis=(1, 2))
    union = (predicted | truth).sum(axis=(1, 2))
    iou = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    accuracy = (predicted == truth).mean(axis=(1, 2))
    return np.stack([iou, accuracy, [boundary_f(p, t) for p, t in zip(predicted, truth)]], axis=1)


def over_all_frames(extras, origin):
    """{"segmentation": means of the MEASURES over all frames of all walks}; {} without ground truth.

    extras, origin: what eval.walks.features_of gives beside the features."""
    if not origin.get("ground_truth"):
        return {}
    means = np.average(extras["agreement"], axis=0, weights=extras["frames"])
    return {"segmentation": {**dict(zip(MEASURES, means.tolist())), "frames": int(extras["frames"].sum())}}


def boundary_f(predicted, truth):
    """F measure of the outlines of two masks (H, W), matched within 0.8% of the diagonal.

    Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation (DAVIS), CVPR 2016.
    1 where neither has an outline, 0 where only one has.
    """
    lines = [outline(mask.astype(np.uint8)) for mask in (predicted, truth)]
    if not lines[0].any() or not lines[1].any():
        return float(lines[0].any() == lines[1].any())
    precision, recall = (line[cv2.dilate(other, CROSS) > 0].sum() / line.sum() for line, other in (lines, lines[::-1]))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask):
    """Pixels of the mask with a pixel off it to the left, right, above or below; the frame's edge is no outline."""
    return mask - cv2.erode(mask, CROSS)
