"""Curves of a single point are to be seen."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from eval import plots


def result(points, ranks):
    share = np.linspace(0.2, 1, points).tolist()
    both = {"with_identical": {"cmc": [0.5] * ranks}, "without_identical": {"cmc": [0.25] * ranks}}
    roc = {"roc": {"far": [0.0, *np.linspace(0.1, 1, points)], "tar": [0.0, *share]}}
    return {"identification": both, "verification": dict.fromkeys(both, roc)}


@pytest.mark.parametrize("draw", [plots.draw_cmc, plots.draw_roc])
def test_one_point_is_drawn(draw):
    """What is in the picture, not which mark makes it: pixels of the curve's colour, its legend taken away."""
    pictures = []
    for shown in (True, False):
        figure, axes = plt.subplots(figsize=(4, 3))
        draw(axes, result(1, 1), "view")
        assert len(axes.lines) == 2 and all(len(line.get_xdata()) == 1 for line in axes.lines)
        axes.get_legend().remove()
        for line in axes.lines:
            line.set_visible(shown)
        out = io.BytesIO()
        figure.savefig(out, format="rgba")
        plt.close(figure)
        pictures.append(np.frombuffer(out.getvalue(), np.uint8))
    assert (pictures[0] != pictures[1]).sum() > 20  # a dot, of some pixels


def test_a_curve_of_many_points_has_no_dots():
    figure, axes = plt.subplots()
    plots.draw_roc(axes, result(30, 20), "view")
    assert {line.get_marker() for line in axes.lines} == {"None"}
    plt.close(figure)
