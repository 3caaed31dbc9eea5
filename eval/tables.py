"""Tables as text: the original's result file, CSV, and what the terminal shows."""

import csv
import io
import json
import math
import os

from eval.seen import UNSEEN
from layers.bundled import whole

CROSS_VIEW = ("casiab", "walkers")


def result_file(dataset, train_num):
    """Name of the original's file of results."""
    return f"{dataset}{'_cross_view' if dataset in CROSS_VIEW else ''}_results_tr{train_num}.txt"


def write_text(path, text):
    """Write a file whole or not at all."""
    whole.make_folder(os.path.dirname(path))
    whole.write(path, text)


def json_text(result):
    """Everything, as JSON; null where a number does not exist."""
    return json.dumps(without_nan(result), indent=1) + "\n"


def without_nan(value):
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def original_text(groups, table):
    r"""The original's result file: `Prob\Gallery`, gallery names, a line a probe name, percent, tabs between."""
    lines = ["\t".join(["Prob\\Gallery", *groups])]
    lines += ["\t".join([name, *map(precise, row)]) for name, row in zip(groups, table)]
    return "\n".join(lines) + "\n"


def terminal_text(groups, table, kind):
    """The rank-1 table for reading, in percent."""
    width = max(7, *(len(name) + 1 for name in groups))
    head = "probe \\ gallery".ljust(16) + "".join(name.rjust(width) for name in groups)
    rows = [name.ljust(16) + "".join(number(cell).rjust(width) for cell in row) for name, row in zip(groups, table)]
    return "\n".join([f"rank-1 (%) by {kind}", head, *rows])


def number(share):
    return "-" if math.isnan(share) else f"{100 * share:.2f}"


def summary_rows(result):
    """(protocol, average, measure, value, low, high) of every single figure; low and high are None where not known."""
    for protocol, part in protocols(result):
        for average in ("with_identical", "without_identical"):
            if average in part:
                figures = part[average]
                yield protocol, average, "rank-1", figures["rank1"], *figures["rank1_95"]
                for k in (5, 10, 20):
                    yield protocol, average, f"rank-{k}", figures["cmc"][k - 1], None, None
                for measure in ("mAP", "mINP"):
                    yield protocol, average, measure, figures[measure], None, None
    for probes, averages in result.get("by_probe", {}).items():
        for average, shares in averages.items():
            for group, share in zip(result["groups"], shares):
                yield (
                    f"GaitNet{probes and f', {probes} probes'}",
                    average,
                    f"rank-1 of probe {group}",
                    share,
                    None,
                    None,
                )
    for average, figures in result["verification"].items():
        yield "verification", average, "EER", figures["eer"], None, None
        for rate, tar in figures["tar_at_far"].items():
            yield "verification", average, f"TAR@FAR={rate}", tar, None, None
    for name, figure in result.get("segmentation", {}).items():
        yield "segmentation", "", name, figure, None, None


def summary_table(result, kind):
    """(head, rows) of text: net, covariates and baselines; means over cells in percent."""
    identical = "without_identical" not in result["identification"]
    average = "with_identical" if identical else "without_identical"
    head = ["all" if identical else f"without identical {kind}", "rank-1", "95% interval", "rank-5", "mAP", "mINP"]
    rows = []
    for name, part in protocols(result):
        figures = part[average]
        low, high = (100 * x for x in figures["rank1_95"])
        shares = figures["rank1"], figures["cmc"][4], figures["mAP"], figures["mINP"]
        rank1, *others = map(number, shares)
        rows.append([name, rank1, "-" if math.isnan(low) else f"{low:.1f} .. {high:.1f}", *others])
    return head, rows


def protocols(result):
    """(name, identification figures) of the net and the baselines, by covariate of the probes where there are any."""
    for name, part in [("GaitNet", result), *result.get("baselines", {}).items()]:
        if "covariates" in part:  # NM is the original protocol
            yield from ((f"{name}, {probes} probes", row) for probes, row in part["covariates"].items())
        else:
            yield name, part["identification"]


def further_lines(result, kind):
    """Lines for the terminal beside the table: means with intervals, baselines, verification, segmentation."""
    head, rows = summary_table(result, kind)
    width = max(len(row[0]) for row in [head, *rows])
    for row in [head, *rows]:
        yield row[0].ljust(width) + "".join(cell.rjust(17 if i == 1 else 8) for i, cell in enumerate(row[1:]))
    people = len(result["subjects"])
    yield f"chance: rank-1 {100 / people:.2f} ({people} people)"
    for average, figures in result["verification"].items():
        yield (
            f"verification {average.replace('_', ' ')} {kind}: EER {100 * figures['eer']:.2f}%, TAR "
            + ", ".join(f"{100 * tar:.2f}% at FAR {rate}" for rate, tar in figures["tar_at_far"].items())
        )
    if "segmentation" in result:
        masks = result["segmentation"]
        whose = "unseen" if result["training"]["verdict"] == UNSEEN else "test"
        yield (
            f"segmentation of {masks['frames']} frames of {whose} subjects: IoU {masks['iou']:.3f}, "
            f"pixel accuracy {masks['pixel_accuracy']:.3f}, boundary F {masks['boundary_f']:.3f}"
        )


def csv_text(result):
    """Every figure of the report: single figures first, then the rank-1 table of each protocol, cell by cell."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["protocol", "average", "measure", "value", "low_95", "high_95"])
    for *words, value, low, high in summary_rows(result):
        write([*words, *("" if x is None or math.isnan(x) else f"{x:.6f}" for x in (value, low, high))])
    for protocol, part in protocols(result):
        for probe, row in zip(result["groups"], part["rank1_table"]):
            for gallery, cell in zip(result["groups"], row):
                write(
                    [
                        protocol,
                        f"probe {probe} gallery {gallery}",
                        "rank-1",
                        "" if math.isnan(cell) else f"{cell:.6f}",
                        "",
                        "",
                    ]
                )
    return out.getvalue()


def closing_line(result, kind):
    """`mean rank-1 77.904 (without identical condition 68.270)`."""
    part = result["identification"]
    line = f"mean rank-1 {precise(part['with_identical']['rank1'])}"
    if "without_identical" in part:
        line += f" (without identical {kind} {precise(part['without_identical']['rank1'])})"
    return line


def precise(share):
    return "-" if math.isnan(share) else f"{100 * share:.3f}"
