"""How commands end: status and one sentence, whatever happens."""

import importlib

import pytest

from caffe.errors import CaffeError
from eval.ending import exit_status
from layers.frames import DataError

COMMANDS = {
    "tools.crop": ("crop", ["szu", "--masks", "x"]),
    "tools.check_data": ("look_over", ["szu"]),
    "tools.pack_frames": ("make_pack", ["szu"]),
    "tools.unpack": ("settle", ["szu"]),
    "tools.make_walkers": ("make_walkers", ["--out", "x"]),
    "tools.to_opengait": ("write_masks", ["masks", "szu", "--out", "x"]),
    "tools.identify": ("run_query", ["query", "x.npz", "walk"]),
    "tools.validate": ("validate_alone", ["x"]),
    "eval.compare": ("tabulate", ["szu", "a=x"]),
    "eval.steps": ("show", ["x"]),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_ctrl_c_is_one_line(module, monkeypatch, capsys):
    name, words = COMMANDS[module]
    command = importlib.import_module(module)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, name, interrupted)
    assert command.main(words) == 130
    told = capsys.readouterr().err
    assert told.startswith("\nstopped; ") and told.count("\n") == 2


@pytest.mark.parametrize("module", ["crop", "check_data", "pack_frames", "make_walkers"])
def test_no_workers_are_refused(module, capsys):
    words = {"make_walkers": [], "crop": ["szu", "--masks", "x"]}.get(module, ["szu"])
    for jobs in ("0", "-1", "two"):
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"tools.{module}").main([*words, "--jobs", jobs])
        assert ended.value.code == 2 and "argument --jobs: " in capsys.readouterr().err


@pytest.mark.parametrize("error", [DataError, CaffeError, ValueError, OSError, KeyError])
def test_what_is_told(error, capsys):
    def run(*_):
        raise error("a sentence")

    if error is KeyError:  # a fault of ours keeps its traceback
        with pytest.raises(KeyError):
            exit_status(run)
        return
    assert exit_status(run) == 1 and capsys.readouterr().err == "error: a sentence\n"


def test_the_systems_errors_name_the_file(tmp_path, capsys):
    assert exit_status(open, tmp_path / "gone") == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/gone: No such file or directory\n"
    assert exit_status(lambda: 3) == 3 and exit_status(lambda: None) == 0
