"""Random nets of a few small layers, drawn with odd shapes and parameters, and what they compute in NumPy."""

import math
import random

import numpy as np

from caffe.proto import caffe_pb2
from tests.fuzz.loops import LOOPS, Unfit
from tests.fuzz.tangents import SPOILERS, TANGENTS, reads_back

MOST_VALUES, LARGEST = 500, 20.0  # of a blob; larger numbers hide errors of others
IN_PLACE = set("BNLL BatchNorm Bias Clip Dropout ELU Exp Log PReLU Power ReLU Scale Sigmoid Softmax Swish TanH".split())
WITHOUT_BACKWARD = {"Accuracy", "ArgMax", "Threshold"}  # refuse force_backward
LOSSES = (
    "ContrastiveLoss",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "SoftmaxWithLoss",
)
OTHERS = sorted(LOOPS.keys() - set(LOSSES) - {"Silence", "Accuracy"})
FOLLOWERS = ("BatchNorm", "Scale", "Bias", "ReLU", "Dropout")
SECOND_TOPS_HAVE_NO_GRADIENT = ("Pooling", "SoftmaxWithLoss", "InfogainLoss", "LSTM", "RNN")


class Step:
    """A layer with the numbers of the values it reads and makes, and its parameter blobs, which `owner` shares."""

    def __init__(self, param, bottoms, blobs):
        self.param, self.bottoms, self.blobs, self.tops = param, bottoms, blobs, []
        self.owner = self
        self.in_place = False
        self.rereads = False  # its gradient is Caffe's formula with what has been written over its top


class RandomNet:
    """The net drawn from a seed: `proto`, the `inputs` by number, `steps`, and the blob's name for each value's number.

    A value that is overwritten in place keeps its number; its blob's name belongs to the newest. `forced`: gradients of
    all outputs are given from outside, and go to the inputs, too; else sums of the outputs are the losses."""

    def __init__(self, seed):
        self.seed, self.rng, self.numbers = seed, random.Random(seed), np.random.default_rng(seed)
        self.steps, self.inputs, self.values, self.names = [], {}, {}, []
        self.constant = set()  # values that get no gradient: labels, indices
        self.leaves = set()  # values that no layer shall read
        self.readers = []
        self.overwritten = set()
        self.forced = self.rng.random() < 0.5
        self.phase = int(self.rng.random() < 0.2)
        self.objective = []  # (value's number, weight or array of weights)
        for _ in range(self.rng.choice([1, 1, 2])):
            self.add_input(self.shape())
        wanted = self.rng.randint(1, 6)
        for _ in range(60):
            if wanted and (self.rng.random() < 0.2 and self.try_twin() or self.try_layer(self.another_kind())):
                wanted -= 1
        if self.rng.random() < 0.5:
            self.try_layer(self.rng.choice(LOSSES + (() if self.forced else ("Accuracy",))))
        self.finish()
        self.proto = self.as_proto()

    # ---- drawing

    def shape(self):
        axes = self.rng.choice([4, 4, 4, 4, 2, 2, 3, 5])
        size = self.rng.choice([3, 4, 7])
        return (self.rng.randint(1, 3), *(self.rng.choice([1, self.rng.randint(1, size)]) for _ in range(axes - 1)))

    def add_value(self, value, name, constant=False):
        number = len(self.names)
        self.names.append(name)
        self.readers.append(0)
        self.values[number] = np.asarray(value, np.float64)
        if constant:
            self.constant.add(number)
        return number

    def add_input(self, shape, value=None):
        """An Input's number; `value`: its constant values."""
        drawn = self.numbers.normal(size=shape).astype(np.float32) if value is None else np.asarray(value, np.float32)
        number = self.add_value(drawn, f"b{len(self.names)}", constant=value is not None)
        self.inputs[number] = drawn
        return number

    def readable(self):
        return [n for n in self.values if n not in self.constant | self.overwritten | self.leaves]

    def another_kind(self):
        """A layer type; after a convolution often one that inference may make a part of it."""
        chain = self.steps and self.steps[-1].param.type in ("Convolution", "BatchNorm", "Scale")
        return self.rng.choice(FOLLOWERS if chain and self.rng.random() < 0.5 else OTHERS)

    def try_layer(self, kind):
        """Append a layer of this type where one fits what there is."""
        inputs, names = dict(self.inputs), len(self.names)
        x = self.rng.choice(self.readable()[-4:])
        param = caffe_pb2.LayerParameter(name=f"l{len(self.steps)}", type=kind)
        try:
            step = Step(param, [x], [])
            getattr(self, f"draw_{kind.lower()}", lambda *_: None)(step, self.values[x])
            param.top.extend("?" * (len(param.top) == 0))
            with np.errstate(all="ignore"):
                tops = LOOPS[kind](param, [self.values[b] for b in step.bottoms], step.blobs)
            for top in tops:
                if not np.size(top) or np.size(top) > MOST_VALUES or not np.all(np.abs(top) < LARGEST):
                    raise Unfit
        except (Unfit, ValueError, IndexError, ZeroDivisionError, TypeError):  # scalars, mostly
            for number in range(names, len(self.names)):
                del self.values[number]
                self.constant.discard(number)
            self.inputs, self.names, self.readers = inputs, self.names[:names], self.readers[:names]
            return False
        self.append(step, tops)
        return True

    def try_twin(self):
        """Append a layer that shares the parameters of another one, and reads a value of the same shape."""
        owners = [
            s for s in self.steps if s.blobs and len(s.bottoms) == 1 and s.param.type not in ("BatchNorm", "Embed")
        ]
        if not owners:
            return False
        owner = self.rng.choice(owners).owner
        fitting = [n for n in self.readable() if self.values[n].shape == self.values[owner.bottoms[0]].shape]
        if not fitting:
            return False
        for k in range(len(owner.param.param), len(owner.blobs)):
            owner.param.param.add(name=f"{owner.param.name}_{k}")
        param = caffe_pb2.LayerParameter()
        param.CopyFrom(owner.param)
        param.name = f"l{len(self.steps)}"
        step = Step(param, [self.rng.choice(fitting)], owner.blobs)
        step.owner = owner
        tops = LOOPS[param.type](param, [self.values[step.bottoms[0]]], step.blobs)
        if any(np.abs(top).max() >= LARGEST for top in tops):
            return False
        self.append(step, tops)
        return True

    def append(self, step, tops):
        kind, x = step.param.type, step.bottoms[0]
        alone = x not in self.inputs and not self.readers[x] and step.bottoms.count(x) == 1
        step.in_place = kind in IN_PLACE and alone and self.rng.random() < 0.5
        for b in step.bottoms:
            self.readers[b] += 1
        if step.in_place:
            self.overwritten.add(x)
        for k, top in enumerate(tops[: len(step.param.top)]):
            no_gradient = kind in WITHOUT_BACKWARD or (k and kind in SECOND_TOPS_HAVE_NO_GRADIENT)
            name = self.names[x] if step.in_place else f"b{len(self.names)}"
            step.tops.append(self.add_value(top, name, constant=bool(no_gradient)))
            if kind == "Filter":  # the layers above are set up for a full batch
                self.leaves.add(step.tops[-1])
        self.steps.append(step)

    def finish(self):
        """Give every value that nobody reads a part in the objective."""
        if not self.steps:
            self.append(
                Step(caffe_pb2.LayerParameter(name="l0", type="AbsVal", top=["?"]), [0], []), [abs(self.values[0])]
            )
        for step, n in [(s, n) for s in self.steps for n in s.tops if not self.readers[n] and n not in self.constant]:
            coeff = round(self.rng.uniform(-2, 2), 2)
            if self.forced:
                self.objective.append((n, self.numbers.normal(size=self.values[n].shape).astype(np.float32)))
            elif step.param.type in LOSSES:
                step.param.loss_weight.extend([coeff] + [0.0] * (len(step.tops) - 1))
                self.objective.append((n, coeff))
            else:
                kind = "Reduction" if self.values[n].ndim else "Power"
                total = Step(
                    caffe_pb2.LayerParameter(name=f"sum{n}", type=kind, top=["?"], loss_weight=[coeff]), [n], []
                )
                self.append(total, LOOPS[kind](total.param, [self.values[n]], []))
                self.objective.append((total.tops[0], coeff))
        self.newest = {self.names[n]: n for n in self.values}
        self.reached = {n for n, _ in self.objective}  # values that get a gradient
        for step in reversed(self.steps):
            if self.reached.intersection(step.tops):
                self.reached.update(step.bottoms)
            spoilt = step.in_place or self.overwritten.intersection(step.tops) or step.param.type == "MVN"
            step.rereads = bool(spoilt and reads_back(step.param, step.in_place))

    def as_proto(self):
        net = caffe_pb2.NetParameter(name=f"seed {self.seed}", force_backward=self.forced)
        net.state.phase = self.phase
        for number, value in self.inputs.items():
            source = net.layer.add(name=f"in{number}", type="Input", top=[self.names[number]])
            source.input_param.shape.add(dim=value.shape)
        for step in self.steps:
            step.param.bottom[:] = [self.names[b] for b in step.bottoms]
            step.param.top[:] = [self.names[t] for t in step.tops]
            net.layer.add().CopyFrom(step.param)
        return net

    # ---- computing

    def compute(self, inputs, blobs, base=None):
        """All values by number, for these inputs by number and parameter blobs by layer. With `base`, the values at a
        place nearby, layers whose backward rereads a blob make the steps that their gradients stand for."""
        values = dict(inputs)
        with np.errstate(all="ignore"):
            for step, own in zip(self.steps, blobs):
                if base is not None and step.rereads:
                    tops = [base[step.tops[0]] + self.tangent(step, base, values)]
                else:
                    tops = LOOPS[step.param.type](step.param, [values[b] for b in step.bottoms], own)
                values.update(zip(step.tops, tops))
        return values

    def tangent(self, step, base, values):
        """The step that the top makes."""
        number, kind = step.bottoms[0], step.param.type
        y, dx = base[self.newest[self.names[step.tops[0]]]], values[number] - base[number]
        if step.in_place and kind in SPOILERS:
            return 0 * dx  # whatever the top's gradient
        return TANGENTS[kind](step.param, y if step.in_place else base[number], y, base[number], dx)

    def spoilt(self, values, base):
        """What layers that spoil gradients add to the loss, whose gradients are theirs."""
        for step in self.steps:
            if step.rereads and step.in_place and step.param.type in SPOILERS and step.tops[0] in self.reached:
                y, number = base[self.newest[self.names[step.tops[0]]]], step.bottoms[0]
                yield (SPOILERS[step.param.type](step.param, y, y) ** 2 * (values[number] - base[number])).sum()

    def shared(self, blobs):
        """Parameter blobs by layer, those of layers that share some taken from the owner."""
        return [blobs[self.steps.index(step.owner)] for step in self.steps]

    def loss(self, inputs, blobs, base):
        values = self.compute(inputs, blobs, base)
        return sum((np.asarray(values[n]) * w).sum() for n, w in self.objective) + sum(self.spoilt(values, base))

    # ---- what the types want

    def blob(self, step, *shape, scale=0.5, positive=False):
        value = scale * self.numbers.normal(size=shape)
        step.blobs.append((np.abs(value) + 0.3 if positive else value).astype(np.float32).astype(np.float64))

    def another(self, shape, step):
        """A second bottom of this shape: a value there is, or an input."""
        fitting = [n for n in self.readable() if self.values[n].shape == tuple(shape)]
        step.bottoms.append(self.rng.choice(fitting) if fitting and self.rng.random() < 0.6 else self.add_input(shape))

    def windows(self, p, x, dilated=True, size=4):
        axes, rng = x.ndim - 2, self.rng
        if not 1 <= axes <= 3:
            raise Unfit
        if axes == 2 and rng.random() < 0.5:
            p.kernel_h, p.kernel_w = rng.randint(1, size), rng.randint(1, size)
            p.stride_h, p.stride_w = rng.randint(1, 3), rng.randint(1, 3)
            p.pad_h, p.pad_w = rng.randint(0, 2), rng.randint(0, 2)
        else:
            for field, low, high in (("kernel_size", 1, size), ("stride", 1, 3), ("pad", 0, 2)):
                getattr(p, field).extend(rng.randint(low, high) for _ in range(rng.choice([1, axes])))
        if dilated:
            p.dilation.extend(rng.choice([1, 1, 2, 3]) for _ in range(rng.choice([1, axes])))

    def draw_convolution(self, step, x):
        p, rng = step.param.convolution_param, self.rng
        self.windows(p, x)
        p.group = rng.choice([g for g in range(1, x.shape[1] + 1) if x.shape[1] % g == 0])
        p.num_output, p.bias_term = p.group * rng.randint(1, 3), rng.random() < 0.7
        kernel = [p.kernel_h, p.kernel_w] if p.HasField("kernel_h") else list(p.kernel_size)
        kernel = kernel * (x.ndim - 2) if len(kernel) == 1 else kernel
        spread = step.param.type == "Deconvolution"
        first = (x.shape[1], p.num_output // p.group) if spread else (p.num_output, x.shape[1] // p.group)
        self.blob(step, *first, *kernel, scale=1 / math.sqrt(first[1] * math.prod(kernel)))
        if p.bias_term:
            self.blob(step, p.num_output)
        if not spread and rng.random() < 0.2:
            self.another(x.shape, step)
            step.param.top.extend("??")

    draw_deconvolution = draw_convolution

    def draw_im2col(self, step, x):
        self.windows(step.param.convolution_param, x)

    def draw_pooling(self, step, x):
        p, rng = step.param.pooling_param, self.rng
        if x.ndim != 4:
            raise Unfit
        p.pool = rng.choice([p.MAX, p.AVE])
        if rng.random() < 0.15:
            p.global_pooling = True
        elif rng.random() < 0.5:
            p.kernel_h, p.kernel_w = rng.randint(1, 4), rng.randint(1, 4)
            p.stride_h, p.stride_w = rng.randint(1, 3), rng.randint(1, 3)
            p.pad_h, p.pad_w = rng.randint(0, 3), rng.randint(0, 3)
        else:
            p.kernel_size, p.stride, p.pad = rng.randint(1, 4), rng.randint(1, 3), rng.randint(0, 3)
        if rng.random() < 0.2:
            p.round_mode = p.FLOOR
        step.param.top.extend("??" if p.pool == p.MAX and rng.random() < 0.3 else "?")

    def draw_innerproduct(self, step, x):
        p, rng = step.param.inner_product_param, self.rng
        p.axis = self.axis(x)
        p.num_output, p.transpose, p.bias_term = rng.randint(1, 5), rng.random() < 0.3, rng.random() < 0.7
        inputs = math.prod(x.shape[p.axis % x.ndim :])
        self.blob(
            step, *((inputs, p.num_output) if p.transpose else (p.num_output, inputs)), scale=1 / math.sqrt(inputs)
        )
        if p.bias_term:
            self.blob(step, p.num_output)

    def draw_scale(self, step, x):
        p = step.param.scale_param if step.param.type == "Scale" else step.param.bias_param
        start = self.rng.randint(0, x.ndim - 1)
        end = self.rng.randint(start, x.ndim)
        p.axis = start - self.rng.choice([0, x.ndim])
        if self.rng.random() < 0.4 and x.shape[start:end]:
            self.another(x.shape[start:end], step)
        else:
            p.num_axes = -1 if end == x.ndim and self.rng.random() < 0.5 else end - start
            self.blob(step, *x.shape[start:end])
        if step.param.type == "Scale" and self.rng.random() < 0.4:
            p.bias_term = True
            self.blob(step, *x.shape[start:end])

    draw_bias = draw_scale

    def draw_batchnorm(self, step, x):
        p = step.param.batch_norm_param
        if x.ndim < 2:
            raise Unfit
        p.use_global_stats, p.eps = self.rng.random() < 0.4, self.rng.uniform(0.1, 1)
        self.blob(step, x.shape[1])
        self.blob(step, x.shape[1], positive=True)
        self.blob(step, 1, positive=True)

    def draw_mvn(self, step, x):
        if x.ndim > 4:
            raise Unfit
        p = step.param.mvn_param
        p.normalize_variance, p.across_channels = self.rng.random() < 0.5, self.rng.random() < 0.5
        p.eps = self.rng.uniform(0.1, 1)

    def draw_lrn(self, step, x):
        p = step.param.lrn_param
        if x.ndim != 4:
            raise Unfit
        p.local_size, p.alpha, p.beta = self.rng.choice([1, 3, 5]), self.rng.uniform(0.1, 2), self.rng.uniform(0.3, 1)
        p.norm_region = self.rng.choice([p.ACROSS_CHANNELS, p.WITHIN_CHANNEL])

    def draw_spp(self, step, x):
        p = step.param.spp_param
        if x.ndim != 4:
            raise Unfit
        p.pyramid_height, p.pool = self.rng.randint(1, 3), self.rng.choice([p.MAX, p.AVE])

    def draw_lstm(self, step, x):
        p, rng, lstm = step.param.recurrent_param, self.rng, step.param.type == "LSTM"
        if x.ndim < 2:
            raise Unfit
        p.num_output = hidden = rng.randint(1, 3)
        p.expose_hidden = rng.random() < 0.3
        cont = self.numbers.integers(2, size=x.shape[:2])
        cont[0] *= p.expose_hidden  # else the state of the pass before would count
        step.bottoms.append(self.add_input(cont.shape, value=cont))
        static = rng.randint(1, 3) if rng.random() < 0.3 else 0
        if static:
            self.another((x.shape[1], static), step)
        if p.expose_hidden:
            shape = (1, x.shape[1], hidden)
            step.bottoms.extend(self.add_input(shape, value=self.numbers.normal(size=shape)) for _ in range(1 + lstm))
        step.param.top.extend("?" * (1 + p.expose_hidden * (1 + lstm)))
        gates = 4 * hidden if lstm else hidden
        shapes = [(gates, math.prod(x.shape[2:])), (gates,), *[(gates, static)] * bool(static), (gates, hidden)]
        for shape in shapes if lstm else [*shapes, (hidden, hidden), (hidden,)]:
            self.blob(step, *shape)

    draw_rnn = draw_lstm

    def draw_embed(self, step, x):
        p = step.param.embed_param
        p.input_dim, p.num_output, p.bias_term = self.rng.randint(1, 4), self.rng.randint(1, 4), self.rng.random() < 0.5
        shape = self.shape()[: self.rng.randint(1, 3)]
        step.bottoms[:] = [self.add_input(shape, value=self.numbers.integers(p.input_dim, size=shape))]
        self.blob(step, p.input_dim, p.num_output)
        if p.bias_term:
            self.blob(step, p.num_output)

    def draw_filter(self, step, x):
        if self.rng.random() < 0.3:
            self.another((len(x), self.rng.randint(1, 4)), step)
        step.param.top.extend("?" * len(step.bottoms))
        chosen = self.numbers.integers(2, size=len(x))
        chosen[self.rng.randrange(len(x))] = 1
        shape = (len(x), *(1,) * self.rng.randint(0, 2))
        step.bottoms.append(self.add_input(shape, value=chosen.reshape(shape)))

    def draw_prelu(self, step, x):
        if not 2 <= x.ndim <= 4:
            raise Unfit
        step.param.prelu_param.channel_shared = self.rng.random() < 0.3
        self.blob(step, *(() if step.param.prelu_param.channel_shared else (x.shape[1],)))

    def draw_relu(self, step, x):
        step.param.relu_param.negative_slope = self.rng.choice([0, 0, 0.1, 0.5])

    def draw_elu(self, step, x):
        step.param.elu_param.alpha = self.rng.uniform(0.2, 2)

    def draw_swish(self, step, x):
        step.param.swish_param.beta = self.rng.uniform(0.5, 2)

    def draw_clip(self, step, x):
        step.param.clip_param.min, step.param.clip_param.max = -self.rng.uniform(0.1, 1), self.rng.uniform(0.1, 1)

    def draw_threshold(self, step, x):
        if self.forced:
            raise Unfit
        step.param.threshold_param.threshold = self.rng.uniform(-0.5, 0.5)

    def draw_power(self, step, x):
        p = step.param.power_param
        p.power, p.scale, p.shift = self.rng.choice([1, 2, 3]), self.rng.uniform(-1, 1), self.rng.uniform(-1, 1)

    def draw_exp(self, step, x):
        p = step.param.exp_param
        p.base, p.scale, p.shift = self.rng.choice([-1, 2]), self.rng.uniform(-0.5, 0.5), self.rng.uniform(-1, 1)

    def draw_log(self, step, x):
        step.param.log_param.base, step.param.log_param.shift = self.rng.choice([-1, 2]), 1.5 + max(0, -x.min())

    def draw_dropout(self, step, x):
        step.param.dropout_param.dropout_ratio = self.rng.uniform(0.1, 0.9) if self.phase else 0

    def axis(self, x):
        return self.rng.randint(-x.ndim, x.ndim - 1)

    def draw_softmax(self, step, x):
        step.param.softmax_param.axis = self.axis(x)

    def draw_argmax(self, step, x):
        if self.forced:
            raise Unfit
        if self.rng.random() < 0.5:
            step.param.argmax_param.axis = self.axis(x)

    def draw_tile(self, step, x):
        step.param.tile_param.axis, step.param.tile_param.tiles = self.axis(x), self.rng.randint(1, 3)

    def draw_reduction(self, step, x):
        p = step.param.reduction_param
        p.axis, p.coeff = self.axis(x), self.rng.uniform(-1, 1)
        p.operation = self.rng.choice([p.SUM, p.ASUM, p.SUMSQ, p.MEAN])

    def draw_flatten(self, step, x):
        p = step.param.flatten_param
        p.axis = self.rng.randint(0, x.ndim - 1)
        p.end_axis = self.rng.randint(p.axis, x.ndim - 1) - self.rng.choice([0, x.ndim])

    def draw_reshape(self, step, x):
        p = step.param.reshape_param
        start = self.rng.randint(0, x.ndim)
        end = self.rng.randint(start, x.ndim)
        p.axis, p.num_axes = start, end - start
        count = math.prod(x.shape[start:end])
        first = self.rng.choice([d for d in range(1, count + 1) if count % d == 0])
        p.shape.dim.extend([first, count // first] if count > 1 else [1] * self.rng.randint(0, 2))

    def draw_concat(self, step, x):
        step.param.concat_param.axis = axis = self.axis(x)
        for _ in range(self.rng.randint(0, 2)):
            shape = list(x.shape)
            shape[axis] = self.rng.randint(1, 4)
            self.another(shape, step)

    def draw_slice(self, step, x):
        p = step.param.slice_param
        p.axis = axis = self.axis(x)
        inner = range(1, x.shape[axis])
        points = sorted(self.rng.sample(inner, self.rng.randint(0, min(2, len(inner)))))
        if points and x.shape[axis] % (len(points) + 1) == 0 and self.rng.random() < 0.5:
            step.param.top.extend("?" * (len(points) + 1))  # into equal parts
        else:
            p.slice_point.extend(points)
            step.param.top.extend("?" * (len(points) + 1))

    def draw_split(self, step, x):
        step.param.top.extend("?" * self.rng.randint(1, 3))

    def draw_eltwise(self, step, x):
        p = step.param.eltwise_param
        p.operation = self.rng.choice([p.SUM, p.PROD, p.MAX])
        for _ in range(self.rng.randint(1, 2)):
            self.another(x.shape, step)
        if p.operation == p.SUM and self.rng.random() < 0.5:
            p.coeff.extend(round(self.rng.uniform(-1, 1), 2) for _ in step.bottoms)
        if p.operation == p.MAX and len(set(step.bottoms)) < len(step.bottoms):
            raise Unfit  # ties everywhere

    def draw_crop(self, step, x):
        p = step.param.crop_param
        start = self.rng.randint(0, x.ndim - 1)
        p.axis = start - self.rng.choice([0, x.ndim])
        shape = [*x.shape[:start], *(self.rng.randint(1, n) for n in x.shape[start:])]
        slack = [n - m for n, m in zip(x.shape[start:], shape[start:])]
        p.offset.extend([self.rng.randint(0, s) for s in slack] if self.rng.random() < 0.7 else [min(slack)])
        step.bottoms.append(self.add_input(shape, value=self.numbers.normal(size=shape)))

    def draw_batchreindex(self, step, x):
        count = self.rng.randint(1, 4)
        step.bottoms.append(self.add_input((count,), value=self.numbers.integers(len(x), size=count)))

    def labels(self, step, x, axis):
        shape = [*x.shape[: axis % x.ndim], *x.shape[axis % x.ndim + 1 :]]
        if x.ndim < 2 or not shape or shape[0] != x.shape[0]:
            raise Unfit
        step.bottoms.append(self.add_input(shape, value=self.numbers.integers(x.shape[axis], size=shape)))

    def draw_softmaxwithloss(self, step, x):
        infogain = step.param.type == "InfogainLoss"
        p = step.param.infogain_loss_param if infogain else step.param.softmax_param
        p.axis = self.rng.randint(1, max(1, x.ndim - 1))
        self.labels(step, x, p.axis)
        loss = step.param.loss_param
        loss.normalization = self.rng.choice([loss.FULL, loss.VALID, loss.BATCH_SIZE, loss.NONE])
        if infogain:
            step.bottoms.append(
                self.add_input((x.shape[p.axis],) * 2, value=self.numbers.random((x.shape[p.axis],) * 2))
            )
        elif self.rng.random() < 0.3:
            loss.ignore_label = 0
        step.param.top.extend("??" if self.rng.random() < 0.5 else "?")

    draw_infogainloss = draw_softmaxwithloss

    def draw_accuracy(self, step, x):
        step.param.accuracy_param.axis = self.rng.randint(1, max(1, x.ndim - 1))
        self.labels(step, x, step.param.accuracy_param.axis)
        step.param.top.extend("??" if self.rng.random() < 0.5 else "?")

    def draw_euclideanloss(self, step, x):
        if not 1 <= x.ndim <= 4:
            raise Unfit
        self.another(x.shape, step)

    def draw_sigmoidcrossentropyloss(self, step, x):
        if not x.ndim:
            raise Unfit
        step.bottoms.append(self.add_input(x.shape, value=self.numbers.random(x.shape)))

    def draw_hingeloss(self, step, x):
        if not 2 <= x.ndim <= 4:
            raise Unfit
        p, inner = step.param.hinge_loss_param, math.prod(x.shape[1:])
        p.norm = self.rng.choice([p.L1, p.L2])
        step.bottoms.append(self.add_input((len(x),), value=self.numbers.integers(inner, size=len(x))))

    def draw_multinomiallogisticloss(self, step, x):
        if not 2 <= x.ndim <= 4 or x.min() < 0.05:  # the logarithm is steep below
            raise Unfit
        inner = math.prod(x.shape[1:])
        step.bottoms.append(self.add_input((len(x),), value=self.numbers.integers(inner, size=len(x))))

    def draw_contrastiveloss(self, step, x):
        if not 2 <= x.ndim <= 4 or math.prod(x.shape[2:]) != 1:
            raise Unfit
        p = step.param.contrastive_loss_param
        p.margin, p.legacy_version = self.rng.uniform(0.5, 3), True
        self.another(x.shape, step)
        step.bottoms.append(self.add_input((len(x),), value=self.numbers.integers(2, size=len(x))))
