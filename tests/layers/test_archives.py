"""From a download to the tree of a data set: zipped, in several pieces, one level too deep, hostile."""

import io
import stat
import tarfile
import zipfile

import cv2
import numpy as np
import pytest

from layers.archives import settle
from layers.datasets import DATASETS
from layers.frames import DataError

OUTDOOR = DATASETS["outdoor"]
WALKS = [f"{subject:03d}/{subject:03d}_scene1_nm_L_090_{n}" for subject in (1, 2) for n in (1, 3)]
FILES = [f"{walk}/{k:02d}.png" for walk in WALKS for k in (1, 2)]
PNG = cv2.imencode(".png", np.full((3, 2), 7, np.uint8))[1].tobytes()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("GAITNET_DATA", str(tmp_path))
    return tmp_path


def make_zip(path, names, content=PNG):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, content)


def found(data):
    home = data / "Outdoor-Gait"
    return [f"{tree}/{name}" for tree in ("im", "seg") for name in FILES if (home / tree / name).read_bytes() == PNG]


WHOLE = [f"{tree}/{name}" for tree in ("im", "seg") for name in FILES]


@pytest.mark.parametrize("above", ["", "Outdoor-Gait/", "release/Outdoor-Gait/"])
@pytest.mark.parametrize("place", ["Outdoor-Gait/download.zip", "OutdoorGait-20200101T000000Z-001.zip"])
def test_one_archive(data, above, place):
    make_zip(data / place, [f"{above}{name}" for name in [*WHOLE, "README.txt"]] + ["__MACOSX/im/001/a/._1.png"])
    said = []
    settle(OUTDOOR, said.append)
    assert found(data) == WHOLE and (data / place).exists()
    assert f"unpacking {len(WHOLE)} files" in said[0]
    assert sorted(p.name for p in (data / "Outdoor-Gait").iterdir() if p.suffix != ".zip") == ["im", "seg"]
    said.clear()
    settle(OUTDOOR, said.append)
    assert not said  # nothing to do


def test_several_archives_and_a_tar(data):
    half = len(WHOLE) // 2 - 1
    make_zip(data / "Outdoor-Gait/a-001.zip", WHOLE[:half])
    with tarfile.open(data / "Outdoor-Gait/a-002.tar.gz", "w:gz") as file:
        for name in WHOLE[half:]:
            info = tarfile.TarInfo(f"./Outdoor-Gait/{name}")
            info.size = len(PNG)
            file.addfile(info, io.BytesIO(PNG))
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def test_an_archive_of_each_tree(data):
    for tree in ("im", "seg"):
        make_zip(data / f"Outdoor-Gait/{tree}.zip", FILES)
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def test_an_archive_of_archives(data):
    for tree in ("im", "seg"):
        make_zip(data / f"{tree}.zip", FILES)
    with zipfile.ZipFile(data / "Outdoor-Gait.zip", "w") as file:
        for tree in ("im", "seg"):
            file.write(data / f"{tree}.zip", f"Outdoor-Gait/{tree}.zip")
            (data / f"{tree}.zip").unlink()
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE
    assert sorted(p.name for p in (data / "Outdoor-Gait").iterdir()) == ["im", "seg"]


@pytest.mark.parametrize("deeper", ["Outdoor-Gait/Outdoor-Gait", "Outdoor-Gait/x/y", "Outdoor-Gait/im"])
def test_folders_that_lie_deeper(data, deeper):
    for name in WHOLE:
        path = data / deeper / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    (data / "Outdoor-Gait/seg").symlink_to("nowhere") if deeper != "Outdoor-Gait/im" else None
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def test_hostile_names_are_not_written(data, tmp_path):
    names = [
        f"../../{WHOLE[0]}",
        f"/etc/{WHOLE[1]}",
        f"im/../{WHOLE[2]}",
        f"C:\\x\\{WHOLE[3]}",
        "im/001/../../../x.png",
    ]
    path = data / "Outdoor-Gait/bad.zip"
    make_zip(path, names)
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo(f"{WHOLE[0]}")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    before = set(tmp_path.parent.rglob("*"))
    settle(OUTDOOR, lambda _: None)
    assert set(tmp_path.parent.rglob("*")) == before


def test_what_cannot_be_unpacked_is_one_sentence(data):
    make_zip(data / "Outdoor-Gait/whole.zip", WHOLE)
    path = data / "Outdoor-Gait/whole.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be unpacked .* Fetch it again"):
        settle(OUTDOOR)
    path.rename(data / "Outdoor-Gait/whole.rar")
    with pytest.raises(DataError, match="whole.rar: cannot be unpacked here"):
        settle(OUTDOOR)


def test_more_than_the_disk_holds(data, monkeypatch):
    make_zip(data / "Outdoor-Gait/whole.zip", WHOLE)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**30}))
    with pytest.raises(DataError, match="make room"):
        settle(OUTDOOR, lambda _: None)
    assert not (data / "Outdoor-Gait/im").exists()


def test_links_to_a_wrong_folder_go_and_other_files_stay(data):
    home = data / "Outdoor-Gait"
    home.mkdir()
    (home / "im").mkdir()
    (home / "im/notes.txt").write_text("mine")
    for name in WHOLE:
        path = home / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    with pytest.raises(DataError, match="remove the one that you do not mean"):
        settle(OUTDOOR)
    assert (home / "im/notes.txt").read_text() == "mine"
