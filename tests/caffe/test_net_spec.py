"""NetSpec behaves as pycaffe's."""

import pytest

from caffe.net_spec import NetSpec, param_name_dict, to_proto
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffe.proto import caffe_pb2


def small_net():
    n = NetSpec()
    n.data, n.label = L.DummyData(shape=[dict(dim=[5, 3, 8, 6]), dict(dim=[5])], ntop=2)
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, weight_filler=dict(type="xavier"))
    n.relu = L.ReLU(n.conv, in_place=True)
    n.fc = L.InnerProduct(n.relu, num_output=2, param=[dict(lr_mult=1), dict(lr_mult=2, decay_mult=0)])
    n.loss = L.SoftmaxWithLoss(n.fc, n.label, loss_weight=0.5)
    return n


def test_names_bottoms_and_tops():
    outline = [(x.name, x.type, list(x.bottom), list(x.top)) for x in small_net().to_proto().layer]
    assert outline == [
        ("data", "DummyData", [], ["data", "label"]),
        ("conv", "Convolution", ["data"], ["conv"]),
        ("relu", "ReLU", ["conv"], ["conv"]),
        ("fc", "InnerProduct", ["conv"], ["fc"]),
        ("loss", "SoftmaxWithLoss", ["fc", "label"], ["loss"]),
    ]


def test_keywords_go_to_the_parameter_message_or_the_layer():
    data, conv, _, fc, loss = small_net().to_proto().layer
    assert [list(shape.dim) for shape in data.dummy_data_param.shape] == [[5, 3, 8, 6], [5]]
    assert conv.convolution_param.num_output == 4
    assert list(conv.convolution_param.kernel_size) == [3]  # one value counts as a list of one
    assert conv.convolution_param.weight_filler.type == "xavier"
    assert [(p.lr_mult, p.decay_mult) for p in fc.param] == [(1, 1), (2, 0)]
    assert list(loss.loss_weight) == [0.5]


def test_a_message_can_be_given_whole():
    filler = caffe_pb2.FillerParameter(type="gaussian", std=0.25)
    n = NetSpec()
    n.data = L.Input(input_param=dict(shape=dict(dim=[1, 2])))
    n.up = L.Deconvolution(n.data, convolution_param=dict(num_output=1, kernel_size=4, weight_filler=filler))
    data, up = n.to_proto().layer
    assert list(data.input_param.shape[0].dim) == [1, 2]
    assert up.convolution_param.weight_filler == filler


def test_unnamed_layers_are_numbered_by_type():
    data = L.Input(shape=dict(dim=[1, 3]))
    total = L.Eltwise(L.ReLU(data), L.ReLU(data), operation=P.Eltwise.SUM)
    net = to_proto(total, L.Silence(data, ntop=0).inputs[0])
    assert [x.name for x in net.layer] == ["Input1", "ReLU1", "ReLU2", "Eltwise1"]
    assert net == to_proto(total)
    assert total.to_proto() == net
    assert net.layer[3].eltwise_param.operation == caffe_pb2.EltwiseParameter.SUM


def test_layers_come_after_what_they_need():
    n = NetSpec()
    hidden = L.ReLU(L.Input(shape=dict(dim=[1])))
    n.out = L.TanH(hidden)
    assert [(x.name, list(x.bottom)) for x in n.to_proto().layer] == [
        ("Input1", []),
        ("ReLU1", ["Input1"]),
        ("out", ["ReLU1"]),
    ]


def test_a_layer_without_tops():
    n = small_net()
    n.silence = L.Silence(n.label, ntop=0)
    layer = n.to_proto().layer[-1]
    assert (layer.name, layer.type, list(layer.bottom), list(layer.top)) == ("silence", "Silence", ["label"], [])


def test_name_keyword_names_the_layer_and_leaves_the_top():
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[4, 2]))
    n["a"], n["b"] = L.Slice(n.data, name="halves", ntop=2, axis=0, slice_point=1)
    layer = n.to_proto().layer[1]
    assert (layer.name, list(layer.top), list(layer.slice_param.slice_point)) == ("halves", ["a", "b"], [1])


def test_include_and_python_layers():
    layer = to_proto(
        L.Python(module="layers", layer="GaitNet", include=dict(phase=caffe_pb2.TEST), param_str="{'a': 1}")
    ).layer[0]
    assert (layer.python_param.module, layer.python_param.param_str) == ("layers", "{'a': 1}")
    assert [rule.phase for rule in layer.include] == [caffe_pb2.TEST]


def test_items_are_attributes():
    n = small_net()
    assert n["conv"] is n.conv and not hasattr(n, "missing")
    del n["loss"]
    assert "loss" not in [x.name for x in n.to_proto().layer]


def test_parameter_names_follow_the_messages():
    names = param_name_dict()
    assert (names["InnerProduct"], names["ReLU"], names["LRN"], names["HDF5Data"]) == (
        "inner_product",
        "relu",
        "lrn",
        "hdf5_data",
    )


def test_mistakes_are_named():
    with pytest.raises(TypeError, match=r"ReLU input 0 is not a Top \(type is <class 'str'>\)$"):
        L.ReLU("data")
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3]))
    n.fc = L.InnerProduct(n.data, num_outputs=3)
    with pytest.raises(AttributeError, match=r"^InnerProductParameter has no field 'num_outputs' \(known: num_out"):
        n.to_proto()
    with pytest.raises(AttributeError, match="no top 'fc2'"):
        n.fc2  # noqa: B018


@pytest.mark.parametrize("value, told", [(L.Data(ntop=2), "2 tops; name each"), (3, "no top"), ("data", "no top")])
def test_what_is_no_top_is_told_with_its_name(value, told):
    n = NetSpec()
    n.data = value
    with pytest.raises(TypeError, match=rf"has as 'data' is {told}.* \(type is <class '"):
        n.to_proto()


def test_words_of_forks():
    """ceil_mode and its like, as in prototxts; SSD's layers as its own scripts write them."""
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 16, 16]))
    n.pool = L.Pooling(n.data, kernel_size=3, stride=2, ceil_mode=False)
    n.also = L.Pooling(n.data, pooling_param=dict(kernel_size=3, stride=2, ceil_mode=True))
    n.norm = L.Normalize(n.pool, norm_param=dict(scale_filler=dict(type="constant", value=20), across_spatial=False))
    n.perm = L.Permute(n.norm, order=[0, 2, 3, 1])
    n.prior = L.PriorBox(n.norm, n.data, min_size=8.0, clip=True, variance=[0.1, 0.1, 0.2, 0.2], offset=0.5)
    n.py = L.Python(n.data, module="m", layer="M", param_str_="{'a': 1}")
    pool, also, _, perm, prior, py = list(n.to_proto().layer)[1:]
    assert pool.pooling_param.round_mode == P.Pooling.FLOOR and also.pooling_param.round_mode == P.Pooling.CEIL
    assert list(perm.permute_param.order) == [0, 2, 3, 1] and list(prior.prior_box_param.min_size) == [8]
    n.out = L.DetectionOutput(n.norm, n.norm, n.prior, num_classes=2, nms_param=dict(top_k=7), include=dict(phase=1))
    out = n.to_proto().layer[-1]
    assert out.detection_output_param.nms_param.top_k == 7 and out.include[0].phase == caffe_pb2.TEST
    assert py.python_param.param_str == "{'a': 1}" and P.PriorBox.CENTER_SIZE == 2
    with pytest.raises(AttributeError, match="no field 'ceil_mode'"):
        L.ReLU(n.data, ceil_mode=True).to_proto()
    with pytest.raises(AttributeError, match="no field 'ceil_mode'"):
        L.Pooling(n.data, ceil_mode="maybe").to_proto()


def test_options_go_to_caffes_own_message():
    """Forks have further fields of the same message (ENet's spatial_dropout_param), in numbers above Caffe's."""
    for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields:
        if field.name.endswith("_param") and field.number <= caffe_pb2.LayerParameter.CLIP_PARAM_FIELD_NUMBER:
            kind = field.message_type.name.removesuffix("Parameter")
            assert f"{param_name_dict()[kind]}_param" == field.name
    layer = L.Dropout(L.Input(shape=dict(dim=[1, 2])), dropout_ratio=0.25).to_proto().layer[1]
    assert layer.HasField("dropout_param") and layer.dropout_param.dropout_ratio == 0.25
