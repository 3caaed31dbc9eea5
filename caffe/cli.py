"""The command `caffe train|test|time|device_query`, with the flags, log lines and exit codes of Caffe's tool."""

import shlex
import sys
import traceback

import caffe
from caffe import flags, machine, program
from caffe import glog as log
from caffe.commands import COMMANDS
from caffe.errors import CaffeError, PythonLayerError
from caffe.process import end_in_time, on_large_pages
from caffe.python_layer import allow_python_modules
from caffe.user_layer import load_layers

FATAL_EXIT = 134  # Caffe aborts; a shell shows that as 128 + SIGABRT


def main(argv=None) -> int:
    """Run one command; the exit status: 0, 1 (wrong flags, or an exception in a Python layer), 134 (Caffe's abort)."""
    if argv is not None:
        return _run(argv)
    on_large_pages(any(word.lstrip("-").partition("=")[0] == "deterministic" for word in sys.argv[1:]))
    status = program.run(lambda: _run(sys.argv[1:]))
    end_in_time(status)
    return status


def _run(argv):
    try:
        given, words = flags.parse(argv)
    except ValueError as e:
        print(f"ERROR: {e}", file=sys.stderr)
        return 1
    if given.pop("version"):
        print(f"caffe version {caffe.__version__}")
        return 0
    if given.pop("help") or not words:
        print(flags.usage(), end="")
        return 0
    if len(words) > 1 and words[0] != "check":
        print(f"ERROR: {flags.surplus(words)}", file=sys.stderr)
        return 1
    log.init_log()
    command = COMMANDS.get(words[0])
    try:
        if command is None:
            log.error("caffe.cpp:78", "Available caffe actions:")
            for name in sorted(COMMANDS):
                log.error("caffe.cpp:81", f"\t{name}")
            raise CaffeError(f"Unknown action: {words[0]}")
        if given["deterministic"]:
            machine.fix_environment()
        if modules := given.pop("python_modules"):
            allow_python_modules([] if modules == "none" else modules.split(","))
        if modules := given.pop("layers"):
            load_layers(modules.split(","))
        return command(**given, files=words[1:], typed=shlex.join(["caffe", *argv]))
    except PythonLayerError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except CaffeError as e:
        log.fatal("caffe.cpp:83", str(e))
        return FATAL_EXIT
    except KeyboardInterrupt:
        return 130  # as a shell shows an interrupted command; `train` has its own way (--sigint_effect)
    except Exception as e:  # out of a Python layer
        return _report(e)


def _report(error):
    """Tell of an exception in a Python layer. A class of its own says that the text is meant for the user; a built-in
    one is most likely a mistake in the layer's code, so show where."""
    text = str(error)
    if type(error).__module__ == "builtins":
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text}"
    print("error:", text, *getattr(error, "__notes__", []), file=sys.stderr)
    return 1
