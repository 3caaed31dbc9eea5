"""The commands whose power cuts are tried: what they start from, and what has to be so after a cut and at the end.

    python -m tests.crash.scenarios NAME    runs one in the current folder, as the recording does

The network of an evaluation is a stand-in: what it gives depends on the frames alone, and it costs nothing. Everything
that is written is written by the real commands."""

import contextlib
import os
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np

SOLVER = (
    'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: %d display: 1 snapshot: 4 '
    'snapshot_prefix: "run" snapshot_format: %s random_seed: 5 solver_mode: CPU'
)
NET = """
layer { name: "x" type: "DummyData" top: "x"
        dummy_data_param { shape { dim: 4 dim: 50 } data_filler { type: "gaussian" } } }
layer { name: "y" type: "DummyData" top: "y"
        dummy_data_param { shape { dim: 4 dim: 30 } data_filler { type: "gaussian" } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip"
        inner_product_param { num_output: 30 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
TREE = Path("../tree")  # what is only read lies beside the folder that is watched


class Train:
    """`caffe train` as train_net.sh starts it: from the newest snapshot, up to max_iter."""

    imports = ("caffe.cli", "caffe.solver", "caffe.snapshot", "caffe.tensorboard")
    form, ending = "BINARYPROTO", ""
    last = 12  # iteration

    def prepare(self, root):
        (root / "net.prototxt").write_text(NET)
        (root / "solver.prototxt").write_text(SOLVER % (self.last, self.form))

    def run(self):
        from caffe import cli

        if Path(f"run_iter_{self.last}.caffemodel{self.ending}").exists():
            return 0
        states = {
            int(n): name
            for name in os.listdir()
            if (n := "".join(re.findall(rf"run_iter_(\d+)\.solverstate{self.ending}$", name)))
            and Path(f"run_iter_{n}.caffemodel{self.ending}").exists()
        }
        resumed = [f"--snapshot={states[max(states)]}"] if states else []
        return cli.main(["train", "--solver=solver.prototxt", *resumed])

    def after_cut(self, whole, said):
        for path in Path().glob("run_iter_*"):
            if ".tmp" not in path.name and (whole / path).exists():  # Ctrl-C makes others
                assert path.read_bytes() == (whole / path).read_bytes(), f"{path} is not as it was written"
        told = list(re.finditer(r"Snapshotting solver state to .* file (run_iter_\d+)\.solverstate", said))
        for snapshot in told:
            if said.count("\n", snapshot.end()) > 1:  # a line came after this one
                for kind in ("solverstate", "caffemodel"):
                    assert Path(f"{snapshot[1]}.{kind}{self.ending}").exists(), (
                        f"{snapshot[1]} was told of, and is lost"
                    )

    def at_end(self, whole):
        name = f"run_iter_{self.last}.caffemodel{self.ending}"
        assert Path(name).read_bytes() == (whole / name).read_bytes(), "the run ended with other digits"


class TrainHdf5(Train):
    form, ending = "HDF5", ".h5"


class Pack:
    """tools/pack_frames.py, which commits after every sequence here."""

    imports = ("tools.pack_frames",)

    def prepare(self, root):
        from tests.layers.trees import write_walkers

        write_walkers(root / TREE, subjects=2, conditions=("nm-01", "bg-01"), views=("000",))

    def run(self):
        from tools import pack_frames

        words = ["walkers", "--im-path", f"{TREE}/crop-im", "--gt-path", f"{TREE}/crop-seg", "--out", os.getcwd()]
        with mock.patch.object(pack_frames, "COMMIT", 1):
            return pack_frames.main([*words, "--jobs", "1"])

    def after_cut(self, whole, said):
        if Path("data.mdb").exists():
            self.at_end(whole)
        assert "data.mdb: 4 sequences" not in said or Path("data.mdb").exists(), "the pack was told of, and is lost"

    def at_end(self, whole):
        from layers import pack
        from layers.frames import PLANES, Tree

        packed, tree = pack.Pack(os.getcwd()), Tree(f"{TREE}/crop-im", f"{TREE}/crop-seg")
        packed.require_fresh()
        assert len(packed.sequences) == 4
        for path in packed.sequences:
            planes = np.empty((tree.length(path), *PLANES), np.uint8)
            assert np.array_equal(packed.read(path, 0, planes).copy(), tree.read(path, 0, planes)), path


class StandIn:
    """A net of which a mask is a frame's brightness, and features are sums of masks."""

    frames = clips = 32

    def __init__(self, *_, **__):
        pass

    def masks(self, planes):
        return planes[:, :3].mean(axis=1, dtype=np.float32) / 255

    def features(self, sums):
        return sums.reshape(len(sums), 256, 16).sum(axis=2)


class Evaluate:
    """eval/eval-casiab.py: features, tables, pictures, and the card of the weights."""

    imports = ("eval.cli", "eval.plots", "eval.report", "caffe.device", "caffe.pycaffe")

    def prepare(self, root):
        from tests.eval.conftest import write_walk

        for subject in range(3):
            for condition in ("nm-01", "nm-05"):
                for view in ("000", "090"):
                    path = f"{subject + 1:03d}/{condition}/{view}"
                    write_walk(root / TREE, path, 12, subject, subject * 100 + int(view) + ord(condition[-1]))
        weights_file(root / "w.caffemodel")

    def run(self):
        from eval import cli, plots, provenance, walks

        words = ["--im-path", TREE / "crop-im", "--gt-path", TREE / "crop-seg", "--weights", "w.caffemodel"]
        words += ["--train-num", 1, "--cache", "cache", "--out", "out"]
        small = plots.plt.figure
        with mock.patch.object(walks, "DeployNet", StandIn), contextlib.ExitStack() as patched:
            patched.enter_context(
                mock.patch.object(provenance, "versions", dict)
            )  # of this repository, which may change
            for name in ("heat_map", "curves"):  # how pictures look is not what is tried
                patched.enter_context(mock.patch.object(plots, name, lambda *_: small(figsize=(1, 1))))
            return cli.main("casiab", list(map(str, words)))

    def after_cut(self, whole, said):
        for path in [*Path("out").glob("*"), *Path("cache").glob("*"), *Path().glob("w.*")]:
            if ".tmp" not in path.name:
                assert path.read_bytes() == (whole / path).read_bytes(), f"{path} is not as it was written"

    def at_end(self, whole):
        for folder in ("out", "cache"):
            for path in (whole / folder).iterdir():
                assert Path(folder, path.name).read_bytes() == path.read_bytes(), f"{path.name} came out otherwise"


class Enroll:
    """tools/identify.py enroll, where two people are enrolled already."""

    imports = ("tools.identify",)

    def prepare(self, root):
        from eval.people import People
        from tests.eval.conftest import write_walk

        write_walk(root / TREE, "cora", 12, 3, 5)
        weights = weights_file(root / "w.caffemodel")
        vectors = np.arange(512, dtype=np.float32).reshape(2, 256)
        People(np.array(["anna", "bert"]), vectors, np.array(["a", "b"]), weights).write(root / "people.npz")

    def run(self):
        from tools import identify

        with mock.patch.object(identify, "open_net", StandIn):
            return identify.main(["enroll", "people.npz", f"cora={TREE}/crop-im/cora", "--weights", "w.caffemodel"])

    def after_cut(self, whole, said):
        names = self.enrolled(whole)
        assert names[:2] == ["anna", "bert"], "people are lost"
        assert "3 walks of 3 people" not in said or "cora" in names, "who was told to be enrolled is lost"

    def at_end(self, whole):
        assert set(self.enrolled(whole)) == {"anna", "bert", "cora"}

    def enrolled(self, whole):
        from eval.people import People

        found, wanted = People.read("people.npz"), People.read(whole / "people.npz")
        vectors = dict(zip(wanted.names.tolist(), wanted.vectors))
        for name, vector in zip(found.names.tolist(), found.vectors):
            assert np.array_equal(vector, vectors[name]), f"{name} looks otherwise"
        return found.names.tolist()


class Careless(Enroll):
    """As Enroll, by a writer that syncs nothing: here the search has to find what is lost."""

    def run(self):
        from layers.bundled import whole

        nothing = {"_sync_file": lambda path: None, "sync_folder": lambda path: None}
        with mock.patch.dict(whole.put.__globals__, nothing):
            return super().run()


class Walkers:
    """tools/make_walkers.py: walks as folders of frames; what a walk looks like is a stand-in's."""

    imports = ("tools.make_walkers",)

    def prepare(self, root):
        pass

    def run(self):
        from tools import make_walkers

        def render(walk, **_):
            rng = np.random.default_rng(int(walk.view))
            frames = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
            return mock.Mock(frames=frames, masks=frames[..., 0])

        def here(function, items, *_):
            return map(function, items)

        with mock.patch.multiple(make_walkers, render_walk=render, in_order=here):
            return make_walkers.main(
                ["--subjects", "1", "--conditions", "nm-01", "--views", "000", "090", "--out", "."]
            )

    def after_cut(self, whole, said):
        for frames in Path().glob("crop-im/*/*/*"):
            self.same(whole, frames)
            self.same(whole, Path("crop-seg", *frames.parts[1:]))

    def at_end(self, whole):
        for tree in ("crop-im", "crop-seg"):
            assert len(list(Path().glob(f"{tree}/*/*/*"))) == 2
            for walk in Path().glob(f"{tree}/*/*/*"):
                self.same(whole, walk)

    def same(self, whole, walk):
        for path in (whole / walk).iterdir():
            assert (walk / path.name).is_file(), f"{walk} lacks {path.name}"
            assert (walk / path.name).read_bytes() == path.read_bytes(), f"{walk}/{path.name} is damaged"


def weights_file(path):
    """A file of weights, and its SHA-256."""
    from caffe.proto import caffe_pb2
    from layers.people import sha256

    path.write_bytes(caffe_pb2.NetParameter(name="drawn").SerializeToString())
    return sha256(path)


SCENARIOS = {
    "train": Train(),
    "train-hdf5": TrainHdf5(),
    "pack": Pack(),
    "evaluate": Evaluate(),
    "enroll": Enroll(),
    "walkers": Walkers(),
    "careless": Careless(),
}

if __name__ == "__main__":
    sys.exit(SCENARIOS[sys.argv[1]].run())
