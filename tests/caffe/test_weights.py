"""Weights by layer name: what is copied, what is left, what is refused, in both formats."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe import packed
from caffe.proto import caffe_pb2

HEAD = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
IP = (
    'layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}" '
    'inner_product_param {{ num_output: {1} weight_filler {{ type: "gaussian" std: 1 }} {2} }} {3} }}\n'
)
formats = pytest.mark.parametrize("ending", ["caffemodel", "h5"])


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def net_of(*layers, **kwargs):
        text = HEAD + "".join(IP.format(*layer, *[""] * (4 - len(layer))) for layer in layers)
        Path("net.prototxt").write_text(text)
        return caffe.Net("net.prototxt", caffe.TRAIN, **kwargs)

    return net_of


def save(net, ending, *args):
    (net.save_hdf5 if ending == "h5" else net.save)(f"w.{ending}", *args)
    return f"w.{ending}"


@formats
def test_layers_of_the_same_name_are_copied_others_left(ending, make):
    source = make(("a", 4), ("b", 5))
    path = save(source, ending)
    target = make(("b", 5), ("c", 6))
    before = target.params["c"][0].data.copy()
    target.copy_from(path)  # HDF5 is known by its content, as in Caffe
    assert np.array_equal(target.params["b"][0].data, source.params["b"][0].data)
    assert np.array_equal(target.params["c"][0].data, before)


@formats
def test_another_shape_is_refused_with_both_shapes_and_the_remedy(ending, make):
    path = save(make(("a", 4)), ending)
    with pytest.raises(caffe.CaffeError) as e:
        make(("a", 5), weights=path)
    assert str(e.value) == (
        f"{path}: Cannot copy param 0 weights from layer 'a'; shape mismatch. Source param shape "
        "is 4 3 (12); target param shape is 5 3 (15). To learn this layer's parameters from "
        "scratch rather than copying from a saved net, rename the layer."
    )


@formats
def test_another_number_of_parameters_is_refused(ending, make):
    path = save(make(("a", 4, "bias_term: false")), ending)
    with pytest.raises(caffe.CaffeError, match="Incompatible number of blobs for layer a"):
        make(("a", 4), weights=path)


def test_two_layers_of_one_name(make):
    """Caffe saves such a net, but not as HDF5, where names must differ."""
    net = make(("a", 4), ("b", 4))
    text = Path("net.prototxt").read_text().replace('name: "b"', 'name: "a"')
    Path("net.prototxt").write_text(text)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.save("w.caffemodel")
    saved = caffe_pb2.NetParameter.FromString(Path("w.caffemodel").read_bytes())
    assert [layer.name for layer in saved.layer].count("a") == 2
    with pytest.raises(caffe.CaffeError, match="w.h5: two layers are named 'a', which HDF5 cannot hold"):
        net.save_hdf5("w.h5")
    assert not Path("w.h5").exists()


def test_shared_parameters(make):
    """A .caffemodel lists them with every layer, HDF5 with their owner only; both are read back into one blob."""
    net = make(("a", 4, "bias_term: false", 'param { name: "w" }'), ("b", 4, "bias_term: false", 'param { name: "w" }'))
    net.save("w.caffemodel")
    net.save_hdf5("w.h5")
    saved = caffe_pb2.NetParameter.FromString(Path("w.caffemodel").read_bytes())
    assert [len(layer.blobs) for layer in saved.layer if layer.type == "InnerProduct"] == [1, 1]
    with h5py.File("w.h5") as f:
        assert list(f["data/a"]) == ["0"] and list(f["data/b"]) == []
    for path in ("w.caffemodel", "w.h5"):
        again = caffe.Net("net.prototxt", caffe.TRAIN, weights=path)
        assert np.array_equal(again.params["b"][0].data, net.params["a"][0].data)


def test_old_four_dimensional_blobs_fit_shapes_padded_in_front(make):
    net = make(("a", 4))
    old = caffe_pb2.NetParameter()
    layer = old.layer.add(name="a", type="InnerProduct")
    layer.blobs.add(num=1, channels=1, height=4, width=3, data=range(12))
    layer.blobs.add(num=1, channels=1, height=1, width=4, data=range(4))
    Path("old.caffemodel").write_bytes(old.SerializeToString())
    net.copy_from("old.caffemodel")
    assert net.params["a"][0].data.tolist() == np.arange(12).reshape(4, 3).tolist()
    assert net.params["a"][1].data.tolist() == [0, 1, 2, 3]


def test_doubles_are_read(make):
    net = make(("a", 1, "bias_term: false"))
    model = caffe_pb2.NetParameter()
    blob = model.layer.add(name="a", type="InnerProduct").blobs.add(double_data=[1, 2, 3])
    blob.shape.dim.extend([1, 3])
    Path("d.caffemodel").write_bytes(model.SerializeToString())
    net.copy_from("d.caffemodel")
    assert net.params["a"][0].data.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda blob: blob.data.pop(), "holds 11 values for shape .4, 3.; the file is damaged"),
        (lambda blob: blob.shape.dim.__setitem__(0, -4), "shape mismatch. Source param shape is -4 3"),
    ],
)
def test_a_blob_that_contradicts_itself(damage, words, make):
    net = make(("a", 4))
    net.save("w.caffemodel")
    model = caffe_pb2.NetParameter.FromString(Path("w.caffemodel").read_bytes())
    damage(next(layer for layer in model.layer if layer.name == "a").blobs[0])
    Path("bad.caffemodel").write_bytes(model.SerializeToString())
    with pytest.raises(caffe.CaffeError, match=words) as e:
        net.copy_from("bad.caffemodel")
    assert "bad.caffemodel" in str(e.value) and "layer 'a'" in str(e.value)


def test_files_that_are_not_weights(make):
    net = make(("a", 4))
    with pytest.raises(caffe.CaffeError, match="Couldn't open absent.caffemodel .no such file"):
        net.copy_from("absent.caffemodel")
    Path("text.caffemodel").write_text("layer { }")
    with pytest.raises(caffe.CaffeError, match="text.caffemodel"):
        net.copy_from("text.caffemodel")
    with h5py.File("other.h5", "w") as f:
        f["x"] = 1
    with pytest.raises(caffe.CaffeError, match="other.h5: not a Caffe weights file .it has no group 'data'"):
        net.load_hdf5("other.h5")
    with h5py.File("odd.h5", "w") as f:
        f["data/a"] = 1
    with pytest.raises(caffe.CaffeError, match="odd.h5"):
        net.load_hdf5("odd.h5")


def test_blobs_in_the_prototxt_are_the_start_values(make):
    net = make(("a", 1, "bias_term: false", "blobs { shape { dim: 1 dim: 3 } data: 5 data: 6 data: 7 }"))
    assert net.params["a"][0].data.tolist() == [[5, 6, 7]]


@pytest.mark.parametrize("name", ["fc/a", "."])
def test_names_that_hdf5_cannot_hold(make, name):
    """A / there would be a group in a group, which reading by name does not find again."""
    net = make((name, 2))
    with pytest.raises(
        caffe.CaffeError, match=f"a layer is named '{name}', which HDF5 cannot hold; save as .caffemodel"
    ):
        net.save_hdf5("w.h5")
    assert not Path("w.h5").exists()
    net.save("w.caffemodel")
    other = make((name, 2))
    other.copy_from("w.caffemodel")
    np.testing.assert_array_equal(other.params[name][0].data, net.params[name][0].data)


def test_a_net_without_weights_is_saved_and_read_back(make):
    """Nothing in a file that is whole is not the same as an emptied file."""
    net = make()
    net.save("w.caffemodel")
    net.copy_from("w.caffemodel")
    net = make(("ip", 2))
    Path("w.caffemodel").write_bytes(b"")
    with pytest.raises(caffe.CaffeError, match="w.caffemodel: holds no weights at all"):
        net.copy_from("w.caffemodel")


@pytest.mark.parametrize("field", ["data", "diff", "double_data", "double_diff"])
@pytest.mark.parametrize("others", [{}, {"num": -1, "width": 3}, {"shape": {"dim": [2, 200]}}])
def test_values_of_a_blob_are_read_in_one_piece(field, others):
    """Among numbers, other arrays, and fields that nobody knows, here of fixed width."""
    values = np.arange(400, dtype=np.float32)
    proto = caffe_pb2.BlobProto(**{field: values}, **others)
    for other in {"data", "diff", "double_data", "double_diff"} - {field}:
        getattr(proto, other).extend([7.5] * 3)
    for unknown in (b"", b"\xca\x3e\x03abc", b"\xcd\x3e\0\0\x80\x3f"):
        proto.MergeFromString(unknown)
        np.testing.assert_array_equal(packed.read(proto, field), values)
    assert packed.read(caffe_pb2.BlobProto(num=3), field).shape == (0,)
