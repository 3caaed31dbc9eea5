"""caffe check: all that is unknown, with line, fork and advice; what forks say in other words is understood."""

import subprocess
import sys

import pytest

import caffe
from caffe import CaffeError
from caffe.proto import caffe_pb2
from caffe.read import parse_text
from tests.caffe.ops.checks import layer_net

FORKED = """name: "forked"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 engine: MKLDNN wieght_filler { type: "xavier" } } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 3 stride: 2 ceil_mode: false } }
layer { name: "d" type: "VideoData" top: "d" video_data_param { video_file: "a.mp4" skip_frames: [1, 2] }
  transform_param < noise_param { prob: 1 } mean_value: [1, 2] > }
layer { name: "m" type: "Mosh" bottom: "p" top: "m" mosh_param { beta: [1, 2] } }
layer { name: "r" type: "Relu" bottom: "p" top: "r" }
layers { name: "old" type: SMURF }
"""


def found(tmp_path, text, **options):
    (tmp_path / "net.prototxt").write_text(text)
    return caffe.check(tmp_path / "net.prototxt", **options)


def test_everything_is_told_at_once(tmp_path):
    findings = found(tmp_path, FORKED)
    told = [(f.line, f.what, f.fork, f.taken) for f in findings]
    assert told == [
        (4, "engine of ConvolutionParameter has no value MKLDNN", "", True),
        (4, "ConvolutionParameter has no field wieght_filler", "", False),
        (5, "PoolingParameter has no field ceil_mode", "OpenCV and others", True),
        (6, "LayerParameter has no field video_data_param", "SSD", False),
        (6, "layer type VideoData is not known", "SSD", False),
        (7, "TransformationParameter has no field noise_param", "SSD", False),
        (8, "LayerParameter has no field mosh_param", "", False),
        (8, "layer type Mosh is not known", "", False),
        (9, "layer type Relu is not known", "", False),
        (10, "type of V1LayerParameter has no value SMURF", "", False),
    ]
    advice = [f.advice for f in findings]
    assert advice[1] == "is it weight_filler?" and advice[2] == "taken as round_mode: FLOOR"
    assert "@caffe.layer" in advice[6] and advice[8].startswith("is it ReLU?")


def test_parse_error_tells_all_fields_too():
    with pytest.raises(CaffeError) as e:
        parse_text(FORKED.encode(), caffe_pb2.NetParameter, "net.prototxt")
    for name in ("wieght_filler", "video_data_param", "noise_param", "mosh_param", "SMURF"):
        assert name in str(e.value)
    assert f"4:{FORKED.splitlines()[3].index('{ type') + 1}: Message type" in str(e.value) and "ceil_mode" not in str(
        e.value
    )


def test_advice_about_words_of_forks(tmp_path):
    layers = """layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { hole: 4 } }
layer { name: "d" type: "Region" bottom: "c" top: "d" }
layer { name: "l" type: "Lstm" bottom: "c" top: "l" lstm_param { num_output: 4 } }
layer { name: "f" type: "ReLU" bottom: "c" top: "f" forward_type: FLOAT16 color: RED }
"""
    hole, drop, _, lstm, forward, color = found(tmp_path, layers)[:6]
    assert hole.fork == "DeepLab" and hole.taken and hole.advice == "taken as dilation: 4"
    assert drop.fork == "YOLO" and "leave it out" in drop.advice
    assert lstm.fork == "CTPN" and "is it LSTM" not in lstm.advice
    assert forward.fork == "NVIDIA Caffe" and "@caffe.layer" not in forward.advice + color.advice


@pytest.mark.parametrize(
    "kind, field, told",
    [
        ("Correlation", "correlation_param { pad: 20 }", ("FlowNet", "@caffe.layer")),
        ("CPMData", "cpm_transform_param { stride: 8 }", ("OpenPose", "write Input layers")),
        ("Unpooling", "unpooling_param { unpool_size: 14 }", ("DeconvNet", "see Upsample")),
        ("Convolutoin", "", ("", "is it Convolution?")),
        ("conv", "", ("", "is it Convolution?")),
        ("innerproduct", "", ("", "is it InnerProduct?")),
        ("softmax_loss", "", ("", "is it SoftmaxWithLoss?")),
        ("INNER_PRODUCT", "", ("", "is it InnerProduct?")),
    ],
)
def test_advice_about_types(tmp_path, kind, field, told):
    findings = found(tmp_path, f'layer {{ name: "a" type: "{kind}" bottom: "x" top: "a" {field} }}')
    assert len(findings) == 1 + bool(field)
    assert all(f.fork == told[0] and told[1] in f.advice and "Else" not in f.advice[:5] for f in findings)


@pytest.mark.parametrize("kind", ["SELU", "CReLU", "SoftmaxWithFocalLoss", "ConvolutionData", "Resize", "A", ""])
def test_another_type_is_no_misspelling(tmp_path, kind):
    (finding,) = found(tmp_path, f'layer {{ name: "a" type: "{kind}" bottom: "x" top: "a" }}')
    assert finding.advice.startswith("declare the type with @caffe.layer")


def test_a_solver_whose_net_is_in_it(tmp_path):
    inline = "net_param {\n" + GOOD + "\n}\nbase_lr: 0.1 # layer {\nlr_policy: 'fixed'"
    assert [f.what for f in found(tmp_path, inline)] == ["PoolingParameter has no field ceil_mode"]


def test_old_layers_with_types_of_forks(tmp_path):
    old = """layers { name: "b" type: BN bottom: "x" top: "b" bn_param { bn_mode: INFERENCE } }
layers { name: "r" type: ROI_POOLING bottom: "x" top: "r" }
layers { name: "s" type: SMURF bottom: "x" top: "s" }
"""
    kind, param, roi, smurf = found(tmp_path, old)
    assert kind.advice.startswith('write it as layer { type: "BN" .. }') and "old layers" in param.advice
    assert roi.advice.startswith('write it as layer { type: "ROIPooling" .. }') and "write it" not in smurf.advice


GOOD = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 3 stride: 2 ceil_mode: false } }
"""


def test_what_builds(tmp_path):
    assert [f.taken for f in found(tmp_path, GOOD)] == [True]
    bad = GOOD + 'layer { name: "c" type: "Concat" bottom: "p" bottom: "q" top: "c" }'
    texts = [str(f) for f in found(tmp_path, bad, phase=caffe.TEST)]
    assert len(texts) == 2 and "cannot be built in phase TEST: Unknown bottom blob 'q'" in texts[1]
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'net: "{tmp_path}/net.prototxt"\nbase_lr: 0.1\nlearning_rate: 3\n')
    assert [(f.line, f.what) for f in caffe.check(solver)] == [(3, "SolverParameter has no field learning_rate")]
    solver.write_text(f'net: "{tmp_path}/net.prototxt"\nbase_lr: 0.1\n')
    assert "Unknown bottom blob 'q'" in str(caffe.check(solver)[-1])
    assert "Expected" in str(found(tmp_path, "layer { name: }")[0])
    with pytest.raises(CaffeError, match="File not found"):
        caffe.check(tmp_path / "none.prototxt")


def test_phases_that_are_tried(tmp_path):
    """A net with data in one phase alone is tried there; a solver's nets where the solver runs them."""
    data = (
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } include { phase: TRAIN } }'
    )
    train = data + 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    (finding,) = found(tmp_path, train)
    assert finding.taken and str(finding).endswith("has no data in phase TEST: tried in TRAIN alone")
    assert "Unknown bottom blob 'x'" in str(found(tmp_path, train, phase=caffe.TEST)[-1])
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    for text, good in (
        (f'train_net: "{net}"', True),
        (f'net: "{net}"', True),
        (f'net: "{net}" test_iter: 1 test_interval: 1', False),
        (f'train_net: "{net}" test_net: "{net}" test_iter: 1 test_interval: 1', False),
        (f"train_net_param {{ {train} }}", True),
        (f"net_param {{ {train} }} test_iter: 1", False),
    ):
        solver.write_text(f"base_lr: 1 {text}")
        assert all(finding.taken for finding in caffe.check(solver)) == good, text


@pytest.mark.parametrize(
    "solver, words",
    [
        ('net: "NET" train_state { stage: "a" level: 2 }', ""),
        ('net: "NET" train_state { stage: "a" }', "phase TRAIN: Unknown bottom blob 'x'"),
        ('train_net: "ALL" test_net: "NET" test_iter: 1 test_interval: 1 test_state { stage: "a" level: 2 }', ""),
        ('net: "ALL" test_net: "NET" test_iter: 1 test_interval: 1', "phase TEST: Unknown bottom blob 'x'"),
        ('net: "ALL" test_net: "NET" test_iter: 1 test_iter: 1 test_interval: 1 test_state { }', "once per test net"),
        ('net: "ALL" test_iter: 1', "test_interval must be positive"),
        ('net: "ALL" train_net: "ALL"', "exactly one train net"),
        ("max_iter: 1", "none is set"),
    ],
)
def test_nets_of_a_solver_are_built_in_its_states(tmp_path, solver, words):
    """As the solver builds them, level and stages that NetParameter.state or the solver has included."""
    data = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }\n'
    rest = 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    (tmp_path / "all").write_text(data + rest)
    staged = data.replace("} } }", '} } include { stage: "a" stage: "own" min_level: 2 } }')
    (tmp_path / "net").write_text('state { stage: "own" } ' + staged + rest)
    solver = solver.replace("NET", str(tmp_path / "net")).replace("ALL", str(tmp_path / "all"))
    (tmp_path / "solver.prototxt").write_text(f"base_lr: 1 {solver}")
    told = [str(finding) for finding in caffe.check(tmp_path / "solver.prototxt")]
    assert len(told) == bool(words) and all(words in one for one in told)
    if not words:  # the level may be the net's own
        (tmp_path / "net").write_text('state { stage: "own" level: 2 } ' + staged + rest)
        (tmp_path / "solver.prototxt").write_text(f"base_lr: 1 {solver}".replace("level: 2", ""))
        assert not caffe.check(tmp_path / "solver.prototxt")


@pytest.mark.parametrize("mode, size", [("true", 4), ("false", 3)])
def test_ceil_mode(mode, size):
    net = layer_net(f'type: "Pooling" pooling_param {{ kernel_size: 2 stride: 2 ceil_mode: {mode} }}', (1, 1, 7, 7))
    assert net.blobs["t0"].data.shape == (1, 1, size, size)


def test_ceil_mode_and_round_mode_together_are_refused():
    text = b"layer { pooling_param { ceil_mode: true round_mode: FLOOR } }"
    with pytest.raises(CaffeError, match='should not have multiple "round_mode" fields'):
        parse_text(text, caffe_pb2.NetParameter, "net")
    with pytest.raises(CaffeError, match="ceil_mode"):
        parse_text(b"layer { pooling_param { ceil_mode: maybe } }", caffe_pb2.NetParameter, "net")


@pytest.mark.parametrize("old", [False, True])
def test_holes_are_dilation(old):
    """DeepLab's word, in new layers and in old ones."""
    text = 'layer { type: "Convolution" convolution_param { kernel_size: 3 hole: 4 } }'
    text = text.replace("layer", "layers", 1).replace('"Convolution"', "CONVOLUTION") if old else text
    net = parse_text(text.encode(), caffe_pb2.NetParameter, "net")
    assert list((net.layers if old else net.layer)[0].convolution_param.dilation) == [4]
    net = layer_net('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 hole: 2 }', (1, 1, 9, 8))
    assert net.blobs["t0"].data.shape == (1, 2, 5, 4)


@pytest.mark.parametrize(
    "text, fork, words",
    [
        ("layers { type: IMAGE_SEG_DATA }", "DeepLab, PSPNet", "write Input layers for data and label"),
        ("layers { type: SEG_ACCURACY }", "DeepLab", "leave it out, or see Accuracy"),
        ('layer { type: "MultiStageMeanfield" }', "CRF-RNN", "without the layer its first bottom is the net's answer"),
        ('layer { type: "MarginInnerProduct" }', "SphereFace", "a deploy net does without"),
        ("layer { convolution_param { hole_w: 2 } }", "DeepLab", "write dilation twice"),
        ("layers { strict_dim: false }", "DeepLab", "leave it out"),
    ],
)
def test_words_of_forks_have_advice(text, fork, words, tmp_path):
    finding = found(tmp_path, text)[0]
    assert (finding.fork, finding.taken) == (fork, False) and words in finding.advice


def test_python_layer_that_a_type_replaces(tmp_path):
    text = """layer { name: "p" type: "Python" bottom: "x" top: "rois"
        python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" } }"""
    told = str(found(tmp_path, GOOD + text)[-1])
    assert 'is its folder in PYTHONPATH? Or write type: "Proposal" with proposal_param { feat_stride: 16' in told


def test_other_words_that_are_understood():
    text = b"""engine: "MKLDNN" layer { convolution_param { engine: MKL2017 kernel_size: 3 conv_algos_override: "1,1,1"
        cudnn_convolution_algo_seeker: FINDEX } batch_norm_param {
        engine: X }        python_param { module: "m" param_str_: "{'a': 1}" } }"""
    layer = parse_text(text, caffe_pb2.NetParameter, "net").layer[0]
    assert not layer.convolution_param.HasField("engine") and list(layer.convolution_param.kernel_size) == [3]
    assert layer.python_param.param_str == "{'a': 1}"


@pytest.mark.medium
def test_command(tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "caffe", "check", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout, done.stderr

    (tmp_path / "good.prototxt").write_text(GOOD)
    (tmp_path / "bad.prototxt").write_text(FORKED)
    status, out, err = run(str(tmp_path / "good.prototxt"))
    assert status == 0 and out.endswith("good.prototxt: builds\n") and err == ""
    status, out, _ = run(str(tmp_path / "good.prototxt"), f"--model={tmp_path}/bad.prototxt")
    assert status == 1 and out.endswith("bad.prototxt: would not build: 8 problems\n")
    assert f"{tmp_path}/bad.prototxt:8: layer type Mosh is not known: declare" in out
    assert run()[0] == 134
