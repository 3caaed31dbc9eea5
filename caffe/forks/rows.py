"""Layers whose tops have as many rows as their values say: known only when they were computed."""

from caffe.torch_layer import TorchLayer, several


class Rows(TorchLayer):
    """`compute` gives tops of any number of rows; `top_shapes` guesses one for when the net is built."""

    differentiable = False
    capturable = False

    def forward(self, bottom, top):
        for blob, value in zip(top, several(self.compute(*(b.tensor() for b in bottom)))):
            blob.reshape(*value.shape)
            blob.memory.assign(value.to(bottom[0].tensor().device))


def array(tensor):
    """The tensor's values as a NumPy array."""
    return tensor.detach().cpu().numpy()
