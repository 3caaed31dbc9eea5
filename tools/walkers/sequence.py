"""One sequence: who walks, under which condition, seen from where -> frames, masks and boxes."""

from dataclasses import dataclass

import numpy as np

from tools.walkers import gait
from tools.walkers.body import make_subject
from tools.walkers.camera import FRAME_H, FRAME_W, Camera, square_boxes
from tools.walkers.parts import figure
from tools.walkers.render import compose, paint, random_light, random_outfit, random_pattern, random_room
from tools.walkers.scene import SCENES

# Standard deviations from walk to walk: nobody walks twice alike.
HABIT_SHARE = {"stride_rate": 0.02, "hip_gain": 0.02, "knee_gain": 0.02, "arm_gain": 0.06, "elbow_offset": 0.06}
HABIT_DEGREES = {"lean": 0.5, "head_forward": 1.2, "arm_offset": 0.7, "stoop": 0.5}


@dataclass(frozen=True)
class Rendered:
    frames: np.ndarray  # (T, H, W, 3) uint8, BGR
    masks: np.ndarray  # (T, H, W) uint8, coverage 0..255
    boxes: np.ndarray  # (T, 3) left, top, side of the crops in pixels of the full frame


def render_sequence(seed, number, name, kind, view, frames, size=64, uncropped=False, scene="usual", looks_of=None):
    """Walks subject `number` past the camera at `view` degrees, `frames` frames at gait.FPS.

    `name` tells sequences of a subject apart, `kind` is nm, bg or cl. Crops of size x size, or full frames of
    camera.FRAME_W x FRAME_H. `scene` is one of scene.SCENES. Room, clothes and light are drawn for this sequence, or,
    with `looks_of` the number of a subject, are those that belong to that one. The pixels depend on these arguments
    alone.
    """
    rng = np.random.default_rng([seed, 1, number, int(view), *name.encode()])
    subject = make_subject(seed, number)
    for trait, change in HABIT_SHARE.items():
        setattr(subject, trait, getattr(subject, trait) * (1 + change * rng.standard_normal()))
    for trait, change in HABIT_DEGREES.items():
        setattr(subject, trait, getattr(subject, trait) + change * rng.standard_normal())

    drawn = SCENES[scene]
    camera = Camera(view + rng.normal(0, 0.7), rng.uniform(*drawn.distance), rng.uniform(*drawn.height))
    looks = rng if looks_of is None else np.random.default_rng([seed, 2, looks_of])
    room, colours = random_room(looks, camera, drawn)
    outfit, light = random_outfit(looks, kind, colours, drawn), random_light(looks)
    pattern = random_pattern(looks)

    seconds = (np.arange(frames) - (frames - 1) / 2) / gait.FPS
    phase = 2 * np.pi * (subject.stride_rate * seconds + rng.random())
    pose = gait.walk(subject, phase, (1.0, 0.4 if outfit.bag == "hand" else 1.0))
    place = np.array([rng.normal(0, 0.1), rng.normal(0, 0.08), 0])
    path = place + gait.speed(subject) * seconds[:, None] * [1, 0, 0]
    parts = figure(subject, pose, outfit)
    materials = [part.material for part in parts]
    centres = np.array([[end[0] for end in part.ends] for part in parts]) + path  # (P, 2, T, 3)
    half_axes = np.array([[end[1] for end in part.ends] for part in parts])
    outlines, depths = camera.outlines((centres, half_axes))
    depths -= np.array([[part.raised] for part in parts])
    person = square_boxes(outlines)

    if uncropped:
        boxes, size = np.broadcast_to([0.0, 0.0, FRAME_W], person.shape), (FRAME_W, FRAME_H)
    else:
        boxes, size = person, (size, size)
    figures = paint(outlines, depths, outfit.colours, materials, light, boxes, size)
    frames, masks = compose(figures, room, pattern, light, boxes, person, rng)
    return Rendered(frames, masks, person)
