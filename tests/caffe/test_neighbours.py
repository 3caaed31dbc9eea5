"""What users of other Caffe projects write, as they write it: FCN, MTCNN, LeNet, the siamese MNIST, Faster R-CNN."""

import lmdb
import numpy as np
import pytest

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

XAVIER = dict(type="xavier")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(name, message):
    with open(name, "w") as f:
        f.write(str(message))
    return name


def test_fcn_surgery_makes_inner_products_convolutions():
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 8, 8]))
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=3, weight_filler=XAVIER)
    n.fc6 = L.InnerProduct(n.conv, num_output=5, weight_filler=XAVIER)
    net = caffe.Net(write("fc.prototxt", n.to_proto()), caffe.TEST)
    net.save("fc.caffemodel")

    m = caffe.NetSpec()
    m.data = L.Input(shape=dict(dim=[1, 3, 16, 12]))
    m.conv = L.Convolution(m.data, num_output=4, kernel_size=3)
    setattr(m, "fc6-conv", L.Convolution(m.conv, num_output=5, kernel_size=6))
    full = caffe.Net(write("conv.prototxt", m.to_proto()), "fc.caffemodel", caffe.TEST)
    full.params["fc6-conv"][0].data.flat = net.params["fc6"][0].data.flat
    full.params["fc6-conv"][1].data[...] = net.params["fc6"][1].data

    image = np.random.RandomState(0).randn(1, 3, 16, 12)
    dense = full.forward(data=image)["fc6-conv"]
    assert dense.shape == (1, 5, 9, 5)
    for y, x in ((0, 0), (8, 4), (3, 2)):  # a window of the small net at each place
        net.blobs["data"].data[...] = image[:, :, y : y + 8, x : x + 8]
        np.testing.assert_allclose(net.forward()["fc6"][0], dense[0, :, y, x], atol=1e-5)  # another order of sums


def test_mtcnn_runs_one_net_at_the_sizes_of_an_image_pyramid():
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 12, 12]))
    n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3, weight_filler=XAVIER)
    n.PReLU1 = L.PReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2)
    n.boxes = L.Convolution(n.pool1, num_output=4, kernel_size=5, weight_filler=XAVIER)
    n.score = L.Convolution(n.pool1, num_output=2, kernel_size=5, weight_filler=XAVIER)
    n.prob = L.Softmax(n.score)
    net = caffe.Net(write("p.prototxt", n.to_proto()), caffe.TEST)
    for height, width in ((12, 12), (61, 40), (13, 30), (12, 12)):
        net.blobs["data"].reshape(1, 3, height, width)
        net.blobs["data"].data[...] = 0.1
        out = net.forward()
        assert set(out) == {"boxes", "prob"}
        assert out["prob"].shape == (1, 2, -(-(height - 4) // 2) - 3, -(-(width - 4) // 2) - 3)
        np.testing.assert_allclose(out["prob"].sum(1), 1, rtol=1e-6)


def lenet(source, batch_size):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(
        batch_size=batch_size, backend=P.Data.LMDB, source=source, transform_param=dict(scale=1.0 / 255), ntop=2
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=8, weight_filler=XAVIER)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool1, num_output=20, weight_filler=XAVIER)
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=3, weight_filler=XAVIER)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto()


def test_lenet_learns_from_an_lmdb_by_the_solver_loop_of_the_notebook():
    rng = np.random.RandomState(0)
    with lmdb.open("db", map_size=2**24) as env, env.begin(write=True) as txn:
        for i in range(30):  # the label tells where the image is bright
            image = rng.randint(0, 50, (1, 14, 14)).astype(np.uint8)
            image[0, :, 4 * (i % 3) : 4 * (i % 3) + 4] += 180
            txn.put(b"%08d" % i, caffe.io.array_to_datum(image, i % 3).SerializeToString())
    s = caffe_pb2.SolverParameter(
        train_net=write("train.prototxt", lenet("db", 10)),
        test_interval=100,
        max_iter=60,
        base_lr=0.05,
        momentum=0.9,
        lr_policy="inv",
        gamma=1e-4,
        power=0.75,
        snapshot_prefix="lenet",
        random_seed=2,
    )
    s.test_net.append(write("test.prototxt", lenet("db", 30)))
    s.test_iter.append(1)
    solver = caffe.get_solver(write("solver.prototxt", s))
    losses = np.zeros(50)
    for it in range(50):
        solver.step(1)
        losses[it] = solver.net.blobs["loss"].data
    solver.test_nets[0].forward(start="conv1")
    assert (solver.test_nets[0].blobs["score"].data.argmax(1) == solver.test_nets[0].blobs["label"].data).all()
    assert losses[-5:].mean() < 0.1 * losses[0]
    solver.snapshot()
    again = caffe.SGDSolver("solver.prototxt")
    again.restore("lenet_iter_50.solverstate")
    again.solve()
    assert again.iter == 60 and float(again.net.blobs["loss"].data) < 0.1 * losses[0]


def test_siamese_branches_share_their_parameters():
    shared = [dict(name="feat_w", lr_mult=1), dict(name="feat_b", lr_mult=2)]
    n = caffe.NetSpec()
    n.pair_data = L.DummyData(shape=dict(dim=[6, 2, 4, 4]), data_filler=dict(type="gaussian"))
    n.sim = L.DummyData(shape=dict(dim=[6]), data_filler=dict(type="constant", value=1))
    n.data, n.data_p = L.Slice(n.pair_data, slice_dim=1, slice_point=1, ntop=2)
    n.feat = L.InnerProduct(n.data, num_output=2, param=shared, weight_filler=XAVIER)
    n.feat_p = L.InnerProduct(n.data_p, num_output=2, param=shared, weight_filler=XAVIER)
    n.loss = L.ContrastiveLoss(n.feat, n.feat_p, n.sim, margin=1)
    write("pair.prototxt", n.to_proto())
    write("solver.prototxt", 'net: "pair.prototxt" base_lr: 0.05 lr_policy: "fixed" snapshot_prefix: "pair"')
    solver = caffe.SGDSolver("solver.prototxt")
    before = solver.net.params["feat"][0].data.copy()
    solver.step(50)
    assert np.array_equal(solver.net.params["feat"][0].data, solver.net.params["feat_p"][0].data)
    # All pairs are alike and of random images: the features fall together towards a point.
    assert np.abs(solver.net.params["feat"][0].data).max() < 0.5 * np.abs(before).max()


PROPOSALS = """
import caffe, numpy as np, yaml
class ProposalLayer(caffe.Layer):
    def setup(self, bottom, top):
        self._feat_stride = yaml.safe_load(self.param_str)['feat_stride']
        top[0].reshape(1, 5)
    def reshape(self, bottom, top):
        pass  # in forward, where the number of boxes is known
    def forward(self, bottom, top):
        y, x = np.nonzero(bottom[0].data[0, 0] > 0)
        blob = np.stack([0 * x, x, y, x + 1, y + 1], 1) * float(self._feat_stride)
        top[0].reshape(*(blob.shape))
        top[0].data[...] = blob
    def backward(self, top, propagate_down, bottom):
        pass
"""


def test_faster_rcnn_proposals_change_their_number_in_forward():
    write("rpn.py", PROPOSALS)
    n = caffe.NetSpec()
    n.scores = L.Input(shape=dict(dim=[1, 1, 3, 4]))
    n.rois = L.Python(n.scores, module="rpn", layer="ProposalLayer", param_str="'feat_stride': 16")
    n.shifted = L.Power(n.rois, shift=1)
    net = caffe.Net(write("rpn.prototxt", n.to_proto()), caffe.TEST)
    for boxes in (1, 5, 2):
        net.blobs["scores"].data[...] = 0
        net.blobs["scores"].data.flat[:boxes] = 1
        assert net.forward()["shifted"].shape == (boxes, 5)
    assert net.blobs["rois"].data.tolist() == [[0, 0, 0, 16, 16], [0, 16, 0, 32, 16]]
