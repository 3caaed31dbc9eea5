"""Masks of 0 and 1, OpenGait's pickles and silhouettes alone, from check_data and pack_frames to a batch."""

import pickle

import cv2
import numpy as np
import pytest

import caffe
from layers.frames import Tree
from layers.sources import open_frames
from tests.layers.trees import write_walkers
from tools import check_data, pack_frames

SEQ = "001/nm-01/090"


@pytest.fixture
def root(tmp_path):
    return write_walkers(tmp_path / "Walkers", subjects=3)


def tool(module, root, *words):
    return module.main(
        ["walkers", "--im-path", str(root / "crop-im"), "--gt-path", str(root / "crop-seg"), "--jobs", "1", *words]
    )


def test_masks_of_0_and_1_are_packed_when_told(root, capsys):
    tree = Tree(str(root / "crop-im"), str(root / "crop-seg"))
    for file in (root / "crop-seg").rglob("*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) // 128)
    ones = tree.clip(SEQ, 0, 6)[1]
    assert tool(check_data, root, "--train-num", "2") == 1
    assert "dim masks, first 001/nm-01/000: its masks say 1 where the person is" in capsys.readouterr().out
    assert tool(check_data, root, "--train-num", "2", "--mask-max", "1") == 0
    assert tool(pack_frames, root) == 1
    assert "pack_frames.py <dataset> --mask-max 1" in capsys.readouterr().err
    assert tool(pack_frames, root, "--mask-max", "1") == 0
    masks = open_frames(root / "crop-im", root / "crop-seg").clip(SEQ, 0, 6)[1]
    assert masks.max() == 255 and ((masks > 127) >= (ones > 0)).mean() > 0.9
    assert tool(pack_frames, root) == 0 and "up to date" in capsys.readouterr().out  # what was told is kept


def pickled(root, out):
    """The trees as OpenGait's pickles: frames red first, and masks."""
    frames = Tree(str(root / "crop-im"), str(root / "crop-seg"))
    for folder in sorted((root / "crop-im").glob("*/*/*")):
        path = folder.relative_to(root / "crop-im").as_posix()
        images, masks = frames.clip(path, 0, frames.length(path))
        (out / path).mkdir(parents=True)
        for kind, array in (("rgbs", images[..., ::-1].transpose(0, 3, 1, 2)), ("sils", masks)):
            (out / path / f"{folder.name}-{kind}.pkl").write_bytes(pickle.dumps(np.ascontiguousarray(array), 4))
    return out


def test_pickles_are_checked_and_packed(root, tmp_path, capsys):
    pickles = str(pickled(root, tmp_path / "pickles"))
    words = ["walkers", "--im-path", pickles, "--jobs", "1"]
    assert check_data.main([*words, "--train-num", "2"]) == 0
    assert "sizes 64x64 (216)" in capsys.readouterr().out
    assert pack_frames.main([*words, "--out", str(tmp_path / "pack")]) == 0
    for planes, found in zip(
        Tree(str(root / "crop-im"), str(root / "crop-seg")).clip(SEQ, 0, 6),
        open_frames(tmp_path / "pack").clip(SEQ, 0, 6),
    ):
        assert np.array_equal(planes, found)


@pytest.mark.medium
def test_silhouettes_alone_make_batches(root, tmp_path):
    words = ["walkers", "--silhouettes", "--gt-path", str(root / "crop-seg"), "--jobs", "1"]
    assert check_data.main([*words, "--train-num", "2"]) == 0
    assert pack_frames.main(words) == 0 and (root / "pack-silhouettes/data.mdb").exists()
    assert not open_frames(None, root / "crop-seg").has_frames
    settings = {"dataset": "walkers", "batch_size": 4, "train_num": 2, "seed": 3, "gt_path": str(root / "crop-seg")}
    tops = " ".join(f'top: "{top}"' for top in (*(f"gt{k}" for k in range(6)), "label"))
    file = tmp_path / "net.prototxt"

    def net(layer, tops, settings):
        file.write_text(f"""layer {{ name: "data" type: "Python" {tops}
            python_param {{ module: "layers" layer: "{layer}" param_str: "{settings}" }} }}""")
        return caffe.Net(str(file), caffe.TRAIN)

    built = net("GaitNet_Silhouettes", tops, settings)
    built.forward()
    assert built.blobs["gt5"].data.shape == (4, 1, 64, 64) and 0.4 < built.blobs["gt0"].data.mean() < 0.6
    assert set(built.blobs["label"].data) <= {0, 1}
    images = " ".join(f'top: "im{k}"' for k in range(6))
    with pytest.raises(Exception, match="holds silhouettes alone, which train the recognition branch alone"):
        net("GaitNet", f"{images} {tops}", {**settings, "im_path": str(root / "pack-silhouettes")})


def test_feet_that_meet_and_wide_strides_are_no_jump(root, capsys):
    folder = root / "crop-seg" / SEQ
    for file, width in zip(sorted(folder.iterdir()), (4, 5, 6, 8, 10, 10, 8, 6, 5, 4, 2, 2, 4), strict=False):
        mask = np.zeros((20, 13), np.uint8)
        mask[2:4, 5:7] = mask[4:11, 4:8] = 255
        for left in {6 - (width + 1) // 2, 4 + width // 2}:  # the legs
            mask[11:18, max(left, 0) : left + 2] = 255
        cv2.imwrite(str(file), mask)
    tool(check_data, root, "--train-num", "2")
    told = capsys.readouterr().out
    assert f"{SEQ}/" not in told.partition("jumps")[2].partition("\n")[0]


def test_jumps_and_what_is_missing_are_named(root, capsys):
    folder = root / "crop-seg" / SEQ
    for i, file in enumerate(sorted(folder.iterdir())):  # legs alone, blown up, in one frame
        mask = np.zeros((20, 13), np.uint8)
        mask[2:18, slice(1, 12) if i == 5 else slice(4, 8)] = 255
        cv2.imwrite(str(file), mask)
    words = ["--im-path", str(root / "crop-im"), "--gt-path", str(root / "crop-seg"), "--train-num", "2"]
    assert check_data.main(["casiab", *words, "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert "frames in which the box or the person in it jumps" in told and f"{SEQ}/006.png" in told
    assert "001/nm-01/018" in told and "ids are missing: 004, 005" in told and "people are tested, not" in told
