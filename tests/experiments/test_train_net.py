"""train_net.sh of the repository: what it tells the tools to do, with tools that only note it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = '#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "$*" >>"$NOTES"\n'
STEPS = '#!/bin/sh\n[ "$1" = --weights ] && echo gaitnet-sia_iter_3.caffemodel || :\n'


@pytest.fixture
def repository(tmp_path):
    """train_net.sh and the nets of SZU, trained on 52 people; python and the steps are stand-ins."""
    root = tmp_path / "a clone"
    for folder in ("tools", "experiments/szu", ".venv/bin", "data/SZU-Gait"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "train_net.sh", root)
    (root / "tools/setup.sh").touch()
    net = (ROOT / "experiments/szu/gaitnet-sia.prototxt").read_text()
    (root / "experiments/szu/gaitnet-sia.prototxt").write_text(net.replace("'train_num': 49", "'train_num': 52"))
    (root / "experiments/szu/train_net.sh").write_text(STEPS)
    (root / ".venv/bin/python").write_text(PYTHON)
    (root / ".venv/bin/python").chmod(0o755)
    return root


def run(repository, *words, cwd="/", **variables):
    environment = {**os.environ, "NOTES": str(repository / "notes"), **variables}
    command = ["sh", str(repository / "train_net.sh"), "szu", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_a_fresh_clone_has_no_python_of_its_own_before_the_set_up(repository):
    (repository / ".venv").rename(repository / "made")
    (repository / "tools/setup.sh").write_text("mv made .venv\n")
    done = run(repository)
    assert done.returncode == 0, done.stderr
    done = run(repository, CAFFE_ROOT="/opt/caffe", CAFFE_PYTHON="/opt/none/python")
    assert done.returncode == 1 and "CAFFE_PYTHON is /opt/none/python, which is no command" in done.stderr


@pytest.mark.parametrize(
    "names", [["gaitnet-seg_iter_3.caffemodel"], ["gaitnet-seg_iter_3.caffemodel", "gaitnet-seg-1.log"]]
)
def test_fresh_moves_what_was_trained_aside(repository, names):
    folder = repository / "experiments/szu"
    for name in names:
        (folder / name).touch()
    done = run(repository, "--fresh")
    assert done.returncode == 0, done.stderr
    (aside,) = folder.glob("before-*")
    assert sorted(path.name for path in aside.iterdir()) == sorted(names)


SAVES = """#!/bin/sh
trap 'touch saved; exit 0' INT
touch begun
sleep 60 >/dev/null 2>&1 & wait
"""


@pytest.mark.parametrize("at", ["the data", "a step"])
def test_ctrl_c_ends_it_when_what_is_at_work_has_ended(repository, at):
    """A step that has saved all ends well, and none follows."""
    begun = repository / "experiments/szu/begun"
    slow = f"tools/unpack.py) touch '{begun}'; exec sleep 60"
    slow = slow if at == "the data" else "tools/experiment.py) echo steps=seg"
    python = PYTHON.replace("exit 1", "exit 1 || :") + f"case $1 in {slow} ;; esac\n"
    (repository / ".venv/bin/python").write_text(python)
    (repository / "experiments/szu/train_net.sh").write_text(f"cd '{begun.parent}'\n{SAVES}")
    environment = {**os.environ, "NOTES": str(repository / "notes")}
    command = ["sh", str(repository / "train_net.sh"), "szu"]
    pipes = dict(stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as job:
        while not begun.exists():
            assert job.poll() is None
            time.sleep(0.01)
        os.killpg(job.pid, signal.SIGINT)
        said, _ = job.communicate(timeout=60)
    assert job.returncode == 130 and "== after" not in said
    assert (begun.parent / "saved").exists() == (at == "a step")


def test_an_unknown_name_says_where_a_data_set_of_ones_own_goes(repository):
    done = run(repository, "corridor")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no data set or experiment 'corridor' (known: szu )")
    assert "A data set of your own goes into layers/datasets.py, as data/README.md shows" in done.stderr
    assert "make_prototxt.py DATASET --out experiments/corridor" in done.stderr
    assert not (repository / "notes").exists()  # nothing was begun


def test_results_that_cannot_be_written_are_told_before_anything_begins(repository):
    (repository / "results").symlink_to("/nowhere/out")  # of a container, where nothing was mounted
    done = run(repository)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {repository}/results/")
    assert "cannot be written to" in done.stderr and "check_data" not in (repository / "notes").read_text()
