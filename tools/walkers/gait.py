"""Walking: joint angles as short Fourier series of the gait phase, and the joint positions that follow from them.

World axes: x is the walking direction, y the walker's left, z up; metres. T is the number of frames.
"""

import numpy as np

FPS = 25 / 3  # a third of a usual camera: six frames cover a whole step, and differ enough to be worth computing
HARMONICS = 4
LEFT, RIGHT = 1.0, -1.0

# Angles of normal walking in degrees, flexion positive, every tenth of a stride from heel strike (after Winter,
# natural cadence).
NORMAL = {
    "hip": (30, 25, 15, 4, -5, -10, -3, 14, 28, 33),
    "knee": (5, 17, 17, 10, 5, 12, 36, 60, 50, 18),
    "ankle": (0, -4, 3, 6, 9, 5, -17, -10, -1, 1),
}
SERIES = {joint: np.fft.rfft(curve)[: HARMONICS + 1] / 10 for joint, curve in NORMAL.items()}


def joint_angle(joint, phase, gain=1.0, offset=0.0):
    """The normal curve of a joint at `phase` (radians, any shape), its swing multiplied by `gain`; degrees."""
    mean, *waves = SERIES[joint]
    swing = sum(2 * np.real(wave * np.exp(1j * k * phase)) for k, wave in enumerate(waves, start=1))
    return mean.real + offset + gain * swing


def along(angle, out=0.0, yaw=0.0):
    """Unit vectors (..., 3), down, swung forward by `angle` and sideways by `out`, turned by `yaw`; degrees."""
    angle, out, yaw = map(np.deg2rad, np.broadcast_arrays(angle, out, yaw))
    forward, side, down = np.sin(angle), np.cos(angle) * np.sin(out), np.cos(angle) * np.cos(out)
    return np.stack([forward * np.cos(yaw) - side * np.sin(yaw), forward * np.sin(yaw) + side * np.cos(yaw), -down], -1)


def turned(yaw, roll, y):
    """Points (T, 3) at lateral offset `y`, rolled about x and turned about z; degrees."""
    yaw, roll = np.deg2rad(yaw), np.deg2rad(roll)
    return y * np.stack([-np.sin(yaw) * np.cos(roll), np.cos(yaw) * np.cos(roll), np.sin(roll)], -1)


def leg(s, phase, side, pelvis_yaw, pelvis_roll):
    """Joint positions of one leg relative to the middle of the pelvis; each (T, 3)."""
    hip_angle = joint_angle("hip", phase, s.hip_gain, s.hip_offset + s.knee_offset / 2)
    knee_angle = joint_angle("knee", phase + s.knee_phase, s.knee_gain, s.knee_offset)
    knee_angle = np.maximum(knee_angle, 0)  # knees do not bend backwards
    pitch = hip_angle - knee_angle + joint_angle("ankle", phase, s.ankle_gain, s.knee_offset / 2 - s.hip_offset)
    yaw = 0.4 * pelvis_yaw + side * s.toe_out
    inward = side * np.rad2deg(np.arcsin((s.step_width - s.hip_half) / (s.thigh + s.shank)))
    hip = turned(pelvis_yaw, pelvis_roll, side * s.hip_half)
    knee = hip + s.thigh * along(hip_angle, inward, 0.5 * yaw)
    ankle = knee + s.shank * along(hip_angle - knee_angle, inward, 0.5 * yaw)
    toes, sole = along(90 + pitch, 0, yaw), along(pitch, 0, yaw)
    drop = 0.036 * s.stature
    heel = ankle - 0.24 * s.foot * toes + drop * sole
    ball = ankle + 0.70 * s.foot * toes + drop * sole
    return {"hip": hip, "knee": knee, "ankle": ankle, "heel": heel, "ball": ball, "toes": toes}


def arm(s, phase, side, shoulder, swing):
    """Joint positions of one arm; it swings against the leg of its side (phase is the leg's). Each (T, 3)."""
    wave = -np.cos(phase + s.arm_phase)
    angle = s.arm_offset + swing * s.arm_gain * (1 + side * s.arm_asymmetry) * wave
    bend = s.elbow_offset + swing * s.elbow_gain * (1 - np.cos(phase + s.arm_phase - 0.35))
    elbow = shoulder + s.upper_arm * along(angle, side * s.arm_out)
    wrist = elbow + s.forearm * along(angle + bend, side * 0.3 * s.arm_out)
    hand = wrist + 0.045 * s.stature * along(angle + bend + 5)
    return {"elbow": elbow, "wrist": wrist, "hand": hand}


def walk(s, phase, arm_swing=(1.0, 1.0)):
    """Pose of subject `s` at gait phases `phase` (T,), left heel strike at 0, pelvis above the origin, feet on z = 0.

    `arm_swing` scales the swing of the left and the right arm. Returns joint name -> (T, 3), with left/right joints
    as "hip+" and "hip-", and the directions "up" (trunk), "across" (shoulders, towards the left), "across_hips".
    """
    pelvis_yaw, pelvis_roll = -s.pelvis_twist * np.cos(phase), s.pelvis_list * np.sin(phase)
    legs = {side: leg(s, phase + (side < 0) * np.pi, side, pelvis_yaw, pelvis_roll) for side in (LEFT, RIGHT)}
    lowest = np.min([legs[side][end][:, 2] - sole_radius(s) for side in legs for end in ("heel", "ball")], axis=0)
    pelvis = np.stack([0 * phase, s.sway * np.sin(phase), -lowest], -1)  # somebody always stands on the ground

    shoulder_yaw, shoulder_roll = s.trunk_twist * np.cos(phase), s.shoulder_tilt - 0.4 * pelvis_roll
    bob = 0.8 * np.cos(2 * phase)
    up = along(180 - (s.lean + bob))
    waist = pelvis + 0.38 * s.trunk * up
    upper = along(180 - (s.lean + bob + s.stoop))
    chest = waist + 0.35 * s.trunk * upper
    collar = chest + 0.27 * s.trunk * upper
    nod = along(180 - (s.lean + s.head_forward + bob / 2))
    head = collar + (s.neck + 0.85 * s.head_height) * nod
    pose = {
        "pelvis": pelvis,
        "waist": waist,
        "chest": chest,
        "collar": collar,
        "head": head,
        "up": upper,
        "nod": nod,
        "across": turned(shoulder_yaw, shoulder_roll, 1.0),
        "across_hips": turned(pelvis_yaw, pelvis_roll, 1.0),
    }
    for side, name, swing in ((LEFT, "+", arm_swing[0]), (RIGHT, "-", arm_swing[1])):
        shoulder = collar - 0.12 * s.trunk * upper + side * s.shoulder_half * pose["across"]
        limbs = arm(s, phase + (side < 0) * np.pi, side, shoulder, swing)
        pose |= {joint + name: point if joint == "toes" else point + pelvis for joint, point in legs[side].items()}
        pose |= {"shoulder" + name: shoulder} | {joint + name: point for joint, point in limbs.items()}
    return pose


def sole_radius(s):
    return 0.018 * s.stature


def speed(s):
    """Metres a second at which the standing foot does not slide: two steps a stride."""
    pose = walk(s, np.zeros(1))
    return 2 * s.stride_rate * float(pose["ankle+"][0, 0] - pose["ankle-"][0, 0])
