"""A subject: the traits of body shape and of walking that make one walker different from the next."""

from types import SimpleNamespace

import numpy as np

SPREAD = 1.25  # wider than a normal population, so that few subjects suffice; clipped, so that nobody is a caricature
LIMIT = 1.8  # standard deviations

# trait: mean, own standard deviation, change per unit of build (slim -1 .. stout +1), change per unit of frame (narrow-hipped -1 .. +1).
# Lengths and radii are fractions of stature (means after Winter, Biomechanics and Motor Control of Human Movement, table 4.1),
# angles are degrees, "gain" multiplies the normal joint curve of gait.py, phases are radians.
TRAITS = {
    "stature": (1.70, 0.07, 0, -0.04),
    "thigh": (0.245, 0.009, 0, 0), "shank": (0.246, 0.010, 0, 0), "foot": (0.150, 0.007, 0, -0.002),
    "trunk": (0.288, 0.011, 0, 0), "neck": (0.052, 0.008, -0.004, 0.002),
    "upper_arm": (0.180, 0.008, 0, 0), "forearm": (0.148, 0.007, 0, 0),
    "shoulder_half": (0.103, 0.006, 0.004, -0.006), "hip_half": (0.052, 0.004, 0.002, 0.003),
    "chest_width": (0.084, 0.005, 0.010, -0.004), "chest_depth": (0.062, 0.005, 0.010, 0.001),
    "waist_width": (0.076, 0.006, 0.014, -0.004), "waist_depth": (0.057, 0.006, 0.015, -0.002),
    "hip_width": (0.092, 0.005, 0.010, 0.005), "hip_depth": (0.064, 0.006, 0.010, 0.004),
    "thigh_radius": (0.047, 0.003, 0.007, 0.003), "calf_radius": (0.033, 0.003, 0.003, 0), "ankle_radius": (0.021, 0.002, 0.001, 0),
    "arm_radius": (0.027, 0.002, 0.004, -0.002), "wrist_radius": (0.017, 0.0015, 0.001, -0.001),
    "head_height": (0.066, 0.004, 0, 0), "head_width": (0.045, 0.003, 0.001, 0), "head_depth": (0.056, 0.004, 0, 0),
    "hair_volume": (0.010, 0.006, 0, 0.004), "hair_length": (0.035, 0.035, 0, 0.035),
    "stride_rate": (0.92, 0.06, -0.02, 0.02),
    "hip_gain": (0.98, 0.10, -0.02, 0), "hip_offset": (0, 2.5, 0, 0), "knee_gain": (1.0, 0.10, 0, 0), "knee_offset": (1.5, 3.0, 0, 0),
    "ankle_gain": (1.0, 0.2, 0, 0), "knee_phase": (0, 0.12, 0, 0), "toe_out": (6, 5, 2, -2), "step_width": (0.030, 0.012, 0.010, -0.005),
    "arm_gain": (20, 8, -1, 0), "arm_asymmetry": (0, 0.22, 0, 0), "arm_offset": (-3, 5, 0, 0), "arm_phase": (0, 0.25, 0, 0),
    "arm_out": (7, 3.0, 4, 0), "elbow_offset": (22, 9, 0, 0), "elbow_gain": (11, 5, 0, 0),
    "lean": (4, 3.2, 0, 0), "stoop": (7, 5, 0, 0), "head_forward": (9, 7, 0, 0),
    "trunk_twist": (5, 2.0, 0, 0), "pelvis_twist": (5, 2.0, 0, 1), "pelvis_list": (3, 1.5, 0, 1), "sway": (0.007, 0.003, 0.002, 0),
    "shoulder_tilt": (0, 1.6, 0, 0),
}  # fmt: skip
NEVER_BELOW = {
    "hair_volume": 0.002,
    "hair_length": 0.0,
    "arm_gain": 5.0,
    "knee_offset": 0.0,
    "elbow_offset": 6.0,
    "arm_out": 3.0,
}


def make_subject(seed, number):
    """Traits of subject `number` (a namespace of floats, lengths in metres). Depends on nothing but (seed, number)."""
    rng = np.random.default_rng([seed, 0, number])
    build, frame = np.clip(rng.standard_normal(2), -LIMIT, LIMIT)
    traits = {}
    for name, (mean, sd, per_build, per_frame) in TRAITS.items():
        own = np.clip(rng.standard_normal(), -LIMIT, LIMIT)
        value = mean + SPREAD * (sd * own + per_build * build + per_frame * frame)
        traits[name] = max(value, NEVER_BELOW.get(name, -np.inf))
    for name in LENGTHS:
        traits[name] *= traits["stature"]
    return SimpleNamespace(**traits)


LENGTHS = [name for name, (mean, *_) in TRAITS.items() if 0 < mean < 0.5]
