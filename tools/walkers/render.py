"""Pictures: outfit and room drawn at random for a sequence, the figure painted into them, the mask in the same pass."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from tools.walkers.camera import FRAME_H, FRAME_W, Camera
from tools.walkers.scene import Scene

SUPERSAMPLE = 2  # the figure is drawn this many times larger, then averaged down: soft edges
FIXED = 4  # bits of a pixel's fraction handed to OpenCV
CONTRAST = 42  # mean over the channels by which a garment differs from wall and floor at least: no camouflage


@dataclass(frozen=True)
class Outfit:
    """What a walker wears and carries in one sequence; never a trait of the subject."""

    colours: dict = field(default_factory=dict)  # material -> BGR
    loose: float = 0.004  # metres between body and cloth
    short_sleeves: bool = False
    shorts: bool = False
    coat: bool = False
    coat_length: float = 0.8  # share of the way from pelvis to knees
    bag: str = ""  # "", "backpack", "shoulder" or "hand"


def random_outfit(rng, kind, room_colours, scene: Scene):
    """An outfit for a condition of `kind` nm, bg or cl, in colours that stand out from the room."""

    def cloth():
        while True:
            colour = rng.uniform(15, 240, 3) * (1 - scene.grey) + scene.grey * rng.uniform(15, 240)
            apart = min(np.abs(colour - other).mean() for other in room_colours)
            if apart >= CONTRAST and np.ptp(colour) >= scene.least_saturation:
                return colour

    skin = np.array([95, 125, 175]) * rng.uniform(0.45, 1.2) * rng.uniform(0.93, 1.07, 3)
    hair = np.array([38, 45, 60]) * rng.uniform(0.4, 1.9) * rng.uniform(0.9, 1.1, 3)
    coat = kind == "cl"
    return Outfit(
        colours={
            "skin": np.minimum(skin, 240),
            "hair": hair,
            "top": cloth(),
            "bottom": cloth(),
            "shoe": cloth() * 0.6,
            "bag": cloth(),
        },
        loose=rng.uniform(0.003, 0.006),
        short_sleeves=not coat and rng.random() < 0.35,
        shorts=not coat and rng.random() < 0.12,
        coat=coat,
        coat_length=rng.uniform(0.35, 1.05),
        bag=rng.choice(["backpack", "shoulder", "hand"]) if kind == "bg" else "",
    )


@dataclass(frozen=True)
class Light:
    """Illumination and sensor of one sequence."""

    side: float  # -1 from the left, 1 from the right
    level: float  # overall brightness
    slope: tuple  # change over the picture, right and down
    flicker: float  # of the level, from frame to frame
    noise: float  # standard deviation, grey levels


def random_light(rng):
    return Light(
        rng.uniform(-1, 1),
        rng.uniform(0.8, 1.12),
        tuple(rng.uniform(-0.15, 0.15, 2)),
        rng.uniform(0, 0.02),
        rng.uniform(1.5, 4.0),
    )


def random_room(rng, camera: Camera, scene: Scene):
    """A greyish room, a little mottled: wall, skirting, floor, panels. The picture; colours of wall and floor."""
    wall = rng.uniform(*scene.wall) + rng.uniform(-14, 14, 3)
    floor = np.clip(wall + rng.choice([-1, 1]) * rng.uniform(15, 45), 45, 215) + rng.uniform(-12, 12, 3)
    room: np.ndarray = cv2.merge([np.full((FRAME_H, FRAME_W), channel, np.float32) for channel in wall])
    for _ in range(rng.integers(2, 7)):
        x, y = rng.uniform(-40, FRAME_W), rng.uniform(-20, FRAME_H * 0.5)
        w, h = rng.uniform(15, 110), rng.uniform(20, 120)
        tone = wall + rng.uniform(-22, 22) + rng.uniform(-6, 6, 3)
        cv2.rectangle(room, (int(x), int(y)), (int(x + w), int(y + h)), tone.tolist(), -1 if rng.random() < 0.7 else 2)
    ahead_x, ahead_y, _ = camera.axes()[1][2]
    foot_of_wall = camera.project(np.array([3 * ahead_x, 3 * ahead_y, 0.0]))[0][1]
    row = int(np.clip(foot_of_wall, 0.35 * FRAME_H, 0.8 * FRAME_H))
    cv2.rectangle(room, (0, row), (FRAME_W, FRAME_H), floor.tolist(), -1)
    cv2.rectangle(room, (0, row), (FRAME_W, row + 2), ((wall + floor) / 2 - 18).tolist(), -1)
    for size, strength in ((12, 7.0), (64, 4.0)):
        mottle = rng.standard_normal((size * 3 // 4, size)).astype(np.float32)
        room += grey(strength * cv2.resize(mottle, (FRAME_W, FRAME_H), interpolation=cv2.INTER_LINEAR))
    return room, [wall, floor]


def random_pattern(rng, size=64):
    """Weave of the clothes, a factor near 1 over the person's box: (size, size)."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(4, 12)
    stripes = np.sin(2 * np.pi / pitch * (np.cos(angle) * x + np.sin(angle) * y))
    mottle = cv2.resize(rng.standard_normal((16, 16)).astype(np.float32), (size, size))
    return 1 + rng.uniform(0, 0.10) * stripes + rng.uniform(0.02, 0.07) * mottle


def shades(colours, materials, near):
    """Colours of every part and of its lit inner side, BGRA. `near`: 0 the farthest part of a frame, 1 the nearest."""
    base = np.array([colours[m] for m in materials])  # (P, 3)
    dark = base[:, None] * (0.72 + 0.18 * near)[..., None]
    lit = np.minimum(base[:, None] * (0.92 + 0.18 * near)[..., None], 250)
    alpha = np.full(dark.shape[:2] + (1,), 255.0)
    return np.concatenate([dark, alpha], -1), np.concatenate([lit, alpha], -1)


def paint(outlines, depths, colours, materials, light, boxes, size):
    """Painter's algorithm: far parts first.

    outlines (P, T, D, 2), depths (P, T); boxes (T, 3) left, top, side in frame pixels of the pictures to draw, and
    their size (width, height). Returns (T, height, width, 4) uint8: colour times coverage, and coverage: the mask.
    """
    big = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
    zoom = big[0] / boxes[:, 2]
    # minus a half: the whole numbers of OpenCV are the centres of pixels
    corners = (outlines - boxes[:, None, :2]) * zoom[:, None, None] - 0.5
    middle = corners.mean(2, keepdims=True)
    extent = corners.max(2, keepdims=True) - corners.min(2, keepdims=True)
    inner = middle + 0.62 * (corners - middle) + extent.min(-1, keepdims=True) * [0.12 * light.side, -0.06]
    near = (depths.max(0) - depths) / np.maximum(np.ptp(depths, axis=0), 1e-6)
    dark, lit = shades(colours, materials, near)
    corners, inner = (np.round(points * 2**FIXED).astype(np.int32) for points in (corners, inner))
    order = np.argsort(-depths, axis=0)
    pictures = np.empty((outlines.shape[1], size[1], size[0], 4), np.uint8)
    canvas = np.empty((big[1], big[0], 4), np.uint8)
    for t, picture in enumerate(pictures):
        canvas[:] = 0
        for p in order[:, t]:
            cv2.fillConvexPoly(canvas, corners[p, t], dark[p, t].tolist(), cv2.LINE_8, FIXED)
            cv2.fillConvexPoly(canvas, inner[p, t], lit[p, t].tolist(), cv2.LINE_8, FIXED)
        cv2.resize(canvas, size, dst=picture, interpolation=cv2.INTER_AREA)
    return pictures


def compose(figures, room, pattern, light, boxes, person_boxes, rng):
    """The painted figures (T, H, W, 4) in their room, lit and noisy: frames (T, H, W, 3), masks (T, H, W); uint8.

    The part of the room in the box of every frame is shown, and the pattern moves with the person.
    """
    count, height, width = figures.shape[:3]
    masks = figures[..., 3].copy()
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    lamp = light.level * (1 + light.slope[0] * x + light.slope[1] * y)
    flicker = 1 + light.flicker * rng.standard_normal(count, dtype=np.float32)
    frames = np.empty((count, height, width, 3), np.uint8)
    for t, (frame, figure) in enumerate(zip(frames, figures)):
        picture = cv2.warpAffine(
            room, window(boxes[t], width), (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        shown = window(boxes[t], width, person_boxes[t], len(pattern))
        weave = cv2.warpAffine(pattern, shown, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture *= grey(1 - figure[..., 3] * np.float32(1 / 255))
        picture += figure[..., :3] * grey(weave)
        picture *= grey(lamp * flicker[t])
        picture += light.noise * rng.standard_normal(picture.shape, dtype=np.float32)
        cv2.convertScaleAbs(np.maximum(picture, 0), dst=frame)
    return frames, masks


def grey(plane):
    """(H, W) -> (H, W, 3), three equal channels: NumPy is slow to broadcast over so short an axis."""
    return cv2.merge((plane, plane, plane))


def window(box, width, source=None, source_size=None):
    """Affine map of the room, or of a pattern on the square `source`, to a view of `box`, `width` pixels wide."""
    zoom = width / box[2]
    scale = zoom if source is None else zoom * source[2] / source_size
    offset = (-box[:2] if source is None else source[:2] - box[:2]) * zoom
    return np.array([[scale, 0, offset[0] + (scale - 1) / 2], [0, scale, offset[1] + (scale - 1) / 2]])
