"""Kills: run a command, kill it at a random moment, run it again, until it has finished; compare; and anew.

    python -m tests.crash.kills train --kills 100
    python -m tests.crash.kills train --kills 100 --ctrl-c

What is killed is the command's process (half of the kills), it with all that it started (a quarter), or one of the
processes that it started (a quarter, where there are any). Ctrl-C goes to all of them, as a terminal sends it. The
command is a fork of this process, which has imported all it needs before: so moments are spent on the work, not on
imports. Prints how many kills there were, how many left a draft, how often the command finished and what went wrong;
the exit status is 1 where something did.
"""

import argparse
import importlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from caffe import program
from tests.crash.child import end_with, say_into
from tests.crash.longer import LONGER
from tests.crash.scenarios import SCENARIOS

KILLED = {name: one for name, one in {**SCENARIOS, **LONGER}.items() if name != "careless"}
NOISE = re.compile(r"Traceback|Exception ignored|KeyboardInterrupt")
DRAFTS = (".tmp", ".partial", ".part")  # in a name: what is not whole yet


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=KILLED)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="at least so many (default %(default)s)")
    parser.add_argument("--ctrl-c", action="store_true", help="interrupt it in place of a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=3600, help="kill no more after these (default %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as base:
        done = Kills(KILLED[args.command], Path(base).resolve(), random.Random(f"{args.command} {args.seed}"))
        done.stop = done.interrupt if args.ctrl_c else done.kill
        try:
            done.until(args.kills, args.seconds)
        except AssertionError:
            done.wrong.append(traceback.format_exc())
    for one in done.wrong:
        print(one)
    what = "interrupts" if args.ctrl_c else "kills"
    print(
        f"{args.command}: {done.kills} {what}, {done.half} of them left a draft, "
        f"{done.rounds} times to the end, {len(done.wrong)} wrong"
    )
    return 1 if done.wrong else 0


class Kills:
    """A command that is killed again and again in folders below `base`; what came of it so far."""

    def __init__(self, scenario, base, rng):
        self.scenario, self.base, self.rng = scenario, base, rng
        self.kills = self.half = self.rounds = 0
        self.wrong: list[str] = []
        for module in scenario.imports:
            importlib.import_module(module)
        self.whole = base / "whole"
        self.whole.mkdir()
        scenario.prepare(self.whole)
        shutil.copytree(self.whole, base / "start")
        shutil.copytree(self.whole, base / "warm")
        for folder in (base / "warm", self.whole):
            began = time.monotonic()
            job = Job(scenario, folder, base / "said")
            assert job.wait() == 0, f"undisturbed: {job.said()}"
            self.seconds = time.monotonic() - began

    def until(self, kills, seconds):
        """Rounds, each to the end of the command, until there were so many kills or so much time has passed."""
        end = time.monotonic() + seconds
        more = lambda: self.kills < kills and time.monotonic() < end  # noqa: E731
        while more():
            folder = self.base / f"round-{self.rounds}"
            shutil.copytree(self.base / "start", folder)
            jobs = []
            try:
                while (job := self.start(folder, more())) is not None:
                    jobs.append(job)
            finally:
                for job in jobs:
                    job.kill_all()
            self.rounds += 1
            shutil.rmtree(folder, ignore_errors=True)

    def start(self, folder, disturbed):
        """Start the command once, and kill it if it is to be disturbed; None: it finished."""
        job = Job(self.scenario, folder, self.base / "said")
        if disturbed:
            time.sleep(self.rng.uniform(0, self.seconds))
        if not disturbed or job.ended() or not self.stop(job):
            status = job.wait()
            assert status == 0, f"ended with {status} by itself: {job.said()}"
            os.chdir(folder)
            self.scenario.at_end(self.whole)
            return None
        self.kills += 1
        said = job.said()
        assert not NOISE.search(said), said
        self.half += any(mark in path.name for path in walk(folder) for mark in DRAFTS)
        os.chdir(folder)
        self.scenario.after_cut(self.whole, said)
        return job

    def kill(self, job):
        """Whether the job was there to be killed; it has ended then."""
        main, children = job.number, job.children()
        victim = self.rng.choice([main, main, -main, self.rng.choice(children) if children else main])
        if not job.kill(victim):
            return False
        status = job.wait()
        assert status in (-signal.SIGKILL, 0) or victim in children, f"{status}: {job.said()}"
        while getattr(self.scenario, "alone", False) and any(map(is_there, children)):
            time.sleep(0.01)
        return True

    def interrupt(self, job):
        if not job.kill(-job.number, signal.SIGINT):
            return False
        status = job.wait()
        assert status in (0, 130), f"{status}: {job.said()}"  # 0: it had done its work, or it is Caffe
        return True


class Job:
    """A scenario that runs in a process, and a process group, of its own; what it says goes to the file `log`."""

    def __init__(self, scenario, folder, log):
        self.log, self.status = log, None
        open(log, "w").close()  # also where the process is killed before it says anything
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until it can hear it
        self.number = os.fork()
        if not self.number:
            end_with(lambda: self._work(scenario, folder))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def _work(self, scenario, folder):
        os.setsid()
        say_into(self.log)
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started this process
        program.guard()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        try:
            return program.run(scenario.run)
        except SystemExit as e:
            return e.code if isinstance(e.code, int) else 1

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.number, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self):
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        return self.status

    def children(self):
        try:
            return [int(n) for n in Path(f"/proc/{self.number}/task/{self.number}/children").read_text().split()]
        except OSError:
            return []

    def kill(self, victim, number=signal.SIGKILL):
        """Whether the process, or the group whose number is negative, was there to be sent the signal."""
        try:
            os.kill(victim, number)
        except ProcessLookupError:
            return False
        return True

    def kill_all(self):
        self.kill(-self.number)

    def said(self):
        return self.log.read_text(errors="replace")


def is_there(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def walk(folder):
    for _, folders, files in os.walk(folder):
        yield from map(Path, (*folders, *files))


if __name__ == "__main__":
    sys.exit(main())
