"""A subject: the traits of body shape and of walking that make one walker different from the next."""

from types import SimpleNamespace

import numpy as np
from scipy.special import ndtri

SPREAD = 1.25  # wider than a normal population, so that few subjects suffice; clipped, so that nobody is a caricature
LIMIT = 1.8  # standard deviations

TYPES = 4  # build (slim to stout), frame (broad shoulders to broad hips), legs (short to long), vigour of walking

# trait: mean, own standard deviation, change per standard deviation of each of the types.
# Lengths and radii are fractions of stature (means after Winter, Biomechanics and Motor Control of Human Movement,
# table 4.1), angles are degrees, "gain" multiplies the normal joint curve of gait.py, phases are radians.
TRAITS = {
    "stature": (1.70, 0.06, 0, -0.04, 0.02, 0),
    "thigh": (0.245, 0.007, 0, 0, 0.008, 0),
    "shank": (0.246, 0.008, 0, 0, 0.008, 0),
    "foot": (0.150, 0.007, 0, -0.002, 0.002, 0),
    "trunk": (0.288, 0.010, 0, 0, -0.012, 0),
    "neck": (0.052, 0.009, -0.005, 0.002, 0.002, 0),
    "upper_arm": (0.178, 0.009, 0, 0, 0.003, 0),
    "forearm": (0.146, 0.008, 0, 0, 0.003, 0),
    "shoulder_half": (0.097, 0.005, 0.004, -0.008, 0, 0),
    "hip_half": (0.052, 0.004, 0.002, 0.003, 0, 0),
    "chest_width": (0.084, 0.004, 0.011, -0.005, 0, 0),
    "chest_depth": (0.062, 0.004, 0.011, 0.001, 0, 0),
    "waist_width": (0.076, 0.004, 0.015, -0.005, 0, 0),
    "waist_depth": (0.057, 0.005, 0.016, -0.002, 0, 0),
    "hip_width": (0.092, 0.004, 0.010, 0.006, 0, 0),
    "hip_depth": (0.064, 0.005, 0.011, 0.004, 0, 0),
    "thigh_radius": (0.046, 0.003, 0.009, 0.003, 0, 0),
    "calf_radius": (0.033, 0.002, 0.005, 0, 0, 0),
    "ankle_radius": (0.021, 0.002, 0.001, 0, 0, 0),
    "arm_radius": (0.026, 0.002, 0.005, -0.002, 0, 0),
    "wrist_radius": (0.017, 0.0015, 0.001, -0.001, 0, 0),
    "head_height": (0.062, 0.005, 0, 0, -0.002, 0),
    "head_width": (0.044, 0.003, 0.002, 0, 0, 0),
    "head_depth": (0.054, 0.004, 0.001, 0, 0, 0),
    "hair_volume": (0.008, 0.006, 0, 0.003, 0, 0),
    "hair_length": (0.030, 0.030, 0, 0.040, 0, 0),
    "stride_rate": (1.0, 0.05, -0.02, 0.01, 0, 0.02),
    "hip_gain": (0.98, 0.08, -0.02, 0, 0, 0.05),
    "hip_offset": (0, 2.5, 0, 0, 0, 0),
    "knee_gain": (1.0, 0.10, 0, 0, 0, 0.04),
    "knee_offset": (1.5, 3.0, 0, 0, 0, 0),
    "ankle_gain": (1.0, 0.2, 0, 0, 0, 0),
    "knee_phase": (0, 0.12, 0, 0, 0, 0),
    "toe_out": (6, 5, 2, -2, 0, 0),
    "step_width": (0.030, 0.014, 0.010, -0.005, 0, -0.004),
    "arm_gain": (18, 6, -1, 0, 0, 4),
    "arm_asymmetry": (0, 0.15, 0, 0, 0, 0),
    "arm_offset": (-6, 4, 0, 0, 0, 0),
    "arm_phase": (0, 0.2, 0, 0, 0, 0),
    "arm_out": (6, 3.5, 3, 0, 0, 0.8),
    "elbow_offset": (18, 7, 0, 0, 0, 2),
    "elbow_gain": (6, 3, 0, 0, 0, 1.5),
    "lean": (4, 3.5, 0, 0, 0, 0.8),
    "stoop": (7, 5, 0, 0, 0, -1.5),
    "head_forward": (9, 7, 0, 0, 0, -2),
    "trunk_twist": (5, 2.0, 0, 0, 0, 1.2),
    "pelvis_twist": (5, 2.0, 0, 1, 0, 1),
    "pelvis_list": (3, 1.5, 0, 1, 0, 0),
    "sway": (0.007, 0.003, 0.002, 0, 0, 0.001),
    "shoulder_tilt": (0, 1.6, 0, 0, 0, 0),
}
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
    types = even_normals(seed, number, TYPES)
    traits = {}
    for name, (mean, sd, *per_type) in TRAITS.items():
        own = np.clip(rng.standard_normal(), -LIMIT, LIMIT)
        value = mean + SPREAD * (sd * own + np.dot(per_type, types))
        traits[name] = max(value, NEVER_BELOW.get(name, -np.inf))
    for name in LENGTHS:
        traits[name] *= traits["stature"]
    return SimpleNamespace(**traits)


def even_normals(seed, number, dims):
    """Point `number` of an additive recurrence, which fills space more evenly than chance, as `dims` normal values.

    Any few subjects in a row are then unlike each other (Roberts, "The unreasonable effectiveness of quasirandom
    sequences", 2018: steps 1/g, 1/g^2, ... of the root g of g^(dims + 1) = g + 1).
    """
    g = 2.0
    for _ in range(40):
        g = (1 + g) ** (1 / (dims + 1))
    start = np.random.default_rng([seed, 0]).random(dims)
    return np.clip(ndtri((start + number * g ** -np.arange(1.0, dims + 1)) % 1), -LIMIT, LIMIT)


LENGTHS = [name for name, (mean, *_) in TRAITS.items() if 0 < mean < 0.5]
