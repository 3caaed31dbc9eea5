"""What is seen of a training besides its log: TensorBoard event files, and the progress line of a terminal."""

import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch

import caffe
from caffe.tensorboard import TensorBoard, pictures_of

REPO = Path(__file__).resolve().parents[2]
NET = """name: "seg"
layer { name: "data" type: "DummyData" top: "im" top: "gt" dummy_data_param {
  shape { dim: 3 dim: 3 dim: 9 dim: 8 } shape { dim: 3 dim: 1 dim: 9 dim: 8 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "im" top: "mask"
  convolution_param { num_output: 1 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sigmoid" type: "Sigmoid" bottom: "mask" top: "mask" }
layer { name: "loss" type: "EuclideanLoss" bottom: "mask" bottom: "gt" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 3 max_iter: 8
display: 2 snapshot_after_train: false test_iter: 2 test_interval: 4 solver_mode: CPU random_seed: 5
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def command(*words):
    return [sys.executable, "-m", "caffe", "train", "--solver=solver.prototxt", *words]


ENVIRONMENT = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1")


def lines_of(log):
    """The log without what changes from run to run: time and process of a line, rates, the command itself."""
    lines = [re.sub(r"\(.* iters\)", "", line.split("] ", 1)[-1]) for line in log.splitlines()]
    return [line for line in lines if not line.startswith(("command: ", "time: "))]


@pytest.mark.medium
def test_event_files(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = subprocess.run(command(), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    watched = subprocess.run(
        command("--tensorboard=events"), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert plain.returncode == watched.returncode == 0, watched.stderr
    assert lines_of(plain.stderr) == lines_of(watched.stderr)  # watching changes nothing, the learning rate included

    events = EventAccumulator(str(folder / "events")).Reload()
    rates = re.findall(r"Iteration (\d+), lr = (\S+)", plain.stderr)
    assert [(e.step, f"{e.value:g}") for e in events.Scalars("lr")] == [(int(i), rate) for i, rate in rates]
    losses = re.findall(r"Test net output #0: loss = (\S+)", plain.stderr)
    assert [f"{e.value:g}" for e in events.Scalars("test/loss")] == losses
    assert [e.step for e in events.Scalars("train/loss")] == [0, 2, 4, 6]
    tags = events.Tags()
    assert set(tags["images"]) == {"images/im", "images/gt over im", "images/mask over im"}
    assert set(tags["histograms"]) == {"conv/0", "conv/1"}


@pytest.mark.medium
def test_without_the_package(folder):
    (folder / "hide").mkdir()
    (folder / "hide" / "tensorboard.py").write_text("raise ImportError('hidden by a test')\n")
    environment = dict(ENVIRONMENT, PYTHONPATH=f"{folder / 'hide'}:{REPO}")
    done = subprocess.run(command("--tensorboard=e"), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 134  # as all errors of the command, as Caffe's
    assert "--tensorboard needs the package tensorboard: pip install tensorboard" in done.stderr
    assert "Traceback" not in done.stderr and not (folder / "e").exists()


def test_masks_are_laid_over_frames():
    frames = torch.zeros(2, 3, 8, 9)
    frames[:, 0] = 4  # blue, in BGR
    mask = torch.zeros(2, 1, 8, 9)
    mask[:, :, :4] = 1
    shown = pictures_of(
        {"im": frames, "small": torch.zeros(1, 3, 8, 9), "mask": mask, "other": torch.zeros(5, 1, 8, 9)}
    )
    assert set(shown) == {"images/im", "images/mask over im"}
    assert shown["images/im"][0, :, 0, 0].tolist() == [0, 0, 1]
    over = shown["images/mask over im"]
    torch.testing.assert_close(over[0, :, 0, 0], torch.tensor([0.6, 0, 0.4]))  # red over blue
    assert over[1, :, 7, 0].tolist() == [0, 0, 1]
    assert pictures_of({"mask": mask}) == {}


@pytest.mark.medium
def test_a_terminal_gets_a_progress_line_and_a_file_does_not(folder):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # 24 lines of 100 characters
    process = subprocess.Popen(command(), cwd=folder, env=ENVIRONMENT, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0
    text = shown.decode()
    assert re.search(r"seg: +100%.*8/8 \[.*iter.*loss=", text)  # iterations, rate, loss
    assert re.search(r"\d\d:\d\d<", text)  # time left
    assert "] Optimization Done." in text

    piped = subprocess.run(command(), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True).stderr
    assert "\r" not in piped and "iter]" not in piped
    assert all(re.match(r"[IWEF]\d{4} |[\w\s{}]", line) for line in piped.splitlines())


def test_a_full_disk_ends_the_curves_and_not_the_training(folder, monkeypatch, capsys):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    monkeypatch.chdir(folder)
    solver = caffe.get_solver("solver.prototxt")
    board = TensorBoard(solver, "events")
    solver.add_observer(board)
    solver.step(2)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "add_scalar", full)
    solver.step(6)
    board.close()
    told = capsys.readouterr().err
    assert solver.iter == 8 and told.count("cannot write to events: No space left on device; training goes on") == 1
