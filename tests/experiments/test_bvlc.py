"""Training and evaluation use nothing that BVLC Caffe 1.0 lacks: names of pycaffe, fields and layer types of prototxts,
flags of the command. The lists below are that Caffe's, not ours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from caffe.proto import caffe_pb2
from tests.experiments.test_train_steps import calls, experiment, run  # noqa: F401 - `experiment` is a fixture
from tests.layers.trees import write_walkers

ROOT = Path(__file__).resolve().parents[2]
PROTOTXTS = sorted([*ROOT.glob("experiments/*/*.prototxt"), ROOT / "eval/deploy_gaitnet.prototxt"])
SOURCES = sorted([*ROOT.glob("layers/*.py"), *ROOT.glob("eval/*.py")])

PYCAFFE = set(
    """
    Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL Timer init_log log
    set_mode_cpu set_mode_gpu set_device Layer get_solver layer_type_list set_random_seed solver_count set_solver_count
    solver_rank set_solver_rank set_multiprocess TRAIN TEST Classifier Detector io layers params NetSpec to_proto
    __version__ __file__ proto net_spec draw coord_map classifier detector pycaffe
""".split()
)
NET = set(
    """
    blobs params layers layer_dict inputs outputs top_names bottom_names blob_loss_weights forward backward forward_all
    forward_backward_all save copy_from share_with reshape save_hdf5 load_hdf5 set_input_arrays clear_param_diffs
    _layer_names _blob_names before_forward after_forward before_backward after_backward
""".split()
)
TYPES = set(
    """
    AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Concat ContrastiveLoss Convolution Crop Data Deconvolution
    Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData
    InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData MultinomialLogisticLoss PReLU Parameter Pooling
    Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax
    SoftmaxWithLoss Split TanH Threshold Tile WindowData
""".split()
)
FLAGS = set("gpu solver model phase level stage snapshot weights iterations sigint_effect sighup_effect".split())
NOT_IN_1_0 = {  # ours, what came after the tag 1.0, and SSD's
    "NetParameter": {"checksum"},
    "SolverState": {"checksum", "random_seed", "weights_seal", "computed_by"},
    "SolverParameter": {"weights", "eval_type", "ap_version", "show_per_class_result"},
    "LayerParameter": {"clip_param", "swish_param"},
    "PoolingParameter": {"round_mode"},
}
LAST_PARAM = 146  # number of the last field of LayerParameter in 1.0, recurrent_param


# ---- Python


def uses(tree):
    """(names of the module caffe, attributes of a net that it made) in a parsed source."""
    nets = {"net", "built"}
    module, net = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "caffe":
            module |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            module |= {a.name.split(".")[1] for a in node.names if a.name.startswith("caffe.")}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "caffe":
                module.add(node.attr)
            elif node.value.id in nets:
                net.add(node.attr)
    return module, net


def test_no_name_that_pycaffe_lacks():
    seen_module, seen_net = set(), set()
    for path in SOURCES:
        module, net = uses(ast.parse(path.read_text()))
        assert module <= PYCAFFE, f"{path}: {module - PYCAFFE}"
        seen_module |= module
        if path.parent.name == "eval":
            seen_net |= net
    assert {"Layer", "Net", "TEST", "set_mode_gpu", "proto"} <= seen_module and "forward" in seen_net
    fields = {field.name for field in caffe_pb2.NetParameter.DESCRIPTOR.fields}  # eval calls those messages net, too
    others = {"ParseFromString", "add_argument", "frames", "masks", "features"}  # a parser, and eval's own class
    assert seen_net <= NET | fields | others, seen_net - NET - fields - others


STUB = """
import sys, types
import numpy as np
caffe = types.ModuleType("caffe")
class Layer:  # what BVLC Caffe gives a layer: param_str, phase and blobs
    blobs = ()
caffe.Layer, caffe.TRAIN, caffe.TEST = Layer, 0, 1
caffe.solver_count, caffe.solver_rank, caffe.log = lambda: 1, lambda: 0, print
sys.modules["caffe"] = caffe
import layers
class Blob:
    def reshape(self, *shape): self.data = np.zeros(shape, np.float32)
class Blobs:  # can be indexed and has a length, and is no list
    def __init__(self, count): self.blobs = [Blob() for _ in range(count)]
    def __len__(self): return len(self.blobs)
    def __getitem__(self, i):
        if not 0 <= i < len(self.blobs): raise RuntimeError("out of range: nothing here may iterate")
        return self.blobs[i]
for name, count in (("GaitNet_Seg", 12), ("GaitNet", 13), ("GaitNet_Sia", 14)):
    layer = getattr(layers, name)()
    layer.param_str, layer.phase = sys.argv[1], caffe.TRAIN
    bottom, top = Blobs(0), Blobs(count)
    layer.setup(bottom, top)
    for _ in range(2):
        layer.reshape(bottom, top)
        layer.forward(bottom, top)
    layer.backward(top, [], bottom)
    print(name, top[0].data.shape, top[0].data.std() > 10)
assert "torch" not in sys.modules
"""


@pytest.mark.medium
def test_data_layers_run_on_what_bvlc_gives_them(tmp_path):
    root = write_walkers(tmp_path / "walkers")
    params = dict(dataset="walkers", batch_size=2, train_num=2, im_path=f"{root}/crop-im", gt_path=f"{root}/crop-seg")
    done = subprocess.run([sys.executable, "-c", STUB, str(params)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in ("GaitNet_Seg (2, 3, 64, 64) True", "GaitNet (2, 3, 64, 64) True", "GaitNet_Sia (4, 3, 64, 64) True"):
        assert line in done.stdout


# ---- prototxts


@pytest.fixture(scope="module")
def bvlc():
    """The messages of BVLC Caffe 1.0 by name: ours without the fields that it does not have."""
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    removed = set()
    (layer,) = (message for message in file.message_type if message.name == "LayerParameter")
    forks = {field.type_name.split(".")[-1] for field in layer.field if field.number > LAST_PARAM}  # their messages
    for message in file.message_type:
        for field in list(message.field):
            if field.name in NOT_IN_1_0.get(message.name, ()):
                message.field.remove(field)
                removed.add((message.name, field.name))
            elif message.name == "LayerParameter" and field.number > LAST_PARAM:
                message.field.remove(field)  # a fork's
            elif field.number >= 1000:
                old = ("V1LayerParameter", "V0LayerParameter")
                assert message.name in forks.union(old), f"{message.name}.{field.name} is new"
    assert removed == {(message, name) for message, names in NOT_IN_1_0.items() for name in names}
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))()


@pytest.mark.parametrize("path", PROTOTXTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_field_and_no_type_that_bvlc_lacks(path, bvlc):
    solver = path.name.startswith("solver-")
    read = text_format.Parse(path.read_text(), bvlc("SolverParameter" if solver else "NetParameter"))
    assert read.base_lr > 0 if solver else {layer.type for layer in read.layer} <= TYPES


def test_all_prototxts_were_read():
    assert len(PROTOTXTS) == 4 * 8 + 1


# ---- the command


def test_no_flag_that_bvlc_lacks(experiment):  # noqa: F811
    assert run(experiment).returncode == 0
    flags = {word.split("=")[0].lstrip("-") for line in calls(experiment) for word in line.split() if word[0] == "-"}
    assert flags == {"weights"} and flags | {"solver", "snapshot"} <= FLAGS
