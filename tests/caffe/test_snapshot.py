"""Snapshots: BVLC Caffe's are continued with Caffe's losses; ours are what Caffe would have written."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2

REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden" / "files"
SMALL = np.load(GOLDEN / "small.npz", allow_pickle=False)
KINDS = {  # solver and files of the three ways to take a snapshot
    "small": ("small_solver.prototxt", ".caffemodel", ".solverstate"),
    "small_h5": ("small_h5_solver.prototxt", ".caffemodel.h5", ".solverstate.h5"),
    "small_diff": ("small_diff_solver.prototxt", ".caffemodel", ".solverstate"),
}
LEARNABLE = str(SMALL["learnable"]).split("\n")


def close(got, want, what):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max() + 1e-6, err_msg=what)


def params(net):
    return {f"{name}/{i}": blob.data for name, blobs in net.params.items() for i, blob in enumerate(blobs)}


def train(solver, iterations):
    """Train on the golden feed from where the solver stands; the losses."""
    losses = []
    for _ in range(iterations):
        for name in ("data", "label"):
            solver.net.blobs[name].data[...] = SMALL[f"feed/{name}"][solver.iter]
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    return losses


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The golden files in a folder of their own, which is the current one."""
    shutil.copytree(GOLDEN, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def trained(folder, request):
    """(kind, solver after ten iterations from the golden start, losses); no snapshot yet."""
    kind = request.param
    for name in os.listdir():
        if "_iter_10" in name:
            os.remove(name)
    solver = caffe.get_solver(KINDS[kind][0])
    for key, value in params(solver.net).items():
        value[...] = SMALL[f"init/{key}"]
    return kind, solver, train(solver, 10)


all_kinds = pytest.mark.parametrize("kind", KINDS)
all_trained = pytest.mark.parametrize("trained", KINDS, indirect=True)


# ---- files of BVLC Caffe


@all_kinds
def test_caffes_weights_are_read(kind, folder):
    net = caffe.Net("small_net.prototxt", caffe.TRAIN, weights=f"{kind}_iter_10{KINDS[kind][1]}")
    for key, value in params(net).items():
        assert np.array_equal(value, SMALL[f"at10/{key}"]), key


@all_kinds
def test_caffes_state_is_continued(kind, folder):
    solver = caffe.SGDSolver(KINDS[kind][0])
    solver.restore(f"{kind}_iter_10{KINDS[kind][2]}")
    assert solver.iter == 10 and solver.current_step == int(SMALL["current_step"])
    for i, blob in enumerate(solver.history):
        assert np.array_equal(blob.data, SMALL[f"history10/{i}"]), LEARNABLE[i]
    close(train(solver, 11), SMALL["loss"][10:], "losses")
    for key, value in params(solver.net).items():
        close(value, SMALL[f"final/{key}"], key)


def test_diffs_in_a_caffemodel_are_read(folder):
    net = caffe.Net("small_net.prototxt", caffe.TRAIN, weights="small_diff_iter_10.caffemodel")
    saved = caffe_pb2.NetParameter.FromString(Path("small_diff_iter_10.caffemodel").read_bytes())
    for layer in saved.layer:
        for own, blob in zip(net.params.get(layer.name, []), layer.blobs):
            assert np.array_equal(own.diff.reshape(-1), np.array(blob.diff, np.float32))
    assert np.abs(net.params["ip"][0].diff).max() > 0


def test_legacy_net_with_its_legacy_weights(folder):
    z = np.load(GOLDEN / "legacy.npz", allow_pickle=False)
    net = caffe.Net("legacy_v1.prototxt", caffe.TEST, weights="legacy_v1.caffemodel")
    for key in z.files:
        if key.startswith("param/"):
            _, layer, i = key.split("/")
            assert np.array_equal(net.params[layer][int(i)].data, z[key])
    net.blobs["data"].data[...] = z["in/data"]
    net.forward()
    for key in z.files:
        if key.startswith("out/"):
            close(net.blobs[key[4:]].data, z[key], key)


# ---- what we write


@all_trained
def test_training_gives_caffes_losses_and_snapshot(trained):
    """Ten iterations of ours, snapshot: the files hold what Caffe's hold, field for field."""
    kind, solver, losses = trained
    close(losses, SMALL["loss"][:10], "losses")
    solver.snapshot()
    model, state = (f"{kind}_iter_10{ending}" for ending in KINDS[kind][1:])
    if model.endswith(".h5"):
        assert_equal_hdf5(Path(model), GOLDEN / model)
        assert_equal_hdf5(Path(state), GOLDEN / state, ours=["computed_by", "random_seed"])
        return
    got = caffe_pb2.NetParameter.FromString(Path(model).read_bytes())
    got.ClearField("checksum")  # ours
    want = caffe_pb2.NetParameter.FromString((GOLDEN / model).read_bytes())
    for a, b in zip(got.layer, want.layer):
        for i, (x, y) in enumerate(zip(a.blobs, b.blobs)):
            compare_blobs(x, y, f"{a.name}/{i}")
    assert got == want  # compare_blobs has emptied data and diff: all else must be equal
    got = caffe_pb2.SolverState.FromString(Path(state).read_bytes())
    got.ClearField("checksum")  # ours
    want = caffe_pb2.SolverState.FromString((GOLDEN / state).read_bytes())
    for key, x, y in zip(LEARNABLE, got.history, want.history):
        compare_blobs(x, y, key)
    for ours in ("random_seed", "weights_seal", "computed_by"):  # BVLC Caffe skips the fields
        got.ClearField(ours)
    assert got == want


def compare_blobs(got, want, key):
    """Compare and empty `data` and `diff` of two BlobProtos; the conv bias only has noise for a gradient."""
    for field in ("data", "diff"):
        a, b = (np.array(getattr(x, field), np.float32) for x in (got, want))
        assert len(a) == len(b)
        if len(b) and not (key == "conv/1" and np.abs(b).max() < 1e-5):
            close(a, b, f"{key} {field}")
        got.ClearField(field)
        want.ClearField(field)


def assert_equal_hdf5(got_path, want_path, ours=()):
    with h5py.File(got_path) as got, h5py.File(want_path) as want:
        assert [name for name in hdf5_names(got) if name not in ours] == hdf5_names(want)
        for name in hdf5_names(want):
            a, b = got[name], want[name]
            if not isinstance(b, h5py.Dataset):
                continue
            assert (a.shape, a.dtype) == (b.shape, b.dtype), name
            if b.dtype.kind == "f":
                noise = np.abs(b[()]).max() < 1e-5
                close(a[()], 0 * b[()] if noise else b[()], name)
            else:
                assert np.array_equal(a[()], b[()]), name


def hdf5_names(file):
    names = []
    file.visit(names.append)
    return sorted(names)


@all_trained
def test_what_we_write_is_read_back_bit_for_bit(trained):
    kind, solver, _ = trained
    solver.snapshot()
    model, state = (f"{kind}_iter_10{ending}" for ending in KINDS[kind][1:])
    again = caffe.get_solver(KINDS[kind][0])
    again.restore(state)
    net = caffe.Net("small_net.prototxt", caffe.TRAIN, weights=model)
    for key, value in params(solver.net).items():
        assert np.array_equal(value, params(again.net)[key])
        assert np.array_equal(value, params(net)[key])
    for a, b in zip(solver.history, again.history):
        assert np.array_equal(a.data, b.data)
    assert (again.iter, again.current_step) == (solver.iter, solver.current_step)
    assert train(again, 11) == train(solver, 11)


@pytest.mark.parametrize("ending", ["caffemodel", "h5"])
def test_write_diff(ending, folder):
    net = caffe.Net("small_net.prototxt", caffe.TRAIN)
    net.params["ip"][1].diff[...] = [1, 2, 3]
    save = net.save_hdf5 if ending == "h5" else net.save
    for write_diff in (False, True):
        save(f"out.{ending}", write_diff)
        if ending == "h5":
            with h5py.File("out.h5") as f:
                assert ("diff" in f) == write_diff
                assert not write_diff or f["diff/ip/1"][()].tolist() == [1, 2, 3]
        else:
            saved = caffe_pb2.NetParameter.FromString(Path("out.caffemodel").read_bytes())
            diff = next(layer for layer in saved.layer if layer.name == "ip").blobs[1].diff
            assert list(diff) == ([1, 2, 3] if write_diff else [])


def test_protoc_decodes_what_we_write(trained_small, tmp_path):
    """The protobuf compiler reads our files with our caffe.proto and knows every field of them."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    trained_small.snapshot()
    for name, message in (("small_iter_10.caffemodel", "NetParameter"), ("small_iter_10.solverstate", "SolverState")):
        done = subprocess.run(
            [sys.executable, protoc.__file__, f"-I{REPO}/caffe/proto", f"--decode=caffe.{message}", "caffe.proto"],
            input=Path(name).read_bytes(),
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode()
        unknown = [line for line in text.splitlines() if line.strip()[0].isdigit()]  # shown by its number
        assert not unknown
        assert ('learned_net: "small_iter_10.caffemodel"' if message == "SolverState" else 'type: "BatchNorm"') in text


@pytest.fixture
def trained_small(folder):
    solver = caffe.get_solver("small_solver.prototxt")
    train(solver, 10)
    return solver


def test_weights_are_found_beside_a_moved_state(trained_small, folder, monkeypatch):
    trained_small.snapshot()
    (folder / "moved").mkdir()
    for ending in ("caffemodel", "solverstate"):
        shutil.move(f"small_iter_10.{ending}", f"moved/small_iter_10.{ending}")
    again = caffe.get_solver("small_solver.prototxt")
    again.restore("moved/small_iter_10.solverstate")
    assert np.array_equal(again.net.params["ip"][0].data, trained_small.net.params["ip"][0].data)


def test_nothing_half_written_is_left(trained_small, folder, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    for name in os.listdir():
        if "_iter_10" in name:
            os.remove(name)
    before = sorted(os.listdir())
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(caffe.CaffeError, match="cannot write small_iter_10.caffemodel: No space left"):
        trained_small.snapshot()
    assert sorted(os.listdir()) == before


# ---- damaged or foreign files


def test_a_state_of_another_solver_is_refused(folder):
    Path("adam.prototxt").write_text(Path("small_solver.prototxt").read_text().replace('"SGD"', '"Adam"'))
    with pytest.raises(caffe.CaffeError, match="Incorrect length of history blobs: 9 in the file, .*Adam.* has 18"):
        caffe.get_solver("adam.prototxt").restore("small_iter_10.solverstate")


@pytest.mark.parametrize("state", ["small_iter_10.solverstate", "small_h5_iter_10.solverstate.h5"])
def test_a_damaged_or_absent_state_is_one_sentence_and_changes_nothing(state, folder):
    solver = caffe.get_solver("small_solver.prototxt")
    before = {key: value.copy() for key, value in params(solver.net).items()}
    data = Path(state).read_bytes()
    damaged = {"cut": data[: len(data) // 2], "empty": b"", "text": b"iter: 10\n" * 100}
    for kind, content in damaged.items():
        path = f"{kind}_{state}"
        Path(path).write_bytes(content)
        with pytest.raises(caffe.CaffeError, match=path) as e:
            solver.restore(path)
        assert "\n" not in str(e.value)
    with pytest.raises(caffe.CaffeError, match="absent"):
        solver.restore("absent." + state.split(".", 1)[1])
    assert solver.iter == 0
    for key, value in params(solver.net).items():
        assert np.array_equal(value, before[key])


def replaced(name, **kind):
    """A change of an HDF5 file: the data set `name` becomes another one, or is deleted."""

    def change(file):
        del file[name]
        if kind:
            file.create_dataset(name, **kind)

    return change


def much_history(file):
    for i in range(9, 2000):
        file["history"].create_dataset(str(i), shape=(2**40,), chunks=(2**20,), dtype="f4")


def a_group(file):
    del file["history/1"]
    file.create_group("history/1")


def a_loop(file):
    del file["history/1"]
    file["history/1"] = h5py.SoftLink("/history/1")


HOSTILE = {  # small files that ask for much, or are not what they should be
    "terabytes": replaced("history/0", shape=(2**40,), chunks=(2**20,), dtype="f4"),
    "large chunk": replaced("history/1", shape=(4,), maxshape=(None,), chunks=(2**29,), dtype="f4"),
    "large elements": replaced("history/1", shape=(4,), dtype="S1000000000"),
    "long name": replaced("learned_net", shape=(), dtype="S2000000000"),
    "no number": replaced("iter", shape=(0,), dtype="i4"),
    "huge number": replaced("iter", data=[2**60]),
    "hole": replaced("history/1"),
    "much history": much_history,
    "group": a_group,
    "loop": a_loop,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_hdf5_states_are_one_sentence_in_bounded_memory(name, folder):
    solver = caffe.get_solver("small_h5_solver.prototxt")
    with h5py.File("small_h5_iter_10.solverstate.h5", "a") as f:
        HOSTILE[name](f)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, limit[1]))
    try:
        with pytest.raises(caffe.CaffeError, match="small_h5_iter_10.solverstate.h5") as e:
            solver.restore("small_h5_iter_10.solverstate.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert "\n" not in str(e.value) and solver.iter == 0


@pytest.mark.parametrize("kind", ["small", "small_h5"])
@pytest.mark.medium
def test_no_damage_is_taken_for_good(kind, folder):
    """200 files with a flipped bit or a cut: refused, or (HDF5 has bytes that mean nothing) read as they were."""
    solver = caffe.get_solver(KINDS[kind][0])
    for name in list(Path().glob(f"{kind}_iter_*")):
        name.unlink()
    solver.snapshot()
    rng, refused = np.random.default_rng(1), 0
    want = {**params(solver.net), **{i: blob.data for i, blob in enumerate(solver.history)}}
    for ending in KINDS[kind][1:]:
        path = Path(f"{kind}_iter_0{ending}")
        content = path.read_bytes()
        for n in range(100):
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged[: rng.integers(len(content))] if n % 4 == 0 else damaged)
            try:
                again = caffe.get_solver(KINDS[kind][0])
                again.restore(f"{kind}_iter_0{KINDS[kind][2]}")
            except caffe.CaffeError as e:
                assert path.name in str(e)
                refused += 1
                continue
            got = {**params(again.net), **{i: blob.data for i, blob in enumerate(again.history)}}
            assert again.iter == 0 and all(np.array_equal(got[key], value) for key, value in want.items())
        path.write_bytes(content)
    assert refused == 200 or (kind == "small_h5" and refused > 50)
