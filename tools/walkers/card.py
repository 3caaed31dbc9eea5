"""The card of a folder of walkers, README.md, in the conventions of the Hugging Face hub."""

import yaml

HEAD = {
    "pretty_name": "Walkers",
    "license": "mit",
    "task_categories": ["image-segmentation", "image-feature-extraction"],
    "tags": ["gait-recognition", "synthetic", "silhouettes"],
}


def card(options, sequences):
    """The text for walkers made with `options` {name: value}; sequences: how many there are."""
    head = HEAD | {"size_categories": [size(sequences * options["frames"])]}
    told = "\n".join(f"| {name} | {value} |" for name, value in options.items())
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---
# Walkers

{sequences} sequences of articulated 3-D figures that walk past cameras, rendered by `tools/make_walkers.py`: pictures
and true masks. Who walks is told by the shape of the body and the way of walking, never by colour: clothes, skin, room,
light and noise are drawn anew for every sequence. Nobody real is shown, and no picture of anybody went in.

| option | value |
|---|---|
{told}

The same options give the same pixels.

What it is for: to try training, evaluation and tools of gait recognition where no real data is at hand, and to compare
methods under conditions that are known exactly. What it is not for: claims about real people. Their bodies, clothes and
ways of walking differ in more than these figures know, and results do not carry over.
"""


def size(frames):
    """The hub's word for so many pictures."""
    limits = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
    return next((word for limit, word in limits if frames < limit), "10M<n<100M")
