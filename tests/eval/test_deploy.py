import numpy as np
import pytest

from eval.deploy import DeployNet, halves, literal_features, read_net
from eval.extract import all_starts, group_walks, random_starts, window_sums
from eval.runtime import load_caffe
from eval.weights import read_weights

PROTOTXT = "eval/deploy_gaitnet.prototxt"


@pytest.fixture(scope="module")
def caffe():
    return load_caffe()


@pytest.fixture(scope="module")
def prototxt(request):
    return request.config.rootpath / PROTOTXT


@pytest.fixture
def planes():
    return np.random.default_rng(0).integers(0, 256, (13, 4, 64, 64)).astype(np.uint8)


@pytest.mark.medium
def test_the_halves_give_what_the_original_procedure_gives(caffe, prototxt, deploy_net, weights, planes):
    starts = [0, 3, 6, 3]
    want = literal_features(deploy_net, planes, starts)
    net = DeployNet(caffe, prototxt, weights, batch=(5, 3))  # 13 frames and 4 clips fill no batch evenly
    found = net.features(window_sums(net.masks(planes))[starts])
    assert np.abs(want).max() > 1 and want.std(axis=0).max() > 0.01  # features that differ between clips
    # float32 through 13 layers: other batch sizes sum in another order; golden/README allows 1e-4 of the largest
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.medium
def test_masks_are_those_of_the_deploy_net(caffe, prototxt, deploy_net, weights, planes):
    literal_features(deploy_net, planes, [2])
    net = DeployNet(caffe, prototxt, weights, batch=(4, 2))
    np.testing.assert_allclose(net.masks(planes)[2:8], deploy_net.blobs["conv8_0"].data[:, 0], atol=1e-5)


def test_every_layer_goes_to_one_half(caffe, prototxt):
    net = read_net(prototxt)
    front, back = halves(net, prototxt, 5, 3)
    between = {"im_cube", "make_pair", "temporal_fusion"}
    assert {layer.name for layer in net.layer} - between == {
        layer.name for half in (front, back) for layer in half.layer[1:]
    }
    assert list(front.layer[0].input_param.shape[0].dim) == [5, 3, 64, 64]
    assert list(back.layer[0].input_param.shape[0].dim) == [3, 1, 64, 64]


@pytest.mark.medium
def test_weights_that_lack_a_layer_are_refused(caffe, prototxt, weights, tmp_path):
    DeployNet(caffe, prototxt, weights, batch=(1, 1)).segmentation.save(str(tmp_path / "half.caffemodel"))
    with pytest.raises(ValueError, match="half.caffemodel: no weights for bn0, .*conv9_0, fc_fea; wanted"):
        DeployNet(caffe, prototxt, tmp_path / "half.caffemodel", batch=(1, 1))


def test_a_file_that_is_no_net(caffe, prototxt, weights, tmp_path):
    (tmp_path / "bad.prototxt").write_text("layer { name: 'x' ")
    with pytest.raises(ValueError, match="bad.prototxt: not a prototxt"):
        read_net(tmp_path / "bad.prototxt")
    (tmp_path / "other.prototxt").write_text("layer { name: 'x' type: 'Silence' }")
    with pytest.raises(ValueError, match="other.prototxt: no layer 'im_cube'"):
        DeployNet(caffe, tmp_path / "other.prototxt", weights)
    (tmp_path / "bad.caffemodel").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="bad.caffemodel: not a .caffemodel"):
        DeployNet(caffe, prototxt, tmp_path / "bad.caffemodel")


def test_window_sums_against_a_loop():
    masks = np.random.default_rng(1).random((9, 3, 2)).astype(np.float32)
    want = np.stack([masks[s : s + 6].sum(axis=0) for s in range(4)])
    np.testing.assert_allclose(window_sums(masks), want, rtol=3e-7)  # one rounding to float32


def test_starts():
    drawn = random_starts(seed=3)(5, 11)
    assert drawn.shape == (20,) and drawn.min() >= 0 and drawn.max() < 5  # as in the original: window 5 is never drawn
    np.testing.assert_array_equal(drawn, random_starts(seed=3)(5, 11))
    assert (drawn != random_starts(seed=4)(5, 11)).any()
    np.testing.assert_array_equal(all_starts(0, 11), [0, 1, 2, 3, 4, 5])


def test_group_walks():
    assert group_walks("abcd", [4, 3, 9, 1], most=7) == [[("a", 4), ("b", 3)], [("c", 9)], [("d", 1)]]


def test_people_that_a_net_was_trained_on(caffe, weights, tmp_path):
    """The rows of fc_id, in all formats; a deploy net's weights do not tell."""
    from models.gaitnet import gaitnet

    assert read_weights(weights).people is None
    head = next(layer for layer in gaitnet("szu", "rec").layer if layer.name == "fc_id")
    entry = f'name: "fea" type: "Input" top: "{head.bottom[0]}" input_param {{ shape {{ dim: 2 dim: 256 }} }}'
    (tmp_path / "net.prototxt").write_text(f"layer {{ {entry} }} layer {{ {head} }}")
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    net.save(str(tmp_path / "w.caffemodel"))
    net.save_hdf5(str(tmp_path / "w.caffemodel.h5"))
    assert read_weights(tmp_path / "w.caffemodel").people == read_weights(tmp_path / "w.caffemodel.h5").people == 49
