"""The nets that the benchmarks run beside GaitNet's: of other kinds, at full size, with random weights.

AlexNet has LRN and groups, ResNet-50 BatchNorm and Scale in place, MobileNet convolutions of each channel by itself;
LeNet and CaffeNet are trained.
"""

from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

XAVIER, MSRA = dict(type="xavier"), dict(type="msra")


def alexnet(batch):
    """(N, 3, 227, 227) -> prob (N, 1000); the order of BVLC's bvlc_alexnet: LRN before pooling."""
    n = NetSpec()
    n.data = _input(batch, 3, 227)
    x = _alexnet_features(n, n.data, lrn_first=True)
    n.prob = L.Softmax(_classifier(n, x))
    return n.to_proto()


def caffenet(batch):
    """Training net of CaffeNet: data (N, 3, 227, 227), label (N) -> loss; pooling before LRN."""
    n = NetSpec()
    n.data, n.label = _input(batch, 3, 227), L.Input(shape=dict(dim=[batch]))
    x = _alexnet_features(n, n.data, lrn_first=False)
    n.loss = L.SoftmaxWithLoss(_classifier(n, x), n.label)
    return n.to_proto()


def lenet(batch):
    """Training net of LeNet: data (N, 1, 28, 28), label (N) -> loss."""
    n = NetSpec()
    n.data, n.label = _input(batch, 1, 28), L.Input(shape=dict(dim=[batch]))
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5, weight_filler=XAVIER)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=50, kernel_size=5, weight_filler=XAVIER)
    n.pool2 = L.Pooling(n.conv2, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, weight_filler=XAVIER)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, weight_filler=XAVIER)
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n.to_proto()


def resnet50(batch):
    """(N, 3, 224, 224) -> prob (N, 1000)."""
    n = NetSpec()
    n.data = _input(batch, 3, 224)
    x = _normalised(n, "conv1", n.data, 64, 7, stride=2)
    n.pool1 = x = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 2):
        for block in range(blocks):
            name, stride = f"res{stage}{'abcdef'[block]}", 2 if block == 0 and stage > 2 else 1
            short = x if block else _normalised(n, f"{name}_branch1", x, 4 * width, 1, stride, relu=False)
            y = _normalised(n, f"{name}_branch2a", x, width, 1, stride)
            y = _normalised(n, f"{name}_branch2b", y, width, 3)
            y = _normalised(n, f"{name}_branch2c", y, 4 * width, 1, relu=False)
            n[name] = L.Eltwise(short, y)
            n[f"{name}_relu"] = x = L.ReLU(n[name], in_place=True)
    return _mean_and_classes(n, x)


def mobilenet(batch):
    """(N, 3, 224, 224) -> prob (N, 1000); MobileNet of 2017, width 1."""
    n = NetSpec()
    n.data = _input(batch, 3, 224)
    x, channels = _normalised(n, "conv1", n.data, 32, 3, stride=2), 32
    sizes = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for i, (outputs, stride) in enumerate(sizes, 2):
        x = _normalised(n, f"conv{i}_dw", x, channels, 3, stride, group=channels)
        x, channels = _normalised(n, f"conv{i}_sep", x, outputs, 1), outputs
    return _mean_and_classes(n, x)


# ---- pieces


def _input(batch, channels, size):
    return L.Input(shape=dict(dim=[batch, channels, size, size]))


def _alexnet_features(n, x, lrn_first):
    sizes = [(96, 11, 4, 0, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2)]
    for i, (outputs, kernel, stride, pad, group) in enumerate(sizes, 1):
        conv = L.Convolution(
            x, num_output=outputs, kernel_size=kernel, stride=stride, pad=pad, group=group, weight_filler=XAVIER
        )
        n[f"conv{i}"] = conv
        n[f"relu{i}"] = x = L.ReLU(conv, in_place=True)
        lrn, pool = (lambda x: L.LRN(x, local_size=5, alpha=1e-4, beta=0.75)), _pool3
        if i <= 2:
            first, second = (lrn, pool) if lrn_first else (pool, lrn)
            names = (f"norm{i}", f"pool{i}") if lrn_first else (f"pool{i}", f"norm{i}")
            n[names[0]] = x = first(x)
            n[names[1]] = x = second(x)
    n.pool5 = _pool3(x)
    return n.pool5


def _pool3(x):
    return L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)


def _classifier(n, x):
    for name in ("6", "7"):
        n[f"fc{name}"] = x = L.InnerProduct(x, num_output=4096, weight_filler=XAVIER)
        n[f"relu{name}"] = x = L.ReLU(x, in_place=True)
        n[f"drop{name}"] = x = L.Dropout(x, in_place=True)
    n.fc8 = L.InnerProduct(x, num_output=1000, weight_filler=XAVIER)
    return n.fc8


def _normalised(n, name, x, outputs, kernel, stride=1, group=1, relu=True):
    """Convolution, BatchNorm, Scale and ReLU, the last three in place."""
    n[name] = x = L.Convolution(
        x,
        num_output=outputs,
        kernel_size=kernel,
        stride=stride,
        pad=kernel // 2,
        group=group,
        bias_term=False,
        weight_filler=MSRA,
    )
    n[f"bn_{name}"] = x = L.BatchNorm(x, in_place=True)
    n[f"scale_{name}"] = x = L.Scale(x, bias_term=True, in_place=True)
    if relu:
        n[f"relu_{name}"] = x = L.ReLU(x, in_place=True)
    return x


def _mean_and_classes(n, x):
    n.pool = L.Pooling(x, pool=P.Pooling.AVE, global_pooling=True)
    n.fc = L.InnerProduct(n.pool, num_output=1000, weight_filler=XAVIER)
    n.prob = L.Softmax(n.fc)
    return n.to_proto()


def _deploy(batch):
    from caffe.upgrade import upgrade_net
    from models.gaitnet import deploy

    param = deploy(batch)
    upgrade_net(param, "deploy")
    return param


NETS = {
    "deploy": _deploy,
    "alexnet": alexnet,
    "resnet50": resnet50,
    "mobilenet": mobilenet,
    "lenet": lenet,
    "caffenet": caffenet,
}
