"""Tables as papers print them: one row a kind of probes, one column a probe view, the identical view left out."""

import csv
import io
import math
from dataclasses import dataclass, field

import numpy as np

from eval import metrics
from eval.seen import LEAKED, UNSEEN

LABELS = {"NM": "NM#5-6", "BG": "BG#1-2", "CL": "CL#1-2"}  # which walks they are, as papers say it
LEAKED_MARK = "†"
LATEX = {letter: "\\" + letter for letter in "#_%&${}"} | {
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


@dataclass
class Table:
    """Text: columns, and rows of as many cells below a name; bold: places (row, column); rules: rows that a line stands
    above; notes: lines below the table."""

    title: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[str]]] = field(default_factory=list)
    bold: set[tuple[int, int]] = field(default_factory=set)
    rules: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def by_probe(table, identical=False):
    """Mean of a rank-1 table (T, T) over the gallery groups of each probe group: (T,), nan where there is none."""
    cells = np.array(table, float)
    if not identical:
        cells[np.eye(len(cells), dtype=bool)] = np.nan
    return np.array([metrics.mean_of(row) for row in cells])


def columns_of(groups, views):
    """Names of what `figures` gives: views, or every cell where the groups are conditions."""
    if len(groups) == 1:
        return ["rank-1"]
    if views:
        return [*groups, "mean"]
    return [*(f"{probe}-{gallery}" for probe in groups for gallery in groups), "mean", "mean, others"]


def figures(table, views):
    """Shares for the columns of `columns_of`, of a rank-1 table (T, T)."""
    table = np.array(table, float)
    if len(table) == 1:
        return table[0]
    if views:
        means = by_probe(table)
        return np.append(means, metrics.mean_of(means))
    return np.append(table.ravel(), [metrics.overall(table), metrics.overall(table, False)])


def of_result(result, title, views):
    """The Table of one evaluation (eval.protocol.evaluate)."""
    groups = result["groups"]
    verdict = result["training"]["verdict"]
    mark = LEAKED_MARK if verdict == LEAKED else ""  # stays where a row is copied without the notes
    notes = [] if verdict == UNSEEN else [f"{mark}Test people: {result['training']['told']}."]
    if views:
        parts = result.get("covariates") or {"NM": result["identification"]}
        rows = [
            (LABELS.get(name, name) + mark, percents(figures(part["rank1_table"], True)))
            for name, part in parts.items()
        ]
        notes += [told for name, cells in rows if (told := some_lack(name, groups, cells))]
        told = f"{title}: rank-1 (%) by probe view, identical view left out"
        return Table(told, "probes", columns_of(groups, True), rows, notes=notes)
    table = result["identification"]["rank1_table"]
    if len(groups) == 1:
        return Table(f"{title}: rank-1 (%)", "probes", ["rank-1"], [("all" + mark, percents(table[0]))], notes=notes)
    all_means, others = by_probe(table, True), by_probe(table)
    rows = [
        (name + mark, percents([*row, mean, other])) for name, row, mean, other in zip(groups, table, all_means, others)
    ]
    last = ["", *[""] * (len(groups) - 1), *percents([metrics.mean_of(all_means), metrics.mean_of(others)])]
    told = f"{title}: rank-1 (%), probes in rows, gallery in columns"
    return Table(
        told,
        "probes",
        [*groups, "mean", "mean, others"],
        [*rows, ("mean" + mark, last)],
        rules={len(rows)},
        notes=notes,
    )


def some_lack(name, groups, cells):
    """A sentence where a row's mean is not one over all views; else ""."""
    lacking = [group for group, cell in zip(groups, cells) if cell == "-"]
    if not lacking or len(lacking) == len(groups):
        return ""
    return (
        f"{name}: the mean is over {len(groups) - len(lacking)} of {len(groups)} views; no walks to compare in "
        f"{' '.join(lacking)}."
    )


def percents(shares):
    return [percent(share) for share in shares]


def percent(share):
    """0.8034 -> 80.3; "-" where there is no number."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f}"


def by_probe_views(result):
    """{"NM": {"with_identical": [share of each probe group], "without_identical": ...}, ...} for metrics.json."""
    parts = result.get("covariates") or {"": result["identification"]}
    return {
        name: {
            "with_identical": by_probe(part["rank1_table"], True).tolist(),
            "without_identical": by_probe(part["rank1_table"]).tolist(),
        }
        for name, part in parts.items()
    }


# ---- as text


def terminal(table):
    widths = [max(len(cell) for cell in column) for column in zip(*grid(table))]
    lines = [
        "  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths)))
        for row in grid(table, "*")
    ]
    return "\n".join([table.title, *(line.rstrip() for line in lines), *table.notes])


def comma_separated(table):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(grid(table))
    return out.getvalue()


def markdown(table):
    first, *rows = grid(table, "**")
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [first, *rows]]
    rule = "|---" + "|---:" * len(table.columns) + "|"
    notes = [line for note in table.notes for line in ("", note)]
    return "\n".join([f"{table.title}", "", lines[0], rule, *lines[1:], *notes]) + "\n"


def latex(table):
    r"""For \usepackage{booktabs}."""
    head, *rows = [[escaped(cell) for cell in row] for row in grid(table)]
    lines = []
    for i, row in enumerate(rows):
        cells = [rf"\textbf{{{c}}}" if (i, k - 1) in table.bold else c for k, c in enumerate(row)]
        lines += [r"\midrule"] if i in table.rules and i else []
        lines.append(" & ".join(cells) + r" \\")
    aligned = "l" + "r" * len(table.columns)
    return "\n".join(
        [
            f"% {table.title}",
            *(f"% {note}" for note in table.notes),
            rf"\begin{{tabular}}{{{aligned}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def grid(table, mark=""):
    """Head and rows; bold cells between marks ("*" is set behind them alone)."""
    before, plain = mark if mark == "**" else "", " " if mark == "*" and table.bold else ""
    rows = [
        [name, *(f"{before}{c}{mark}" if (i, k) in table.bold else c + plain for k, c in enumerate(cells))]
        for i, (name, cells) in enumerate(table.rows)
    ]
    return [[table.corner, *table.columns], *rows]


def escaped(text):
    return "".join(LATEX.get(letter, letter) for letter in text)


FORMATS = {"csv": comma_separated, "md": markdown, "tex": latex}
