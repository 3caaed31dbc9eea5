"""Ctrl-C at any moment of any command: no traceback, exit 130, and the same command goes on.

`GAITNET_INTERRUPTS=100 pytest -m slow tests/test_ctrl_c.py` stops each command at so many random moments."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.eval.conftest import write_walk
from tests.layers.trees import write_walkers
from tests.test_odd_folders import NET
from tests.tools.test_crop import write_folders
from tests.tools.test_validate import NET as VALIDATED
from tests.tools.test_validate import PATHS, snapshot

ROOT = Path(__file__).resolve().parents[1]
MOMENTS = int(os.environ.get("GAITNET_INTERRUPTS", 20))
PYTHON = sys.executable
CAFFE = shutil.which("caffe", path=str(Path(PYTHON).parent)) or "caffe"
OWN_START = re.compile(r"init_import_site|in execsitecustomize|encodings")  # of Python, which it dies of
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 400 snapshot: 50 snapshot_prefix: "run"'
COMMANDS = {
    "caffe train": [CAFFE, "train", "--solver=solver.prototxt"],
    "caffe test": [CAFFE, "test", "--model=net.prototxt", "--weights=start.caffemodel", "--iterations=50"],
    "caffe time": [CAFFE, "time", "--model=net.prototxt", "--iterations=50"],
    "caffe check": [CAFFE, "check", "net.prototxt"],
    "python -m caffe": [PYTHON, "-m", "caffe", "check", "net.prototxt"],
    "convert_imageset": [PYTHON, "-m", "caffe.tools.convert_imageset", "images/", "list.txt", "db"],
    "pack_frames": [PYTHON, ROOT / "tools/pack_frames.py", "walkers", "--im-path", "crop-im", "--gt-path", "crop-seg"],
    "make_walkers": [
        PYTHON,
        ROOT / "tools/make_walkers.py",
        "--subjects",
        "1",
        "--frames",
        "12",
        "--out",
        "made",
        "--conditions",
        "nm-01",
        "--jobs",
        "2",
    ],
    "check_data": [
        PYTHON,
        ROOT / "tools/check_data.py",
        "walkers",
        "--im-path",
        "crop-im",
        "--gt-path",
        "crop-seg",
        "--train-num",
        "2",
        "--jobs",
        "2",
    ],
    "make_prototxt": [PYTHON, ROOT / "tools/make_prototxt.py", "--check"],
    "draw_net": [PYTHON, ROOT / "tools/draw_net.py", "net.prototxt", "net.dot"],
    "list_layers": [PYTHON, ROOT / "tools/list_layers.py", "--check"],
    "export": [
        PYTHON,
        ROOT / "tools/export.py",
        "--model",
        "net.prototxt",
        "--weights",
        "start.caffemodel",
        "--torch",
        "net.pt",
    ],
    "evaluation": [PYTHON, ROOT / "eval/eval-walkers.py", "--features", "features.npz", "--out", "out", "--report"],
    "python -m eval": [PYTHON, "-m", "eval", "walkers", "--features", "features.npz", "--out", "out"],
    "compare": [PYTHON, ROOT / "eval/compare.py", "walkers", "a=features.npz", "--out", "compared"],
    "crop": [PYTHON, ROOT / "tools/crop.py", "szu", *"--frames frames --masks masks --out cropped --jobs 2".split()],
    "validate": [PYTHON, ROOT / "tools/validate.py", "run", *"--steps seg --subjects 002 003 --out scored".split()],
    "identify": [
        PYTHON,
        ROOT / "tools/identify.py",
        *"enroll people.npz anna=CASIA-B/crop-im/001/nm-05/090 --weights w.caffemodel".split(),
    ],
    "study": [PYTHON, ROOT / "tools/study.py", "--folder", "study", "--quick", "--people", "2", "--arms", "seg"],
}
BEFORE = {
    "convert_imageset": ["db"],
    "make_walkers": ["made"],
    "pack_frames": ["pack"],
    "evaluation": ["out"],
    "crop": ["cropped"],
    "validate": ["scored"],
    "identify": ["people.npz"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("ctrl-c")
    write_walkers(folder, subjects=3)
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "images").mkdir()
    for i in range(30):
        cv2.imwrite(str(folder / f"images/{i}.png"), np.full((9, 9, 3), i, np.uint8))
    (folder / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(30)))
    import caffe

    caffe.Net(str(folder / "net.prototxt"), caffe.TRAIN).save(str(folder / "start.caffemodel"))
    write_features(folder / "features.npz")
    write_folders(folder, "017/1")
    shutil.copy(weights, folder / "w.caffemodel")
    write_training(folder, weights)
    return folder


def write_training(folder, weights):
    """A run of which tools/validate.py has one snapshot to score."""
    for subject in range(4):
        for condition in ("nm-01", "nm-05"):
            for view in ("000", "090"):
                write_walk(folder / "CASIA-B", f"{subject + 1:03d}/{condition}/{view}", 11, subject, 9 * subject)
    (folder / "run").mkdir()
    (folder / "run/gaitnet-seg.prototxt").write_text(VALIDATED.format(train_num=1, paths=PATHS))
    (folder / "run/solver-seg.prototxt").write_text("max_iter: 20\n")
    snapshot(folder / "run", "seg_iter_7", weights)


def write_features(path):
    from eval.features import Features, write_cache

    rng, views = np.random.default_rng(0), [f"{view:03d}" for view in range(0, 181, 18)]
    rows = [(person, walk, view) for person in (37, 38, 39) for walk in ("nm-01", "nm-05") for view in views]
    ids, walks, angles = zip(*rows)
    vectors = np.array(ids)[:, None] + rng.normal(size=(len(rows), 16))
    roles = np.where(np.array(walks) == "nm-01", "gallery", "probe")
    covariates = np.where(roles == "probe", "NM", "")
    names = np.array([f"{person:03d}/{walk}/{view}" for person, walk, view in rows])
    groups = np.array([views.index(view) for view in angles])
    key = {"dataset": "walkers", "part": "test", "train_num": 36, "ground_truth": False}
    write_cache(path, Features(vectors.astype(np.float32), np.array(ids), groups, roles, covariates, names), key, {})


def start(name, place):
    for path in BEFORE.get(name, ()):
        shutil.rmtree(place / path, ignore_errors=True)
        with contextlib.suppress(OSError):
            (place / path).unlink()
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), MPLBACKEND="Agg")
    return subprocess.Popen(
        list(map(str, COMMANDS[name])),
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def seconds(name, place):
    """How long it takes, and that it works at all."""
    began = time.monotonic()
    job = start(name, place)
    said, _ = job.communicate(timeout=600)
    assert job.returncode == 0, said
    return time.monotonic() - began


def stop(name, place, after):
    """Ctrl-C after so many seconds; (exit status, what was said)."""
    job = start(name, place)
    time.sleep(after)
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    said, _ = job.communicate(timeout=600)
    return job.returncode, said


def of_pythons_own(said):
    """Whether it ended before it was guarded: while Python began, or in a script's first import, the guard's."""
    if OWN_START.search(said) and str(ROOT) not in said.replace(sys.prefix, ""):  # which may lie in it
        return True
    places = re.findall(r'File "([^"]+)", line (\d+)', said)
    own = ("<frozen ", str(Path(PYTHON).parent), sysconfig.get_path("stdlib"))
    script, *further = [(place, int(line)) for place, line in places if not place.startswith(own)] or [(None, 0)]
    begins = script[1] == 0 or script[1] <= Path(script[0]).read_text().partition("program.guard")[0].count("\n")
    guard = all(place.endswith(("/layers/__init__.py", "/layers/bundled.py", "/program.py")) for place, _ in further)
    ends = said.count("Traceback") == 1 and said.endswith("KeyboardInterrupt\n") and "site-packages" not in said
    return bool(places) and begins and guard and ends


def assert_quiet(status, said, after):
    """How it ended."""
    if of_pythons_own(said):
        return "Python's own start"
    assert not re.search(r"Traceback|Exception ignored|KeyboardInterrupt", said), f"after {after:.3f} s: {said[-3000:]}"
    status = 130 if status == -signal.SIGINT else status  # as a shell shows both: Python itself ends in this way
    assert status in (0, 130), f"after {after:.3f} s: {status}\n{said[-2000:]}"  # 0: it had done its work
    return status


def test_all_scripts_begin_and_end_in_the_same_way():
    scripts = [
        path for room in ("tools", "eval") for path in (ROOT / room).glob("*.py") if "__main__" in path.read_text()
    ]
    for path in scripts:
        text = path.read_text()
        if path.name != "solver_facts.py":  # which has to do without the repository
            before, guard, _ = text.partition("program.guard(__name__)")
            assert guard and "sys.exit(program.run(" in text, path
            loads = re.findall(r"^(?:from \S+ )?import \w+", before, re.MULTILINE)
            quick = {"import os", "import sys", "from layers.bundled import program"}
            assert set(loads) <= quick, f"{path} spends time before it is guarded"


@pytest.mark.medium
@pytest.mark.parametrize("name", ["caffe check", "pack_frames", "make_walkers", "python -m eval"])
def test_a_command_that_is_stopped_says_so_and_no_more(place, name):
    for after in (0.25, 0.7):
        assert_quiet(*stop(name, place, after), after)


LATE = """
import sys, time
sys.path.insert(0, {root!r})
from caffe import program
def main():
    import late
sys.exit(program.run(main))
"""


def test_an_import_is_no_place_for_an_exception(tmp_path):
    """Which a module in C turns into one of its own, and prints."""
    (tmp_path / "late.py").write_text(
        "try:\n  print('here', flush=True)\n  import time; time.sleep(60)\nexcept KeyboardInterrupt:\n  print('trace')"
    )
    words = [PYTHON, "-c", LATE.format(root=str(ROOT))]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        assert job.stdout.readline() == "here\n"
        job.send_signal(signal.SIGINT)
        assert job.communicate(timeout=60)[0] == "" and job.returncode == 130


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_at_any_moment(place, name):
    whole, rng = seconds(name, place), random.Random(name)
    ends: Counter = Counter()
    for _ in range(MOMENTS):
        after = rng.uniform(0, whole)
        status, said = stop(name, place, after)
        ends[assert_quiet(status, said, after)] += 1
    print(f"{name}: {MOMENTS} moments of {whole:.1f} s, {dict(ends)}")
    seconds(name, place)  # the same command goes on to the end
    leftovers = [path.name for path in place.rglob("*.tmp*")]
    assert len(leftovers) <= 2, leftovers  # of those that were ended at once


def write_features_of(tree, path, weights):
    """As an evaluation of the walks in the tree could have left them."""
    from eval.features import Features, write_cache
    from layers.digest import sha256

    walks = sorted(walk.relative_to(tree / "crop-im") for walk in tree.glob("crop-im/*/*/*"))
    people, walk, view = zip(*(path.parts for path in walks))
    labels = np.array(people).astype(int)
    vectors = labels[:, None] + np.random.default_rng(0).normal(size=(len(walks), 256))
    groups = (np.array(view) == "090").astype(int)
    roles = np.where(np.array(walk) == "nm-01", "gallery", "probe")
    names = np.array(list(map(str, walks)))
    features = Features(vectors.astype(np.float32), labels, groups, roles, np.full(len(walks), ""), names)
    path.parent.mkdir()
    write_cache(path, features, {"weights_sha256": sha256(weights)}, {})


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ctrl_c_at_any_moment_of_the_demo(place):
    """Which ends by nothing else: while it begins, or serves."""
    pytest.importorskip("uvicorn")
    words = [PYTHON, ROOT / "tools/demo.py", "--data", "CASIA-B", "--dataset", "casiab", "--weights", "w.caffemodel"]
    COMMANDS["demo"] = [*words, "--features", "feat", "--no-browser"]
    write_features_of(place / "CASIA-B", place / "feat/casiab-tr2-test-0.npz", place / "w.caffemodel")
    began, job = time.monotonic(), start("demo", place)
    first = job.stdout.readline()
    whole, rng = time.monotonic() - began, random.Random("demo")
    os.killpg(job.pid, signal.SIGINT)
    said, _ = job.communicate(timeout=600)
    assert first.startswith("http://"), first + said
    ends: Counter = Counter()
    for _ in range(MOMENTS):
        after = rng.uniform(0, 1.2 * whole)
        ends[assert_quiet(*stop("demo", place, after), after)] += 1
    print(f"demo: {MOMENTS} moments of {1.2 * whole:.1f} s, {dict(ends)}")
