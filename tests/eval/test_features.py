import errno
import io
import os
import random
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.features import FeatureFileError, Features, read_cache, read_original, write_cache
from layers.unpickle import load_arrays

ROOT = Path(__file__).resolve().parents[2]


def test_casiab_file_of_11_views(original_arrays, python2_file):
    arrays = original_arrays(rows=11, filled=11)
    features = read_original(python2_file(arrays), num_groups=11)
    assert len(features.gallery) == 11 * 10 and len(features.probe) == 11 * 9
    probe = features.probe.take(features.probe.groups == 3)
    np.testing.assert_array_equal(probe.vectors, arrays["probe_features"][3, :9])
    np.testing.assert_array_equal(probe.labels, arrays["probe_labels"][3, :9])


def test_szu_file_fills_one_row_of_three(original_arrays, python2_file):
    features = read_original(python2_file(original_arrays(rows=3, filled=1)), num_groups=1)
    assert len(features.gallery) == 10 and set(features.groups) == {0}


def test_reads_what_python_2_wrote(python2_file):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([3, -1])}
    found = load_arrays(python2_file(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_counts_written_as_floats(original_arrays, python2_file):
    arrays = original_arrays(rows=3, filled=3)
    arrays["probe_valid"] = arrays["probe_valid"].astype(float)
    assert len(read_original(python2_file(arrays), num_groups=3).probe) == 27


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.pop("probe_labels"), "no entry 'probe_labels'"),
        (lambda a: a.update(gallery_labels=np.zeros((3, 7), np.int64)), "do not fit together"),
        (lambda a: a.update(gallery_valid=np.array([11, 1, 1])), "gallery_valid is"),
        (lambda a: a.update(gallery_valid=np.array([-1, 1, 1])), "gallery_valid is"),
        (lambda a: a.update(gallery_valid=np.array([1.5, 1, 1])), "gallery_valid is"),
        (lambda a: a.update(probe_valid=np.zeros(3, np.int64)), "no probe sequence"),
        (lambda a: a["gallery_features"].fill(np.nan), "not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(original_arrays, python2_file, change, message):
    arrays = original_arrays(rows=3, filled=3)
    change(arrays)
    with pytest.raises(FeatureFileError, match=message):
        read_original(python2_file(arrays), num_groups=3)


def test_a_file_of_another_dataset_is_refused(original_arrays, python2_file):
    with pytest.raises(FeatureFileError, match="another dataset's"):
        read_original(python2_file(original_arrays(rows=3, filled=3)), num_groups=1)
    with pytest.raises(FeatureFileError, match="another dataset's"):
        read_original(python2_file(original_arrays(rows=3, filled=3)), num_groups=11)


@pytest.fixture
def features():
    roles = np.array(["gallery", "probe", ""])
    return Features(
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.array([4, 5, 5]),
        np.zeros(3, np.int64),
        roles,
        np.array(["", "NM", "CL"]),
        np.array(["004/1", "005/1", "005/2"]),
    )


def test_cache_round_trip(tmp_path, features):
    key = {"weights": "abc", "clips": 20}
    write_cache(tmp_path / "sub" / "f.npz", features, key, {"energy": np.ones((3, 64, 64))})
    found, extras, stored_key = read_cache(tmp_path / "sub" / "f.npz", key)
    assert stored_key == key
    np.testing.assert_array_equal(found.vectors, features.vectors)
    np.testing.assert_array_equal(found.names, features.names)
    assert found.vectors.dtype == np.float32
    assert extras.keys() == {"energy"}
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["f.npz"]


def test_a_stale_cache_is_refused(tmp_path, features):
    write_cache(tmp_path / "f.npz", features, {"weights": "abc", "clips": 20}, {})
    with pytest.raises(FeatureFileError, match="made with another clips, weights"):
        read_cache(tmp_path / "f.npz", {"weights": "def", "clips": "all"})


def test_a_damaged_cache_is_refused(tmp_path, features):
    write_cache(tmp_path / "f.npz", features, {}, {})
    content = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "f.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(FeatureFileError, match="f.npz"):
        read_cache(tmp_path / "f.npz", {})


def test_a_cache_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", key=np.array([{}], dtype=object))
    with pytest.raises(FeatureFileError, match="f.npz"):
        read_cache(tmp_path / "f.npz")


# ---- caches that attack


def npz(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


def npy(shape, kind="<f4", data=b""):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": shape, "fortran_order": False, "descr": kind})
    return out.getvalue() + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        npy((3,)),
        b"\x80\x04.",
        npz(),
        npz(key=npy((), "|O", b"cos\nsystem\n")),
        npz(key=npy((), f"<U{2**31 - 1}")),
        npz(key=npy((), "<U8", "[[[[[[[[".encode("utf-32-le"))),
        *(npz(vectors=npy(shape)) for shape in ((2**33,), (2**40,), (2**62,), (2**63,), (-1,), (2**31, 4), (0, 2**62))),
        npz(**{f"a{n}": npy((2**28,), data=bytes(2**28)) for n in range(5)}),  # more than a gigabyte in 1.3 MB
    ],
    ids=lambda content: f"{len(content)} bytes, {content[30:40]!r}",
)
def test_a_cache_that_claims_much_is_refused(tmp_path, content):
    file = tmp_path / "cache.npz"
    file.write_bytes(content)
    with pytest.raises(FeatureFileError, match="cache.npz: not a feature file of this project") as e:
        read_cache(file)
    assert len(str(e.value)) < 1000


MISFITS = [
    {"vectors": np.zeros(5, np.float32)},
    {"vectors": np.zeros((3, 2), "c8")},
    {"vectors": np.zeros((2, 2), "f4")},
    {"vectors": np.full((3, 2), np.nan)},
    {"labels": np.zeros((3, 2), int)},
    {"labels": np.array(["x"] * 3)},
    {"labels": np.array(3)},
    {"groups": np.zeros(3)},
    {"roles": np.zeros(3)},
    {"names": np.zeros(3, "S4")},
]
MISFITTING_EXTRAS = [
    {"agreement": np.zeros(3)},
    {"energy": np.zeros((3, 8, 8))},
    {"energy": np.full((3, 64, 64), np.inf)},
    {"frames": np.zeros(3)},
    {"frames": np.array([11, 0, 11])},
    {"shown": np.zeros((1, 4, 64, 64), "u8")},
    {"shown": np.zeros((2, 4, 64, 64), "u1"), "shown_walks": np.arange(3)},
    {"shown_walks": np.array([3])},
    {"shown_walks": np.array([-1])},
]


@pytest.mark.parametrize("extras", [False, True])
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, features, extras):
    for change in MISFITTING_EXTRAS if extras else MISFITS:
        made = features if extras else replace(features, **change)
        write_cache(tmp_path / "f.npz", made, {}, change if extras else {})
        with pytest.raises(FeatureFileError, match="f.npz: not a feature file of this project .ValueError: "):
            read_cache(tmp_path / "f.npz")


@pytest.mark.parametrize("key", [[], "text", {"train_num": [1]}, {"clips": {}}])
def test_a_key_that_is_none_is_refused(tmp_path, features, key):
    write_cache(tmp_path / "f.npz", features, key, {})
    with pytest.raises(FeatureFileError, match="its key is "):
        read_cache(tmp_path / "f.npz")


def test_damaged_caches_are_refused_or_read(tmp_path, features):
    """600 files: bits flipped, bytes cut off."""
    whole = tmp_path / "whole.npz"
    write_cache(whole, features, {"a": 1}, {"frames": np.arange(11, 14)})
    base, rng, taken = whole.read_bytes(), random.Random(1), 0
    file = tmp_path / "cache.npz"
    for n in range(600):
        data = bytearray(base)
        for _ in range(rng.choice([1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data[: rng.randrange(len(data))] if n % 5 == 0 else data)
        try:
            taken += len(read_cache(file)[0]) == 3
        except FeatureFileError as e:
            assert len(str(e)) < 1000
    assert 0 < taken < 300


WRITER = """
import sys
import numpy as np
from eval.features import Features, write_cache
rows = np.array(["probe"] * 40)
features = Features(np.ones((40, 2), np.float32), np.arange(40), np.zeros(40, int), rows, rows, rows)
print("ready", flush=True)
for n in range(int(sys.argv[2])):
    write_cache(sys.argv[1], features, {"n": 1}, {"energy": np.full((40, 64, 64), 7.0)})
"""


def writer(file, times):
    command = [sys.executable, "-c", WRITER, str(file), str(times)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.medium
def test_killed_while_it_is_written_a_cache_is_whole_or_not_there(tmp_path):
    rng, half = random.Random(1), 0
    for n in range(10):
        file = tmp_path / f"{n}.npz"
        with writer(file, 100_000) as job:
            assert job.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.1))
            job.kill()
        half += bool(list(tmp_path.glob(f"{n}.npz.tmp*")))
        if file.exists():
            assert (read_cache(file, {"n": 1})[1]["energy"] == 7).all()
    assert half > 0  # some of the ten were hit while they wrote


@pytest.mark.medium
def test_two_that_write_one_cache(tmp_path):
    jobs = [writer(tmp_path / "cache.npz", 30) for _ in range(2)]
    for job in jobs:
        job.communicate(timeout=60)
        assert job.returncode == 0
    assert (read_cache(tmp_path / "cache.npz", {"n": 1})[1]["energy"] == 7).all()
    assert os.listdir(tmp_path) == ["cache.npz"]


def test_no_space_for_a_cache_is_one_sentence(tmp_path, features, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("eval.features.np.savez", full)
    with pytest.raises(FeatureFileError, match=r"cannot write \S*cache.npz: No space left on device"):
        write_cache(tmp_path / "cache.npz", features, {}, {})
    assert not os.listdir(tmp_path)
