"""Old files: V0 and V1 layers, inputs without a layer, BatchNorm with three params, solver_type."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe import CaffeError, glog
from caffe.proto import caffe_pb2
from caffe.read import parse_text, read_net_binary, read_net_file, read_solver_file, read_text
from caffe.text import message_to_text
from caffe.upgrade import upgrade_net, upgrade_solver, v1_type_name
from caffe.upgrade_commands import net_binary, net_text, solver_text

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "files"


def upgraded(text, complete=True):
    net = parse_text(text.encode(), caffe_pb2.NetParameter, "old.prototxt")
    assert upgrade_net(net, "old.prototxt") is complete
    return net


def same(net, text):
    assert message_to_text(net) == message_to_text(parse_text(text.encode(), caffe_pb2.NetParameter, "new.prototxt"))


# ---- against BVLC Caffe's own upgrade


def test_v1_prototxt_becomes_what_caffe_makes_of_it():
    text = message_to_text(read_net_file(GOLDEN / "legacy_v1.prototxt"))
    assert text == (GOLDEN / "legacy_upgraded.prototxt").read_text()


def test_solver_type_becomes_what_caffe_makes_of_it(monkeypatch):
    monkeypatch.chdir(GOLDEN)  # where its net is
    solver = read_text(GOLDEN / "legacy_solver.prototxt", caffe_pb2.SolverParameter)
    upgrade_solver(solver, "s")
    assert message_to_text(solver) == (GOLDEN / "legacy_solver_upgraded.prototxt").read_text()
    assert read_solver_file("legacy_solver.prototxt").type == "Nesterov"


def test_v1_weights_keep_their_values():
    old = caffe_pb2.NetParameter.FromString((GOLDEN / "legacy_v1.caffemodel").read_bytes())
    new = read_net_binary(GOLDEN / "legacy_v1.caffemodel")
    assert not new.layers and [layer.type for layer in new.layer] == ["Convolution", "InnerProduct"]
    assert [list(layer.blobs) for layer in new.layer] == [list(layer.blobs) for layer in old.layers]


def test_v1_net_with_v1_weights_computes_what_caffe_computed():
    net = caffe.Net(str(GOLDEN / "legacy_v1.prototxt"), caffe.TEST, weights=str(GOLDEN / "legacy_v1.caffemodel"))
    with np.load(GOLDEN / "legacy.npz", allow_pickle=False) as z:
        for key in z.files:
            if key.startswith("param/"):
                _, layer, i = key.split("/")
                np.testing.assert_array_equal(net.params[layer][int(i)].data, z[key], err_msg=key)
            if key.startswith("in/"):
                net.blobs[key[3:]].data[...] = z[key]
        net.forward()
        compared = [key for key in z.files if key.startswith("out/")]
        assert compared
        for key in compared:
            want = z[key]  # 1e-4 of the largest value: another BLAS kernel changes the last digits
            np.testing.assert_allclose(net.blobs[key[4:]].data, want, atol=1e-4 * abs(want).max() + 1e-6, rtol=0)


# ---- V1


def test_every_v1_type_has_its_name_of_today():
    assert {v1_type_name(n) for n in caffe_pb2.V1LayerParameter.LayerType.values()} == set(
        "AbsVal Accuracy ArgMax BNLL Concat ContrastiveLoss Convolution Data Deconvolution Dropout DummyData "
        "EuclideanLoss Eltwise Exp Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct "
        "LRN MemoryData MultinomialLogisticLoss MVN Pooling Power ReLU Sigmoid SigmoidCrossEntropyLoss Silence "
        "Softmax SoftmaxWithLoss Split Slice TanH Threshold WindowData".split()
    ) | {""}


def test_every_v1_field_arrives():
    old = caffe_pb2.V1LayerParameter()
    for field in old.DESCRIPTOR.fields:
        if field.name.endswith("_param"):
            getattr(old, field.name).SetInParent()
    net = caffe_pb2.NetParameter(layers=[old])
    upgrade_net(net, "n")
    assert {f.name for f, _ in net.layer[0].ListFields()} == {f.name for f, _ in old.ListFields()}


def test_v1_multipliers_and_rules():
    net = upgraded(
        """layers { name: "ip" type: INNER_PRODUCT bottom: "a" top: "b" param: "w" blob_share_mode: PERMISSIVE
                    blobs_lr: 1 blobs_lr: 2 weight_decay: 0.5 loss_weight: 3 include { phase: TEST }
                    exclude { stage: "s" } }"""
    )
    same(
        net,
        """layer { name: "ip" type: "InnerProduct" bottom: "a" top: "b" loss_weight: 3
                   param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0.5 } param { lr_mult: 2 }
                   include { phase: TEST } exclude { stage: "s" } }""",
    )


def test_transformations_move_out_of_the_data_parameters():
    net = upgraded(
        """layers { type: DATA data_param { source: "a" batch_size: 2 scale: 0.5 mean_file: "m" } }
           layers { type: IMAGE_DATA image_data_param { crop_size: 4 mirror: true } }
           layers { type: WINDOW_DATA window_data_param { fg_threshold: 0.5 } }"""
    )
    same(
        net,
        """layer { type: "Data" data_param { source: "a" batch_size: 2 } transform_param { scale: 0.5 mean_file: "m" } }
           layer { type: "ImageData" image_data_param { } transform_param { crop_size: 4 mirror: true } }
           layer { type: "WindowData" window_data_param { fg_threshold: 0.5 } }""",
    )


def test_both_formats_in_one_file_are_refused():
    with pytest.raises(CaffeError, match="^old.prototxt: Refusing to upgrade inconsistent NetParameter input"):
        upgraded('layers { type: RELU } layer { type: "ReLU" }')


# ---- V0


def test_v0_net():
    net = upgraded(
        """input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9
        layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "padded" }
        layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 5 stride: 2 group: 1 biasterm: false
                         weight_filler { type: "gaussian" std: 0.01 } blobs_lr: 1 blobs_lr: 2 weight_decay: 0 }
                 bottom: "padded" top: "conv" }
        layers { layer { name: "pool" type: "pool" pool: AVE kernelsize: 3 } bottom: "conv" top: "pool" }
        layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } bottom: "pool" top: "norm" }
        layers { layer { name: "ip" type: "innerproduct" num_output: 2 } bottom: "norm" top: "ip" }
        layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 } bottom: "ip" top: "ip" }
        layers { layer { name: "loss" type: "softmax_loss" } bottom: "ip" top: "loss" }"""
    )
    same(
        net,
        """layer { name: "input" type: "Input" top: "data" input_param { shape { dim: [1, 3, 9, 9] } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
                param { lr_mult: 1 decay_mult: 0 } param { lr_mult: 2 }
                convolution_param { num_output: 4 bias_term: false pad: 2 kernel_size: 5 stride: 2 group: 1
                                    weight_filler { type: "gaussian" std: 0.01 } } }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 } }
        layer { name: "norm" type: "LRN" bottom: "pool" top: "norm"
                lrn_param { local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } }
        layer { name: "ip" type: "InnerProduct" bottom: "norm" top: "ip" inner_product_param { num_output: 2 } }
        layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" dropout_param { dropout_ratio: 0.2 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" top: "loss" }""",
    )


def test_v0_data_layers():
    net = upgraded(
        """layers { layer { name: "d" type: "images" source: "list" batchsize: 3 scale: 2 meanfile: "m" cropsize: 5
                            mirror: true new_height: 8 new_width: 9 shuffle_images: true rand_skip: 1 } top: "d" }
           layers { layer { name: "w" type: "window_data" source: "w" det_fg_threshold: 0.1 det_bg_threshold: 0.2
                            det_fg_fraction: 0.3 det_context_pad: 4 det_crop_mode: "square" } top: "w" }
           layers { layer { name: "o" type: "hdf5_output" hdf5_output_param { file_name: "f" } } bottom: "d" }"""
    )
    same(
        net,
        """layer { name: "d" type: "ImageData" top: "d"
                transform_param { scale: 2 mean_file: "m" crop_size: 5 mirror: true }
                image_data_param { source: "list" batch_size: 3 new_height: 8 new_width: 9 shuffle: true
                                   rand_skip: 1 } }
           layer { name: "w" type: "WindowData" top: "w" window_data_param { source: "w" fg_threshold: 0.1
                   bg_threshold: 0.2 fg_fraction: 0.3 context_pad: 4 crop_mode: "square" } }
           layer { name: "o" type: "HDF5Output" bottom: "d" hdf5_output_param { file_name: "f" } }""",
    )


def test_v0_field_without_a_place_is_told(capfd):
    net = upgraded('layers { layer { name: "r" type: "relu" num_output: 3 } }', complete=False)
    same(net, 'layer { name: "r" type: "ReLU" }')
    assert "Unknown parameter num_output for layer type relu" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text, words",
    [
        ('layers { layer { type: "smurf" } }', "Unknown layer name: smurf"),
        ('layers { layer { name: "c" type: "conv" } bottom: "x" }', "Unknown blob input x to layer c"),
        (
            'input: "d" layers { layer { type: "padding" pad: 1 } bottom: "d" top: "p" } '
            'layers { layer { type: "relu" } bottom: "p" }',
            "Padding layer input to non-convolutional / non-pooling layer type relu",
        ),
        (
            'input: "d" layers { layer { type: "padding" pad: 1 } bottom: "d" top: "p" } '
            'layers { layer { type: "conv" } bottom: "p" bottom: "d" }',
            "must take a single blob",
        ),
    ],
)
def test_bad_v0_files(text, words):
    with pytest.raises(CaffeError, match=f"^old.prototxt: .*{words}"):
        upgraded(text)


# ---- inputs, BatchNorm, solver


def test_input_shapes_become_one_input_layer_in_front():
    net = upgraded(
        'input: "a" input: "b" input_shape { dim: 2 dim: 3 } input_shape { } '
        'layer { name: "x" type: "Silence" bottom: "a" }'
    )
    same(
        net,
        """layer { name: "input" type: "Input" top: "a" top: "b"
                   input_param { shape { dim: 2 dim: 3 } shape { } } }
           layer { name: "x" type: "Silence" bottom: "a" }""",
    )


def test_inputs_without_shapes_are_dropped():
    same(upgraded('input: "a" layer { type: "ReLU" }'), 'layer { type: "ReLU" }')


@pytest.mark.parametrize("dims", ["input_dim: 1", "input_dim: [1, 2, 3, 4]", "input_shape { dim: 1 }"])
def test_too_few_input_shapes(dims):
    with pytest.raises(CaffeError, match="^old.prototxt: 2 inputs, [01] input_shape and [014] input_dim; give each"):
        upgraded(f'input: "a" input: "b" {dims}')


def test_batch_norm_params_learn_nothing_and_keep_their_names():
    three = 'param { lr_mult: 1 name: "m" } param { decay_mult: 1 name: "v" } param { name: "n" }'
    net = upgraded(f'layer {{ type: "BatchNorm" {three} }} layer {{ type: "Scale" {three} }}')
    norm, scale = ([(p.name, p.lr_mult, p.decay_mult) for p in layer.param] for layer in net.layer)
    assert norm == [("m", 0, 0), ("v", 0, 0), ("n", 0, 0)] and scale == [("m", 1, 1), ("v", 1, 1), ("n", 1, 1)]


def test_file_of_today_is_left_alone():
    net = read_text(GOLDEN / "small_net.prototxt", caffe_pb2.NetParameter)
    before = net.SerializeToString()
    assert upgrade_net(net, "n") is True and net.SerializeToString() == before


def test_solver_with_both_type_fields_is_refused():
    solver = caffe_pb2.SolverParameter(type="SGD", solver_type=caffe_pb2.SolverParameter.ADAM)
    with pytest.raises(CaffeError, match="^s: Failed to upgrade solver: old solver_type field"):
        upgrade_solver(solver, "s")


@pytest.mark.parametrize("old", caffe_pb2.SolverParameter.SolverType.keys())
def test_every_solver_type(old):
    solver = parse_text(f"solver_type: {old}".encode(), caffe_pb2.SolverParameter, "s")
    upgrade_solver(solver, "s")
    assert solver.type.upper() == old and not solver.HasField("solver_type")


def test_nets_written_in_a_solver_are_upgraded():
    solver = parse_text(
        b"net_param { layers { type: TANH } } test_net_param { layers { type: EXP } }", caffe_pb2.SolverParameter, "s"
    )
    upgrade_solver(solver, "s")
    assert solver.net_param.layer[0].type == "TanH" and solver.test_net_param[0].layer[0].type == "Exp"


# ---- the commands


def test_command_writes_the_new_file(tmp_path):
    code = "import sys; from caffe.upgrade_commands import net_text; sys.exit(net_text())"
    done = subprocess.run(
        [sys.executable, "-c", code, GOLDEN / "legacy_v1.prototxt", tmp_path / "net"],
        capture_output=True,
        text=True,
        cwd=GOLDEN.parents[2],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Attempting to upgrade input file specified using deprecated V1LayerParameter" in done.stderr
    assert f"Wrote upgraded NetParameter to {tmp_path}/net" in done.stderr
    assert (tmp_path / "net").read_text() == (GOLDEN / "legacy_upgraded.prototxt").read_text()


@pytest.fixture
def run(capfd, monkeypatch):
    """Run a command in this process: (exit status, stderr)."""
    monkeypatch.setattr(glog, "_level", glog.WARNING)  # put back afterwards

    def call(command, *args):
        status = command([str(a) for a in args])
        return status, capfd.readouterr().err

    return call


def test_solver_and_binary_commands(tmp_path, run):
    status, err = run(solver_text, GOLDEN / "legacy_solver.prototxt", tmp_path / "solver")
    assert status == 0, err
    assert (tmp_path / "solver").read_text() == (GOLDEN / "legacy_solver_upgraded.prototxt").read_text()

    status, err = run(net_binary, GOLDEN / "legacy_v1.caffemodel", tmp_path / "weights")
    assert status == 0, err
    status, err = run(net_binary, tmp_path / "weights", tmp_path / "weights")
    assert status == 0 and "File already in latest proto format" in err
    assert read_net_binary(tmp_path / "weights") == read_net_binary(GOLDEN / "legacy_v1.caffemodel")


def test_commands_tell_what_is_wrong(tmp_path, run):
    out = tmp_path / "out"
    assert run(net_text, tmp_path / "absent", out) == (1, f"error: File not found: {tmp_path}/absent\n")
    status, err = run(net_binary, GOLDEN / "small_net.prototxt", out)
    assert status == 1 and err.startswith("error: Failed to parse NetParameter file: ")
    with pytest.raises(SystemExit, match="2"):
        run(net_text)
    assert not out.exists()
    status, err = run(net_text, GOLDEN / "small_net.prototxt", tmp_path / "no" / "folder")
    assert status == 1 and err.splitlines()[-1].startswith("error: cannot write ")
    (tmp_path / "v0").write_text('layers { layer { name: "r" type: "relu" num_output: 3 } }')
    status, err = run(net_text, tmp_path / "v0", out)
    assert status == 1 and "Unknown parameter num_output for layer type relu" in err
    assert "ReLU" in out.read_text()
