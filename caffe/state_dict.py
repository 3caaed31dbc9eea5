"""The parameters of a net under PyTorch's names, and back: `conv1.weight`, `conv1.bias`, `bn1.running_mean`, ...

Caffe's weights of a Convolution, Deconvolution and InnerProduct have the shapes of torch's Conv2d, ConvTranspose2d and
Linear. BatchNorm stores sums and their weight, torch the quotients. Those of other types are called `blob<number>`.
"""

import torch

from caffe.errors import CaffeError

NAMES: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("Convolution", "Deconvolution", "InnerProduct", "Scale"), ("weight", "bias")
)
NAMES |= {"PReLU": ("weight",), "Embed": ("weight", "bias"), "Bias": ("bias",)}


def state_dict(net) -> dict:
    """{name: tensor} of all parameters of the caffe.Net, as copies; of two layers with one name, the first's."""
    state: dict[str, torch.Tensor] = {}
    for node in _nodes(net):
        blobs = [blob.tensor().detach().clone().cpu() for blob in node.layer.blobs]
        if node.type == "BatchNorm":
            mean, variance, weight = blobs
            scale = 1 / weight if weight else weight
            blobs = [mean * scale, variance * scale, torch.tensor(0)]
        state.update(zip(_names(node), blobs))
    return state


def load_state_dict(net, state, source="the state dict") -> None:
    """Write {name: tensor} into the parameters of the caffe.Net. Names that are missing or left over, and shapes that
    differ, are a CaffeError that begins with `source`."""
    wanted = {name: node for node in _nodes(net) for name in _names(node)}
    optional = {name for name in wanted if name.endswith(".num_batches_tracked")}
    for what, names in (
        ("lacks", set(wanted) - optional - set(state)),
        ("has beyond the net's", set(state) - set(wanted)),
    ):
        if names:
            raise CaffeError(f"{source} {what} {', '.join(sorted(names))}; the net and the weights must be of one kind")
    for node in _nodes(net):
        values = [state.get(name) for name in _names(node)]
        if node.type == "BatchNorm":
            values[2] = torch.ones(1)  # mean and variance are stored as they are
        for name, blob, value in zip(_names(node), node.layer.blobs, values):
            if tuple(value.shape) != blob.shape:
                raise CaffeError(f"{source}: {name} has shape {tuple(value.shape)}, the net wants {blob.shape}")
            blob.tensor().copy_(value)


def _nodes(net):
    return {node.name: node for node in reversed(net.nodes) if node.layer.blobs}.values()


def _names(node):
    if node.type == "BatchNorm":
        names: tuple[str, ...] = ("running_mean", "running_var", "num_batches_tracked")
    else:
        names = NAMES.get(node.type) or tuple(f"blob{i}" for i in range(len(node.layer.blobs)))
    return [f"{node.name}.{name}" for name in names[: len(node.layer.blobs)]]
