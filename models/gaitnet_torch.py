"""GaitNet in plain PyTorch: this file and the state dict that `tools/export.py --torch` writes are all it needs.

    net = load("gaitnet.pt")
    feature, masks = net(clips)  # clips (N, 6, 3, 64, 64): BGR, 0..255, minus 127.5

Names of layers and parameters are those of the Caffe net; `tools/import_weights.py` goes back to it.
"""

import torch
import torch.nn.functional as F
from torch import nn


class GaitNet(nn.Module):
    """Six frames of a walking person -> six masks -> a 256-d gait feature (paper, section 3)."""

    def __init__(self):
        super().__init__()
        self.conv1_0 = nn.Conv2d(3, 48, 5)
        self.conv2_0 = nn.Conv2d(48, 128, 5)
        self.conv3_0 = nn.Conv2d(128, 192, 3)
        self.conv4_0 = nn.Conv2d(192, 192, 3)
        self.conv5_0 = nn.Conv2d(192, 192, 3)
        self.conv6_0 = nn.Conv2d(192, 1024, 7)
        self.conv7_0 = nn.Conv2d(1024, 1024, 1)
        self.conv8_0 = nn.ConvTranspose2d(1024, 1, 64)
        self.conv9_0 = nn.Conv2d(1, 64, 5)
        self.bn0 = nn.BatchNorm2d(64, affine=False)
        for k, channels in ((1, 64), (2, 96), (3, 96)):
            for s in (1, 2, 3):
                setattr(self, f"conv{9 + k}_scale{s}", nn.Conv2d(channels, 32, 3, padding=s, dilation=s))
                setattr(self, f"bn{k}_scale{s}", nn.BatchNorm2d(32, affine=False))
        self.fc_fea = nn.Linear(96 * 7 * 7, 256)
        for conv in (self.conv1_0, self.conv2_0, self.conv3_0, self.conv4_0, self.conv5_0):
            # A pixel's channels side by side: faster on a CPU.
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)

    def masks(self, frames):
        """(N, 3, 64, 64) -> (N, 1, 64, 64): how likely each pixel shows the person."""
        x = _pool(self.conv1_0(frames.contiguous(memory_format=torch.channels_last)))
        x = _pool(self.conv2_0(x))
        for conv in (self.conv3_0, self.conv4_0, self.conv5_0):
            x = F.relu(conv(x))
        x = x.flatten(1)  # (N, 192 * 7 * 7); from here on kernels cover all there is, and are matrices
        for conv in (self.conv6_0, self.conv7_0):
            x = F.relu(F.linear(x, conv.weight.flatten(1), conv.bias))
        x = x @ self.conv8_0.weight.flatten(1) + self.conv8_0.bias
        return x.unflatten(1, (1, 64, 64)).sigmoid()

    def feature(self, fused):
        """(N, 1, 64, 64), the sum of a clip's six masks -> (N, 256)."""
        x = _pool(self.bn0(self.conv9_0(fused)))
        x = _pool(self.scales(1, x))
        x = _pool(self.scales(2, x))
        return F.relu(self.fc_fea(F.relu(self.scales(3, x)).flatten(1)))

    def scales(self, k, x):
        """Three dilations side by side: (N, C, H, W) -> (N, 96, H, W)."""
        branches = [getattr(self, f"bn{k}_scale{s}")(getattr(self, f"conv{9 + k}_scale{s}")(x)) for s in (1, 2, 3)]
        return torch.cat(branches, 1)

    def forward(self, clips):
        """(N, 6, 3, 64, 64) -> feature (N, 256), masks (N, 6, 1, 64, 64)."""
        masks = self.masks(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        return self.feature(masks.sum(1)), masks


def load(path) -> GaitNet:
    """GaitNet, ready to evaluate, with the weights of `path`."""
    net = GaitNet()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()


def _pool(x):
    """ReLU and max pooling; the other way round, which is the same and has fewer numbers to look at."""
    return F.relu(F.max_pool2d(x, 3, 2, ceil_mode=True))  # Caffe rounds the size up
