"""What the study trains and what it compares, as data."""

from dataclasses import dataclass

from layers.datasets import DATASETS, MIN_FRAMES

DATASET = DATASETS["walkers"]
SEEDS, PEOPLE = 5, 100
QUICK_SEEDS = 2
# The study scores other people than it trains on, and settings are chosen on others again (--validation).
REPORTED, VALIDATION = 1000, 500  # make_walkers' seed of those who are scored; those who train: plus 1, 2, ...


@dataclass(frozen=True)
class Arm:
    """One way of training; tools/ablation/nets.py has its net and its solver."""

    title: str
    after: str = ""  # the arm whose weights it starts from
    masks: str = ""  # "true", or the arm whose masks it is scored on; "": its own
    elsewhere: bool = False  # is it scored among other looks as well?


# In the order of work: an arm comes after the one that it starts from.
ARMS = {
    "seg": Arm("seg"),
    "rec": Arm("seg, rec", after="seg", masks="seg"),
    "joint": Arm("seg, rec, joint", after="rec"),
    "rec-more": Arm("control of joint: seg, rec, more rec", after="rec", masks="seg", elsewhere=True),
    "sia": Arm("seg, rec, joint, sia", after="joint", elsewhere=True),
    "joint-more": Arm("control of sia: seg, rec, joint, more joint", after="joint"),
    "true-rec": Arm("true masks: rec", masks="true"),
    "true-more": Arm("true masks: rec, more rec", after="true-rec", masks="true"),
    "one-step": Arm("one step: joint from the start"),
}

# (better, than): the difference that is told, and what it stands for
COMPARISONS = (
    ("joint", "rec", "joint beats what it starts from"),
    ("joint", "rec-more", "joint beats its control, rec trained on for as many iterations"),
    ("sia", "joint", "sia beats what it starts from"),
    ("sia", "joint-more", "sia beats its control, joint trained on for as many iterations"),
    ("joint", "one-step", "seg, rec, joint beat one step of the same arithmetic"),
    ("true-more", "rec-more", "true masks beat predicted ones, trained alike"),
    ("true-more", "joint", "true masks beat joint"),
    ("rec", "gei", "rec beats GEI on the same masks"),
    ("sia", "gei-true", "sia beats GEI on true masks"),
)

# Walks of each person that is scored: names of conditions, and for each set where and in what they are walked.
GALLERY, PROBE = ("nm-01", "nm-02"), ("nm-05", "bg-01", "cl-01")
LOOKS = {
    "other": ("other", "drawn", ("nm-01", "nm-05")),  # scene, looks, conditions: see tools/make_walkers.py
    "own": ("usual", "own", ("nm-01", "nm-05")),
    "swapped": ("usual", "swapped", ("nm-05",)),
}


@dataclass(frozen=True)
class Size:
    """How much of it: all, or as little as shows that everything works."""

    train_num: int = DATASET.train_num
    people: int = PEOPLE
    views: tuple[str, ...] = DATASET.protocol.groups[::3]  # that are scored: 000, 054, 108, 162
    looks_views: tuple[str, ...] = ("054", "108")  # of these, among other looks
    training_views: tuple[str, ...] = ()  # of those who train; none: the walks that make_walkers.py renders
    frames: int = MIN_FRAMES  # of a walk that is scored: 6 windows
    most_iterations: int = 10**9  # of a step
    most_clips: int = 10**9  # of a batch; in step sia half as many pairs


QUICK = Size(
    train_num=3,
    people=2,
    views=("036", "090"),
    looks_views=("036", "090"),
    training_views=("090",),
    most_iterations=2,
    most_clips=4,
)
