"""Figures by person: their means are the figures of evaluation; clothes that tell who it is are found out."""

import numpy as np
import pytest

from eval.protocol import evaluate
from tools.ablation import people, scoring
from tools.ablation.plan import Size
from tools.walkers.trees import partner

SIZE = Size(people=6, views=("000", "036", "090"), looks_views=("000", "090"), frames=11)


@pytest.fixture
def scorer():
    return scoring.Scorer(SIZE, planes=None)


def vectors_of(scorer, noise):
    rng = np.random.default_rng(5)
    persons, clothes = rng.standard_normal((2, SIZE.people + 1, 8))
    rows = []
    for seen in scorer.walks:
        subject = seen.walk.subject
        worn = partner(subject) if seen.looks == "swapped" else subject
        rows.append(np.concatenate([persons[subject], clothes[worn]]))
    rows = np.array(rows, np.float32)
    return rows + noise * rng.standard_normal(rows.shape).astype(np.float32), rows


def test_means_over_people_are_evaluations_own(scorer):
    vectors, _ = vectors_of(scorer, 1.0)
    found = scorer.rank1(vectors)
    whole = evaluate(scorer.described(vectors, scorer.chosen("usual")), SIZE.views)
    assert set(found) == {"NM", "BG", "CL"}
    for name, kinds in found.items():
        for kind, shares in kinds.items():
            assert 0 < np.mean(shares) < 1
            assert np.mean(shares) == pytest.approx(whole["covariates"][name][kind]["rank1"], abs=1e-5)
    error = whole["verification"]["without_identical"]["eer"]
    shares = scorer.verification(vectors)
    from tools.ablation.bootstrap import equal_error_rates

    found = equal_error_rates([shares["genuine"]], [shares["impostor"]])[0]
    assert found == pytest.approx(error, abs=0.02)  # 144 genuine pairs


def test_clothes_are_told_from_gait(scorer, monkeypatch):
    monkeypatch.setattr(scorer, "iou", lambda masks, looks: [0.5] * SIZE.people)
    vectors, _ = vectors_of(scorer, 0.01)
    by_gait, by_clothes = vectors * ([1] * 8 + [0] * 8), vectors * ([0] * 8 + [1] * 8)
    for one, swapped, worn in ((by_gait, 1, 0), (by_clothes, 0, 1)):
        rank1 = scorer.elsewhere(one, None)["rank1"]
        assert np.mean(rank1["own"]["without_identical"]) == 1
        assert np.mean(rank1["swapped"]["without_identical"]) == swapped
        assert np.mean(rank1["worn"]["without_identical"]) == worn


def test_looks_belong_to_somebody():
    walks = {
        (seen.looks, seen.walk.subject, seen.walk.condition): seen
        for seen in people.scored(Size(people=2, views=("090",), looks_views=("090",)))
    }
    colours = {key: colours_of(people.render(3, 2, seen)) for key, seen in walks.items()}
    apart = lambda a, b: np.abs(colours[a] - colours[b]).max()  # noqa: E731
    near, far = 15, 30  # grey levels: a pose shows other parts of the clothes, another camera other parts of the room
    assert apart(("own", 1, "nm-01"), ("own", 1, "nm-05")) < near
    assert apart(("own", 1, "nm-01"), ("swapped", 2, "nm-05")) < near
    assert apart(("own", 1, "nm-01"), ("own", 2, "nm-01")) > far
    assert apart(("own", 1, "nm-01"), ("swapped", 1, "nm-05")) > far
    assert min(colours[("other", n, "nm-01")][3:].mean() for n in (1, 2)) > 150  # bright rooms


def colours_of(planes):
    """Mean colour of the person, and of the room: (6,)"""
    person = planes[:, 3] > 127
    return np.concatenate([planes[:, :3].transpose(0, 2, 3, 1)[where].mean(axis=0) for where in (person, ~person)])
