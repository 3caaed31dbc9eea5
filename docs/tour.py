# %% [markdown]
# # A tour of GaitNet in pycaffe
#
# Cells for an editor that knows `# %%` (VS Code, PyCharm, Spyder) with the repository's `.venv`; or run it whole:
# `.venv/bin/python docs/tour.py`. It takes the weights in `TOUR_WEIGHTS` and the walkers in `data/`; without either it
# makes do with untrained weights or with noise, and says so.

# %%
import os
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import caffe
from layers.datasets import DATASETS, data_root
from layers.sources import open_frames

if not hasattr(sys, "ps1"):  # no one is looking: run as a script
    matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parent.parent if "__file__" in globals() else Path.cwd()

# %% [markdown]
# ## The net
# The deploy net takes six frames and gives a 256-d feature. `blobs` are what flows through it, `params` what was
# learned.

# %%
weights = os.environ.get("TOUR_WEIGHTS")
net = caffe.Net(str(ROOT / "eval" / "deploy_gaitnet.prototxt"), caffe.TEST, weights=weights)
if weights is None:
    print("untrained weights: set TOUR_WEIGHTS to a .caffemodel to see more than noise")
    for name, blobs in net.params.items():  # BatchNorm without statistics would divide by nothing
        if name.startswith("bn"):
            blobs[1].data[...] = blobs[2].data[...] = 1
    net.params["conv1_0"][0].data[...] /= 64  # inputs are +-127
for name in ("im0", "im_cube", "conv8_0", "temporal_fusion", "fc_fea"):
    print(f"{name:16s}", net.blobs[name].data.shape)
for name in ("conv1_0", "conv6_0", "bn0", "fc_fea"):
    print(f"{name:16s}", [blob.data.shape for blob in net.params[name]])

# %% [markdown]
# ## Clips
# Six consecutive frames of a walk, BGR, minus 127.5; here of a few test subjects, seen from the side.

# %%
walkers = DATASETS["walkers"]
images, truth = (data_root() / walkers.folder / folder for folder in (walkers.im_dir, walkers.gt_dir))
clips = []  # (subject, frames (6, 64, 64, 3))
if images.is_dir():
    frames = open_frames(str(images), str(truth))
    _, tested = walkers.split(walkers.subjects(str(images)))
    for walk in walkers.sequences(str(images), tested[:4]):
        if walk.view == "090" and walk.condition in ("nm-01", "nm-02", "nm-05"):
            clips += [(walk.subject, frames.clip(walk.path, start, 6)[0]) for start in (2, 8)]
else:
    print(f"no walkers in {images}: these clips are noise (tools/make_walkers.py renders them)")
    rng = np.random.default_rng(0)
    clips = [(f"{i % 3}", rng.integers(0, 256, (6, 64, 64, 3), np.uint8)) for i in range(6)]
print(len(clips), "clips of", len({subject for subject, _ in clips}), "subjects")


# %% [markdown]
# ## Masks and features
# `forward` runs the net; afterwards every blob can be looked at.


# %%
def look(frames):
    """(masks (6, 64, 64), feature (256,)) of a clip (6, 64, 64, 3)."""
    for i, frame in enumerate(frames):
        net.blobs[f"im{i}"].data[0] = frame.transpose(2, 0, 1) - np.float32(127.5)
    feature = net.forward()["fc_fea"]
    return net.blobs["conv8_0"].data[:, 0].copy(), feature[0].copy()


found = [look(frames) for _, frames in clips]
masks, features = (np.stack(values) for values in zip(*found))

figure, axes = plt.subplots(3, 7, figsize=(12, 5.4), layout="constrained")
for i in range(6):
    axes[0, i].imshow(clips[0][1][i][:, :, ::-1])
    axes[1, i].imshow(masks[0][i], cmap="gray", vmin=0, vmax=1)
    axes[2, i].imshow(masks[-1][i], cmap="gray", vmin=0, vmax=1)
axes[1, 6].set_title("sum of six")
axes[1, 6].imshow(masks[0].sum(0), cmap="magma")
axes[2, 6].imshow(masks[-1].sum(0), cmap="magma")
for axis in axes.flat:
    axis.set_axis_off()

# %% [markdown]
# ## Who is it?
# The two main directions of the features (PCA): clips of one subject should lie together.

# %%
centred = features - features.mean(0)
_, _, directions = np.linalg.svd(centred, full_matrices=False)
plane = centred @ directions[:2].T

chart = plt.figure(figsize=(5, 4), layout="constrained")
subjects = [subject for subject, _ in clips]
for subject in sorted(set(subjects)):
    own = plane[[s == subject for s in subjects]]
    plt.scatter(own[:, 0], own[:, 1], label=subject)
plt.legend(title="subject")
plt.title("features, first two principal directions")

# %%
distance = np.linalg.norm(features[:, None] - features[None], axis=2)
np.fill_diagonal(distance, np.inf)
nearest = [subjects[i] for i in distance.argmin(1)]
print(f"nearest other clip of the same subject: {np.mean(np.array(nearest) == np.array(subjects)):.0%}")

# %%
if "TOUR_PICTURES" in os.environ:
    figure.savefig(Path(os.environ["TOUR_PICTURES"]) / "masks.png")
    chart.savefig(Path(os.environ["TOUR_PICTURES"]) / "features.png")
plt.show()
