"""From a download to the tree of a data set: zipped, in several pieces, one level too deep, hostile."""

import io
import os
import stat
import tarfile
import threading
import zipfile

import cv2
import numpy as np
import pytest

from caffe.locks import hold
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


def shown(folder):
    """What a folder holds, without archives and what is hidden."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".zip" and p.name[0] != ".")


WHOLE = [f"{tree}/{name}" for tree in ("im", "seg") for name in FILES]


@pytest.mark.parametrize("above", ["", "Outdoor-Gait/", "release/Outdoor-Gait/"])
@pytest.mark.parametrize("place", ["Outdoor-Gait/download.zip", "OutdoorGait-20200101T000000Z-001.zip"])
def test_one_archive(data, above, place):
    make_zip(data / place, [f"{above}{name}" for name in [*WHOLE, "README.txt"]] + ["__MACOSX/im/001/a/._1.png"])
    said = []
    settle(OUTDOOR, said.append)
    assert found(data) == WHOLE and (data / place).exists()
    assert f"unpacking {len(WHOLE)} files" in said[0]
    assert shown(data / "Outdoor-Gait") == ["im", "seg"]
    said.clear()
    settle(OUTDOOR, said.append)
    assert not said  # nothing to do


@pytest.mark.parametrize("suffix, mode", [("tar.gz", "w:gz"), ("tar.xz", "w:xz"), ("TBZ2", "w:bz2")])
def test_several_archives_and_a_tar(data, suffix, mode):
    half = len(WHOLE) // 2 - 1
    make_zip(data / "Outdoor-Gait/a-001.zip", WHOLE[:half])
    with tarfile.open(data / f"Outdoor-Gait/a-002.{suffix}", mode) as file:
        for name in WHOLE[half:]:
            info = tarfile.TarInfo(f"./Outdoor-Gait/{name}")
            info.size = len(PNG)
            file.addfile(info, io.BytesIO(PNG))
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def test_names_of_trees_in_upper_case(data):
    upper = {"im": "IM", "seg": "Seg"}
    names = [name.replace(tree, upper[tree], 1) for tree in upper for name in WHOLE if name.startswith(tree)]
    make_zip(data / "Outdoor-Gait/made-on-windows.zip", [f"OutdoorGait\\{name}".replace("/", "\\") for name in names])
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE
    for tree, name in upper.items():
        (data / "Outdoor-Gait" / tree).rename(data / "Outdoor-Gait" / name)
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_tar_that_is_cut_off_is_one_sentence(data, share):
    file = data / "Outdoor-Gait/all.tar.xz"
    file.parent.mkdir()
    with tarfile.open(file, "w:xz") as out:
        for name in WHOLE:
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            out.addfile(info, io.BytesIO(PNG))
    os.truncate(file, int(share * file.stat().st_size))
    with pytest.raises(DataError, match="all.tar.xz: cannot be unpacked .* is the download complete"):
        settle(OUTDOOR, lambda _: None)


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
    assert shown(data / "Outdoor-Gait") == ["im", "seg"]


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
    path.write_text("<!DOCTYPE html><html>Google Drive: too many users have viewed this file</html>")
    with pytest.raises(
        DataError, match=r"whole.zip: cannot be unpacked \(it is a web page\); is the download complete"
    ):
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


def one_archive_a_person(data, inner):
    """im/001.zip, im/002.zip, seg/001.zip, ...; `inner`: what stands in them above the walks."""
    for tree in ("im", "seg"):
        for person in ("001", "002"):
            names = [inner.format(tree=tree, id=person) + name.split("/", 1)[1] for name in FILES if name[:3] == person]
            make_zip(data / f"Outdoor-Gait/{tree}/{person}.zip", names)


@pytest.mark.parametrize("inner", ["", "{id}/", "{tree}/{id}/", "Outdoor-Gait/{tree}/{id}/"])
def test_an_archive_of_each_person(data, inner):
    one_archive_a_person(data, inner)
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


@pytest.mark.parametrize("deeper", ["Outdoor-Gait", "x/Outdoor-Gait"])
def test_an_archive_of_each_person_one_level_deeper(data, deeper):
    one_archive_a_person(data, "{id}/")
    place = data / "Outdoor-Gait" / deeper
    place.mkdir(parents=True)
    for tree in ("im", "seg"):
        (data / "Outdoor-Gait" / tree).rename(place / tree)
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def test_an_archive_of_the_archives_of_each_person(data):
    one_archive_a_person(data, "{id}/")
    with zipfile.ZipFile(data / "Outdoor-Gait.zip", "w") as file:
        for tree in ("im", "seg"):  # of the same names in both
            for person in ("001", "002"):
                path = data / f"Outdoor-Gait/{tree}/{person}.zip"
                file.write(path, f"Outdoor-Gait/{tree}/{person}.zip")
                path.unlink()
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def zipped(files):
    """The bytes of an archive of {name: bytes}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return out.getvalue()


def test_a_download_of_the_archive_of_a_tree_of_the_archives_of_each_person(data):
    for k, tree in enumerate(("im", "seg"), 1):
        people = {
            f"{tree}/{person}.zip": zipped({name: PNG for name in FILES if name.startswith(person)})
            for person in ("001", "002")
        }
        download = data / f"Outdoor-Gait-20200101T000000Z-00{k}.zip"
        download.write_bytes(zipped({f"Outdoor-Gait/{tree}.zip": zipped(people)}))
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE
    assert shown(data / "Outdoor-Gait") == ["im", "seg"] and not (data / "Outdoor-Gait/.unpacking").exists()


def test_a_broken_archive_in_another_is_named_with_it(data):
    (data / "Outdoor-Gait.zip").write_bytes(zipped({"im.zip": zipped({"im/001.zip": b"PK no more"})}))
    with pytest.raises(DataError, match=r"Outdoor-Gait\.zip: im\.zip: im/001\.zip: cannot be unpacked"):
        settle(OUTDOOR, lambda _: None)


def test_two_at_once_wait_for_each_other(data):
    """The second would take the first's staging folder away."""
    make_zip(data / "Outdoor-Gait.zip", WHOLE)
    waiting, said = threading.Event(), []

    def tell(sentence):
        said.append(sentence)
        waiting.set()

    second = threading.Thread(target=settle, args=(OUTDOOR, tell))
    with hold(data / ".Outdoor-Gait.lock"):
        second.start()
        assert waiting.wait(30) and f"process {os.getpid()} is unpacking there" in said[0]
        assert not (data / "Outdoor-Gait").exists()
    second.join(30)
    assert found(data) == WHOLE and not (data / ".Outdoor-Gait.lock").exists()


def test_an_archive_of_each_walk(data):
    for tree in ("im", "seg"):
        for walk in WALKS:
            make_zip(data / f"Outdoor-Gait/{tree}/{walk}.zip", ["01.png", "02.png"])
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def test_a_number_of_people_in_an_archive_of_another_name(data):
    for tree in ("im", "seg"):
        make_zip(data / f"Outdoor-Gait/{tree}/part-1.zip", FILES)
        make_zip(data / f"Outdoor-Gait/{tree}/extra.zip", ["003_scene1_nm_L_090_1/01.png"])  # nobody's id
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE
    assert sorted(p.name for p in (data / "Outdoor-Gait/im").iterdir() if p.is_dir()) == ["001", "002"]


def test_a_part_that_arrives_later(data):
    """Of other people, and of people who are there: each file, but none that was taken out meanwhile."""
    make_zip(data / "Outdoor-Gait/part-1.zip", [n for n in WHOLE if "/001/" in n])
    settle(OUTDOOR, lambda _: None)
    (data / "Outdoor-Gait/im" / FILES[0]).unlink()  # a bad frame
    make_zip(data / "Outdoor-Gait/part-2.zip", [n for n in WHOLE if "/002/" in n] + [f"im/{WALKS[0]}/03.png"])
    said = []
    settle(OUTDOOR, said.append)
    assert "part-2.zip: unpacking" in said[0] and not any("part-1" in sentence for sentence in said)
    assert (data / "Outdoor-Gait/im" / WALKS[0] / "03.png").exists()
    assert not (data / "Outdoor-Gait/im" / FILES[0]).exists()
    (data / "Outdoor-Gait/im" / FILES[0]).write_bytes(PNG)
    assert found(data) == WHOLE
    said.clear()
    settle(OUTDOOR, said.append)
    assert not said


def test_a_part_that_arrives_after_somebody_unpacked_the_first(data):
    for name in WHOLE:
        path = data / "Outdoor-Gait" / name
        if "/001/" in name and name != WHOLE[0]:  # which somebody took out
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PNG)
    make_zip(data / "Outdoor-Gait/all.zip", WHOLE)
    settle(OUTDOOR, lambda _: None)
    assert not (data / "Outdoor-Gait" / WHOLE[0]).exists()
    (data / "Outdoor-Gait" / WHOLE[0]).write_bytes(PNG)
    assert found(data) == WHOLE


def test_a_broken_part_does_not_stand_in_the_way_of_what_is_there(data):
    make_zip(data / "Outdoor-Gait/part-1.zip", [n for n in WHOLE if "/001/" in n])
    settle(OUTDOOR, lambda _: None)
    path = data / "Outdoor-Gait/part-2.zip"
    make_zip(path, [n for n in WHOLE if "/002/" in n])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    said = []
    settle(OUTDOOR, said.append)
    assert len(said) == 1 and said[0].startswith(f"warning: {path}: cannot be unpacked")
    path.write_bytes(whole)
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE


def write_deeper(data, place, person):
    for name in WHOLE:
        if f"/{person}/" in name:
            path = data / "Outdoor-Gait" / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PNG)


@pytest.mark.parametrize("at_once", [True, False])
def test_two_folders_that_lie_deeper(data, at_once):
    """DatasetB-1/crop-im and DatasetB-2/crop-im, together or one after the other."""
    write_deeper(data, "part-1", "001")
    if not at_once:
        settle(OUTDOOR, lambda _: None)
    write_deeper(data, "2/part-2", "002")
    settle(OUTDOOR, lambda _: None)
    assert found(data) == WHOLE
    said = []
    settle(OUTDOOR, said.append)
    assert not said
    assert (data / "Outdoor-Gait/part-1/im" / FILES[0]).exists()


def test_two_folders_that_hold_the_same_person(data):
    write_deeper(data, "a", "001")
    write_deeper(data, "b", "001")
    with pytest.raises(DataError, match="both hold 001; remove the one you do not mean"):
        settle(OUTDOOR)


def test_people_beside_a_tree_are_told_of(data):
    write_deeper(data, ".", "001")
    write_deeper(data, "part-2", "002")
    said = []
    settle(OUTDOOR, said.append)
    assert len(said) == 2 and "part-2/im: has 1 people that" in said[0] and "lacks (002); move them there" in said[0]


def test_an_archive_that_has_nothing_for_the_trees_is_told_of(data):
    make_zip(data / "CASIA-B/DatasetB-1.zip", ["DatasetB-1/video/001-nm-01-090.avi"])
    make_zip(data / "CASIA-B/other.zip", ["readme/x.png"])
    said = []
    settle(DATASETS["casiab"], said.append)
    assert "DatasetB-1.zip: holds videos" in said[0] and "tools/crop.py casiab --help" in said[0]
    assert "holds no pictures crop-im or crop-seg/<subject>/<condition>/<view>/, but readme/x.png" in said[1]


def test_trees_named_with_underscores(data):
    """crop_im and crop_seg, as CASIA-B* is handed around: in archives, and as a folder that has a later part."""
    casiab, first, second = DATASETS["casiab"], "001/nm-01/090/01.png", "002/nm-01/090/01.png"
    make_zip(data / "CASIA-B/a.zip", [f"casiab/{tree}/{first}" for tree in ("crop_im", "crop_seg")])
    settle(casiab, lambda _: None)
    assert (data / "CASIA-B/crop-im" / first).exists() and (data / "CASIA-B/crop-seg" / first).exists()
    for tree in ("im", "seg"):
        (data / f"CASIA-B/crop-{tree}").rename(data / f"CASIA-B/crop_{tree}")
    make_zip(data / "CASIA-B/b.zip", [f"{tree}/{second}" for tree in ("crop_im", "crop_seg")])
    settle(casiab, lambda _: None)
    assert (data / "CASIA-B/crop_im" / second).exists() and (data / "CASIA-B/crop_seg" / second).exists()
    assert shown(data / "CASIA-B") == ["crop_im", "crop_seg"]
