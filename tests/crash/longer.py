"""The commands that are killed and not cut off from power: the four steps, two ranks, and those with workers.

Each has the form of those in tests/crash/scenarios.py."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from caffe import program
from tests.crash.scenarios import TREE, Pack, Train


class Step(Train):
    """One of the four published nets, an eighth as wide, on small batches, with a snapshot after every iteration."""

    imports = (*Train.imports, "layers", "tests.experiments.test_resume", "layers.frames", "cv2")
    last = 4

    def __init__(self, step):
        self.step = step

    def prepare(self, root):
        from caffe.text import message_to_text
        from tests.experiments.test_resume import small_solver
        from tests.layers.trees import write_walkers

        write_walkers(root / TREE, subjects=3, conditions=("nm-01", "nm-02"))
        param = small_solver(self.step, root / TREE, Path(), "BINARYPROTO")
        for layer in param.net_param.layer:
            for width in (layer.convolution_param, layer.inner_product_param):
                if width.num_output >= 16:
                    width.num_output //= 8
        param.snapshot_prefix, param.net, param.snapshot, param.random_seed = "run", "net.prototxt", 1, 5
        param.max_iter, param.display, param.solver_mode = self.last, 1, param.CPU
        (root / "net.prototxt").write_text(message_to_text(param.net_param))
        param.ClearField("net_param")
        (root / "solver.prototxt").write_text(message_to_text(param))


class Ranks(Train):
    """Two processes train one net, as `caffe train --gpu=0,1` starts and watches them; without GPUs."""

    imports = (*Train.imports, "torch.distributed", "caffe.parallel")
    alone = True  # who starts it again waits until the ranks have ended: while one trains, a second run is refused

    def run(self):
        from caffe import parallel

        with mock.patch.object(parallel, "subprocess", SimpleNamespace(Popen=partial(Rank, super().run))):
            return parallel.launch([0, 1], [])


class Rank:
    """One of them: a fork in place of a new Python, which would have to import everything."""

    def __init__(self, run, command, env, start_new_session):
        self.returncode = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            os.environ.update(env)
            import torch.distributed

            from caffe import parallel

            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            parallel.follow(os.getppid())
            program.guard()
            status = program.run(run)
            if torch.distributed.is_initialized():  # at the end of `caffe`, else gloo's threads abort it
                torch.distributed.destroy_process_group()
        finally:
            os._exit(status)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


class PackByTwo(Pack):
    """As Pack, as it is started: by two workers, and not a commit for every sequence."""

    def run(self):
        from tools import pack_frames

        words = ["walkers", "--im-path", f"{TREE}/crop-im", "--gt-path", f"{TREE}/crop-seg", "--out", os.getcwd()]
        return pack_frames.main([*words, "--jobs", "2"])


class Same:
    """What all files hold at the end is what they hold in `whole`, but for files of these names."""

    beside: tuple[str, ...] = ()

    def after_cut(self, whole, said):
        for path in files(Path()):
            assert (whole / path).read_bytes() == path.read_bytes(), f"{path} is not as it was written"

    def at_end(self, whole):
        found, wanted = set(files(Path())), set(files(whole))
        assert found == wanted, f"missing or too many: {sorted(found ^ wanted)}"
        self.after_cut(whole, "")


class Crop(Same):
    """tools/crop.py, three walks, by two processes."""

    imports = ("tools.crop", "tests.tools.test_crop")

    def prepare(self, root):
        from tests.tools.test_crop import write_folders

        for n in range(1, 4):
            write_folders(root / TREE, f"017/{n}")

    def run(self):
        from tools import crop

        words = ["szu", "--frames", f"{TREE}/frames", "--masks", f"{TREE}/masks", "--out", os.getcwd(), "--jobs", "2"]
        return crop.main(words)


class Render(Same):
    """tools/make_walkers.py as it is: six walks by two processes."""

    imports = ("tools.make_walkers",)

    def prepare(self, root):
        pass

    def run(self):
        from tools import make_walkers

        words = ["--subjects", "1", "--conditions", "nm-01", "bg-01", "--views", "000", "036", "090", "--out", "."]
        return make_walkers.main([*words, "--frames", "3", "--size", "32", "--jobs", "2"])


class Study:
    """tools/study.py, segmentation and recognition on two people; each result is made by a process of its own."""

    imports = ("tools.study",)

    def prepare(self, root):
        pass

    def run(self):
        from tools import study

        status = study.main(["--folder", os.getcwd(), "--quick", "--seeds", "1", "--people", "2", "--arms", "rec"])
        if status not in (0, program.STATUS):
            print(*(log.read_text()[-1000:] for log in Path().rglob("log.txt")), sep="\n")
        return status

    def after_cut(self, whole, said):
        for path in Path().rglob("result.json"):
            assert told(path) == told(whole / path), f"{path} came out otherwise"

    def at_end(self, whole):
        assert len(list(Path().rglob("result.json"))) == 2
        self.after_cut(whole, "")


def told(path):
    """A result of the study without what depends on time."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}


def files(root):
    """Paths of the files below `root` that are whole by their names, from there on."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name).relative_to(root)
            if not any(part.startswith(".") or ".tmp" in part for part in path.parts):
                yield path


LONGER = {
    "seg": Step("seg"),
    "rec": Step("rec"),
    "joint": Step("joint"),
    "sia": Step("sia"),
    "ranks": Ranks(),
    "pack-by-two": PackByTwo(),
    "crop": Crop(),
    "render": Render(),
    "study": Study(),
}
