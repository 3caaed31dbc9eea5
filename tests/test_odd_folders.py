"""Folders of odd names, on odd disks: every command works there, or says in one sentence why not."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from caffe import cli
from caffe.proto import caffe_pb2
from caffe.read import read_net_binary
from caffe.text import message_to_text
from eval import cli as eval_cli
from eval import deploy, walks
from eval.ending import exit_status
from eval.people import People
from layers import pack
from layers.frames import DataError, Tree
from tests.crash import scenarios
from tests.layers.trees import write_walkers
from tools import check_data, identify, pack_frames
from tools.walkers.trees import write_video

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "spaces": " two  spaces ",
    "quotes": "quo'te\"s `id` $HOME",
    "lines": "two\nlines",
    "not ascii": "Gäng-步態-🚶",
    "no utf-8": os.fsdecode(b"caf\xe9"),
    "glob": "[a-z]*?{12}",
    "dash": "--out",
    "long": "x" * 250,
}
NET = """
layer { name: "x" type: "DummyData" top: "x"
        dummy_data_param { shape { dim: 4 dim: 5 } data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }
"""


@pytest.fixture(params=NAMES)
def odd(request, tmp_path, monkeypatch):
    """A folder with such a name, which is the current one."""
    folder = tmp_path / NAMES[request.param]
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_training(folder):
    (folder / "net.prototxt").write_text(NET)
    solver = caffe_pb2.SolverParameter(net=str(folder / "net.prototxt"), base_lr=0.1, lr_policy="fixed", max_iter=4)
    solver.snapshot, solver.snapshot_prefix, solver.random_seed = 2, str(folder / "run"), 3
    (folder / "solver.prototxt").write_text(message_to_text(solver))


def test_training_and_resuming(odd, capfd):
    if "\udce9" in str(odd):
        pytest.skip("protobuf's text holds no such path; a relative one does, see below")
    write_training(odd)
    assert cli.main(["train", f"--solver={odd}/solver.prototxt"]) == 0
    whole = (odd / "run_iter_4.caffemodel").read_bytes()
    (odd / "run_iter_4.caffemodel").unlink()
    assert cli.main(["train", f"--solver={odd}/solver.prototxt", f"--snapshot={odd}/run_iter_2.solverstate"]) == 0
    assert (odd / "run_iter_4.caffemodel").read_bytes() == whole
    assert cli.main(["test", f"--model={odd}/net.prototxt", f"--weights={odd}/run_iter_4.caffemodel"]) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_training_by_relative_names(odd):
    write_training(odd.parent)
    for name in ("net.prototxt", "solver.prototxt"):
        shutil.copy(odd.parent / name, odd)
    text = (odd / "solver.prototxt").read_text().replace(f"{odd.parent}/", "")
    (odd / "solver.prototxt").write_text(text)
    assert cli.main(["train", "--solver=solver.prototxt"]) == 0
    assert cli.main(["train", "--solver=solver.prototxt", f"--snapshot={odd}/run_iter_2.solverstate"]) == 0
    assert read_net_binary("run_iter_4.caffemodel").layer


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return write_walkers(tmp_path_factory.mktemp("walk"), subjects=1, conditions=("nm-01",), views=("000",))


@pytest.mark.medium
def test_packing(odd, walk):
    shutil.copytree(walk, odd, dirs_exist_ok=True)
    words = ["walkers", "--im-path", f"{odd}/crop-im", "--gt-path", f"{odd}/crop-seg", "--jobs", "1"]
    for more in ([], ["--verify"], []):
        done = run([sys.executable, ROOT / "tools/pack_frames.py", *words, *more], odd)
        assert done.returncode == 0, done.stderr
    assert done.stdout == f"{odd}/pack: up to date\n"
    packed, tree = pack.Pack(str(odd / "pack")), Tree(str(odd / "crop-im"), str(odd / "crop-seg"))
    assert np.array_equal(packed.clip("001/nm-01/000", 0, 9)[0], tree.clip("001/nm-01/000", 0, 9)[0])


def test_a_loop_of_links_is_one_sentence(tmp_path, capsys):
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "crop-seg").mkdir()
    words = ["walkers", "--im-path", f"{tmp_path}/loop", "--gt-path", f"{tmp_path}/crop-seg"]
    for tool in (pack_frames, check_data):
        assert tool.main(words) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and "loop" in said, said


def test_a_walk_that_leads_back_to_its_tree_is_told(tmp_path, capsys):
    write_walkers(tmp_path, subjects=1, conditions=("nm-01",), views=("000",))
    os.symlink(tmp_path / "crop-im", tmp_path / "crop-im/001/nm-02")
    words = ["walkers", "--im-path", f"{tmp_path}/crop-im", "--gt-path", f"{tmp_path}/crop-seg", "--jobs", "1"]
    assert pack_frames.main(words) == 1
    said = capsys.readouterr().err
    assert "001/nm-02" in said and "Traceback" not in said


def run(words, folder, **environment):
    told = dict(os.environ, OMP_NUM_THREADS="1", **environment)
    return subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env=told,
        capture_output=True,
        text=True,
        timeout=300,
        errors="surrogateescape",
    )


CAFFE = [sys.executable, "-m", "caffe"]


@pytest.mark.medium
def test_a_home_and_a_tmpdir_that_cannot_be_written_to(tmp_path):
    """HOME is no folder, TMPDIR has no room: training needs neither."""
    write_training(tmp_path)
    nowhere = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "TMPDIR": "/proc", "MPLCONFIGDIR": ""}
    done = run([*CAFFE, "train", "--solver=solver.prototxt"], tmp_path, PYTHONPATH=str(ROOT), **nowhere)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.medium
def test_the_newest_snapshot_is_that_of_most_iterations(tmp_path):
    """Not the one that was written last: the clock may have been set back."""
    shutil.copytree(ROOT / "experiments/walkers", tmp_path / "experiments/walkers")
    shutil.copy(ROOT / "experiments/train_steps.sh", tmp_path / "experiments")
    folder = tmp_path / "experiments/walkers"
    for n, when in ((5, 2000000000), (9, 1000000000)):
        for kind in ("solverstate", "caffemodel"):
            path = folder / f"gaitnet-seg_iter_{n}.{kind}"
            path.touch()
            os.utime(path, (when, when))
    script = folder / "newest.sh"
    steps = (tmp_path / "experiments/train_steps.sh").read_text()
    script.write_text(steps.replace('main "$@"', "max_iter() { echo 100; }\nnewest_snapshot seg"))
    done = run(["sh", script], folder)
    assert done.stdout == "gaitnet-seg_iter_9.solverstate\n", done.stderr


@pytest.mark.medium
def test_a_pythonpath_that_names_another_caffe(tmp_path):
    """A script takes the one of its own repository."""
    (tmp_path / "other/caffe").mkdir(parents=True)
    (tmp_path / "other/caffe/__init__.py").write_text("raise ImportError('No module named caffe._caffe')")
    done = run([sys.executable, ROOT / "tools/list_layers.py", "--check"], tmp_path, PYTHONPATH=str(tmp_path / "other"))
    assert done.returncode == 0, done.stderr


def as_nobody(function, folder, log):
    """(exit status, what was said) of function() by a user who may write nothing here."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), log.read_text()
    status = 99
    try:
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(number, stream)
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))
        os.chdir(folder)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        status = function()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_clone_of_somebody_else_is_one_sentence(tmp_path, walk):
    """The second user of a clone may read it, not write there."""
    shutil.copytree(walk, tmp_path, dirs_exist_ok=True)
    write_training(tmp_path)
    for path in [tmp_path, *tmp_path.parents][:3]:
        os.chmod(path, os.stat(path).st_mode | stat.S_IXOTH | stat.S_IROTH)
    assert cli.main(["train", f"--solver={tmp_path}/solver.prototxt"]) == 0  # imports what that user might not find
    words = ["walkers", "--im-path", "crop-im", "--gt-path", "crop-seg"]
    for function in (lambda: cli.main(["train", "--solver=solver.prototxt"]), lambda: pack_frames.main(words)):
        status, said = as_nobody(function, tmp_path, tmp_path / "said")
        told = re.search("Permission denied|Cannot write to snapshot prefix", said.splitlines()[-1])
        assert status in (1, 134) and told and "Traceback" not in said, said


def test_a_pack_on_another_file_system(tmp_path):
    """Nothing is renamed from one to the other."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system")
    write_walkers(tmp_path, subjects=1, conditions=("nm-01",), views=("000",))
    out = other / f"gaitnet-test-{os.getpid()}"
    os.symlink(out, tmp_path / "pack")
    out.mkdir()
    try:
        words = ["walkers", "--im-path", f"{tmp_path}/crop-im", "--gt-path", f"{tmp_path}/crop-seg", "--jobs", "1"]
        assert pack_frames.main(words) == 0
        assert pack.beside(str(tmp_path / "crop-im"), str(tmp_path / "crop-seg")) is not None
    finally:
        shutil.rmtree(out)
    with pytest.raises((DataError, OSError)):
        pack.Pack(str(tmp_path / "pack"))


def prepare(scenario, folder):
    """What it starts from, in the folders run and tree; OpenCV ends the process where it is to write a name itself."""
    with tempfile.TemporaryDirectory() as plain:
        Path(plain, "run").mkdir()
        scenario.prepare(Path(plain, "run"))
        shutil.copytree(plain, folder, dirs_exist_ok=True)


@pytest.mark.medium
def test_an_evaluation(odd, monkeypatch):
    """By whole paths; its report, tables and pictures lie there, too."""
    prepare(scenarios.Evaluate(), odd)
    monkeypatch.chdir("/")
    words = [
        "--im-path",
        odd / "tree/crop-im",
        "--gt-path",
        odd / "tree/crop-seg",
        "--weights",
        odd / "run/w.caffemodel",
    ]
    words += ["--train-num", 1, "--cache", odd / "cache", "--out", odd / "out", "--report"]
    with mock.patch.object(walks, "DeployNet", scenarios.StandIn):
        assert eval_cli.main("casiab", list(map(str, words))) == 0
    assert {"metrics.json", "report.html"} <= set(os.listdir(odd / "out")) and os.listdir(odd / "cache")


@pytest.mark.medium
def test_enrolling(odd, monkeypatch):
    prepare(scenarios.Enroll(), odd)
    monkeypatch.chdir("/")
    file, walk, weights = odd / "run/people.npz", odd / "tree/crop-im/cora", odd / "run/w.caffemodel"
    with mock.patch.object(identify, "open_net", scenarios.StandIn):
        assert identify.main(["enroll", str(file), f"cora={walk}", "--weights", str(weights)]) == 0
    assert "cora" in People.read(file).names


@pytest.fixture
def full(tmp_path, monkeypatch):
    """A TMPDIR with room for a few bytes and no more; for root alone."""
    folder = tmp_path / "full"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    (folder / "much").write_bytes(bytes(15 * 4096))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_tmpdir_is_one_sentence(full, capsys):
    """The halves of the deploy net are handed to Caffe as files there."""

    def open_net():
        with deploy.as_file(deploy.read_net(deploy.PROTOTXT)):
            pass

    assert exit_status(open_net) == 1
    assert capsys.readouterr().err == (f"error: {full}: No space left on device; TMPDIR may name another folder\n")
    assert os.listdir(full) == ["much"]


@pytest.mark.medium
def test_a_full_tmpdir_and_commands_that_need_none(full, tmp_path, walk):
    shutil.copytree(walk, tmp_path, dirs_exist_ok=True)
    write_training(tmp_path)
    for words in (
        [*CAFFE, "train", "--solver=solver.prototxt"],
        [sys.executable, ROOT / "tools/pack_frames.py", "walkers", "--im-path", "crop-im", "--gt-path", "crop-seg"],
        [
            sys.executable,
            ROOT / "tools/export.py",
            "--model",
            "net.prototxt",
            "--weights",
            "run_iter_4.caffemodel",
            "--torch",
            "net.pt",
        ],
    ):
        done = run(words, tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr


def test_a_video_is_not_written_where_opencv_would_end_the_process(tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    write_video(tmp_path / "Gäng.avi", frames)
    with pytest.raises(OSError, match="not UTF-8"):
        write_video(tmp_path / NAMES["no utf-8"], frames)
