"""From a pose to solids: every part of the figure is the convex hull of two ellipsoids, in a material.

An ellipsoid is its centre (T, 3) and its three half-axes as the columns of a matrix (T, 3, 3).
"""

from typing import NamedTuple

import numpy as np

from tools.walkers.gait import sole_radius


class Part(NamedTuple):
    material: str
    first: tuple  # ellipsoid
    second: tuple
    raised: float = 0.0  # metres that it counts as nearer than it is, to cover what it encloses

    @property
    def ends(self):
        return self.first, self.second


def ball(centre, radius):
    return centre, np.broadcast_to(radius * np.eye(3), centre.shape[:1] + (3, 3))


def ellipsoid(centre, across, up, width, depth, height):
    """Half-axes: `width` along `across`, `height` along `up` (made orthogonal), `depth` along their normal, forward."""
    forward = np.cross(across, up)
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    return centre, np.stack([width * across, depth * forward, height * np.cross(forward, across)], -1)


def figure(s, pose, outfit):
    """The Parts of a dressed walker. `outfit` is render.Outfit."""
    size, coat = s.stature, outfit.coat
    loose = outfit.loose + coat * 0.012  # metres added to the radii under the clothes
    chest, waist, up, nod, across, hips = (pose[k] for k in ("chest", "waist", "up", "nod", "across", "across_hips"))
    forward = np.cross(across, up)
    collar = pose["collar"]

    yoke = ellipsoid(
        collar - 0.20 * s.trunk * up, across, up, s.shoulder_half, 0.72 * s.chest_depth + loose, 0.10 * s.trunk
    )
    ribs = ellipsoid(chest, across, up, s.chest_width + loose, s.chest_depth + loose, 0.28 * s.trunk)
    belly = ellipsoid(
        waist + 0.012 * forward, (across + hips) / 2, up, s.waist_width + loose, s.waist_depth + loose, 0.16 * s.trunk
    )
    seat = ellipsoid(
        pose["pelvis"] - 0.008 * size * forward, hips, up, s.hip_width + loose, s.hip_depth + loose, 0.15 * s.trunk
    )
    crown = ellipsoid(
        pose["head"] + 0.1 * s.head_height * nod, across, nod, s.head_width, s.head_depth, 0.9 * s.head_height
    )
    jaw = ellipsoid(
        pose["head"] + 0.35 * s.head_depth * np.cross(across, nod) - 0.5 * s.head_height * nod,
        across,
        nod,
        0.72 * s.head_width,
        0.62 * s.head_depth,
        0.5 * s.head_height,
    )
    back_of_head = pose["head"] - 0.30 * s.head_depth * np.cross(across, nod)
    hair = ellipsoid(
        back_of_head + 0.25 * s.head_height * nod,
        across,
        nod,
        s.head_width + 0.7 * s.hair_volume,
        0.82 * s.head_depth + s.hair_volume,
        0.78 * s.head_height + s.hair_volume,
    )
    fall = ellipsoid(
        back_of_head - 0.2 * s.head_depth * np.cross(across, nod) - s.hair_length * nod,
        across,
        nod,
        0.85 * s.head_width,
        0.4 * s.head_depth + s.hair_volume,
        0.3 * s.head_height,
    )
    parts: list[tuple] = [
        ("hair", hair, fall, 0.015),
        ("skin", crown, jaw),
        ("skin", ball(pose["head"] - 0.6 * s.head_height * nod, 0.030 * size), ball(collar, 0.034 * size)),
        ("top", yoke, ball(collar, 0.036 * size)),
        ("top", yoke, ribs),
        ("top", ribs, belly),
        ("bottom", belly, seat),
    ]
    for side in "+-":
        at = {
            joint: pose[joint + side]
            for joint in ("hip", "knee", "ankle", "heel", "ball", "toes", "shoulder", "elbow", "wrist", "hand")
        }
        calf = at["knee"] + 0.30 * (at["ankle"] - at["knee"]) - 0.010 * size * at["toes"]
        shin, sleeve = ("skin" if outfit.shorts else "bottom"), ("skin" if outfit.short_sleeves else "top")
        hem = 0.2 * loose if outfit.shorts else loose
        cuff = 0.002 if outfit.short_sleeves else loose
        knee_radius, elbow_radius = 0.62 * s.thigh_radius, 0.85 * s.arm_radius
        parts += [
            (
                "bottom",
                ball(at["hip"] - [0, 0, 0.02 * size], s.thigh_radius + loose),
                ball(at["knee"], knee_radius + loose),
            ),
            (shin, ball(at["knee"], knee_radius + hem), ball(calf, s.calf_radius + hem)),
            (shin, ball(calf, s.calf_radius + hem), ball(at["ankle"], s.ankle_radius + 1.3 * hem)),
            ("shoe", ball(at["heel"], sole_radius(s)), ball(at["ankle"] + 0.015 * size * at["toes"], 0.024 * size)),
            ("shoe", ball(at["heel"], sole_radius(s)), ball(at["ball"], sole_radius(s))),
            ("shoe", ball(at["ball"], sole_radius(s)), ball(at["ankle"], 0.022 * size)),
            ("top", ball(at["shoulder"], 1.18 * s.arm_radius + loose), ball(at["elbow"], elbow_radius + loose)),
            (sleeve, ball(at["elbow"], elbow_radius + cuff), ball(at["wrist"], s.wrist_radius + cuff)),
            ("skin", ball(at["wrist"], 0.9 * s.wrist_radius), ball(at["hand"], 0.021 * size)),
        ]
    if coat:
        knees = (pose["knee+"] + pose["knee-"]) / 2
        hem = pose["pelvis"] + outfit.coat_length * (knees - pose["pelvis"])
        spread = np.linalg.norm((pose["knee+"] - pose["knee-"])[:, :2], axis=-1) * outfit.coat_length / 2
        flare = ellipsoid(hem, hips, np.broadcast_to([0.0, 0.0, 1.0], hem.shape), s.hip_width + loose + 0.02, 1.0, 0.02)
        flare[1][..., 1] *= (s.hip_depth + loose + 0.7 * spread)[:, None]
        parts += [("top", belly, seat, 0.16), ("top", seat, flare, 0.16)]
    parts += carried(s, pose, outfit.bag, across, forward)
    return [Part(*part) for part in parts]


def carried(s, pose, bag, across, forward):
    """The bag: on the back, at the hip, or in the hand."""
    upright = np.broadcast_to([0.0, 0.0, 1.0], across.shape)
    if bag == "backpack":
        middle = pose["chest"] - (s.chest_depth + 0.07) * forward - 0.10 * s.trunk * pose["up"]
        top = ellipsoid(middle + 0.10 * pose["up"], across, pose["up"], 0.13, 0.07, 0.10)
        return [("bag", top, ellipsoid(middle - 0.14 * pose["up"], across, pose["up"], 0.15, 0.09, 0.08))]
    if bag == "shoulder":
        middle = pose["pelvis"] - (s.hip_width + 0.06) * across - 0.02 * forward
        front = ellipsoid(middle + 0.10 * forward, across, upright, 0.05, 0.08, 0.11)
        strap = (pose["shoulder+"] + pose["collar"]) / 2
        return [
            ("bag", front, ellipsoid(middle - 0.10 * forward, across, upright, 0.05, 0.08, 0.11)),
            ("bag", ball(strap + s.chest_depth * forward, 0.018), ball(middle + 0.08 * forward, 0.018)),
        ]
    if bag == "hand":
        low = pose["hand-"] - [0, 0, 0.22]
        front = ellipsoid(low + 0.12 * forward, across, upright, 0.04, 0.06, 0.13)
        return [
            ("bag", front, ellipsoid(low - 0.12 * forward, across, upright, 0.04, 0.06, 0.13)),
            ("bag", ball(pose["hand-"], 0.012), ball(low, 0.05)),
        ]
    return []
