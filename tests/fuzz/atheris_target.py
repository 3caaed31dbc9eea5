"""Coverage-guided fuzzing of all that reads files; run by hand, as long as you like:

    pip install atheris
    python tests/fuzz/atheris_target.py net_text -max_total_time=600 -rss_limit_mb=4096

The first argument names the target: net_text, net_binary, net_run, solver_text, caffemodel or solverstate. The rest
goes to libFuzzer. Inputs start from the files in tests/golden/files; one that breaks something is kept as crash-* here.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import atheris  # noqa: E402

with atheris.instrument_imports(include=["caffe", "google.protobuf.text_format"]):
    from caffe import layer_type_list
    from caffe.proto import caffe_pb2
    from tests.fuzz.targets import check, workplace

SEEDS = {
    "net_text": "*.prototxt",
    "net_binary": "*.caffemodel",
    "net_run": "*.caffemodel",
    "solver_text": "*.prototxt",
    "caffemodel": "*.caffemodel",
    "solverstate": "*.solverstate",
}
# Layers of these types run or write what the file says.
NOT_FOR_NOISE = (b"Python", b"HDF5Output", b"HDF5_OUTPUT", b"hdf5_output")


def vocabulary():
    """The words of prototxts: field names and layer types."""
    messages = caffe_pb2.DESCRIPTOR.message_types_by_name.values()
    return sorted({field.name for message in messages for field in message.fields} | set(layer_type_list()))


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in SEEDS:
        sys.exit(__doc__)
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder, workplace() as targets:
        corpus, words = Path(folder, "corpus"), Path(folder, "words")
        corpus.mkdir()
        for path in (ROOT / "tests" / "golden" / "files").glob(SEEDS[name]):
            shutil.copy(path, corpus)

        def one_input(data):
            if not any(word in data for word in NOT_FOR_NOISE):
                check(targets[name], data)

        words.write_text("".join(f'"{word}"\n' for word in vocabulary()))
        atheris.Setup([*sys.argv, f"-dict={words}", f"-artifact_prefix={HOME}/", str(corpus)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    HOME = os.getcwd()
    main()
