"""A second run that would write where one writes is refused."""

import importlib
import os

import pytest

from tools.one_run import only_run


def test_one_run_in_a_folder(tmp_path):
    folder = tmp_path / "new"
    with only_run(folder):
        with pytest.raises(OSError, match=rf"new: another run \(process {os.getpid()}\) is writing there; wait"):
            with only_run(folder):
                pass
    with only_run(folder):  # free again
        pass
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["make_walkers.py", "--subjects", "1", "--out"],
        ["crop.py", "szu", "--frames", "{in}", "--masks", "{in}", "--out"],
    ],
)
def test_tools_that_write_a_tree_are_refused_beside_another(tmp_path, command):
    (tmp_path / "in" / "001" / "1").mkdir(parents=True)
    tool, *words = [word.replace("{in}", str(tmp_path / "in")) for word in command]
    main = importlib.import_module(f"tools.{tool.removesuffix('.py')}").main
    with only_run(tmp_path / "out"):
        before = sorted(tmp_path.rglob("*"))
        assert main([*words, str(tmp_path / "out")]) == 1
        assert sorted(tmp_path.rglob("*")) == before
