"""Fillers against what BVLC Caffe 1.0 filled (tests/golden/fillers.npz): bounds, moments, and exact values.

A case has the net's prototxt, which parameter it is about, `law` (bounds, mean and std of the distribution; 1e30 for
no bound, std -1 where none is claimed) and `stats` of Caffe's own draw: mean, std, min, max, mean |x|, share of zeros.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.fillers import fill
from caffe.net import Net
from caffe.proto import caffe_pb2

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "fillers.npz", allow_pickle=False)
CASES = str(GOLDEN["names"]).split("\n")
EXACT = str(GOLDEN["exact_names"]).split("\n")


def params(case, seed=3):
    """Parameters of the layer "l" of the case's net."""
    param = caffe_pb2.NetParameter(state={"phase": caffe.TRAIN})
    return Net.from_proto(text_format.Parse(str(GOLDEN[f"{case}/prototxt"]), param), seed=seed).params["l"]


@pytest.mark.parametrize("case", CASES)
def test_distribution(case):
    value = params(case)[int(str(GOLDEN[f"{case}/param"]).split("/")[1])].data.astype(np.float64)
    assert value.shape == tuple(GOLDEN[f"{case}/shape"])
    low, high, mean, std = GOLDEN[f"{case}/law"]
    _, caffe_std, _, _, caffe_abs, caffe_zeros = GOLDEN[f"{case}/stats"]
    n = value.size
    assert low - 1e-6 <= value.min() and value.max() <= high + 1e-6  # 1e-6: rounding of the bounds to float32
    # All bounds are six standard errors, of one draw or of the difference of two.
    assert abs(value.mean() - mean) <= 6 * caffe_std / n**0.5 + 1e-6
    if std >= 0:
        kurtosis = 3 / (1 - caffe_zeros) if caffe_zeros < 1 else 3  # at most: normal, thinned out by `sparse`
        assert abs(value.std() - std) <= 6 * std * ((kurtosis - 1) / (4 * n)) ** 0.5 + 1e-6
    assert abs(np.abs(value).mean() - caffe_abs) <= 6 * caffe_std * (2 / n) ** 0.5 + 1e-6
    zeros = (value == 0).mean()
    assert abs(zeros - caffe_zeros) <= 6 * (2 * caffe_zeros * (1 - caffe_zeros) / n) ** 0.5 + 1e-3  # a few exact draws


@pytest.mark.parametrize("case", EXACT)
def test_exact_values(case):
    found = params(f"exact/{case}")[int(case[-1]) if case.startswith("default") else 0].data
    np.testing.assert_allclose(found, GOLDEN[f"exact/{case}/value"], rtol=0, atol=1e-7)  # rounding of one product


def test_unitball_rows_sum_to_one():
    value = params("conv-unitball")[0].data
    np.testing.assert_allclose(value.reshape(64, -1).sum(1), 1, rtol=1e-5)  # 800 float32 terms


def test_fillers_repeat_with_the_seed():
    np.testing.assert_array_equal(params("ip-msra")[0].data, params("ip-msra")[0].data)
    assert (params("ip-msra")[0].data != params("ip-msra", seed=4)[0].data).any()


def test_weights_and_bias_are_drawn_apart():
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 7 } } }
              layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 400
                      weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }"""
    param = caffe_pb2.NetParameter(state={"phase": caffe.TRAIN})
    weight, bias = (blob.data.ravel() for blob in Net.from_proto(text_format.Parse(text, param), seed=3).params["l"])
    # Six standard errors of the correlation of 400 independent pairs.
    assert abs(np.corrcoef(weight[:400], bias)[0, 1]) < 6 / 400**0.5


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "positive_unitball", "xavier", "msra"])
def test_a_blob_without_axes_is_filled(kind):
    """PReLU with channel_shared and Scale with num_axes 0 have such parameters."""
    blob = Blob(())
    fill(blob, caffe_pb2.FillerParameter(type=kind), torch.Generator().manual_seed(5))
    assert blob.shape == () and blob.data != 0


@pytest.mark.parametrize(
    "filler, shape, message",
    [
        ('type: "salt"', (2, 3), "Unknown filler name: salt .known: bilinear, constant"),
        ('type: "bilinear"', (2, 3), r"bilinear filler wants a 4-d blob .*\(2, 3\)"),
        ('type: "bilinear"', (2, 3, 3, 4), r"square kernel, not \(2, 3, 3, 4\)"),
        ('type: "gaussian" std: -1', (2, 3), "std is -1; wanted a number that is not negative"),
        ('type: "gaussian" std: nan', (2, 3), "std is nan"),
        ('type: "xavier" sparse: 15', (2, 3), "filler xavier: sparse is 15; gaussian alone knows it"),
        ("sparse: 2", (2, 3), "filler constant: sparse is 2"),
        ('type: "gaussian" sparse: -2', (2, 3), "filler gaussian: sparse is -2; gaussian alone knows it, from 0 on"),
        ('type: "uniform" min: 2', (2, 3), "min is 2 and max is 1; wanted min <= max"),
        ('type: "uniform" max: 1e39', (2, 3), "max is inf"),
    ],
)
def test_fillers_that_do_not_fit(filler, shape, message):
    with pytest.raises(CaffeError, match=message):
        fill(Blob(shape), text_format.Parse(filler, caffe_pb2.FillerParameter()), None)
