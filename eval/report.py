"""The report of an evaluation: one HTML file that needs no network, for a phone, a screen and paper."""

import base64
import json
from html import escape

import numpy as np

from eval import plots
from eval.papers import LABELS, of_result, percent
from eval.pictures import overlay, png_uri, retrievals
from eval.seen import UNSEEN
from eval.tables import summary_table, write_text

STYLE = """
:root { --line: #d5dae1; --soft: #f4f6f9; --right: #19803d; --wrong: #c0312b; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2330; margin: 0 auto; max-width: 68rem; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p.warning { background: #fbe5e3; border: 2px solid var(--wrong); border-radius: .5rem; padding: .5rem .9rem; }
p.note { color: #566072; font-size: .9rem; margin: .3rem 0 .7rem; }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.card { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem; }
.card { flex: 1 1 9rem; }
.card b { display: block; font-size: 1.5rem; } .card span { font-size: .85rem; color: #566072; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; border: 1px solid var(--line); }
th { background: var(--soft); font-weight: 600; } td:first-child, th:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .7rem; }
.plots img { width: 100%; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .7rem; }
figure { margin: 0; } figure img { width: 100%; display: block; }
figcaption { font-size: .75rem; color: #566072; overflow-wrap: anywhere; line-height: 1.25; margin-top: .15rem; }
.row { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .4rem; margin-bottom: .8rem; }
.row img { border: 3px solid #8b94a3; border-radius: 3px; image-rendering: pixelated; }
.row .right img { border-color: var(--right); } .row .wrong img { border-color: var(--wrong); }
.right figcaption::before { content: "right: "; color: var(--right); font-weight: 600; }
.wrong figcaption::before { content: "wrong: "; color: var(--wrong); font-weight: 600; }
pre { background: var(--soft); border: 1px solid var(--line); padding: .6rem; font-size: .75rem; overflow-x: auto; }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } .row, figure, tr, .card { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } table { font-size: 7.5pt; } th, td { padding: .1rem .25rem; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""


def write_report(path, dataset, result, features, extras):
    """Write report.html: tables, curves, masks over frames, retrievals, errors by subject, provenance.

    result: from eval.protocol.evaluate and what eval.cli adds. extras: see eval.walks.features_of; {} leaves out what
    needs frames.
    """
    kind = dataset.kind
    parts = [headline(dataset, result, kind), rank1(result, kind), comparison(result, kind), curves(result, kind)]
    if "shown" in extras:
        parts += [masks(result, features, extras), gallery(features, extras, result, kind)]
    parts += [subjects(result, features, kind), provenance(result)]
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>GaitNet on {escape(dataset.title)}</title><style>{STYLE}</style></head>
<body>
{"".join(parts)}
</body></html>
""",
    )


def headline(dataset, result, kind):
    part, probes = result["identification"], sum(result["probes"])
    cards = [(share(part["with_identical"]["rank1"]), "mean rank-1")]
    if "without_identical" in part:
        cards.append((share(part["without_identical"]["rank1"]), f"mean rank-1, without identical {kind}"))
    people = len(result["subjects"])
    cards.append((f"{100 / people:.1f}%", f"chance, {people} people"))
    if "segmentation" in result:
        cards.append((f"{result['segmentation']['iou']:.3f}", "IoU of masks"))
    boxes = "".join(f'<div class="card"><b>{value}</b><span>{escape(name)}</span></div>' for value, name in cards)
    training = result["training"]
    warning = "" if training["verdict"] == UNSEEN else f"<p class='warning'>{escape(training['told'])}.</p>"
    unseen = f" {training['told']}" if training["verdict"] == UNSEEN else ""
    return (
        f"<h1>GaitNet on {escape(dataset.title)}</h1>{warning}<p class='note'>{probes} probes and "
        f"{sum(result['gallery'])} gallery walks of {people} people{unseen}.</p><div class='cards'>{boxes}</div>"
    )


def share(value):
    return percent(value) + ("%" if np.isfinite(value) else "")


def rank1(result, kind):
    note = f"Percent of probes whose nearest gallery walk is the same person's. Rows: probe {kind}; columns: gallery."
    parts = result.get("covariates") or {"": result["identification"]}
    maps = "".join(
        (f"<h3>{escape(LABELS.get(name, name))}</h3>" if name else "") + heat_map(result["groups"], part["rank1_table"])
        for name, part in parts.items()
    )
    means = of_result(result, "Means", kind == "view")
    told = "Means over gallery views, the identical one left out" if kind == "view" else "The same with its means"
    rows = [[name, *cells] for name, cells in means.rows]
    return (
        f"<h2>Rank-1 by {kind}</h2><p class='note'>{note}</p>{maps}<p class='note'>{told}:</p>"
        f"{table(['probes', *means.columns], rows)}"
    )


def heat_map(groups, cells):
    head = "".join(f"<th>{escape(name)}</th>" for name in groups)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(map(heat_cell, row))}</tr>" for name, row in zip(groups, cells)
    )
    return f"<div class='wide'><table><tr><th></th>{head}</tr>{rows}</table></div>"


def heat_cell(share):
    if not np.isfinite(share):
        return "<td>-</td>"
    colour = plots.colour(share)
    return f"<td style='background:{colour};color:{'#fff' if share < 0.6 else '#000'}'>{100 * share:.1f}</td>"


def comparison(result, kind):
    head, rows = summary_table(result, kind)
    note = "Means over the cells of the table, in percent; 95% bootstrap intervals over subjects."
    if "covariates" in result:
        note += " NM, BG, CL: probes walk normally, with a bag, in a coat; the gallery walks normally."
    if "baselines" in result:
        note += " GEI: nearest neighbour of gait energy images."
    return f"<h2>Means and baselines</h2><p class='note'>{note}</p>{table(head, rows)}"


def curves(result, kind):
    pictures = [
        base64.b64encode(plots.svg(plots.curve(draw, result, kind))).decode()
        for draw in (plots.draw_cmc, plots.draw_roc)
    ]
    images = "".join(f"<img alt='' src='data:image/svg+xml;base64,{picture}'>" for picture in pictures)
    rows = [
        [
            average.replace("_", " "),
            f"{100 * figures['eer']:.2f}",
            *(f"{100 * tar:.2f}" for tar in figures["tar_at_far"].values()),
        ]
        for average, figures in result["verification"].items()
    ]
    first = next(iter(result["verification"].values()), None)
    rates = first["tar_at_far"] if first else ()
    head = [f"all pairs, {kind}s", "EER (%)", *(f"TAR (%) at FAR {rate}" for rate in rates)]
    return f"<h2>Identification and verification curves</h2><div class='plots'>{images}</div>{table(head, rows)}"


def masks(result, features, extras):
    pictures = []
    for walk, planes, mask in zip(extras["shown_walks"], extras["shown"], extras["shown_mask"]):
        caption = features.names[walk]
        if "segmentation" in result:
            caption = f"{caption}, IoU of the walk {extras['agreement'][walk][0]:.2f}"
        pictures.append(figure(png_uri(overlay(planes, mask, "segmentation" in result)), caption))
    legend = "Predicted outline in green" + (", true outline in red." if "segmentation" in result else ".")
    line = ""
    if "segmentation" in result:
        s = result["segmentation"]
        line = (
            f" Over {s['frames']} frames: IoU {s['iou']:.3f}, pixel accuracy {s['pixel_accuracy']:.3f}, "
            f"boundary F {s['boundary_f']:.3f}."
        )
    return (
        f"<h2>Masks of test subjects</h2><p class='note'>{legend}{line}</p><div class='grid'>{''.join(pictures)}</div>"
    )


def gallery(features, extras, result, kind):
    rows = []
    for probe, found in retrievals(features):
        items = [figure(png_uri(energy(extras, probe)), f"probe {features.names[probe]}")]
        items += [
            figure(
                png_uri(energy(extras, i)),
                features.names[i],
                "right" if features.labels[i] == features.labels[probe] else "wrong",
            )
            for i in found
        ]
        rows.append(f"<div class='row'>{''.join(items)}</div>")
    others = f", among walks of another {kind}" if len(result["groups"]) > 1 else ""
    return (
        f"<h2>Retrieval</h2><p class='note'>Gait energy image (mean predicted mask) of a probe, and of its five "
        f"nearest gallery walks by GaitNet feature{others}. Half of the rows show errors, if there are as many.</p>"
        f"{''.join(rows)}"
    )


def energy(extras, walk):
    return np.rint(255 * extras["energy"][walk].astype(np.float32)).astype(np.uint8)


def subjects(result, features, kind):
    names = dict(zip(features.labels.tolist(), (name.split("/")[0] for name in features.names)))
    named = "/" in str(features.names[0])
    rows = [
        [
            names[row["subject"]] if named else str(row["subject"]),
            str(row["trials"]),
            f"{100 * row['rank1']:.1f}",
            ""
            if row["most_confused_with"] is None
            else names[row["most_confused_with"]]
            if named
            else str(row["most_confused_with"]),
        ]
        for row in result["subjects"]
    ]
    note = f"Worst first. A trial is one probe against the gallery of one {kind}."
    head = ["subject", "trials", "rank-1 (%)", "most often taken for"]
    return f"<h2>By subject</h2><p class='note'>{note}</p>{table(head, rows)}"


def provenance(result):
    return f"<h2>Provenance</h2><pre>{escape(json.dumps(result['provenance'], indent=1))}</pre>"


def table(head, rows):
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f"<div class='wide'><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def figure(source, caption, kind=""):
    return f"<figure class='{kind}'><img alt='' src='{source}'><figcaption>{escape(str(caption))}</figcaption></figure>"
