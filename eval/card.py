"""Cards: what weights are, who trained them, how well they do and what they must not be used for.

A card is Markdown with a head of YAML, in the conventions of the Hugging Face hub, and lies beside the weights:
gaitnet-sia_iter_60.caffemodel, gaitnet-sia_iter_60.md. Training writes it, evaluation writes it anew with its figures.
"""

from pathlib import Path

import yaml

from layers import people
from layers.bundled import regular, whole

NOT_FOR = """## What it must not be used for

This is a biometric tool: it tells people apart who may not know that they are seen. It is for research on gait
recognition. Do not identify, follow or rate people with it who have not agreed, and let no decision about a person rest
on its answer. Laws on biometric data (in the European Union the GDPR, article 9, and the AI Act) apply to its use.

It errs: see the figures above, which were measured on people of one data set. Other cameras, clothes, ages and ways of
walking than those of its training will do worse, and not equally so for everybody.
"""
OURS = "library_name: gaitnet-caffe"  # a line of every card of ours
STEPS = {
    "seg": "the segmentation branch alone",
    "rec": "the recognition branch, segmentation frozen",
    "joint": "both branches together",
    "sia": "both branches together, on pairs of walks",
}


def write_card(weights, dataset, result=None):
    """Write the card of the file `weights`, trained for `dataset`; result: what an evaluation found (eval/cli.py).

    Gives its path, or None where the folder cannot be written to, or somebody's own text lies there."""
    path = card_path(weights)
    if path.exists() and OURS not in regular.read_text(path, errors="replace"):
        return None
    try:
        whole.write(path, card(weights, dataset, result))
    except OSError:
        return None
    return path


def card_path(weights):
    """models/a.caffemodel, models/a.caffemodel.h5 -> models/a.md"""
    return people.beside(weights, ".md")


def card(weights, dataset, result=None):
    """The text of the card."""
    name = Path(weights).name
    step = name.removeprefix("gaitnet-").partition("_iter_")[0]
    parts = [
        f"---\n{yaml.safe_dump(head(name, dataset, result), sort_keys=False, allow_unicode=True)}---\n",
        f"# {name}\n",
        "GaitNet (Song et al., Pattern Recognition 2019) recognises people by how they walk: six video frames become "
        "six masks, and their sum a gait feature of 256 numbers. Nearest features, nearest walks.\n",
        "## Training\n",
        f"* Data: {dataset.title}.",
        f"* Step: {step}, {STEPS[step]}." if step in STEPS else "* Step: not told by the name of the file.",
        f"* People: {trained_by(weights, dataset, result)}.\n",
        *(measured(dataset, result) if result else ["## Evaluation\n", "Not evaluated yet.\n"]),
        NOT_FOR,
    ]
    return "\n".join(parts)


def head(name, dataset, result):
    """The metadata, as a dict."""
    told = {
        "library_name": "gaitnet-caffe",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["gait-recognition", "biometrics", "caffe", "gaitnet"],
        "datasets": [dataset.name],
        **({"license": "mit"} if dataset.name == "walkers" else {}),  # of others the owners of the data decide
    }
    if result:
        figures = [{"type": "rank-1", "name": what, "value": round(100 * value, 3)} for what, value in rank1s(result)]
        if "segmentation" in result:
            iou = round(result["segmentation"]["iou"], 4)
            figures.append({"type": "mean_iou", "name": "IoU of masks", "value": iou})
        told["metrics"] = sorted({figure["type"] for figure in figures})
        task = {"type": "image-feature-extraction", "name": "Gait recognition"}
        of = {"type": dataset.name, "name": dataset.title, "split": "people who did not train"}
        told["model-index"] = [{"name": name, "results": [{"task": task, "dataset": of, "metrics": figures}]}]
    return told


def rank1s(result):
    """(what, share) of the mean rank-1, of all probes and of each kind of them."""
    for kind, part in (("", result["identification"]), *result.get("covariates", {}).items()):
        for key, words in (("with_identical", ""), ("without_identical", " without identical")):
            if key in part and part[key]["rank1"] == part[key]["rank1"]:
                yield f"mean rank-1{words}{f', {kind} probes' if kind else ''}", part[key]["rank1"]


def measured(dataset, result):
    training, command = result.get("training", {}), result["provenance"]["command"]
    yield "## Evaluation\n"
    yield f"On {dataset.title}; the people tested: {training.get('told', 'not known')}.\n"
    yield "| measure | value |\n|---|---|"
    for told, value in rank1s(result):
        yield f"| {told} | {100 * value:.2f} % |"
    if "segmentation" in result:
        yield f"| IoU of predicted masks | {result['segmentation']['iou']:.3f} |"
    yield f"\nMeasured by `{command}`; intervals and tables lie in the folder of its results.\n"


def trained_by(weights, dataset, result):
    try:
        known = people.read(weights, result and result["provenance"].get("weights_sha256"))
    except ValueError:
        known = None
    if known is None:
        return "not recorded"
    ids = known.all.get(dataset.name, [])
    others = sum(len(more) for name, more in known.all.items() if name != dataset.name)
    text = f"{len(ids)} of {dataset.title} ({ids[0]} to {ids[-1]})" if ids else f"none of {dataset.title}"
    text += f", and {others} of other data sets" if others else ""
    unknown = f"; who trained {', '.join(known.unknown)}, from which it started, is not recorded"
    return text + (unknown if known.unknown else "")
