"""coord_map: maps between blobs, checked by hand and by where single pixels go through a real net."""

import numpy as np
import pytest

import caffe
from caffe.coord_map import AxisMismatchException, compose, coord_map_from_to, crop, inverse
from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L
from caffe.net_spec import params as P


def data(*dims):
    return L.Input(shape=dict(dim=list(dims)))


def conv_pool_deconv(n, ks=3, stride=1, pad=0, pool=2, dstride=2, dpad=0, spatial=(40, 40)):
    n.data = data(1, 2, *spatial)
    n.conv = L.Convolution(n.data, num_output=3, kernel_size=ks, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=pool, stride=pool, pad=0)
    n.deconv = L.Deconvolution(n.pool, convolution_param=dict(num_output=3, kernel_size=4, stride=dstride, pad=dpad))
    return n


def test_conv_pool_deconv():
    n = conv_pool_deconv(NetSpec())
    axis, a, b = coord_map_from_to(n.deconv, n.data)
    # conv: x - 1; pool: (x - 1 - 1/2) / 2; deconv: 2 y + 3/2: the deconvolution lies at x, shifted by nothing
    assert (axis, float(a[0]), float(b[0])) == (1, 1.0, 0.0)
    axis, a, b = coord_map_from_to(n.data, n.deconv)
    assert (axis, float(a[0]), float(b[0])) == (1, 1.0, 0.0)
    axis, a, b = coord_map_from_to(n.pool, n.data)
    assert (axis, float(a[0]), float(b[0])) == (1, 2.0, 1.5)


def test_pass_through_layers_change_nothing():
    n = conv_pool_deconv(NetSpec())
    axis, a, b = coord_map_from_to(n.deconv, n.data)
    n.relu = L.ReLU(n.deconv)
    n.drop = L.Dropout(n.relu)
    n.sum = L.Eltwise(n.drop, n.deconv)
    assert coord_map_from_to(n.sum, n.data) == (axis, a, b)


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_padding_shifts(pad):
    n = conv_pool_deconv(NetSpec(), pad=pad)
    _, a, b = coord_map_from_to(n.deconv, n.data)
    assert (float(a[0]), float(b[0])) == (1.0, -pad)


def test_each_axis_on_its_own():
    n = conv_pool_deconv(NetSpec(), ks=[3, 3, 5], pad=[0, 1, 2], spatial=(20, 20, 20))
    _, a, b = coord_map_from_to(n.deconv, n.data)
    assert np.all(a == 1) and b.tolist() == [0, -1, -1]


def test_dilation_and_im2col():
    n = NetSpec()
    n.data = data(1, 1, 20, 20)
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=3, dilation=4)
    assert [v.tolist() for v in coord_map_from_to(n.conv, n.data)[1:]] == [[1], [4]]
    n.col = L.Im2col(n.data, convolution_param=dict(kernel_size=3, pad=1))
    assert [v.tolist() for v in coord_map_from_to(n.col, n.data)[1:]] == [[1], [0]]


def test_two_branches_meet_at_their_ancestor():
    n = conv_pool_deconv(NetSpec(), pad=3)
    n.other = L.Convolution(n.data, num_output=2, kernel_size=5)
    _, a, b = coord_map_from_to(n.deconv, n.other)
    assert (float(a[0]), float(b[0])) == (1.0, -5.0)


def test_crop_of_crop():
    n = conv_pool_deconv(NetSpec(), pad=2)
    _, a, b = coord_map_from_to(n.deconv, n.data)
    n.crop = L.Crop(n.deconv, n.data, axis=2, offset=3)
    _, a2, b2 = coord_map_from_to(n.crop, n.data)
    assert a2 == a and b2 == b + 3


def test_crop_layer_cuts_where_the_blobs_line_up(tmp_path):
    """A single bright pixel lies at one place in the data and in the crop."""
    n = NetSpec()
    n.data = data(1, 1, 12, 13)
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=3, pad=6, bias_term=False)
    n.crop = crop(n.conv, n.data)
    (tmp_path / "net.prototxt").write_text(str(n.to_proto()))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.params["conv"][0].data[...] = 0
    net.params["conv"][0].data[0, 0, 1, 1] = 1  # the identity
    net.blobs["data"].data[...] = np.random.RandomState(0).rand(1, 1, 12, 13)
    net.forward()
    np.testing.assert_array_equal(net.blobs["crop"].data, net.blobs["data"].data)


def test_crop_parameters():
    n = conv_pool_deconv(NetSpec(), pad=7)
    layer = crop(n.deconv, n.data).to_proto().layer[-1]
    assert layer.type == "Crop" and layer.crop_param.axis == 2 and list(layer.crop_param.offset) == [7]
    n = conv_pool_deconv(NetSpec(), pad=[1, 2], ks=[3, 3])
    assert list(crop(n.deconv, n.data).to_proto().layer[-1].crop_param.offset) == [1, 2]
    n.relu = L.ReLU(n.data)
    assert list(crop(n.relu, n.data).to_proto().layer[-1].crop_param.offset) == [0]


def test_unconnected_blobs():
    n = NetSpec()
    n.data = data(1, 1, 5, 5)
    n.ip = L.InnerProduct(n.data, num_output=10)
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=1)
    n.aux = data(1, 1, 5, 5)
    for top in (n.ip, n.aux):
        with pytest.raises(RuntimeError, match="Could not compute map between tops"):
            coord_map_from_to(n.conv, top)
    n.all = L.Pooling(n.data, pool=P.Pooling.AVE, global_pooling=True)
    with pytest.raises(RuntimeError):
        coord_map_from_to(n.all, n.data)


def test_crops_that_are_impossible():
    n = conv_pool_deconv(NetSpec(), dstride=3)
    with pytest.raises(AssertionError, match="scale mismatch"):
        crop(n.deconv, n.data)
    n = conv_pool_deconv(NetSpec(), dpad=10)
    with pytest.raises(AssertionError, match="negative offset"):
        crop(n.deconv, n.data)
    n = conv_pool_deconv(NetSpec(), ks=4, pad=8)
    with pytest.raises(AssertionError, match="noninteger offset"):
        crop(n.deconv, n.data)
    n = NetSpec()
    n.data = data(1, 1, 9, 9)
    n.conv = L.Convolution(n.data, num_output=1, kernel_h=3, kernel_w=2)
    with pytest.raises(AssertionError, match="legacy _h/_w params: kernel_h, kernel_w"):
        crop(n.conv, n.data)


def test_maps_compose_and_invert():
    double, shift = (1, 2, 0), (None, 1, 5)
    assert compose(double, shift) == (1, 2, 10)
    assert compose(shift, double) == (1, 2, 5)
    assert compose(double, inverse(double)) == (1, 1, 0)
    with pytest.raises(AxisMismatchException):
        compose(double, (2, 1, 0))
