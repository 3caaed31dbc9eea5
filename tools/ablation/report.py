"""What the results say: tables and sentences, in Markdown that also reads well in a terminal."""

import statistics
import textwrap
from collections.abc import Callable

from tools.ablation import bootstrap
from tools.ablation.plan import ARMS, COMPARISONS

ROWS = {  # of the table: where its figures are
    **{arm: (arm, ARMS[arm].title) for arm in ("rec", "joint", "rec-more", "sia", "joint-more", "one-step")},
    **{arm: (arm, ARMS[arm].title) for arm in ("true-rec", "true-more")},
    "gei": ("seg", "GEI, masks of seg"),
    "gei-true": ("seg", "GEI, true masks"),
}
RATE = "without_identical"


def rank1(covariate, average=RATE):
    return lambda row, result: bootstrap.means([one["figures"][row]["rank1"][covariate][average] for one in result])


def eer(row, results):
    pairs = [one["figures"][row]["verification"] for one in results]
    return bootstrap.equal_error_rates(*([one[kind] for one in pairs] for kind in ("genuine", "impostor")))


def iou(row, results):
    if row.endswith("true") or any(one["iou"] is None for one in results):
        return None
    return bootstrap.means([one["iou"] for one in results])


MEASURES: dict[str, Callable] = {
    "NM": rank1("NM"),
    "NM, all views": rank1("NM", "with_identical"),
    "BG": rank1("BG"),
    "CL": rank1("CL"),
    "EER": eer,
    "IoU": iou,
}
LOOKS = {
    "usual": "usual place, usual place",
    "other": "other place, other place",
    "usual to other": "usual place, other place",
    "own": "own looks, own looks",
    "swapped": "own looks, swapped looks",
    "worn": "the same: taken for whose looks they have",
}


class Report:
    """results: see folder.results."""

    def __init__(self, results):
        self.results = results
        self.seeds = {row: list(results.get(arm, ())) for row, (arm, _) in ROWS.items()}

    def people(self):
        return next((len(one["iou"]) for arm in self.results.values() for one in arm.values() if one["iou"]), 0)

    def draws(self, row, measure, seeds):
        arm, _ = ROWS[row]
        return measure(row, [self.results[arm][seed] for seed in seeds])

    def difference(self, better, than, measure):
        """(value, low, high) over the seeds that both have, or None."""
        seeds = [seed for seed in self.seeds[better] if seed in self.seeds[than]]
        if not seeds:
            return None
        draws = [self.draws(row, measure, seeds) for row in (better, than)]
        return None if any(one is None for one in draws) else bootstrap.interval(draws[0] - draws[1])

    def levels(self):
        """Rank-1 (%), equal error rate (%) and IoU (%) of every arm, with 95% intervals."""
        rows = [["after", "seeds", *MEASURES]]
        for row, (_, title) in ROWS.items():
            if self.seeds[row]:
                draws = [self.draws(row, measure, self.seeds[row]) for measure in MEASURES.values()]
                cells = ["-" if one is None else level(bootstrap.interval(one)) for one in draws]
                rows.append([title, str(len(self.seeds[row])), *cells])
        return table(rows)

    def differences(self):
        rows = [["difference", "seeds", *MEASURES]]
        for better, than, _ in COMPARISONS:
            found = [self.difference(better, than, measure) for measure in MEASURES.values()]
            if found[0]:
                both = len(set(self.seeds[better]) & set(self.seeds[than]))
                rows.append([f"{better} - {than}", str(both), *("-" if one is None else change(one) for one in found)])
        return table(rows)

    def sentences(self):
        """One for each comparison, of rank-1 of NM probes without the identical view."""
        lines = []
        for better, than, claim in COMPARISONS:
            if found := self.difference(better, than, MEASURES["NM"]):
                lines.append(item(sentence(claim, found)))
        return "\n".join(lines)

    def looks(self):
        """The second part: rank-1 of NM probes among other looks."""
        columns, lines = [["gallery and probe", *LOOKS.values(), "IoU, usual", "IoU, other"]], []
        for arm in (arm for arm in ARMS if ARMS[arm].elsewhere and self.seeds[arm]):
            found = [self.results[arm][seed]["elsewhere"] for seed in self.seeds[arm]]
            draws = {name: bootstrap.means([one["rank1"][name][RATE] for one in found]) for name in LOOKS}
            masks = [bootstrap.means([one["iou"][name] for one in found]) for name in ("usual", "other")]
            cells = [level(bootstrap.interval(one)) for one in [*draws.values(), *masks]]
            columns.append([f"{arm}, {len(found)} seed{'s' * (len(found) > 1)}", *cells])
            for low, high, what in (
                ("swapped", "own", "swapping looks"),
                ("other", "usual", "another place"),
                ("usual to other", "usual", "a gallery in another place"),
            ):
                lines.append(item(f"{arm}: {cost(what, bootstrap.interval(draws[low] - draws[high]))}"))
        return table(list(zip(*columns))) + "\n\n" + "\n".join(lines) if lines else ""

    def work(self):
        """Iterations, arithmetic and time of every arm, means over its seeds; and all together."""
        rows = [["arm", "iterations", "TFLOP training", "TFLOP scoring", "s training", "s scoring", "s data"]]
        total = [0.0, 0.0]
        for arm, seeds in self.results.items():
            units = list(seeds.values())
            columns = [[one["tflop"][name] for one in units] for name in ("training", "scoring")]
            columns += [[one["seconds"].get(name, 0) for one in units] for name in ("training", "scoring", "data")]
            total = [total[0] + sum(map(sum, columns[:2])), total[1] + sum(map(sum, columns[2:]))]
            flop, seconds = columns[:2], columns[2:]
            cells = [f"{statistics.mean(c):.1f}" for c in flop] + [f"{statistics.mean(c):.0f}" for c in seconds]
            rows.append([arm, str(units[0]["iterations"]), *cells])
        return table(rows) + f"\n\nIn all {total[0]:.0f} TFLOP in {clock(total[1])}."

    def text(self, head):
        if not any(self.seeds.values()):
            return f"{head}\n\nNothing that can be compared is finished yet."
        parts = [
            head,
            f"Rank-1, EER and IoU in percent, means over seeds and {self.people()} people never seen in training, with "
            "95% intervals\nover both. NM, BG, CL: probes walk normally, with a bag, in a coat; without the identical "
            "view, but for the column\nthat says all views. EER and IoU: NM and all walks.",
            self.levels(),
            "Differences, paired, with 95% intervals:",
            self.differences(),
            "In words (rank-1 of NM probes without the identical view):",
            self.sentences(),
        ]
        if looks := self.looks():
            parts += ["Gait, or clothes and place? Rank-1 of NM probes (gallery nm-01, probe nm-05):", looks]
        return "\n\n".join([*parts, "Arithmetic and time, means over seeds:", self.work()])


def level(found):
    value, low, high = (100 * x for x in found)
    return f"{value:.1f} ({low:.1f} .. {high:.1f})"


def change(found):
    value, low, high = (100 * x for x in found)
    return f"{value:+.1f} ({low:+.1f} .. {high:+.1f})"


def sentence(claim, found):
    """`claim` has a verb "beat" or "beats"; what the interval says of it."""
    value, low, high = (100 * x for x in found)
    if low > 0:
        return f"{claim}, by {value:.1f} points ({low:.1f} .. {high:.1f})."
    subject, verb, rest = claim.partition(" beats " if " beats " in claim else " beat ")
    denied = f"{subject} {'does' if verb == ' beats ' else 'do'} not beat {rest}"
    if high < 0:
        return f"{denied}: it is worse by {-value:.1f} points ({-high:.1f} .. {-low:.1f})."
    return f"{denied}: {value:+.1f} points ({low:+.1f} .. {high:+.1f}), and the interval includes 0."


def cost(what, found):
    value, low, high = (100 * x for x in found)
    if high < 0:
        return f"{what} costs {-value:.1f} points ({-high:.1f} .. {-low:.1f})."
    return f"{what} costs nothing that shows: {value:+.1f} points ({low:+.1f} .. {high:+.1f})."


def item(text):
    """A line of a list, broken as the docs are."""
    return textwrap.fill(text, 118, initial_indent="* ", subsequent_indent="  ")


def clock(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def table(rows):
    """Markdown whose columns stand below each other."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
