#!/usr/bin/env python
"""What shell scripts ask of solver files: prints `FILE max_iter N`.

    python tools/solver_facts.py solver-*.prototxt

Needs no more than protobuf, so that the Python of a BVLC Caffe will do: experiments/train_steps.sh runs where the
bundled Caffe is not set up, too. Where our messages are too new for that protobuf, those of CAFFE_ROOT do.
"""

import argparse
import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="tools/solver_facts.py",
        description=__doc__.splitlines()[0],
        epilog="Example: tools/solver_facts.py experiments/casiab/solver-*.prototxt",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="solver prototxt")
    paths = parser.parse_args(argv).paths
    solver_type = load_message()
    from google.protobuf import text_format

    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            solver = text_format.Parse(text, solver_type())
        except (OSError, ValueError, text_format.ParseError) as e:
            print(f"error: {path}: {' '.join(str(e).split())}", file=sys.stderr)
            return 1
        if solver.max_iter < 1:
            print(f"error: {path}: has no max_iter, or one below 1", file=sys.stderr)
            return 1
        print(path, "max_iter", solver.max_iter)
    return 0


def load_message():
    """SolverParameter of caffe_pb2, by that file: the package around it may need a Caffe that is built."""
    root = os.environ.get("CAFFE_ROOT")
    files = [ROOT / "caffe/proto/caffe_pb2.py", *([Path(root) / "python/caffe/proto/caffe_pb2.py"] if root else [])]
    problems = []
    for file in files:
        try:
            return runpy.run_path(str(file))["SolverParameter"]
        except (ImportError, OSError, TypeError, AttributeError, RuntimeError) as e:  # no protobuf, or too old
            problems.append(f"{file}: {' '.join(str(e).split())}")
    sys.exit(f"error: {'; '.join(problems)}; name a Python that has protobuf: CAFFE_PYTHON=/path/to/python3")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it in silence
    sys.exit(main())
