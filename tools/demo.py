#!/usr/bin/env python
"""Opens a page in the browser: choose a walk or drop a video, see masks, and who walks like that.

    tools/demo.py                                  after `sh train_net.sh`: its walkers, its weights
    tools/demo.py --people people.npz              compared with the people that tools/identify.py enrolled
    tools/demo.py --dataset casiab --port 8000 --no-browser

Without --people every other test person of the last evaluation is enrolled, and the rest are strangers, on whom the
distance is calibrated beyond which the answer is "unknown". The server listens on 127.0.0.1 alone, nothing leaves the
machine, and an uploaded video is deleted as soon as it has been looked at.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

import argparse
import signal
import socket
import threading
import webbrowser
from pathlib import Path

import numpy as np

from eval import provenance
from eval.cli import weights_file
from eval.deploy import open_net
from eval.ending import fail
from eval.features import read_cache
from eval.people import People
from eval.weights import read_weights
from layers.datasets import DATASETS, MIN_FRAMES, data_root
from layers.frames import PLANES, DataError
from layers.sources import open_frames
from tools.identify import cut_out, whole_walk
from tools.web.look import look, people_of, planes_of


def main(argv=None) -> int:
    args = parse_args(argv)
    try:
        import uvicorn

        from tools.web.app import make_app
    except ImportError as e:
        return fail(f"the demo needs the package {e.name}: .venv/bin/python -m pip install starlette uvicorn")
    try:
        desk = Desk(args)
        listening = socket.create_server(("127.0.0.1", args.port))
    except OSError as e:
        return fail(f"port {args.port}: {e.strerror}; choose another by --port" if not e.filename else str(e))
    except (DataError, ValueError) as e:
        return fail(str(e))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    print(f"{url}   (Ctrl-C stops)", flush=True)
    if not args.no_browser:
        threading.Timer(0.5, webbrowser.open, [url]).start()
    app = make_app(desk)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    signal.signal(signal.SIGINT, lambda *_: setattr(server, "should_exit", True))
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn hands the signal on when it has stopped
        pass
    app.state.jobs.close()
    return 0


class Desk:
    """Answers what the page asks for: walks of one data set, and videos."""

    expected = (DataError, ValueError, OSError)

    def __init__(self, args):
        dataset = DATASETS[args.dataset]
        folder = Path(args.data) if args.data else data_root() / dataset.folder
        if not (folder / dataset.im_dir).is_dir():
            raise ValueError(f"{folder / dataset.im_dir}: no such folder; get {dataset.title}, or say --data")
        weights = weights_file(args.weights, dataset.name)
        digest = read_weights(weights).sha256
        self._frames = open_frames(folder / dataset.im_dir)
        if args.people:
            self._people = People.read(args.people)
            if self._people.weights_sha256 != digest:
                raise ValueError(f"{args.people}: made with other weights than {weights}; say the right --weights")
            if not len(self._people.names) or self._people.calibration is None:
                raise ValueError(f"{args.people}: nobody is enrolled, or it is not calibrated; see tools/identify.py")
        else:
            self._people = people_of(last_features(args.features, dataset, weights, digest), digest)
        self.title = dataset.title
        self.enrolled = sorted(set(self._people.names.tolist()))
        self._walks = [walk.path for walk in dataset.sequences(self._frames, dataset.subjects(self._frames))]
        self._net = open_net(weights, args.gpu)

    def walks(self):
        """{person: paths of walks}, the people that were evaluated last first."""
        found: dict[str, list] = {}
        for path in sorted(self._walks):
            found.setdefault(path.split("/")[0], []).append(path)
        return dict(sorted(found.items(), reverse=True))

    def look_at(self, path, progress):
        progress(0.02, "reading the frames")
        length = self._frames.length(path)
        require_long(path, length)
        planes = self._frames.read(path, 0, np.empty((length, *PLANES), np.uint8))
        return {"walk": path, **look(self._net, self._people, planes, progress)}

    def look_at_video(self, file, crop, progress):
        progress(0.02, "reading the video")
        frames = whole_walk(file)
        if crop:
            progress(0.06, "cutting out the person")
            total, frames = len(frames), cut_out(frames, file)
            if not frames:
                raise ValueError(f"{file}: no whole person was found in {total} frames; the camera has to stand still")
        require_long(file, len(frames))
        return {"walk": "your video", **look(self._net, self._people, planes_of(frames), progress)}


def last_features(folder, dataset, weights, digest):
    """Features of test people that an evaluation of these weights has left."""
    for cache in sorted(Path(folder).glob(f"{dataset.name}-tr*-test-*.npz")):
        features, _, key = read_cache(cache)
        if key.get("weights_sha256") == digest:
            return features
    raise ValueError(
        f"{folder}: no features of {weights}; run eval/eval-{dataset.name}.py --weights {weights}, or say --people"
    )


def require_long(path, length):
    if length < MIN_FRAMES:
        raise ValueError(f"{path}: {length} frames; wanted {MIN_FRAMES} or more")


def parse_args(argv):
    parser = argparse.ArgumentParser(
        prog="tools/demo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=DATASETS, default="walkers", help="whose walks (default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="its folder (default: where data/README.md puts it)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="trained net (default: as evaluation)")
    parser.add_argument("--people", type=Path, metavar="FILE", help="people enrolled by tools/identify.py")
    parser.add_argument(
        "--features",
        default=provenance.ROOT / "eval" / "feat",
        metavar="DIR",
        help="where evaluation keeps its features (default: eval/feat)",
    )
    parser.add_argument("--gpu", type=int, metavar="N", help="run the net on this GPU (default: CPU)")
    parser.add_argument("--port", type=port, default=0, help="to listen on (default: one that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    return parser.parse_args(argv)


def port(text):
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(program.run(main))
