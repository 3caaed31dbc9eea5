#!/usr/bin/env python3
"""What is each of the four steps worth? Trains them, their controls and rivals on walkers, and compares.

    python tools/study.py                             # 5 seeds, 100 people: hours on a CPU; into results/study
    python tools/study.py --folder F --status         # what is finished so far; trains nothing
    python tools/study.py --folder F --publish        # put that into docs/STUDY.md
    python tools/study.py --folder /tmp/quick --quick # every arm on a few people, in minutes

A result is one way of training (an arm) from one seed, which draws the people who train, the weights that training
starts with and the order of clips. All arms of all seeds are scored on the same people, whom none was trained on.
As many seeds as there are cores are worked on at a time, with one thread each; on a GPU one after the other.
Killed at any time, the same command goes on: finished results stay, training goes on from its last snapshot.
docs/STUDY.md tells of arms, figures and what came out.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from layers.bundled import program

program.guard(__name__)

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

import argparse
import multiprocessing.connection
import multiprocessing.resource_tracker
import re
import shlex
import time

from caffe.process import LARGE_PAGES
from eval.tables import write_text
from tools.ablation import folder, nets, people, picture, unit
from tools.ablation.plan import ARMS, PEOPLE, QUICK, QUICK_SEEDS, SEEDS, Size
from tools.ablation.report import Report, clock
from tools.one_run import only_run

TABLE, PICTURE = "table.md", "study.png"
BEGIN, END = "<!-- what tools/study.py --publish writes -->", "<!-- to here -->"
USUAL_RATE = 0.2e12  # FLOP/s of two quiet cores, a training on each


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    try:
        if args.status or args.publish:
            print(publish(args.folder) if args.publish else status(args.folder))
            return 0
        with only_run(args.folder):
            return study(args, shlex.join(["tools/study.py", *argv]))
    except (folder.FolderError, OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "results" / "study", help="default: results/study")
    parser.add_argument(
        "--seeds", type=number, metavar="N", help=f"1 to this one (default: {SEEDS}, quick: {QUICK_SEEDS})"
    )
    parser.add_argument(
        "--people", type=number, metavar="N", help=f"who are scored (default: {PEOPLE}, quick: {QUICK.people})"
    )
    parser.add_argument("--arms", nargs="+", metavar="A", help=f"only these: {' '.join(ARMS)}")
    parser.add_argument("--validation", action="store_true", help="score and train others, to choose settings by")
    parser.add_argument("--gpu", type=int, metavar="N", help="compute on this GPU (default: CPU)")
    parser.add_argument("--quick", action="store_true", help="a few iterations on a few people: does it all work?")
    parser.add_argument("--status", action="store_true", help="only tell what is finished in the folder")
    parser.add_argument("--publish", action="store_true", help="put what is finished into docs/STUDY.md")
    args = parser.parse_args(argv)
    if args.people == 1:
        parser.error("argument --people: one is nobody to be taken for; take 2 or more")
    for arm in args.arms or ():
        if arm not in ARMS:
            parser.error(f"argument --arms: there is no {arm!r} (known: {' '.join(ARMS)})")
    args.seeds = args.seeds or (QUICK_SEEDS if args.quick else SEEDS)
    args.folder = args.folder.resolve()
    return args


def number(text):
    if not text.isdecimal() or not 1 <= int(text) <= 900:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 900")
    return int(text)


def study(args, command):
    size = QUICK if args.quick else Size()
    if args.people:
        size = Size(**vars(size) | {"people": args.people})
    wanted = folder.identity(size, args.validation, args.gpu)
    folder.claim(args.folder, wanted, command)
    if wanted["commit"].endswith("+changes"):
        print("warning: this code has changes that are not committed; the study says so", file=sys.stderr)
    arms = with_parents(args.arms or ARMS)
    units = [
        unit.Unit(args.folder, arm, seed, size, args.validation, args.gpu)
        for seed in range(1, args.seeds + 1)
        for arm in arms
    ]
    print(plan(units, size), file=sys.stderr)
    jobs = 1
    if args.gpu is None:  # one thread each: as many at a time, and the same digits on every number of cores
        os.environ["OMP_NUM_THREADS"] = "1"
        jobs = os.cpu_count() or 1
    if failed := work(units, jobs, lambda: write_text(args.folder / TABLE, status(args.folder))):
        return failed
    picture.write(args.folder / PICTURE, folder.results(args.folder))
    print(status(args.folder))
    print(f"\ntable      {args.folder / TABLE}\npicture    {args.folder / PICTURE}")
    return 0


def with_parents(arms):
    """These arms and those that they need, in the order of work."""
    needed = set(arms)
    for arm in reversed(ARMS):
        if arm in needed:
            needed |= {ARMS[arm].after, ARMS[arm].masks}
    return [arm for arm in ARMS if arm in needed]


def work(units, jobs, finished):
    """Make the results that are missing, up to `jobs` seeds at a time; the exit status that ends the study, or 0."""
    waiting: dict = {}  # seed -> its results, in the order of work
    for one in units:
        if one.result() is None:
            waiting.setdefault(one.seed, []).append(one)
    if waiting:
        people.planes(units[0].root / unit.PLANES, units[0].people_seed, units[0].size)  # which all of them share
    running: dict = {}  # what tells that a process has ended -> the process and its result
    failed = 0
    while running or (waiting and not failed):
        under_way = {one.seed for _, one in running.values()}
        free = [seed for seed in sorted(waiting) if seed not in under_way]
        for seed in free[: 0 if failed else jobs - len(running)]:
            one = waiting[seed].pop(0)
            if not waiting[seed]:
                del waiting[seed]
            print(f"{time.strftime('%H:%M:%S')} seed {seed}: {one.arm}", file=sys.stderr, flush=True)
            child = start(one)
            running[child.sentinel] = child, one
        try:
            ended = multiprocessing.connection.wait(running)
        except KeyboardInterrupt:  # each of them was told too, and writes a snapshot
            failed = unit.STOPPED
            continue
        for child, one in [running.pop(sentinel) for sentinel in ended]:
            child.join()
            failed = failed or verdict(one, child.exitcode)
        if not failed:
            finished()
    if failed == unit.STOPPED:
        print("stopped; the same command goes on from here", file=sys.stderr)
    return failed


def start(one):
    """The process that makes one result."""
    # A server that has imported everything already starts each process, which so begins with no threads.
    os.environ.setdefault(*next(iter(LARGE_PAGES.items())))
    os.environ["PYTHONPATH"] = str(ROOT)  # for the server: this code, whatever else is installed
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.ablation.unit", "caffe.solver"])
    child = context.Process(target=unit.run, args=(one,))
    multiprocessing.resource_tracker.ensure_running()  # else the server starts it, and hears Ctrl-C from then on
    with program.kept_from_children():
        child.start()
    return child


def verdict(one, status):
    """The exit status that a process's end means for the study; 0: go on."""
    if status in (0, unit.STOPPED):
        return status
    log = one.folder / unit.LOG
    last = (log.read_text(errors="replace").strip() or "it wrote nothing").splitlines()[-1]
    told = f"ended with status {status}: {last.removeprefix('error: ')}"
    print(f"error: seed {one.seed}, {one.arm} {told}; see {log}", file=sys.stderr)
    return 1


def plan(units, size):
    done = sum(one.result() is not None for one in units)
    arms = list(dict.fromkeys(one.arm for one in units))
    trained = 0
    for arm in arms:
        net, spec = nets.training(arm, size)
        trained += spec.max_iter * nets.iteration_flop(net) * len(units) // len(arms)
    return (
        f"{len(units)} results, {done} of them there; all training takes {trained / 1e12:.0f} TFLOP, "
        f"{clock(trained / USUAL_RATE)} at {USUAL_RATE / 1e9:.0f} GFLOP/s"
    )


def status(where):
    """The table of what is finished, and what it was made by."""
    made, results = folder.manifest(where), folder.results(where)
    per_seed: dict = {}
    for arm, seeds in results.items():
        for seed in seeds:
            per_seed.setdefault(seed, []).append(arm)
    whole = sorted(seed for seed, arms in per_seed.items() if len(arms) == len(ARMS))
    lines = [
        f"Commit {made.get('commit')}, `{made.get('command')}`, {made.get('people')} people.",
        f"Seeds with all {len(ARMS)} arms finished: {len(whole)}.",
    ]
    lines += [f"Seed {seed} so far: {' '.join(arms)}." for seed, arms in sorted(per_seed.items()) if seed not in whole]
    lines += under_way(where, results)
    return Report(results).text("\n".join(lines)) + "\n"


def publish(where):
    """Write table and picture into the page that tells of the study."""
    page, found = ROOT / "docs" / "STUDY.md", folder.results(where)
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: has no {BEGIN} ... {END}, between which the table belongs")
    shown = picture.write(ROOT / "docs" / "img" / PICTURE, found)
    image = f"\n![rank-1 of every arm, and paired differences](img/{PICTURE})\n" if shown else ""
    write_text(page, f"{before}{BEGIN}\n\n{status(where)}{image}\n{END}{after}")
    return page


def under_way(where, results):
    """A line about each result that was begun."""
    for log in sorted(Path(where).glob(f"seed-*/*/{unit.LOG}")):
        seed, arm = int(log.parent.parent.name.removeprefix("seed-")), log.parent.name
        if seed not in results.get(arm, {}):
            iterations = re.findall(r"\] Iteration (\d+)", log.read_text(errors="replace"))
            yield f"Seed {seed}, {arm}: begun" + (f", iteration {iterations[-1]}." if iterations else ".")


if __name__ == "__main__":
    sys.exit(program.run(main))
