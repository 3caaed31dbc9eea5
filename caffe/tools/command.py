"""What these commands have in common: gflags' ways of writing a flag, one sentence for an error, databases written."""

import argparse
import contextlib
import importlib
import os
import shutil
import sys

import lmdb

from caffe import flags, whole
from caffe.errors import CaffeError
from caffe.glog import init_log

CHUNK = 1000  # records in one transaction


def parser(name, usage, told):
    """A parser for `name`, whose words are `usage`; add flags with `flag`."""
    return argparse.ArgumentParser(prog=name, usage=f"{name} [FLAGS] {usage}", description=told, allow_abbrev=False)


def flag(to, name, default, told):
    """Add the flag -name or --name of the type of `default`; a bool is switched on by its name alone."""
    if isinstance(default, bool):
        to.add_argument(f"-{name}", f"--{name}", default=default, type=_truth, metavar="true", help=told)
        to.add_argument(f"-no{name}", f"--no{name}", dest=name, action="store_false", help=argparse.SUPPRESS)
    else:
        told = f"{told} (default: {default!r})"
        to.add_argument(f"-{name}", f"--{name}", default=default, type=type(default), metavar="V", help=told)


def parse(parser, argv):
    """The arguments. A bool's name alone means true, as in gflags, where a value has to follow a `=`."""
    bools = {name for action in parser._actions if action.type is _truth for name in action.option_strings}
    words = sys.argv[1:] if argv is None else argv
    return parser.parse_args([f"{word}=true" if word in bools else word for word in words])


def _truth(text):
    if text.lower() not in flags.TRUTH:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return flags.TRUTH[text.lower()]


def run(main, args) -> int:
    """The exit status of main(args): 1 after an error, which is told in one sentence."""
    init_log()
    try:
        return main(args) or 0
    except CaffeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def new_database(path, backend):
    """Give a function put(key, value), both bytes, that writes a new LMDB or LevelDB; it takes its name when whole."""
    path = os.path.normpath(path)
    if os.path.lexists(path):
        raise CaffeError(f"{path} is there already; remove it, or name another database")
    if backend not in WRITERS:
        raise CaffeError(f"unknown backend {backend!r} (known: {', '.join(WRITERS)})")
    unfinished = f"{path}.tmp{os.getpid()}"
    try:
        with WRITERS[backend](unfinished) as put:
            yield put
        whole.put(unfinished, path)
    except (OSError, lmdb.Error) as e:
        raise CaffeError(f"cannot write {path}: {getattr(e, 'strerror', None) or e}") from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _write_lmdb(path):
    environment = lmdb.open(path, map_size=2**30, lock=False)
    waiting: list[tuple[bytes, bytes]] = []

    def put(key, value):
        waiting.append((key, value))
        if len(waiting) == CHUNK:
            flush()

    def flush():
        while True:
            try:
                with environment.begin(write=True) as transaction:
                    for key, value in waiting:
                        transaction.put(key, value)
                waiting.clear()
                return
            except lmdb.MapFullError:
                environment.set_mapsize(2 * environment.info()["map_size"])

    with contextlib.closing(environment):
        yield put
        flush()
        environment.sync(True)


@contextlib.contextmanager
def _write_leveldb(path):
    try:
        plyvel = importlib.import_module("plyvel")
    except ImportError as e:
        raise CaffeError("backend leveldb needs the package plyvel: `pip install plyvel`; or take lmdb") from e
    with contextlib.closing(plyvel.DB(path, create_if_missing=True, error_if_exists=True)) as database:
        yield database.put


WRITERS = {"lmdb": _write_lmdb, "leveldb": _write_leveldb}
