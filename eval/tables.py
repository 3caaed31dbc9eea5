"""Tables as text: the original's result file, CSV, and what the terminal shows."""

import csv
import io
import os
from pathlib import Path

RESULT_FILES = {"casiab": "casiab_cross_view_results_tr{}.txt", "outdoor": "outdoor_results_tr{}.txt",
                "szu": "szu_results_tr{}.txt", "walkers": "walkers_cross_view_results_tr{}.txt"}


def write_text(path, text):
    """Write a file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def original_text(groups, table):
    r"""The original's result file: `Prob\Gallery`, gallery names, a line a probe name, percent, tabs between."""
    lines = ["\t".join(["Prob\\Gallery", *groups])]
    lines += ["\t".join([name, *(f"{100 * cell:.3f}" for cell in row)]) for name, row in zip(groups, table)]
    return "\n".join(lines) + "\n"


def terminal_text(groups, table, kind):
    """The rank-1 table for reading, in percent."""
    width = max(7, *(len(name) + 1 for name in groups))
    head = "probe \\ gallery".ljust(16) + "".join(name.rjust(width) for name in groups)
    rows = [name.ljust(16) + "".join(f"{100 * cell:{width}.2f}" for cell in row) for name, row in zip(groups, table)]
    return "\n".join([f"rank-1 (%) by {kind}", head, *rows])


def summary_rows(result):
    """(protocol, average, measure, value, low, high) of every single figure; low and high are None where not known."""
    parts = [("original", result["identification"])]
    parts += result.get("covariates", {}).items()
    parts += ((name, part["identification"]) for name, part in result.get("baselines", {}).items())
    for protocol, part in parts:
        for average in ("with_identical", "without_identical"):
            if average in part:
                figures = part[average]
                yield protocol, average, "rank-1", figures["rank1"], *figures["rank1_95"]
                for k in (5, 10, 20):
                    yield protocol, average, f"rank-{k}", figures["cmc"][k - 1], None, None
                for measure in ("mAP", "mINP"):
                    yield protocol, average, measure, figures[measure], None, None
    for average, figures in result["verification"].items():
        yield "verification", average, "EER", figures["eer"], None, None
        for rate, tar in figures["tar_at_far"].items():
            yield "verification", average, f"TAR@FAR={rate}", tar, None, None
    for name, figure in result.get("segmentation", {}).items():
        yield "segmentation", "", name, figure, None, None


def csv_text(result):
    """Every figure of the report: single figures first, then the rank-1 table of each protocol, cell by cell."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["protocol", "average", "measure", "value", "low_95", "high_95"])
    for *words, value, low, high in summary_rows(result):
        write([*words, f"{value:.6f}", *("" if x is None else f"{x:.6f}" for x in (low, high))])
    for protocol, part in [("original", result["identification"]), *result.get("covariates", {}).items()]:
        for probe, row in zip(result["groups"], part["rank1_table"]):
            for gallery, cell in zip(result["groups"], row):
                write([protocol, f"probe {probe} gallery {gallery}", "rank-1", f"{cell:.6f}", "", ""])
    return out.getvalue()


def closing_line(result, kind):
    """`mean rank-1 77.904 (without identical condition 68.270)`."""
    part = result["identification"]
    line = f"mean rank-1 {100 * part['with_identical']['rank1']:.3f}"
    if "without_identical" in part:
        line += f" (without identical {kind} {100 * part['without_identical']['rank1']:.3f})"
    return line
