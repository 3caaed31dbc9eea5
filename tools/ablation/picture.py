"""The study in one picture: where every arm stands, and the differences that are told."""

from matplotlib.figure import Figure

from eval import plots
from tools.ablation import bootstrap
from tools.ablation.plan import COMPARISONS
from tools.ablation.report import MEASURES, ROWS, Report

SHOWN = "NM"


def write(file, results):
    """Rank-1 of each arm, a dot for each seed, and paired differences; False where nothing is finished."""
    report = Report(results)
    rows = [row for row in ROWS if report.seeds[row]]
    if not rows:
        return False
    plots.write_png(file, draw(report, rows))
    return True


def draw(report, rows):
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, row in enumerate(rows):
        value, low, high = (100 * x for x in bootstrap.interval(report.draws(row, MEASURES[SHOWN], report.seeds[row])))
        left.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color="C0", capsize=3)
        for seed in report.seeds[row]:
            one = 100 * report.draws(row, MEASURES[SHOWN], [seed])[0]
            left.plot(one, place, ".", color="C1", alpha=0.7)
    left.set(yticks=range(len(rows)), yticklabels=[ROWS[row][1] for row in rows], xlabel="rank-1 (%)")
    left.set_title("NM probes, without identical view")
    told = [(f"{a} - {b}", report.difference(a, b, MEASURES[SHOWN])) for a, b, _ in COMPARISONS]
    told = [(name, found) for name, found in told if found]
    for place, (_, found) in enumerate(told):
        value, low, high = (100 * x for x in found)
        colour = "C2" if low > 0 else "C3" if high < 0 else "grey"
        right.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=3)
    right.axvline(0, color="black", lw=0.8)
    right.set(yticks=range(len(told)), yticklabels=[name for name, _ in told], xlabel="points of rank-1")
    right.set_title("paired differences, 95% intervals")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")
    return figure
