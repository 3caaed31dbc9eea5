"""The three data layers inside the runtime: tops, batches, seeds, strict keys, bad data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from layers import data_layers
from layers.datasets import DATASETS
from layers.frames import DataError
from layers.sources import open_frames
from tests.layers.trees import write_walkers
from tools import pack_frames


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_walkers(tmp_path_factory.mktemp("walkers"), subjects=3)


@pytest.fixture
def own_root(root, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(root, tmp_path / "own")


def param_str(root, **changes):
    params = {
        "dataset": "walkers",
        "batch_size": 5,
        "train_num": 2,
        "mode": "TRAIN",
        "seed": 3,
        "im_path": str(root / "crop-im"),
        "gt_path": str(root / "crop-seg"),
        **changes,
    }
    return str({key: value for key, value in params.items() if value is not None})


def make_net(tmp_path, layer, root, phase=caffe.TRAIN, tops=None, **changes):
    tops = getattr(data_layers, layer).tops if tops is None else tops
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'layer {{ name: "data" type: "Python" {" ".join(f"""top: "{top}" """ for top in tops)}'
        f'python_param {{ module: "layers" layer: "{layer}" param_str: "{param_str(root, **changes)}" }} }}'
    )
    return caffe.Net(str(path), phase)


def next_batch(net):
    net.forward()
    return {name: blob.data.copy() for name, blob in net.blobs.items()}


def equal(one, other):
    return all(np.array_equal(one[top], other[top]) for top in one)


def test_tops_of_clips(tmp_path, root):
    batch = next_batch(make_net(tmp_path, "GaitNet", root))
    assert list(batch) == [*(f"im{k}" for k in range(6)), *(f"gt{k}" for k in range(6)), "label"]
    assert {batch[f"im{k}"].shape for k in range(6)} == {(5, 3, 64, 64)}
    assert {batch[f"gt{k}"].shape for k in range(6)} == {(5, 1, 64, 64)}
    assert batch["label"].shape == (5,) and set(batch["label"]) == {0, 1}
    assert batch["im0"].min() < -100 and batch["im0"].max() > 100  # BGR minus 127.5
    assert 0 <= batch["gt0"].min() and 0.9 < batch["gt0"].max() <= 1


def test_tops_of_segmentation(tmp_path, root):
    assert len(next_batch(make_net(tmp_path, "GaitNet_Seg", root))) == 12


def test_scattered_frames_bring_their_own_masks(tmp_path, root):
    batch = next_batch(make_net(tmp_path, "GaitNet_Seg", root, scattered=True))
    frames, truth = open_frames(str(root / "crop-im"), str(root / "crop-seg")), {}
    for seq in {seq.path for seq in DATASETS["walkers"].sequences(root / "crop-im", ["001", "002"])}:
        images, masks = frames.clip(seq, 0, frames.length(seq))
        truth |= {image.tobytes(): (seq, mask) for image, mask in zip(images, masks)}
    walks = []
    for k, clip in ((k, clip) for clip in range(5) for k in range(6)):
        image = (batch[f"im{k}"][clip] + 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        seq, mask = truth[np.ascontiguousarray(image).tobytes()]
        assert np.array_equal((batch[f"gt{k}"][clip, 0] * 255).round().astype(np.uint8), mask)
        walks.append(seq)
    assert len(set(walks[:6])) == min(6, len(set(walks)))


def test_clips_are_not_scattered_where_six_frames_count(tmp_path, root):
    with pytest.raises(DataError, match="scattered True, which is for GaitNet_Seg alone"):
        make_net(tmp_path, "GaitNet", root, scattered=True)


def test_tops_of_pairs(tmp_path, root):
    batch = next_batch(make_net(tmp_path, "GaitNet_Sia", root))
    assert batch["im5"].shape == (10, 3, 64, 64) and batch["gt5"].shape == (10, 1, 64, 64)
    assert batch["label"].shape == (10,) and batch["sim"].shape == (5,)
    assert np.array_equal(batch["sim"], batch["label"][:5] == batch["label"][5:])
    assert batch["sim"][:2].all()  # pairs 0..int(0.3 * 5) are mined positives


def test_clips_are_consecutive_frames_of_one_sequence(tmp_path, root):
    net = make_net(tmp_path, "GaitNet", root)
    batch = next_batch(net)
    training = [f"00{subject}/nm-0{n}/{view}" for subject in (1, 2) for n in (1, 2) for view in ("000", "090")]
    tree = data_layers.open_frames(root / "crop-im", root / "crop-seg")
    lengths = [tree.length(path) for path in training]
    index, start = data_layers.ClipSampler(lengths, 5, (3, 0)).batch(1)  # batch 0 went at construction
    for n, (i, first) in enumerate(zip(index, start)):
        frames, masks = tree.clip(training[i], first, 6)
        for k in range(6):
            assert np.array_equal(batch[f"im{k}"][n], frames[k].transpose(2, 0, 1) - np.float32(127.5))
            assert np.array_equal(batch[f"gt{k}"][n, 0], masks[k] / np.float32(255))
        assert batch["label"][n] == int(training[i][:3]) - 1


def test_only_training_subjects_and_conditions(tmp_path, root):
    net = make_net(tmp_path, "GaitNet", root)
    drawn = {label for _ in range(8) for label in next_batch(net)["label"]}
    assert drawn == {0, 1}
    tree = data_layers.open_frames(root / "crop-im", root / "crop-seg")
    params = data_layers.parse(param_str(root), "GaitNet")
    sequences, lengths = data_layers.training_sequences(params, tree)
    assert len(sequences) == 8 and {seq.condition for seq in sequences} == {"nm-01", "nm-02"}
    assert set(lengths) <= {11, 12, 13}


def test_seed_repeats_batches_and_phases_differ(tmp_path, root):
    nets = [make_net(tmp_path, "GaitNet_Sia", root, phase) for phase in (caffe.TRAIN, caffe.TRAIN, caffe.TEST)]
    for _ in range(4):
        one, same, other = (next_batch(net) for net in nets)
        assert equal(one, same) and not equal(one, other)


def three(tmp_path, root, set_seed):
    batches = []
    for seed in (1, 1, 2):
        set_seed(seed)
        batches.append(next_batch(make_net(tmp_path, "GaitNet", root, seed=None)))
    return batches


def test_without_seed_the_nets_decides(tmp_path, root):
    one, same, other = three(tmp_path, root, caffe.set_random_seed)
    assert equal(one, same) and not equal(one, other)


def test_where_nets_have_no_seed_numpys_decides(tmp_path, root, monkeypatch):
    """As in BVLC Caffe, which tells layers of none."""
    monkeypatch.delattr(data_layers.DataLayer, "__caffe_seed__")
    one, same, other = three(tmp_path, root, np.random.seed)
    assert equal(one, same) and not equal(one, other)


def test_without_seed_a_resumed_net_has_that_of_the_net_it_continues(tmp_path, root):
    unbroken, resumed = (make_net(tmp_path, "GaitNet_Sia", root, seed=None) for _ in range(2))
    batches = [next_batch(unbroken) for _ in range(4)]
    resumed.seek(3, unbroken.executor.seeds.seed)  # what a solver's state brings
    assert equal(next_batch(resumed), batches[3])


@pytest.mark.parametrize("layer", ["GaitNet_Seg", "GaitNet", "GaitNet_Sia"])
def test_seek_goes_on_where_an_unbroken_run_would_be(tmp_path, root, layer):
    unbroken = make_net(tmp_path, layer, root)
    batches = [next_batch(unbroken) for _ in range(5)]
    resumed = make_net(tmp_path, layer, root)
    resumed.layers[0].__caffe_seek__(3)
    assert equal(next_batch(resumed), batches[3]) and equal(next_batch(resumed), batches[4])


@pytest.mark.parametrize("layer", ["GaitNet_Seg", "GaitNet", "GaitNet_Sia"])
def test_packed_batch_holds_the_same(tmp_path, root, layer):
    """What travels to a GPU as uint8 becomes what `forward` writes, bit by bit."""
    net = make_net(tmp_path, layer, root)
    batch, data = next_batch(net), net.layers[0]
    arrays = data.__caffe_pack__()
    assert arrays[0].dtype == np.uint8
    tops = data.__caffe_unpack__(*map(torch.from_numpy, arrays))
    assert len(tops) == len(batch)
    for name, value in zip(batch, tops):
        np.testing.assert_array_equal(batch[name], value.numpy(), err_msg=name)


def test_solvers_that_share_the_work_draw_different_clips(tmp_path, root, monkeypatch):
    alone = make_net(tmp_path, "GaitNet", root)
    batches = [next_batch(alone) for _ in range(5)]
    for rank in (0, 1):
        monkeypatch.setattr(caffe, "solver_count", lambda: 2, raising=False)
        monkeypatch.setattr(caffe, "solver_rank", lambda rank=rank: rank, raising=False)
        net = make_net(tmp_path, "GaitNet", root)
        # Batches 0 and 1 of the one order went at construction; `alone` starts at 1.
        assert equal(next_batch(net), batches[1 + rank]) and equal(next_batch(net), batches[3 + rank])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batchsize": 5}, "GaitNet: param_str has the unknown key 'batchsize' .known: dataset, batch_size, im_path"),
        ({"batch_size": None}, "GaitNet: param_str has no 'batch_size'"),
        ({"batch_size": "many"}, "batch_size 'many', wanted a number from 1 to 4096"),
        ({"batch_size": 0}, "batch_size 0, wanted a number from 1 to 4096"),
        ({"dataset": "casia-b"}, "dataset 'casia-b', wanted one of casiab, outdoor, szu, walkers"),
        ({"mode": "VAL"}, "mode 'VAL', wanted TRAIN or TEST"),
        ({"seed": -1}, "seed -1, wanted a number of 0 or more"),
        ({"im_path": None}, "GaitNet: param_str has no 'im_path'"),
        ({"im_path": "/nowhere"}, "im_path /nowhere: no such folder"),
        ({"gt_path": "/nowhere"}, "gt_path /nowhere: no such folder"),
        ({"gt_path": None}, "has no 'gt_path'"),
        ({"train_num": 4}, "train_num is 4, but 3 subjects were found; set train_num to 1..3"),
        ({"train_num": 1}, "are of one subject, 001; identification needs two or more"),
    ],
)
def test_bad_params(tmp_path, root, changes, message):
    with pytest.raises(DataError, match=message):
        make_net(tmp_path, "GaitNet", root, **changes)


def test_one_subject_is_enough_for_segmentation(tmp_path, root):
    assert next_batch(make_net(tmp_path, "GaitNet_Seg", root, train_num=1))["im0"].shape == (5, 3, 64, 64)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{'dataset': "])
def test_param_str_that_is_no_dict(text):
    with pytest.raises(DataError, match="GaitNet: param_str is "):
        data_layers.parse(text, "GaitNet")


def test_wrong_number_of_tops(tmp_path, root):
    with pytest.raises(DataError, match="GaitNet: has 0 bottoms and 12 tops, wanted no bottom and 13 tops: im0 im1"):
        make_net(tmp_path, "GaitNet", root, tops=data_layers.GaitNet_Seg.tops)


def test_no_sequence_long_enough(tmp_path, own_root):
    for folder, _, files in os.walk(own_root / "crop-im"):
        for name in files:
            if name > "010.png":
                os.remove(os.path.join(folder, name))
    with pytest.raises(
        DataError, match="none of its 8 training sequences has 11 frames or more and as many masks, first"
    ):
        make_net(tmp_path, "GaitNet", own_root)


def test_sequences_that_do_not_count_are_left_out_and_named(tmp_path, own_root, caplog):
    os.remove(own_root / "crop-seg" / "001" / "nm-01" / "000" / "005.png")
    net = make_net(tmp_path, "GaitNet", own_root)
    assert (
        "1 of 8 sequences are left out, not as many masks as frames: 001/nm-01/000 (11 frames, 10 masks)" in caplog.text
        and "001/nm-01/000" in caplog.text
    )
    assert "001/nm-01/000" not in net.layers[0].batches._make.paths


def test_broken_file_stops_training_with_its_name(tmp_path, own_root):
    for path in (own_root / "crop-im").glob("00[12]/nm-0?/0?0/006.png"):
        os.truncate(path, 100)
    with pytest.raises(DataError, match="006.png: is not a whole image .100 bytes."):
        make_net(tmp_path, "GaitNet", own_root, batch_size=20)


def test_vanished_folder_stops_training_with_its_name(tmp_path, own_root):
    net = make_net(tmp_path, "GaitNet", own_root)
    shutil.rmtree(own_root / "crop-im" / "001")
    with pytest.raises(DataError, match=r"001/nm-0./0.0(: cannot be listed|/0..\.png: is not there)"):
        for _ in range(8):
            net.forward()


@pytest.mark.parametrize("layer", ["GaitNet_Seg", "GaitNet", "GaitNet_Sia"])
def test_pack_gives_the_same_blobs_bit_by_bit(tmp_path, root, layer):
    paths = ["--im-path", str(root / "crop-im"), "--gt-path", str(root / "crop-seg")]
    assert pack_frames.main(["walkers", *paths, "--out", str(tmp_path / "pack")]) == 0
    from_trees = make_net(tmp_path, layer, root)
    from_pack = make_net(tmp_path, layer, root, im_path=str(tmp_path / "pack"), gt_path=None)
    for _ in range(4):
        assert equal(next_batch(from_trees), next_batch(from_pack))


BARE_CAFFE = """
import sys, types

import numpy as np


class Blob:
    def reshape(self, *shape):
        self.data = np.zeros(shape, np.float32)


class Blobs:  # as BVLC Caffe's: length and index, no iteration
    def __init__(self, blobs):
        self.__getitem, self.__len = blobs.__getitem__, blobs.__len__
    def __len__(self):
        return self.__len()
    def __getitem__(self, i):
        if not isinstance(i, int) or i >= len(self):
            raise RuntimeError("no iteration")
        return self.__getitem(i)
    __iter__ = None


caffe = sys.modules["caffe"] = types.ModuleType("caffe")
caffe.Layer = type("Layer", (), {})
import layers

layer = layers.GaitNet_Sia()
layer.phase, layer.param_str = 0, sys.argv[1]
bottom, top = Blobs([]), Blobs([Blob() for _ in range(14)])
layer.setup(bottom, top)
layer.reshape(bottom, top)
layer.reshape(bottom, top)
layer.forward(bottom, top)
print(top[0].data.sum(), top[12].data.sum(), "torch" in sys.modules)
"""


def test_runs_in_a_caffe_that_has_no_more_than_a_layer(tmp_path, root):
    """BVLC Caffe: no torch, tops that cannot be iterated over, no solver_count."""
    done = subprocess.run(
        [sys.executable, "-c", BARE_CAFFE, param_str(root)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    batch = next_batch(make_net(tmp_path, "GaitNet_Sia", root))
    assert done.stdout.split() == [str(batch["im0"].sum()), str(batch["label"].sum()), "False"]
