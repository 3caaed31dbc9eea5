"""GaitNet's training step written as a plain PyTorch loop: what a good hand would write, for the benchmark to beat.

Channels-last, conv6/conv7/deconvolution as matrix products, torch.optim.SGD in its fused form, gradients set to None
between steps.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Segmentation(nn.Module):
    """(6N, 3, 64, 64) -> masks (6N, 1, 64, 64)"""

    def __init__(self):
        super().__init__()
        sizes = [(3, 48, 5), (48, 128, 5), (128, 192, 3), (192, 192, 3), (192, 192, 3)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k) for i, o, k in sizes)
        self.fc6, self.fc7 = nn.Linear(192 * 49, 1024), nn.Linear(1024, 1024)
        self.up = nn.Parameter(torch.randn(1024, 64 * 64) * 0.01)
        self.up_bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = F.relu_(conv(x))
            if i < 2:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = F.dropout(F.relu_(self.fc6(x.flatten(1))), 0.5, self.training)
        x = F.dropout(F.relu_(self.fc7(x)), 0.5, self.training)
        return torch.sigmoid(x @ self.up + self.up_bias).view(-1, 1, 64, 64)


class Recognition(nn.Module):
    """Sum of masks (N, 1, 64, 64) -> feature (N, 256)"""

    def __init__(self):
        super().__init__()
        self.conv9 = nn.Conv2d(1, 64, 5)
        self.bn0 = nn.BatchNorm2d(64, affine=False)
        self.scales = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(c, 32, 3, padding=d, dilation=d) for d in (1, 2, 3)) for c in (64, 96, 96)
        )
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(32, affine=False) for _ in range(3)) for _ in range(3))
        self.fc = nn.Linear(96 * 49, 256)

    def forward(self, x):
        x = F.max_pool2d(F.relu_(self.bn0(self.conv9(x))), 3, 2, ceil_mode=True)
        for i, (convs, norms) in enumerate(zip(self.scales, self.norms)):
            pairs = zip(convs, norms)  # type: ignore[call-overload]  # torch calls what is in a ModuleList a Module
            x = F.relu_(torch.cat([norm(conv(x)) for conv, norm in pairs], 1))
            if i < 2:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return F.dropout(F.relu_(self.fc(x.flatten(1))), 0.5, self.training)


class PlainGaitNet:
    """One of the four nets with its optimiser; `step()` is one iteration on a fixed batch of `clips` clips."""

    def __init__(self, step, clips, device="cpu"):
        torch.manual_seed(0)
        self.kind, self.clips = step, clips
        # torch's types lack this form of Module.to
        self.seg = Segmentation().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rec = Recognition().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Linear(256, 74).to(device)
        self.frames = torch.rand(6 * clips, 3, 64, 64, device=device).sub_(0.5).mul_(255)
        self.frames = self.frames.contiguous(memory_format=torch.channels_last)
        self.truth = torch.randint(0, 2, (6 * clips, 1, 64, 64), device=device).float()
        self.label = torch.randint(0, 74, (clips,), device=device)
        self.sim = torch.randint(0, 2, (clips // 2,), device=device).float()
        learning = {"seg": [self.seg], "rec": [self.rec, self.head]}.get(step, [self.seg, self.rec, self.head])
        params = [p for module in learning for p in module.parameters()]
        self.optimiser = torch.optim.SGD(params, 1e-6, 0.9, weight_decay=5e-4, fused=True)

    def step(self):
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def loss(self):
        with torch.set_grad_enabled(self.kind != "rec"):
            masks = self.seg(self.frames)
        loss_seg = (masks - self.truth).square().sum() / (2 * len(masks))
        if self.kind == "seg":
            return loss_seg
        feature = self.rec(masks.view(6, self.clips, 1, 64, 64).sum(0))
        loss = F.cross_entropy(self.head(feature), self.label)
        if self.kind == "sia":
            half = self.clips // 2
            distance = (feature[:half] - feature[half:]).norm(dim=1)
            far = (10 - distance).clamp(min=0)
            loss = loss + 0.01 * (self.sim * distance**2 + (1 - self.sim) * far**2).sum() / (2 * half)
        return loss if self.kind == "rec" else loss + 0.01 * loss_seg


# ---- nets that users know, with a loss, for forward and backward


class LeNet(nn.Module):
    """(N, 1, 28, 28) -> (N, 10)"""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.ip1, self.ip2 = nn.Linear(50 * 16, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 2, 2)
        x = F.max_pool2d(self.conv2(x), 2, 2)
        return self.ip2(F.relu_(self.ip1(x.flatten(1))))


class CaffeNet(nn.Module):
    """(N, 3, 227, 227) -> (N, 1000)"""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, 4),
            nn.ReLU(True),
            nn.MaxPool2d(3, 2),
            nn.LocalResponseNorm(5),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(True),
            nn.MaxPool2d(3, 2),
            nn.LocalResponseNorm(5),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(True),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(9216, 4096),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


PLAIN = {"lenet": (LeNet, (1, 28, 28)), "caffenet": (CaffeNet, (3, 227, 227))}  # and the shape of an item
