"""Locks: one holder, who is named; a killed one's lock is free. And no part of caffe needs a module of Unix alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from caffe.locks import Held, hold

ROOT = Path(__file__).resolve().parents[2]
HOLDS = """
import sys, time
from caffe.locks import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holder_who_is_named(tmp_path):
    path = tmp_path / "x.lock"
    with hold(path):
        for _ in range(2):  # who is refused changes nothing
            with pytest.raises(Held) as e, hold(path):
                pass
            assert e.value.process == str(os.getpid())
    assert not path.exists()
    with hold(path):  # free again
        pass


def test_an_error_while_it_is_held_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "x.lock"):
        1 / 0  # noqa: B018
    with hold(tmp_path / "x.lock"):
        pass


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError), hold(tmp_path / "absent" / "x.lock"):
        pass


@pytest.mark.medium
def test_a_killed_holder_holds_no_longer(tmp_path):
    path = tmp_path / "x.lock"
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as job:
        assert job.stdout.readline() == b"held\n"
        with pytest.raises(Held) as e, hold(path):
            pass
        assert e.value.process == str(job.pid)
        job.send_signal(signal.SIGKILL)
    assert path.exists()  # its file stays behind, and is none
    with hold(path):
        pass


ELSEWHERE = """
import builtins, importlib, os, pkgutil, signal, sys
unix = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
real = builtins.__import__
def without(name, globals=None, *rest, **more):
    if name.split(".")[0] in unix and (globals or {}).get("__name__", "").startswith("caffe"):
        raise ImportError(f"no module named {name}, as on Windows")
    return real(name, globals, *rest, **more)
import caffe
builtins.__import__ = without
del signal.SIGHUP
for module in pkgutil.walk_packages(caffe.__path__, "caffe."):
    if module.name not in ("caffe.__main__", "caffe.tensorboard"):
        importlib.import_module(module.name)
from caffe import cli, files
open("net.prototxt", "w").write('layer { name: "x" type: "DummyData" top: "x" '
    'dummy_data_param { shape { dim: 1 dim: 1 } } }'
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }'
    'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "x" top: "loss" }')
open("solver.prototxt", "w").write('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 max_iter: 1 snapshot_prefix: "r" '
                                   'solver_mode: CPU')
status = cli.main(["train", "--solver=solver.prototxt"])
del os.O_NONBLOCK  # filelock needs it on Unix
sys.exit(status or files.open_file("r_iter_1.caffemodel").close())
"""


@pytest.mark.medium
def test_nothing_of_unix_alone_is_needed(tmp_path):
    """So that caffe can be imported, and trains, on Windows; no such machine was at hand."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="wants a folder in which nobody, not even root, makes files"
)
def test_a_lock_that_nobody_holds_and_that_cannot_be_made(tmp_path):
    with pytest.raises(OSError) as error, hold("/proc/run.lock"):
        pass
    assert not isinstance(error.value, Held)
