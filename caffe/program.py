"""How a command of ours begins and ends, whatever the moment at which Ctrl-C comes: no traceback, exit status 130.

While a command imports what it needs, it ends at once (`guard`). Otherwise it ends as an exception, so that what is
half written goes (`run`); where nobody would hear of the exception, in a destructor for instance, at once again: what
is written whole survives a kill. In the background of a shell, where Ctrl-C is ignored, that stays so.

Imports nothing of this package, see `caffe.whole`.
"""

import contextlib
import functools
import io
import os
import signal
import sys

STATUS = 130  # as a shell shows an interrupted command
COMMANDS = {"caffe", "convert_imageset", "compute_image_mean", "extract_features", "classify", "parse_log"}
COMMANDS |= {"upgrade_net_proto_text", "upgrade_net_proto_binary", "upgrade_solver_proto_text"}


def guard(name: str = "__main__") -> None:
    """End at once from now on, where `name` is that of a program."""
    if name == "__main__" and not _ignored():
        signal.signal(signal.SIGINT, _end)


def run(main):
    """The exit status of main(), or 130 where it was interrupted. For programs: afterwards Ctrl-C ends at once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # a name that is not UTF-8 is written as it is
    if _ignored():
        return main()
    owner, before = os.getpid(), sys.unraisablehook
    told: list[bool] = []

    def interrupt(_, frame):
        if told or os.getpid() != owner or _importing(frame):  # pressed twice; or a worker that has not begun
            _end()
        told.append(True)
        raise KeyboardInterrupt

    def unheard(error):
        if error.exc_type and issubclass(error.exc_type, KeyboardInterrupt):
            _end()
        before(error)

    sys.unraisablehook = unheard
    signal.signal(signal.SIGINT, interrupt)
    status = 0
    try:
        status = main()
    except BaseException:
        if not told:
            raise
        print("stopped; nothing was left half-written", file=sys.stderr)
        status = STATUS
    finally:
        guard()
    return STATUS if told and status else status  # others made an error of it


def installed(main):
    """Decorator of an installed command's main(argv=None): where no argv is given it is the program."""

    @functools.wraps(main)
    def command(argv=None):
        return run(lambda: main(None)) if argv is None else main(argv)

    return command


@contextlib.contextmanager
def kept_from_children():
    """Processes started within do not hear Ctrl-C until they `listen`. If it comes meanwhile, it counts afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def listen():
    """From now on Ctrl-C is a KeyboardInterrupt in this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _ignored():
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def _importing(frame):
    """Whether a module is imported meanwhile: one in C makes of an exception what it likes, and prints it."""
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _end(*_):
    os._exit(STATUS)


# The package imports this module first: one of its commands, or `python -m` of a module that is being looked for.
_program = os.path.basename(sys.argv[0]).removesuffix(".exe") if getattr(sys, "argv", None) else ""
if _program == "-m" or _program in COMMANDS:
    guard()
