"""tools/demo.py: its server by requests, its page by clicking through it in Chromium (where that is installed)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.features import Features, write_cache
from layers.digest import sha256

pytestmark = pytest.mark.medium
ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def desk(tmp_path_factory, weights):
    """Walkers of four people, weights that are drawn, features that an evaluation could have left, and a video."""
    folder = tmp_path_factory.mktemp("demo")
    words = "--subjects 4 --frames 12 --conditions nm-01 nm-05 --views 000 090 --jobs 1".split()
    command = [sys.executable, ROOT / "tools/make_walkers.py", *words, "--out", folder / "Walkers"]
    subprocess.run(command, check=True, timeout=100)  # a process of its own: it forks, which threads here would block
    shutil.copy(weights, folder / "w.caffemodel")
    labels = np.repeat(np.arange(4), 4)
    rng = np.random.default_rng(1)
    names = np.array([f"{k + 1:03d}/{c}/{v}" for k in range(4) for c in ("nm-01", "nm-05") for v in ("000", "090")])
    roles = np.tile(["gallery", "gallery", "probe", "probe"], 4)
    vectors = rng.normal(size=(4, 256))[labels] + 0.1 * rng.normal(size=(16, 256))
    features = Features(vectors.astype(np.float32), labels, np.tile([0, 1], 8), roles, np.full(16, ""), names)
    write_cache(
        folder / "feat/walkers-tr2-test-0.npz", features, {"weights_sha256": sha256(folder / "w.caffemodel")}, {}
    )
    video = cv2.VideoWriter(str(folder / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for name in sorted((folder / "Walkers/crop-im/001/nm-01/090").iterdir()):
        video.write(cv2.imread(str(name)))
    video.release()
    return folder


@pytest.fixture(scope="module")
def address(desk):
    words = [ROOT / "tools/demo.py", "--data", desk / "Walkers", "--weights", desk / "w.caffemodel"]
    words += ["--features", desk / "feat", "--no-browser"]
    with subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().split()[0]
        yield url
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def ask(address, path, body=None, **headers):
    """(status, answer) of a request; POST where there is a body."""
    request = urllib.request.Request(address + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as e:
        text = e.read()
        return e.code, json.loads(text) if text.startswith(b"{") else text.decode()


def finished(address, job):
    for _ in range(600):
        _, state = ask(address, f"api/jobs/{job}")
        if state["state"] in ("done", "failed"):
            return state
        time.sleep(0.1)
    raise AssertionError("no answer within a minute")


def test_a_walk_of_the_data_set(address):
    status, walks = ask(address, "api/walks")
    assert status == 200 and list(walks) == ["004", "003", "002", "001"] and walks["001"][1] == "001/nm-01/090"
    status, started = ask(address, "api/walks/001/nm-01/090", b"")
    assert status == 200
    state = finished(address, started["job"])
    assert state["state"] == "done", state
    result = state["result"]
    assert result["frames"] == 12 and len(result["overlays"]) == len(result["pictures"]) == 12
    assert [row["name"] for row in result["ranking"]] in (["person 001", "person 003"], ["person 003", "person 001"])
    nearest = result["ranking"][0]
    assert result["answer"] == (nearest["name"] if nearest["distance"] <= result["threshold"] else "unknown")
    assert all(picture.startswith("data:image/png;base64,") for picture in result["pictures"])


def test_a_video(desk, address):
    content = (desk / "walk.avi").read_bytes()
    _, started = ask(address, "api/upload?name=walk.avi&crop=0", content)
    state = finished(address, started["job"])
    assert state["state"] == "done" and state["result"]["frames"] == 12, state
    assert not list(Path(tempfile.gettempdir()).glob("gaitnet-*.avi"))  # it is gone when it was looked at


@pytest.mark.parametrize(
    "path, body, headers, status, words",
    [
        ("api/walks/999/nm-01/090", b"", {}, 404, "there is no such walk"),
        ("api/walks/../../etc/passwd", b"", {}, 404, "there is no such walk"),
        ("api/upload?name=notes.txt", b"x", {}, 415, "notes.txt: wanted a video"),
        ("api/upload?name=walk.avi", b"", {}, 400, "the file is empty"),
        ("api/upload?name=walk.avi", b"x", {"Origin": "http://elsewhere.example"}, 403, "only the page of this server"),
        ("api/about", None, {"Host": "elsewhere.example"}, 400, "Invalid host"),
        ("api/jobs/99999", None, {}, 404, "not known any more"),
    ],
)
def test_what_is_refused(address, path, body, headers, status, words):
    found, answer = ask(address, path, body, **headers)
    assert found == status and words in (answer if isinstance(answer, str) else answer["error"])


def test_what_is_no_video_is_a_sentence(address):
    _, started = ask(address, "api/upload?name=holiday.avi", b"no video at all" * 100)
    state = finished(address, started["job"])
    assert state["state"] == "failed" and state["error"].startswith("holiday.avi: ")


def test_too_large(monkeypatch):
    """The bound holds for what really comes, whatever the request says."""
    import asyncio

    from tools.web import app

    monkeypatch.setattr(app, "MOST_BYTES", 10)

    class Request:
        async def stream(self):
            for _ in range(3):
                yield b"12345"

    before = set(Path(tempfile.gettempdir()).glob("gaitnet-*"))
    with pytest.raises(app.Refused, match="larger than"):
        asyncio.run(app.save(Request(), ".avi"))
    assert set(Path(tempfile.gettempdir()).glob("gaitnet-*")) == before


@pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("chromedriver"), reason="needs Chromium")
def test_clicking_through(desk, address, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    ui = pytest.importorskip("selenium.webdriver.support.ui")
    options = webdriver.ChromeOptions()
    for word in ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1400"):
        options.add_argument(word)
    environment = dict(os.environ, TMPDIR=str(tmp_path))  # it leaves something there
    service = webdriver.ChromeService(shutil.which("chromedriver"), env=environment)
    with webdriver.Chrome(options, service) as browser:
        wait = ui.WebDriverWait(browser, 60)
        find = lambda name: browser.find_element("id", name)  # noqa: E731
        browser.get(address)
        wait.until(lambda _: find("walk").text)
        ui.Select(find("person")).select_by_value("001")
        ui.Select(find("walk")).select_by_value("001/nm-05/090")
        find("go").click()
        wait.until(lambda _: find("result").is_displayed())
        assert re.match(r"This is person 00[13]\.|Unknown", find("answer").text)
        assert "001/nm-05/090, 12 frames" in find("meaning").text
        assert len(browser.find_elements("css selector", "#strip img")) == 12
        assert len(browser.find_elements("css selector", "#ranking tr")) == 2
        browser.save_screenshot(str(desk / "page.png"))
        find("crop").click()
        find("file").send_keys(str(desk / "walk.avi"))
        wait.until(lambda _: find("result").is_displayed() and "your video" in find("meaning").text)
        (desk / "short.mp4").write_bytes(b"nothing")
        find("file").send_keys(str(desk / "short.mp4"))
        wait.until(lambda _: find("failed").is_displayed())
        assert find("error").text.startswith("short.mp4: ")
        assert not [e for e in browser.get_log("browser") if e["level"] == "SEVERE" and "favicon" not in e["message"]]


@pytest.mark.parametrize(
    "words, told",
    [
        (["--data", "{desk}"], "crop-im: no such folder"),
        (["--features", "{desk}"], "no features of"),
        (["--people", "{desk}/w.caffemodel"], "not a file of enrolled people"),
    ],
)
def test_what_is_missing_is_a_sentence(desk, words, told):
    usual = ["--data", "{desk}/Walkers", "--weights", "{desk}/w.caffemodel", "--features", "{desk}/feat"]
    words = [word.format(desk=desk) for word in [*usual, *words]]  # the later of two counts
    command = [sys.executable, str(ROOT / "tools/demo.py"), "--no-browser", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and told in done.stderr
