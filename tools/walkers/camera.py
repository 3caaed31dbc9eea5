"""The camera: where it stands for a view, and the outline in the picture of a hull of two ellipsoids."""

from dataclasses import dataclass

import numpy as np

FRAME_W, FRAME_H = 320, 240  # pixels of an uncropped frame, as CASIA-B's
FOCAL = 330.0  # pixels
DIRECTIONS = 28  # corners of an outline, each end's
MARGIN = 0.0625  # of the person's height, left free above and below in a crop


@dataclass(frozen=True)
class Camera:
    """Looks at the middle of the walk. View 0: the walker comes towards it; 90: seen from the left; 180: walks away."""

    view: float  # degrees
    distance: float  # metres from the middle of the walk
    height: float  # metres above the floor
    aim: float = 0.95

    def axes(self):
        """Position, and the unit vectors right, down, ahead of the picture."""
        angle = np.deg2rad(self.view)
        position = np.array([self.distance * np.cos(angle), self.distance * np.sin(angle), self.height])
        ahead = np.array([0, 0, self.aim]) - position
        ahead /= np.linalg.norm(ahead)
        right = np.cross(ahead, [0, 0, 1])
        right /= np.linalg.norm(right)
        return position, np.stack([right, np.cross(ahead, right), ahead])

    def project(self, points):
        """(..., 3) metres -> (..., 2) pixels of the full frame and (...) depth in metres."""
        position, axes = self.axes()
        x, y, depth = np.moveaxis((points - position) @ axes.T, -1, 0)
        return np.stack([FRAME_W / 2 + FOCAL * x / depth, FRAME_H / 2 + FOCAL * y / depth], -1), depth

    def outlines(self, ends):
        """Outlines of hulls of ellipsoids.

        ends: centres (P, 2, T, 3) and half-axes (P, 2, T, 3, 3) of P parts. Returns convex polygons
        (P, T, DIRECTIONS, 2) in pixels and depths (P, T). Each corner is the point of the hull farthest in one of the
        directions (its support); perspective is exact for the centres and linear over an ellipsoid.
        """
        centres, half_axes = ends
        position, axes = self.axes()
        local = (centres - position) @ axes.T
        depth = local[..., 2]
        scale = FOCAL / depth[..., None]
        middle = scale * local[..., :2] + [FRAME_W / 2, FRAME_H / 2]
        turned = np.einsum("ij,...jk->...ik", axes, half_axes)
        flat = scale[..., None] * (
            turned[..., :2, :] - (local[..., :2] / depth[..., None])[..., None] * turned[..., 2:, :]
        )
        angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        normals = np.stack([np.cos(angle), np.sin(angle)])  # (2, D)
        reach = np.einsum("...ik,id->...kd", flat, normals)
        length = np.sqrt(np.sum(reach**2, -2))
        corners = middle[..., None] + np.einsum(
            "...ik,...kd->...id", flat, reach / length[..., None, :]
        )  # (P, 2, T, 2, D)
        first, second = np.moveaxis(np.einsum("...id,id->...d", corners, normals), 1, 0)
        outline = np.where((first >= second)[..., None, :], corners[:, 0], corners[:, 1])
        return np.moveaxis(outline, -1, -2), depth.mean(1)


def square_boxes(outlines):
    """Squares around the person, left, top and side in pixels, (T, 3): margins above and below, centred on the mass.

    The mass is that of the parts' outlines, where tools/crop.py takes the median column of the mask.
    """
    low, high = outlines.min((0, 2)), outlines.max((0, 2))  # (T, 2)
    side = (1 + 2 * MARGIN) * (high - low).max(-1)
    following = np.roll(outlines, -1, axis=2)
    cross = outlines[..., 0] * following[..., 1] - outlines[..., 1] * following[..., 0]
    areas = np.abs(cross.sum(-1)) / 2  # (P, T)
    across = (areas * outlines[..., 0].mean(2)).sum(0) / areas.sum(0)
    return np.stack([across - side / 2, (low + high)[:, 1] / 2 - side / 2, side], -1)
