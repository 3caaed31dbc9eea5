"""The flags of the command, in gflags' forms, and the usage that it prints."""

import textwrap

from caffe.errors import CaffeError

USAGE = """caffe: command line brew
usage: caffe <command> <args>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time
  check           tell all that keeps a net from being built

  Flags from tools/caffe.cpp:
"""

# name: (default, help); the default's type is the flag's
FLAGS = {
    "deterministic": (
        False,
        "Optional; on the CPU, compute the same digits with any number of threads and on any x86-64 "
        "processor: with one thread, and by what all of them can do, which takes longer.",
    ),
    "gpu": (
        "",
        "Optional; run in GPU mode on given device IDs separated by ','.Use '-gpu all' to run on all "
        "available GPUs. The effective training batch size is multiplied by the number of devices.",
    ),
    "iterations": (50, "The number of iterations to run."),
    "layers": ("", "Optional; Python modules that declare layer types (@caffe.layer), separated by ','."),
    "level": (0, "Optional; network level."),
    "model": ("", "The model definition protocol buffer text file."),
    "phase": ("", "Optional; network phase (TRAIN or TEST). Only used for 'time'."),
    "precision": ("float32", "Optional; how exact a GPU multiplies: float32, tf32 or bf16."),
    "python_modules": (
        "",
        "Optional; the Python modules whose layers a prototxt may use, separated by ',', or none. "
        "Without it a prototxt may name any, and loading it runs the module's code.",
    ),
    "sighup_effect": ("snapshot", "Optional; action to take when a SIGHUP signal is received: snapshot, stop or none."),
    "sigint_effect": ("stop", "Optional; action to take when a SIGINT signal is received: snapshot, stop or none."),
    "snapshot": ("", "Optional; the snapshot solver state to resume training."),
    "solver": ("", "The solver definition protocol buffer text file."),
    "stage": ("", "Optional; network stages (not to be confused with phase), separated by ','."),
    "tensorboard": ("", "Optional; folder to write TensorBoard event files of the training to. Only used for 'train'."),
    "weights": (
        "",
        "Optional; the pretrained weights to initialize finetuning, separated by ','. Cannot be set "
        "simultaneously with snapshot.",
    ),
}

SWITCHES = [name for name, (default, _) in FLAGS.items() if isinstance(default, bool)]  # may stand alone
TRUTH = dict.fromkeys(("true", "t", "1", "yes", "y"), True)  # gflags's words, in upper case, too
TRUTH |= dict.fromkeys(("false", "f", "0", "no", "n"), False)
# glog's, which old scripts give, and whether they stand alone. They change nothing: the log goes to stderr.
GLOG_FLAGS = dict.fromkeys(("logtostderr", "alsologtostderr", "colorlogtostderr"), True)
GLOG_FLAGS |= dict.fromkeys(("log_dir", "v", "minloglevel", "stderrthreshold", "vmodule"), False)


def parse(argv):
    """gflags' ways: -flag value, --flag value, -flag=value, --flag=value; the rest are words."""
    flags, words, rest = {name: default for name, (default, _) in FLAGS.items()}, [], list(argv)
    flags["help"] = flags["version"] = False
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in ("help", "h"):
            flags["help"] = True
            continue
        if name == "version":
            flags["version"] = True
            continue
        if name in GLOG_FLAGS or name.removeprefix("no") in GLOG_FLAGS:
            if not equals and name in GLOG_FLAGS and not GLOG_FLAGS[name]:
                rest[:1] = []
            continue
        switch = name if name in SWITCHES else name.removeprefix("no")
        if name not in FLAGS and switch not in SWITCHES:
            raise ValueError(f"unknown command line flag '{name}' (known: {', '.join(sorted(FLAGS))})")
        if switch in SWITCHES:
            truth = TRUTH.get((value or "true").lower())
            if truth is None:
                raise ValueError(f"illegal value '{value}' specified for bool flag '{switch}'")
            flags[switch] = truth and switch == name
            continue
        if not equals:
            if not rest:
                raise ValueError(f"flag '--{name}' is missing its argument")
            value = rest.pop(0)
        if isinstance(FLAGS[name][0], int):
            try:
                value = int(value)
            except ValueError:
                raise ValueError(f"illegal value '{value}' specified for int32 flag '{name}'") from None
        flags[name] = value
    return flags, words


def surplus(words):
    """A sentence on words beyond the command, which is what a file without its flag is."""
    flag = {"train": "solver", "test": "model", "time": "model"}.get(words[0])
    hint = f"; a file comes with its flag, as in {words[0]} --{flag}={words[1]}" if flag else ""
    return f"caffe takes one command and flags, not '{' '.join(words)}'{hint}"


def usage():
    """The text that gflags prints: one entry a flag, wrapped at 79 columns, `type: T` and `default: D` unbroken."""
    text = USAGE
    for name, (default, told) in FLAGS.items():
        kind, value = {bool: ("bool", str(default).lower()), int: ("int32", default)}.get(
            type(default), ("string", f'"{default}"')
        )
        entry = f"-{name} ({told}) type:\0{kind} default:\0{value}"
        text += textwrap.fill(entry, 79, initial_indent=" " * 4, subsequent_indent=" " * 6, break_on_hyphens=False)
        text += "\n"
    return text.replace("\0", " ")


def gpu_numbers(flag):
    """Device numbers that --gpu names: "0", "0,1", "all"; none for an empty flag."""
    if flag == "all":
        import torch

        if not torch.cuda.device_count():
            raise CaffeError("--gpu=all, but torch finds no CUDA device; leave out --gpu to compute on the CPU")
        return list(range(torch.cuda.device_count()))
    try:
        return [int(g) for g in flag.split(",") if flag]
    except ValueError:
        raise CaffeError(f"--gpu wants device numbers separated by commas or 'all', not '{flag}'") from None
