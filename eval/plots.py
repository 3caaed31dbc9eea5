"""Pictures of a result: heat map of the rank-1 table, CMC and ROC curves."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from layers.bundled import whole


def heat_map(groups, table, title):
    """Figure of a rank-1 table (T, T) in percent, every cell with its number."""
    table = 100 * np.array(table)
    size = max(3.2, 0.62 * len(groups) + 1.6)
    figure, axes = plt.subplots(figsize=(size, size * 0.92), layout="constrained")
    picture = axes.imshow(table, vmin=0, vmax=100, cmap="viridis")
    axes.set(
        xlabel="gallery",
        ylabel="probe",
        title=title,
        xticks=range(len(groups)),
        yticks=range(len(groups)),
        xticklabels=groups,
        yticklabels=groups,
    )
    for (i, j), cell in np.ndenumerate(table):
        axes.text(
            j,
            i,
            f"{cell:.1f}" if np.isfinite(cell) else "-",
            ha="center",
            va="center",
            fontsize=8,
            color="black" if not cell < 60 else "white",
        )
    figure.colorbar(picture, ax=axes, shrink=0.8, label="rank-1 (%)")
    return figure


def curves(result, kind):
    """Figure of the CMC curve (left) and the ROC curve (right)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    draw_cmc(left, result, kind)
    draw_roc(right, result, kind)
    return figure


def curve(draw, result, kind):
    """Figure of one of the two, drawn by `draw_cmc` or `draw_roc`."""
    figure, axes = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
    draw(axes, result, kind)
    return figure


def draw_cmc(axes, result, kind):
    for average, name in averages(kind):
        if average in result["identification"]:
            cmc = 100 * np.array(result["identification"][average]["cmc"])
            if not np.isfinite(cmc).any():
                continue
            axes.plot(range(1, len(cmc) + 1), cmc, marker=".", label=name)
    axes.set(xlabel="rank", ylabel="identified (%)", title="CMC", xticks=[1, 5, 10, 15, 20], ylim=(None, 100.5))
    finish(axes)


def draw_roc(axes, result, kind):
    for average, name in averages(kind):
        if average in result["verification"]:
            roc = result["verification"][average]["roc"]
            axes.plot(roc["far"][1:], 100 * np.array(roc["tar"][1:]), label=name, marker=mark(roc["far"][1:]))
    axes.set(xlabel="false accept rate", ylabel="true accept rate (%)", title="ROC", xscale="log", ylim=(0, 100.5))
    finish(axes)


def steps(bars):
    """Figure of rank-1 after each step, a group of bars a covariate; bars as of eval.steps.bars."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    width = 0.8 / max(len(rows) for rows in bars.values())
    for i, (step, *_) in enumerate(next(iter(bars.values()))):
        values, low, high = np.array([rows[i][1:] for rows in bars.values()]).T
        place = np.arange(len(bars)) + (i - 1) * width
        drawn = axes.bar(
            place, values, width * 0.92, yerr=[values - low, high - values], capsize=3, label=f"after {step}"
        )
        axes.bar_label(drawn, fmt="%.1f", label_type="center", color="white", fontsize=8)
    axes.set(
        xticks=range(len(bars)), xticklabels=[f"{name} probes" for name in bars], ylabel="rank-1 (%)", ylim=(0, 100)
    )
    axes.set_title("Rank-1 without identical view, unseen people; 95% intervals", fontsize=10)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(loc="upper right")
    return figure


def mark(points):
    """A curve of few points has them marked: a line of one is not to be seen."""
    return "." if len(points) < 3 else None


def averages(kind):
    return [("with_identical", f"all {kind}s"), ("without_identical", f"without identical {kind}")]


def finish(axes):
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="lower right")


def colour(share):
    """Colour of a share 0..1 in the heat map, #rrggbb."""
    return matplotlib.colors.to_hex(plt.get_cmap("viridis")(share))


def svg(figure):
    """The figure as SVG bytes; the figure is closed."""
    out = io.BytesIO()
    figure.savefig(out, format="svg")
    plt.close(figure)
    return out.getvalue()


def write_png(path, figure):
    """Write a picture whole or not at all; the figure is closed."""
    with whole.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
