"""Split layers are put behind blobs that are used more than once, with Caffe's names."""

import pytest

from caffe import CaffeError
from caffe.proto import caffe_pb2
from caffe.splits import insert_splits


def net_of(*layers):
    """A net from (name, bottoms, tops[, loss weights])."""
    net = caffe_pb2.NetParameter()
    for name, bottoms, tops, *weights in layers:
        net.layer.add(name=name, type="Nosuch", bottom=bottoms.split(), top=tops.split(), loss_weight=sum(weights, []))
    return net


def outline(net):
    return [
        (x.name, " ".join(x.bottom), " ".join(x.top), *([list(x.loss_weight)] if x.loss_weight else []))
        for x in net.layer
    ]


def test_no_split_where_each_blob_is_used_once():
    net = net_of(("data", "", "x y"), ("a", "x", "a"), ("b", "a y", "b"))
    assert insert_splits(net) == net


def test_split_of_a_blob_used_three_times():
    net = insert_splits(net_of(("data", "", "x"), ("a", "x", "a"), ("b", "x", "b"), ("c", "x", "c")))
    assert outline(net) == [
        ("data", "", "x"),
        ("x_data_0_split", "x", "x_data_0_split_0 x_data_0_split_1 x_data_0_split_2"),
        ("a", "x_data_0_split_0", "a"),
        ("b", "x_data_0_split_1", "b"),
        ("c", "x_data_0_split_2", "c"),
    ]
    assert net.layer[1].type == "Split"


def test_one_layer_that_reads_a_blob_twice():
    net = insert_splits(net_of(("data", "", "w x"), ("a", "x x", "a")))
    assert outline(net)[1:] == [
        ("x_data_1_split", "x", "x_data_1_split_0 x_data_1_split_1"),
        ("a", "x_data_1_split_0 x_data_1_split_1", "a"),
    ]


def test_in_place_versions_are_split_each_for_itself():
    net = insert_splits(net_of(("data", "", "x"), ("relu", "x", "x"), ("a", "x", "a"), ("b", "x", "b")))
    assert [name for name, *_ in outline(net)] == ["data", "relu", "x_relu_0_split", "a", "b"]
    assert outline(net)[1] == ("relu", "x", "x")


def test_a_loss_that_is_also_read_hands_its_weight_to_the_first_copy():
    net = insert_splits(net_of(("data", "", "x"), ("loss", "x", "l", [2.0]), ("a", "l", "a")))
    assert outline(net)[1:] == [
        ("loss", "x", "l"),
        ("l_loss_0_split", "l", "l_loss_0_split_0 l_loss_0_split_1", [2.0, 0]),
        ("a", "l_loss_0_split_1", "a"),
    ]


def test_the_other_loss_weights_of_a_split_top_are_lost():
    net = insert_splits(net_of(("data", "", "x"), ("s", "x", "a b c", [2.0, 0, 3.0]), ("read", "c", "r")))
    assert outline(net)[1:3] == [
        ("s", "x", "a b c"),
        ("c_s_2_split", "c", "c_s_2_split_0 c_s_2_split_1", [3.0, 0]),
    ]


def test_inserting_twice_changes_nothing():
    once = insert_splits(net_of(("data", "", "x y"), ("a", "x y", "a"), ("b", "x a", "b"), ("c", "a b", "c")))
    assert insert_splits(once) == once


def test_unknown_bottom():
    with pytest.raises(CaffeError, match="Unknown bottom blob 'y' .layer 'a', bottom index 1."):
        insert_splits(net_of(("data", "", "x"), ("a", "x y", "a")))
