"""GaitNet: the definition of its nets, and of how each step trains them (paper, sections 3 and 4).

Six frames of a walking person -> six masks (segmentation branch) -> their sum -> a 256-d gait feature (recognition
branch). Four steps train it, each from the weights of the one before: seg, rec, joint, sia. `tools/make_prototxt.py`
writes what is defined here to experiments/ and eval/.

    gaitnet("casiab", "joint")   NetParameter, with the data layers of both phases
    solver("casiab", "joint")    SolverParameter
    deploy()                     NetParameter: frames in, feature out
"""

from dataclasses import dataclass, field, replace

from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffe.proto import caffe_pb2
from layers.datasets import DATASETS, NUM_FRAMES, SIZE

STEPS = ("seg", "rec", "joint", "sia")
FEATURE_DIM = 256


@dataclass(frozen=True)
class Step:
    """How one step trains. Batches count clips, in step sia pairs."""

    batch: int  # in phase TRAIN
    test_batch: int
    solver: dict  # SolverParameter: what this step has of its own
    seg_lr: float = 1  # lr_mult of the segmentation branch; 0 freezes it
    seg_loss: float = 0.01  # loss_weight of loss_seg
    scattered: bool = False  # in phase TRAIN each frame is of another walk
    expect: str = ""  # for the head of the solver file


@dataclass(frozen=True)
class Recipe:
    """How one dataset is trained."""

    steps: dict  # step -> Step
    solver: dict  # SolverParameter: what all steps have in common
    net: dict = field(default_factory=dict)  # what `segmentation` and `recognition` are told
    seed: int | None = None  # of the clips that are drawn; None: another one in each run


# As published. The authors report about 24 hours a step on one Titan X.
PUBLISHED = Recipe(
    steps={
        "seg": Step(128, 10, dict(base_lr=1e-4, stepsize=60000, max_iter=70000), seg_loss=1),
        "rec": Step(128, 10, dict(base_lr=1e-2, stepsize=20000, max_iter=60000), seg_lr=0, seg_loss=0),
        "joint": Step(128, 10, dict(base_lr=1e-2, stepsize=10000, max_iter=30000)),
        "sia": Step(64, 5, dict(base_lr=1e-3, stepsize=10000, max_iter=30000)),
    },
    solver=dict(
        test_iter=10,
        test_interval=1000,
        display=10,
        snapshot=10000,
        lr_policy="step",
        gamma=0.1,
        momentum=0.9,
        weight_decay=5e-4,
    ),
)

# Minutes on two CPU cores instead of days on a GPU. The net, its names and its shapes are the same; what differs:
# - step seg takes few frames at a time, each of another walk: what it lacks is steps, not frames (docs/SPEEDRUN.md);
# - inputs of +-127 learn slowly, so conv1_0 starts and learns as if they were divided by 64 (input_scale);
# - msra fillers, Adam and no dropout, in both branches: SGD leaves the masks at their mean for long, and the features
#   of some hundred iterations gain more from fitting than from being held back;
# - Adam moves every weight alike, so that the thousands that fc_fea adds up move too far together, and those of fc_id,
#   which start near zero, not far enough (fea_lr, id_lr);
# - BatchNorm's running statistics follow within tens of iterations, not thousands;
# - joint and sia are gentle: at the published rates so short a training forgets what it knew; in joint the segmentation
#   learns as fast as the recognition, or it stays what it was.
_ADAM = dict(type="Adam", weight_decay=0)
WALKERS = Recipe(
    steps={
        "seg": Step(2, 10, dict(_ADAM, base_lr=5e-4, max_iter=2200, snapshot=400), seg_loss=1, scattered=True),
        "rec": Step(12, 10, dict(_ADAM, base_lr=3e-4, max_iter=400, snapshot=100), seg_lr=0, seg_loss=0),
        "joint": Step(8, 10, dict(_ADAM, base_lr=1e-4, max_iter=100, snapshot=25)),
        "sia": Step(8, 5, dict(_ADAM, base_lr=5e-5, max_iter=40, snapshot=20), seg_lr=0.1),
    },
    solver=dict(
        test_iter=5,
        test_interval=400,
        display=20,
        random_seed=1,
        lr_policy="poly",
        power=1,
        momentum=0.9,
        weight_decay=5e-4,
    ),
    net=dict(
        seg_filler="msra",
        seg_dropout=0,
        input_scale=64,
        moving_average_fraction=0.9,
        fea_filler=dict(type="msra"),
        fea_dropout=0,
        fea_lr=0.3,
        id_lr=8,
    ),
    seed=1,
)

RECIPES = {"casiab": PUBLISHED, "outdoor": PUBLISHED, "szu": PUBLISHED, "walkers": WALKERS}


@dataclass(frozen=True)
class Variant:
    """What an experiment does otherwise than its data set's recipe; None: nothing."""

    train_num: int | None = None  # training subjects
    batch: int | None = None  # clips in phase TRAIN; step sia takes half as many pairs
    iter_size: int = 1  # batches an update
    silhouettes: bool = False  # true masks in the place of predicted ones: the recognition branch alone, in step rec
    partition: str = ""  # files for the data layers, see layers/split.py
    excluded: str = ""

    @property
    def steps(self):
        return ("rec",) if self.silhouettes else STEPS

    def step(self, now, step):
        """The Step `now` with this batch."""
        if self.batch is None:
            return now
        return replace(now, batch=self.batch // 2 if step == "sia" else self.batch)


def recipe(dataset):
    """The Recipe of a data set; one of your own is trained as the published ones, unless RECIPES names another."""
    return RECIPES.get(dataset, PUBLISHED)


def gaitnet(dataset, step, variant=Variant()):
    """The training net of `step` (one of STEPS) for `dataset` (one of layers.datasets.DATASETS)."""
    phases = [_training_net(dataset, step, phase, variant) for phase in ("TRAIN", "TEST")]
    net = caffe_pb2.NetParameter(name=f"gaitnet-{step}")
    for layers in zip(*(phase.layer for phase in phases), strict=True):
        if layers[0] == layers[1]:
            net.layer.append(layers[0])
        else:  # the data layer, and the slices that depend on its batch size: one for each phase
            for phase, layer in enumerate(layers):
                net.layer.add().CopyFrom(layer)
                net.layer[-1].include.add(phase=phase)
    return net


def solver(dataset, step, variant=Variant()):
    """How `step` trains on `dataset`; paths are relative to the experiment's folder."""
    common, own = recipe(dataset).solver, recipe(dataset).steps[step].solver
    spec = caffe_pb2.SolverParameter(net=f"./gaitnet-{step}.prototxt", snapshot_prefix=f"gaitnet-{step}")
    spec.solver_mode = caffe_pb2.SolverParameter.GPU
    for name, value in {**common, **own}.items():
        if name == "test_iter":
            spec.test_iter.append(value)
        else:
            setattr(spec, name, value)
    if variant.iter_size != 1:
        spec.iter_size = variant.iter_size
    return spec


def deploy(clips=1):
    """The net that evaluation runs: im0..im5 (clips, 3, 64, 64) -> fc_fea (clips, 256), BatchNorm as it was trained."""
    n = NetSpec()
    frames = [f"im{i}" for i in range(NUM_FRAMES)]
    for frame in frames:
        n[frame] = L.Input()
    masks = segmentation(n, frames)
    recognition(n, masks, clips, use_global_stats=True)
    net = caffe_pb2.NetParameter(name="gaitnet")
    for frame in frames:  # the old-style fields, which every Caffe reads
        net.input.append(frame)
        net.input_dim.extend([clips, 3, SIZE, SIZE])
    net.layer.extend(layer for layer in n.to_proto().layer if layer.type != "Input")
    return net


def _training_net(dataset, step, phase, variant):
    told = recipe(dataset)
    now = variant.step(told.steps[step], step)
    train_num = variant.train_num or DATASETS[dataset].train_num
    batch = now.batch if phase == "TRAIN" else now.test_batch
    clips = 2 * batch if step == "sia" else batch

    n = NetSpec()
    scattered = now.scattered and phase == "TRAIN"
    frames, truth = _data(n, DATASETS[dataset], train_num, step, phase, batch, told.seed, variant, scattered)
    if variant.silhouettes:
        masks = n.gt_cube = L.Concat(*(n[name] for name in truth), axis=0)  # (6N, 1, 64, 64)
    else:
        masks = segmentation(n, frames, truth, seg_lr=now.seg_lr, adam=now.solver.get("type") == "Adam", **told.net)
        n.loss_seg = L.EuclideanLoss(n.gt_cube, masks, loss_weight=now.seg_loss)
    if step == "seg":
        return n.to_proto()

    feature = recognition(n, masks, clips, **told.net)
    dropout = told.net.get("fea_dropout", 0.5)
    if dropout:
        feature = n.drop13 = L.Dropout(feature, in_place=True, dropout_ratio=dropout)
    identify(n, feature, train_num, **told.net)
    if step == "sia":
        n.feature1, n.feature2 = L.Slice(feature, name="make_pair", ntop=2, axis=0, slice_point=batch)
        n.loss_siamese = L.ContrastiveLoss(n.feature1, n.feature2, n.sim, loss_weight=0.01, margin=10)
    return n.to_proto()


def _data(n, dataset, train_num, step, phase, batch, seed, variant, scattered):
    """The Python layer of `step`: im0..im5 (N, 3, 64, 64), gt0..gt5 (N, 1, 64, 64), label (N), sim (N/2) of N clips.

    Silhouettes alone have no im0..im5."""
    layer, extra = {"seg": ("GaitNet_Seg", []), "sia": ("GaitNet_Sia", ["label", "sim"])}.get(
        step, ("GaitNet", ["label"])
    )
    frames, truth = ([f"{kind}{i}" for i in range(NUM_FRAMES)] for kind in ("im", "gt"))
    settings = {
        "dataset": dataset.name,
        "batch_size": batch,
        "train_num": train_num,
        "im_path": f"../../data/{dataset.folder}/{dataset.im_dir}",
        "gt_path": f"../../data/{dataset.folder}/{dataset.gt_dir}",
        "mode": phase,
    }
    if seed is not None:
        settings["seed"] = seed
    if scattered:
        settings["scattered"] = True
    settings |= {key: path for key in ("partition", "excluded") if (path := getattr(variant, key))}
    if variant.silhouettes:
        layer, frames = "GaitNet_Silhouettes", []
        del settings["im_path"]
    tops = [*frames, *truth, *extra]
    data = L.Python(name="data", module="layers", layer=layer, param_str=str(settings), ntop=len(tops))
    for name, top in zip(tops, data):
        n[name] = top
    return frames, truth


def segmentation(
    n, frames, truth=(), seg_lr=1, adam=False, seg_filler="xavier", seg_dropout=0.5, input_scale=1, **_recognition
):
    """The segmentation branch: blobs named `frames`, six of (N, 3, 64, 64) -> conv8_0 (6N, 1, 64, 64), masks in 0..1.

    `truth` (the true masks) goes to gt_cube, in the same order: all clips' first frames, then all second frames, ..."""

    def conv(bottom, num_output, kernel_size, filler=None, scale=1, type_name="Convolution"):
        filler = filler or dict(type=seg_filler)
        spec = dict(
            num_output=num_output, kernel_size=kernel_size, weight_filler=filler, bias_filler=dict(type="constant")
        )
        rates = [dict(lr_mult=seg_lr / scale), dict(lr_mult=seg_lr)]
        return getattr(L, type_name)(bottom, param=rates, convolution_param=spec)

    def relu(bottom):
        return L.ReLU(bottom, in_place=True)

    n.im_cube = L.Concat(*(n[name] for name in frames), axis=0)  # (6N, 3, 64, 64)
    if truth:
        n.gt_cube = L.Concat(*(n[name] for name in truth), axis=0)

    first = {}
    if input_scale != 1:
        # Weights s times smaller are the same net on inputs s times smaller. Their gradient is s times larger, and
        # they should move s times less: SGD's step goes with the gradient, Adam's does not.
        first = dict(
            filler=dict(type="gaussian", std=round((2 / (3 * 5 * 5)) ** 0.5 / input_scale, 6)),  # msra's
            scale=input_scale if adam else input_scale**2,
        )
    n.conv1_0 = conv(n.im_cube, 48, 5, **first)
    n.relu1_0 = relu(n.conv1_0)
    n.pool1_0 = _pool(n.relu1_0)  # 60 -> 30
    n.conv2_0 = conv(n.pool1_0, 128, 5)
    n.relu2_0 = relu(n.conv2_0)
    n.pool2_0 = _pool(n.relu2_0)  # 26 -> 13
    n.conv3_0 = conv(n.pool2_0, 192, 3)
    n.relu3_0 = relu(n.conv3_0)
    n.conv4_0 = conv(n.relu3_0, 192, 3)
    n.relu4_0 = relu(n.conv4_0)
    n.conv5_0 = conv(n.relu4_0, 192, 3)
    n.relu5_0 = relu(n.conv5_0)  # (6N, 192, 7, 7)
    n.conv6_0 = conv(n.relu5_0, 1024, 7)
    top = n.relu6_0 = relu(n.conv6_0)  # (6N, 1024, 1, 1)
    if seg_dropout:
        top = n.drop6_0 = L.Dropout(top, in_place=True, dropout_ratio=seg_dropout)
    n.conv7_0 = conv(top, 1024, 1)
    top = n.relu7_0 = relu(n.conv7_0)
    if seg_dropout:
        top = n.drop7_0 = L.Dropout(top, in_place=True, dropout_ratio=seg_dropout)
    n.conv8_0 = conv(top, 1, SIZE, type_name="Deconvolution")
    n.sigmoid8_0 = L.Sigmoid(n.conv8_0, in_place=True)
    return n.sigmoid8_0


def recognition(
    n, masks, clips, use_global_stats=False, moving_average_fraction=None, fea_filler=None, fea_lr=1, **_others
):
    """The recognition branch: masks (6N, 1, 64, 64) of N = `clips` clips -> fc_fea (N, 256).

    As in the original, BatchNorm takes the batch's own statistics in phase TEST too, unless `use_global_stats`."""
    norm = dict(use_global_stats=use_global_stats)
    if moving_average_fraction is not None:
        norm["moving_average_fraction"] = moving_average_fraction

    def conv(bottom, num_output, kernel_size, dilation=None):
        spec = dict(num_output=num_output, kernel_size=kernel_size, weight_filler=dict(type="xavier"))
        if dilation:
            spec.update(pad=dilation, dilation=dilation)  # keeps height and width
        return L.Convolution(
            bottom, param=[dict(lr_mult=1), dict(lr_mult=2)], bias_filler=dict(type="constant"), **spec
        )

    def batch_norm(bottom):  # without a Scale layer, as in the original
        return L.BatchNorm(bottom, param=[dict(lr_mult=0, decay_mult=0)] * 3, **norm)

    def mscan(k, bottom):
        """Multi-scale context: three dilations side by side, (N, C, H, W) -> (N, 96, H, W)."""
        scales = (1, 2, 3)
        for s in scales:
            n[f"conv{9 + k}_scale{s}"] = conv(bottom, 32, 3, dilation=s)
        for s in scales:
            n[f"bn{k}_scale{s}"] = batch_norm(n[f"conv{9 + k}_scale{s}"])
        n[f"mscan{k}"] = L.Concat(*(n[f"bn{k}_scale{s}"] for s in scales), axis=1)
        n[f"relu{9 + k}"] = L.ReLU(n[f"mscan{k}"], in_place=True)
        return n[f"relu{9 + k}"]

    points = [clips * i for i in range(1, NUM_FRAMES)]
    for i, mask in enumerate(L.Slice(masks, name="make_pair", ntop=NUM_FRAMES, axis=0, slice_point=points)):
        n[f"mask{i}"] = mask
    fused = [n[f"mask{i}"] for i in range(NUM_FRAMES)]
    n.temporal_fusion = L.Eltwise(*fused, operation=P.Eltwise.SUM)  # (N, 1, 64, 64)
    n.conv9_0 = conv(n.temporal_fusion, 64, 5)
    n.bn0 = batch_norm(n.conv9_0)
    n.relu9_0 = L.ReLU(n.bn0, in_place=True)
    n.pool9_0 = _pool(n.relu9_0)  # 60 -> 30
    n.pool10 = _pool(mscan(1, n.pool9_0))  # 30 -> 15
    n.pool11 = _pool(mscan(2, n.pool10))  # 15 -> 7
    n.fc_fea = L.InnerProduct(
        mscan(3, n.pool11),
        param=[dict(lr_mult=fea_lr, decay_mult=1), dict(lr_mult=2 * fea_lr, decay_mult=0)],
        num_output=FEATURE_DIM,
        weight_filler=fea_filler or dict(type="gaussian", std=0.005),
        bias_filler=dict(type="constant", value=0.1),
    )
    n.relu13 = L.ReLU(n.fc_fea, in_place=True)
    return n.relu13


def identify(n, feature, subjects, id_lr=1, **_others):
    """Which training subject is it? feature (N, 256), label (N) -> fc_id (N, subjects), accuracy, loss_gait."""
    n.fc_id = L.InnerProduct(
        feature,
        param=[dict(lr_mult=id_lr, decay_mult=1), dict(lr_mult=id_lr, decay_mult=0)],
        num_output=subjects,
        weight_filler=dict(type="gaussian", std=0.01),
        bias_filler=dict(type="constant"),
    )
    n.accuracy = L.Accuracy(n.fc_id, n.label)
    n.loss_gait = L.SoftmaxWithLoss(n.fc_id, n.label, loss_weight=1)


def _pool(bottom):
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, stride=2)  # Caffe rounds the size up


if __name__ == "__main__":
    from models.summary import main

    raise SystemExit(main(STEPS, gaitnet, deploy))
