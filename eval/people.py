"""Open-set identification: enrolled people, calibrated scores, and when to say "unknown".

Protocol and terms as in Phillips, Grother and Micheals, Evaluation Methods in Face Recognition (Handbook of Face
Recognition, ch. 14): a *false alarm* is a stranger taken for someone enrolled.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize

from eval.features import arrays_of, require_fit, write_arrays
from eval.score import distance

SLOPE_PENALTY = 1e-5  # keeps the fit finite where distances separate people perfectly


@dataclass(frozen=True)
class Calibration:
    """What validation walks taught: score = 1 / (1 + exp(slope * distance - offset)); beyond threshold is unknown."""

    slope: float
    offset: float
    threshold: float
    false_alarm_rate: float  # wanted, and what the threshold was set for
    detection_rate: float  # share of enrolled people's walks recognised at the threshold, on the same walks
    people: int  # of the validation set
    trials: int

    def score(self, distances):
        """Probability that a walk at this distance is the person's, one and another being equally likely beforehand."""
        return 1 / (1 + np.exp(np.clip(self.slope * distances - self.offset, -500, 500)))


@dataclass(frozen=True)
class People:
    """Enrolled walks: names (N,), vectors (N, 256), walks (N,) where they came from; weights_sha256 of the net."""

    names: np.ndarray
    vectors: np.ndarray
    walks: np.ndarray
    weights_sha256: str
    calibration: Calibration | None = None

    @classmethod
    def read(cls, path):
        with arrays_of(path, "a file of enrolled people") as arrays:
            about = json.loads(str(arrays.pop("about")))
            require_fit(arrays, {"names": "U N", "vectors": "f N D", "walks": "U N"})
            known = about["calibration"]
            if known is not None and not np.isfinite(list(known.values())).all():
                raise ValueError("its calibration holds numbers that are not finite")
            calibration = None if known is None else Calibration(**known)
            return cls(**arrays, weights_sha256=about["weights_sha256"], calibration=calibration)

    def write(self, path):
        """The file appears whole or not at all."""
        about = {"weights_sha256": self.weights_sha256, "calibration": self.calibration and asdict(self.calibration)}
        arrays = {"names": self.names, "vectors": self.vectors, "walks": self.walks}
        write_arrays(path, about=np.array(json.dumps(about)), **arrays)

    def enrolled(self, name, vector, walk):
        """With one more walk."""
        return People(
            np.append(self.names, name),
            np.concatenate([self.vectors, vector[None]]),
            np.append(self.walks, walk),
            self.weights_sha256,
            self.calibration,
        )

    def answer(self, vector):
        """[(name, distance, score)], nearest first: a person is as far as the nearest of their walks. ValueError: these
        people have no calibration."""
        if self.calibration is None:
            raise ValueError("scores need a calibration")
        names, apart = nearest_walks(np.sqrt(distance(vector[None], self.vectors)), self.names)
        order = np.argsort(apart[0], kind="stable")
        return [(str(names[i]), float(apart[0, i]), float(self.calibration.score(apart[0, i]))) for i in order]


def calibrate(gallery, probe, false_alarm_rate):
    """Calibration from the walks of people who are neither trained on nor enrolled.

    gallery, probe: eval.features.Features. People are enrolled by the gallery walks of one group (one view) at a time,
    as in use, and every probe is tried twice: with its person enrolled, and with that person taken out.
    """
    found: list[tuple[np.ndarray, ...]] = []  # of each group
    for group in np.unique(gallery.groups):
        enrolled = gallery.take(gallery.groups == group)
        labels, apart = nearest_walks(np.sqrt(distance(probe.vectors, enrolled.vectors)), enrolled.labels)
        same = probe.labels[:, None] == labels
        mine, nearest_other = np.where(same, apart, np.inf).min(axis=1), np.where(same, np.inf, apart).min(axis=1)
        known = np.isfinite(mine)
        strangers = nearest_other[np.isfinite(nearest_other)]
        found.append((mine[known], nearest_other[known], strangers, apart[~same]))
    own, rivals, strangers, others = map(np.concatenate, zip(*found))
    if not len(own) or not len(strangers):
        raise ValueError("calibration needs two or more people with gallery and probe walks")
    strangers = np.sort(strangers)
    allowed = int(false_alarm_rate * len(strangers))  # so many strangers may come nearer
    threshold = float(np.nextafter(strangers[allowed], 0))
    slope, offset = logistic_fit(own, others)
    recognised = (own <= threshold) & (own < rivals)
    return Calibration(
        slope, offset, threshold, false_alarm_rate, float(recognised.mean()), len(np.unique(gallery.labels)), len(own)
    )


def nearest_walks(distances, owners):
    """Distances (P, N) to walks -> (their owners (M,), distances (P, M) to the nearest walk of each)."""
    people, which = np.unique(owners, return_inverse=True)
    out = np.full((len(distances), len(people)), np.inf)
    np.minimum.at(out.T, which, distances.T)
    return people, out


def logistic_fit(genuine, impostor):
    """(slope, offset) of the probability of `genuine` by distance, both classes with equal weight.

    Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """
    scale = float(np.median(impostor)) or 1.0

    def loss(parameters):
        slope, offset = parameters
        right = np.logaddexp(0, slope * genuine / scale - offset).mean()
        wrong = np.logaddexp(0, offset - slope * impostor / scale).mean()
        return right + wrong + SLOPE_PENALTY * slope**2

    slope, offset = minimize(loss, (1.0, 0.5), method="BFGS").x
    return float(slope / scale), float(offset)
