"""The people of the study: what a killed run leaves does not stop the next one."""

import shutil

import pytest

from layers.sources import open_frames
from tests.layers.trees import write_walkers
from tools import pack_frames
from tools.ablation import people
from tools.ablation.plan import QUICK


@pytest.mark.medium
def test_killed_while_it_removed_the_trees_of_a_pack(tmp_path):
    """Half of them would make the pack look older than they are."""
    write_walkers(tmp_path, subjects=2, conditions=("nm-01",), views=("090",))
    words = ["walkers", "--im-path", f"{tmp_path}/crop-im", "--gt-path", f"{tmp_path}/crop-seg", "--jobs", "1"]
    assert pack_frames.main(words) == 0
    (tmp_path / "crop-im/001/nm-01/090/001.png").unlink()
    shutil.rmtree(tmp_path / "crop-seg/002")
    ready = people.training(tmp_path, 1, QUICK)
    assert not list(tmp_path.glob("crop-*"))
    open_frames(ready).require_fresh()
