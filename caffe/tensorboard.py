"""TensorBoard event files of a training: `caffe train --tensorboard DIR`, then `tensorboard --logdir DIR`.

Scalars    loss, lr and the train net's outputs where the log has them (`display`), the means of the test nets' outputs
Images     after a test: the largest 3-channel blob of the first test net, and every 1-channel blob of the same number
           and size drawn over it (GaitNet's masks over the frames)
Histograms after a test: every learnable parameter, as `<layer>/<number>`
"""

import functools

import torch

from caffe import glog as log
from caffe.errors import CaffeError

PICTURES = 8  # how many items of a blob are shown
LEAST_SIDE = 8  # pixels: smaller blobs are no pictures


def apart(write):
    """A disk that is full ends the curves, not the training."""

    @functools.wraps(write)
    def guarded(self, *arguments):
        if self.writer is None:
            return
        try:
            write(self, *arguments)
        except OSError as e:
            self.writer = None
            log.warning(log.here(), f"--tensorboard: cannot write to {self.folder}: {e.strerror}; training goes on")

    return guarded


class TensorBoard:
    """An observer of a solver (`Solver.add_observer`) that writes into `folder`."""

    def __init__(self, solver, folder):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise CaffeError("--tensorboard needs the package tensorboard: pip install tensorboard") from e
        try:
            self.writer, self.folder = SummaryWriter(folder, purge_step=solver.iter or None), folder
        except OSError as e:
            raise CaffeError(f"--tensorboard: cannot write to {folder}: {e.strerror}") from e
        self.seen = {}  # blob name -> its values in the latest pass of the first test net
        if solver.test_nets:
            wiring = solver.test_nets[0].wiring
            solver.test_nets[0].after_forward(lambda i: self._keep(wiring, wiring.nodes[i]))

    @apart
    def on_display(self, solver, outputs):
        """`outputs`: (name, loss weight, values) of the train net."""
        self.writer.add_scalar("train/smoothed loss", float(solver.smoothed_loss), solver.iter)
        self._scalars("train", [(name, value) for name, _, values in outputs for value in values], solver.iter)

    @apart
    def on_rate(self, solver, rate):
        self.writer.add_scalar("lr", rate, solver.iter)

    @apart
    def on_test(self, solver, index, means):
        """`means`: (output name, its mean over the test's batches) of test net number `index`."""
        self._scalars("test" if not index else f"test #{index}", means, solver.iter)
        if index:
            return
        for name, pictures in pictures_of(self.seen).items():
            self.writer.add_images(name, pictures, solver.iter)
        self.seen.clear()
        for layer, blobs in solver.net.params.items():
            for i, blob in enumerate(blobs):
                self.writer.add_histogram(f"{layer}/{i}", blob.tensor().detach().cpu(), solver.iter)
        self.writer.flush()

    @apart
    def close(self):
        self.writer.close()

    def _scalars(self, group, values, iteration):
        counts: dict[str, int] = {}
        for name, value in values:  # an output of several values is shown as name, name.1, name.2, ...
            number = counts[name] = counts.get(name, -1) + 1
            self.writer.add_scalar(f"{group}/{name}" + (f".{number}" if number else ""), value, iteration)

    def _keep(self, wiring, node):
        """Note the tops of a layer that may be pictures, before a frugal net drops them. In-place layers come later."""
        if node.type == "Split":
            return
        for k, blob in zip(node.top_ids, node.tops):
            shape = blob.shape
            if len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) >= LEAST_SIDE:
                self.seen[wiring.names[k]] = blob.tensor().detach()


def pictures_of(blobs) -> dict:
    """{title: (n, 3, H, W) in 0..1} from {blob name: tensor}: the largest 3-channel blob, and the 1-channel blobs of
    its number and size laid over it in red."""
    colored = [name for name, x in blobs.items() if x.shape[1] == 3]
    if not colored:
        return {}
    frames = max(colored, key=lambda name: blobs[name].numel())
    n = len(blobs[frames])
    chosen = torch.linspace(0, n - 1, min(n, PICTURES)).long()
    shown = _stretched(blobs[frames][chosen]).flip(1)  # Caffe's images are BGR
    result = {f"images/{frames}": shown}
    for name, x in blobs.items():
        if x.shape[1] == 1 and (len(x), x.shape[2:]) == (n, blobs[frames].shape[2:]):
            mask = x[chosen].cpu().float()
            mask = mask if 0 <= mask.min() and mask.max() <= 1 else _stretched(mask)
            red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
            result[f"images/{name} over {frames}"] = shown * (1 - 0.6 * mask) + 0.6 * mask * red
    return result


def _stretched(x):
    """To 0..1, on the CPU."""
    x = x.cpu().float()
    return (x - x.min()) / (x.max() - x.min()).clamp(min=1e-12)
