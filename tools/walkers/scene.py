"""Where walkers walk and what they may wear: two sets of rooms, clothes and cameras that have nothing in common."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """What the room, the clothes and the camera of a sequence are drawn from."""

    wall: tuple[float, float]  # grey levels
    distance: tuple[float, float]  # metres from the camera to the middle of the walk
    height: tuple[float, float]  # metres of the camera above the floor
    grey: float  # share of a garment's colour that all channels have in common; the rest is drawn for each
    least_saturation: float  # grey levels between the channels of a garment's colour


SCENES = {
    "usual": Scene(wall=(70, 190), distance=(4.5, 4.7), height=(1.25, 1.35), grey=0.45, least_saturation=0),
    # usual clothes differ by 124 levels at most
    "other": Scene(wall=(200, 235), distance=(5.4, 5.8), height=(1.65, 1.85), grey=0.05, least_saturation=125),
}
