"""`import caffe`: every name that pycaffe has, what an import costs, and what has no test file of its own."""

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe import layers as L
from caffe import params as P

REPO = Path(__file__).resolve().parents[2]

NAMES = """
    Net Layer Blob SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver get_solver NCCL Timer
    set_mode_cpu set_mode_gpu set_device set_random_seed set_multiprocess set_solver_count set_solver_rank solver_count
    solver_rank layer_type_list init_log log TRAIN TEST __version__ layers params NetSpec to_proto Classifier Detector
    has_nccl io net_spec draw coord_map proto pycaffe
""".split()


def python(code, **environment):
    """What a fresh interpreter prints when it runs `code`."""
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1", **environment)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- the module


@pytest.mark.parametrize("name", NAMES)
def test_name(name):
    assert getattr(caffe, name) is not None and name in dir(caffe)


def test_star_import():
    """As in pycaffe, also what is imported on first use."""
    names = {}
    exec("from caffe import *", names)
    assert set(NAMES) - {"__version__", "draw", "coord_map"} <= set(names) and "os" not in names


def test_tables_are_copied_as_the_ordered_dicts_they_are(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Parameter" top: "x" parameter_param { shape { dim: 2 } } }'
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    deep = copy.deepcopy(net.params)
    net.params["x"][0].data[...] = 3
    assert deep["x"][0].data.tolist() == [0, 0] and copy.copy(net.params)["x"][0].data.tolist() == [3, 3]
    assert list(net.blobs | {"y": 1}) == ["x", "y"] and str(net.blobs).startswith("OrderedDict(")


@pytest.fixture
def dropped(tmp_path):
    """dropped(start=...) is what two Dropout layers of a net leave of ones, each time anew."""
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 40 } } }'
        'layer { name: "a" type: "Dropout" bottom: "x" top: "a" }'
        'layer { name: "b" type: "Dropout" bottom: "a" top: "b" }'
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    net.blobs["x"].data[...] = 1

    def run(**part):
        net.forward(**part)
        return net.blobs["a"].data.tolist(), net.blobs["b"].data.tolist()

    return run


def test_a_seed_counts_for_nets_that_are_there(dropped):
    """As in Caffe, where all draw from one generator: so scripts fix the units that a check of gradients drops."""
    caffe.set_random_seed(7)
    first, second = dropped(), dropped()
    caffe.set_random_seed(7)
    assert first == dropped() != second == dropped()
    caffe.set_random_seed(7)
    dropped(end="a")
    assert dropped(start="b") == first  # two parts of one pass


def test_part_of_a_net_draws_anew_each_time(dropped):
    dropped()
    seen = [dropped(start="a")[0] for _ in range(3)]
    assert seen[0] != seen[1] != seen[2]


def test_version_and_phases():
    assert caffe.__version__ == "1.0.0"
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert caffe.proto.caffe_pb2.TEST == caffe.TEST
    with pytest.raises(AttributeError, match="module 'caffe' has no attribute 'nosuch'"):
        _ = caffe.nosuch


def test_import_needs_neither_torch_nor_numpy():
    """Python layers, NetSpec and caffe.io do without torch; so layers start quickly and run inside BVLC Caffe, too."""
    heavy = "print(*(m for m in ('torch', 'numpy', 'cv2', 'google.protobuf', 'h5py') if m in sys.modules))"
    assert python(f"import sys, caffe; caffe.Layer, caffe.TRAIN, caffe.solver_rank(); {heavy}") == ""
    assert "torch" not in python(f"import sys, caffe; caffe.layers.ReLU(), caffe.io.Transformer; {heavy}")


def test_import_is_quick():
    """0.3 s is the bound; measured 0.05 s. The best of three, for a busy machine."""
    code = "import time; t = time.process_time(); import caffe; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_old_import_forms():
    from caffe import io  # noqa: F401
    from caffe.net_spec import NetSpec  # noqa: F401
    from caffe.proto import caffe_pb2
    from caffe.pycaffe import Net, SGDSolver

    assert (Net, SGDSolver) == (caffe.Net, caffe.SGDSolver)
    assert caffe.proto.caffe_pb2 is caffe_pb2


def test_layer_type_list():
    types = caffe.layer_type_list()
    assert types == sorted(types) and {"Python", "Convolution", "SoftmaxWithLoss", "LSTM"} <= set(types)


def test_a_single_process_is_the_only_rank():
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)


def test_log_and_init_log():
    out = python(
        "import caffe, sys; sys.stderr = sys.stdout; caffe.log('quiet'); caffe.init_log(); caffe.log('heard');"
        "caffe.init_log(2); caffe.log('quiet again')"
    )
    assert out.endswith("_caffe.cpp:150] heard") and len(out.splitlines()) == 1 and out[0] == "I"
    silenced = python(
        "import caffe, sys; sys.stderr = sys.stdout; caffe.init_log(); caffe.log('x')", GLOG_minloglevel="1"
    )
    assert silenced == ""


@pytest.mark.parametrize(
    "level, code, heard",
    [
        ("", "", "WE"),
        ("0", "", "IWE"),  # as Caffe's scripts are
        ("2", "", "E"),
        ("no number", "", "WE"),
        ("", "caffe.init_log(0, True);", "IWE"),
        ("", "caffe.init_log(1, True);", "WE"),
        ("", "caffe.init_log(0, False);", "E"),
    ],
)
def test_what_a_script_shows(level, code, heard):
    said = python(
        f"import caffe, sys; sys.stderr = sys.stdout; from caffe import glog; {code} "
        "caffe.log('x'); glog.warning('y', 'z'); glog.error('y', 'z')",
        GLOG_minloglevel=level,
    )
    assert "".join(line[0] for line in said.splitlines()) == heard


def test_has_nccl():
    """NCCL works wherever this holds; its ids are bytes, which Caffe's own test wants on Python 3."""
    assert caffe.has_nccl() is True and isinstance(caffe.NCCL.new_uid(), bytes)


# ---- nets from NetSpec


def net_from(spec, tmp_path, phase=caffe.TRAIN):
    path = tmp_path / "net.prototxt"
    path.write_text(str(spec.to_proto()))
    return caffe.Net(str(path), phase)


def lenet(batch):
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(shape=[dict(dim=[batch, 1, 28, 28]), dict(dim=[batch])], ntop=2)
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool1, num_output=10, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.loss = L.SoftmaxWithLoss(n.relu1, n.label)
    return n


def test_a_net_from_netspec_runs(tmp_path):
    net = net_from(lenet(3), tmp_path)
    assert list(net.layer_dict) == ["data", "conv1", "pool1", "ip1", "relu1", "loss"]
    assert net.blobs["pool1"].data.shape == (3, 20, 12, 12)
    loss = float(net.forward()["loss"])
    assert loss == pytest.approx(np.log(10), rel=1e-5)  # all data are zero, so all classes are equally likely


def test_seeds_decide_the_fillers(tmp_path, request):
    request.addfinalizer(lambda: setattr(caffe.random, "_seed", None))
    drawn = []
    for seed in (4, 4, 5):
        caffe.set_random_seed(seed)
        nets = [net_from(lenet(1), tmp_path) for _ in range(2)]
        drawn.append([net.params["conv1"][0].data.copy() for net in nets])
    assert all(np.array_equal(a, b) for a, b in zip(drawn[0], drawn[1]))
    assert not np.array_equal(drawn[0][0], drawn[2][0]) and not np.array_equal(drawn[0][0], drawn[0][1])


# ---- input arrays


def test_set_input_arrays(tmp_path):
    n = caffe.NetSpec()
    n.data, n.label = L.MemoryData(batch_size=2, channels=3, height=4, width=5, ntop=2)
    n.twice = L.Power(n.data, scale=2)
    net = net_from(n, tmp_path)
    data = np.random.RandomState(0).randn(4, 3, 4, 5).astype(np.float32)
    labels = np.arange(4, dtype=np.float32)
    net.set_input_arrays(data, labels)
    for k in (0, 1, 0):  # batch after batch, again and again
        out = net.forward()
        assert np.array_equal(out["twice"], 2 * data[2 * k : 2 * k + 2])
        assert np.array_equal(net.blobs["label"].data.ravel(), labels[2 * k : 2 * k + 2])
    for bad in ((data[:3], labels[:3]), (data.astype(np.float64), labels), (data[:, :2], labels), (data, labels[:2])):
        with pytest.raises(caffe.CaffeError):
            net.set_input_arrays(*bad)
    with pytest.raises(caffe.CaffeError, match="first layer is a MemoryDataLayer"):
        net_from(lenet(1), tmp_path).set_input_arrays(data, labels)


# ---- time, processes


def test_timer():
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    time.sleep(0.02)
    timer.stop()
    first = timer.ms
    assert 20 <= first < 2000 and timer.ms == first
    timer.start()
    assert timer.ms < first


@pytest.mark.medium
def test_nccl_recipe_with_two_processes(tmp_path):
    """pycaffe's own way to train with several processes: both end with the same weights, though they start apart and
    see different data; rank 0 alone takes the snapshot."""
    (tmp_path / "net.prototxt").write_text(str(ranked_net().to_proto()))
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 snapshot: 5 snapshot_prefix: "run"'
    )
    (tmp_path / "ranked.py").write_text("""
import caffe
class Ranked(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top):
        top[0].reshape(2, 3)
        top[1].reshape(2)
    def forward(self, bottom, top):
        top[0].data[...] = 1 + caffe.solver_rank()
        top[1].data[...] = caffe.solver_rank()
""")
    script = """
import sys, hashlib, caffe
rank, uid = int(sys.argv[1]), sys.argv[2]
caffe.set_solver_count(2)
caffe.set_solver_rank(rank)
caffe.set_multiprocess(True)
solver = caffe.SGDSolver("solver.prototxt")
nccl = caffe.NCCL(solver, uid)
nccl.bcast()
solver.add_callback(nccl)
if solver.param.layer_wise_reduce:
    solver.net.after_backward(nccl)
solver.step(6)
print(hashlib.sha256(b"".join(p.data.tobytes() for p in solver.net.params["ip"])).hexdigest())
"""
    uid = caffe.NCCL.new_uid().decode()  # as a word of the command line
    environment = dict(os.environ, PYTHONPATH=f"{REPO}:{tmp_path}", OMP_NUM_THREADS="1")
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), uid],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    said = [job.communicate(timeout=100) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert said[0][0] == said[1][0] and len(said[0][0].strip()) == 64
    assert (tmp_path / "run_iter_5.caffemodel").exists()


def ranked_net():
    n = caffe.NetSpec()
    n.x, n.label = L.Python(module="ranked", layer="Ranked", ntop=2)
    n.ip = L.InnerProduct(n.x, num_output=4, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.ip, n.label)
    return n


# ---- a GPU where there is none

ASKS = "import caffe, sys; sys.stderr = sys.stdout; caffe.set_device(0); caffe.set_mode_gpu(); caffe.set_mode_gpu();"
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.medium
def test_a_script_that_asks_for_a_gpu_goes_on_without():
    """As most public scripts do. One warning, and nets compute on the CPU."""
    said = python(ASKS + "print(caffe.device.current)", **NO_GPU).splitlines()
    assert len(said) == 2 and said[1] == "cpu"
    assert said[0].startswith("W") and "torch finds none: computing on the CPU (CAFFE_REQUIRE_GPU=1" in said[0]


@pytest.mark.parametrize("call", ["set_device(0)", "set_mode_gpu()"])
def test_who_wants_an_error_gets_one(monkeypatch, call):
    monkeypatch.setenv("CAFFE_REQUIRE_GPU", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(caffe.CaffeError, match="a GPU is asked for, and torch finds none; unset CAFFE_REQUIRE_GPU"):
        eval(f"caffe.{call}")
