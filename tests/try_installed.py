"""What an installed wheel must do outside the repository; run by any Python that has it:

python tests/try_installed.py

imports caffe from site-packages (and finds neither `layers` nor `models` there), trains a net from a prototxt in a
folder of its own with the command `caffe`, and uses the weights from pycaffe. Exits with 1 when something is amiss.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 1 dim: 9 dim: 8 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 20 snapshot_prefix: "small" random_seed: 1'
SCRIPT = """
import caffe

net = caffe.Net("net.prototxt", caffe.TRAIN, weights="small_iter_20.caffemodel")
loss = float(net.forward()["loss"])
assert loss < 0.5, f"the net has not learned: loss {loss}"
"""


def main():
    for name in ("layers", "models", "eval", "tools", "tests"):
        place = Path(sysconfig.get_paths()["purelib"]) / name
        assert not place.exists(), f"the wheel puts a package `{name}` into site-packages"
    where = importlib.util.find_spec("caffe")
    assert where is not None and where.origin is not None, "there is no package caffe"
    assert "site-packages" in where.origin, f"caffe comes from {where.origin}; run this where the wheel is installed"
    command = shutil.which("caffe", path=sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
    assert command, "there is no command caffe"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"net.prototxt": NET, "solver.prototxt": SOLVER, "use.py": SCRIPT}.items():
            Path(folder, name).write_text(text)
        for words in ([command, "train", "--solver=solver.prototxt"], [sys.executable, "use.py"]):
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{words}: exit status {done.returncode}\n{done.stderr}"
    print(f"caffe from {Path(where.origin).parent} trains and computes")


if __name__ == "__main__":
    try:
        sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
        main()
    except AssertionError as e:
        sys.exit(f"error: {e}")
