"""Has training seen the people who are tested? Said for sure, or said that it is not sure."""

from pathlib import Path

from layers import people
from layers.names import some

UNSEEN, UNKNOWN, LEAKED = "unseen", "unknown", "leaked"


def judge(weights, dataset, subjects, ids):
    """What the record beside some weights says of the tested `ids` among the `subjects` of a data set.

    weights: eval.weights.Weights. Gives {"verdict": ..., "told": a clause on the people, "leaked": their ids}."""
    name = Path(weights.path).name
    known = people.read(weights.path, weights.sha256)
    if known is None:
        apart = f", which tells {weights.people} people apart" if weights.people else ""
        return unknown(
            f"who trained {name}{apart}, is not recorded" if apart else f"who trained {name} is not recorded"
        )
    leaked = known.seen(dataset.name, ids)
    if leaked:
        return {
            "verdict": LEAKED,
            "told": f"LEAKED: {len(leaked)} of {len(ids)} test people were trained on ({some(leaked)})",
            "leaked": leaked,
            "remedy": remedy(known.all[dataset.name], subjects),
        }
    if known.unknown:
        return unknown(f"{name} started from {', '.join(known.unknown)}, and who trained that is not recorded")
    return {"verdict": UNSEEN, "told": "whom training has not seen", "leaked": []}


def unknown(reason):
    return {"verdict": UNKNOWN, "told": f"UNKNOWN whether training has seen them: {reason}", "leaked": []}


def remedy(trained, subjects):
    """What to say instead, where those who trained are the first of the subjects."""
    first = sorted(subjects)[: len(trained)]
    return f"say --train-num {len(trained)} to test others" if first == sorted(trained) else "test others"


def require_unseen(training, what):
    """ValueError: some of the tested people were trained on."""
    if training["verdict"] == LEAKED:
        raise ValueError(
            f"{what}: {training['told']}, so the result would look better than it is; "
            f"{training.get('remedy', 'test others')}, or say --leaked to go on, and the report says so too"
        )
