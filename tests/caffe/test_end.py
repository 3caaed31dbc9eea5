"""The end of `caffe train`: what a Python layer left running in the background does not hold it up."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NET = """
layer { name: "x" type: "Python" top: "x" python_param { module: "fetching" layer: "Fetch" param_str: "%s" } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "x" top: "loss" }
"""
SOLVER = """net: "net.prototxt" lr_policy: "fixed" base_lr: 0.1 max_iter: 2 snapshot_prefix: "run" solver_mode: CPU
"""
LAYER = """
import atexit, multiprocessing, threading, time
import caffe

fork = multiprocessing.get_context("fork")

def feed(queue):
    while True:
        queue.put(1)

def finish(queue):
    for _ in range(3):
        queue.put(1)
    time.sleep(0.5)
    open("finished", "w").close()

class Fetch(caffe.Layer):
    def setup(self, bottom, top):
        kind = self.param_str
        self.queue = fork.Queue(2)
        target = finish if kind.startswith("ends") else feed
        if kind.endswith("thread"):
            fetcher = threading.Thread(target=target, args=(self.queue,))
        else:
            fetcher = fork.Process(target=target, args=(self.queue,))
        fetcher.start()
        if kind == "cleaned process":
            def clean():
                fetcher.terminate()
                open("cleaned", "w").close()
            atexit.register(clean)
    def reshape(self, bottom, top): top[0].reshape(1, 1)
    def forward(self, bottom, top): top[0].data[...] = self.queue.get()
    def backward(self, *_): pass
"""


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["process", "thread", "ends process", "ends thread", "cleaned process"])
def test_what_still_runs_is_ended_after_a_while(tmp_path, kind):
    (tmp_path / "net.prototxt").write_text(NET % kind)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "fetching.py").write_text(LAYER)
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}:{tmp_path}", OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt"]
    # Through a pipe, as to tee: who reads it waits for all who could write.
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as job:
        for line in job.stderr:
            if line.endswith("caffe.cpp:250] Optimization Done.\n"):
                break
        begin = time.monotonic()
        rest = job.communicate(timeout=60)[1]
    assert job.returncode == 0 and time.monotonic() - begin < 30  # 5 s are given; the machine may be busy
    ended = kind in ("process", "thread")
    assert ("of a Python layer still run after 5 s: ended" in rest) == ended and rest.count("\n") == ended
    assert (tmp_path / "finished").exists() == kind.startswith("ends")
    assert (tmp_path / "cleaned").exists() == (kind == "cleaned process")
