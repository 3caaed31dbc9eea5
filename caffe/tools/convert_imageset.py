"""convert_imageset: images and their labels become a database of Datum messages (Caffe: convert_imageset.cpp).

    convert_imageset --resize_width=256 --resize_height=256 images/ train.txt train_lmdb

train.txt has a line an image: its path below the folder, a blank, its label. Keys are `00000000_path`, so that the
records lie in the order of the list.
"""

import os
import random
import sys

import cv2

from caffe import glog, program
from caffe.errors import CaffeError
from caffe.io import array_to_datum, decode, planes
from caffe.proto import caffe_pb2
from caffe.regular import MOST_IMAGE, MOST_LIST, open_file
from caffe.tools import command


@program.installed
def main(argv=None) -> int:
    parser = command.parser("convert_imageset", "ROOTFOLDER/ LISTFILE DB_NAME", "Write images as an LMDB or LevelDB.")
    parser.add_argument("root", help="folder that the paths of the list begin in")
    parser.add_argument("list", help="text file, `path label` in each line")
    parser.add_argument("database", help="folder to write, which must not be there yet")
    command.flag(parser, "gray", False, "treat images as grayscale ones")
    command.flag(parser, "shuffle", False, "shuffle the order of images and their labels")
    command.flag(parser, "seed", 1, "of the shuffling")
    command.flag(parser, "backend", "lmdb", "the backend {lmdb, leveldb} for storing the result")
    command.flag(parser, "resize_width", 0, "width images are resized to")
    command.flag(parser, "resize_height", 0, "height images are resized to")
    command.flag(parser, "check_size", False, "check that all images have the same size")
    command.flag(parser, "encoded", False, "save the encoded image in the datum")
    command.flag(parser, "encode_type", "", "how to encode: png, jpg, ...; default: as the file is")
    return command.run(convert, command.parse(parser, argv))


def convert(args):
    items = read_list(args.list)
    if args.shuffle:
        random.Random(args.seed).shuffle(items)
    glog.info("convert_imageset.cpp:89", f"A total of {len(items)} images.")
    if bool(args.resize_width) != bool(args.resize_height):
        glog.warning(glog.here(), "--resize_width and --resize_height change nothing but together")
    size, done = None, 0
    with command.new_database(args.database, args.backend) as put:
        for number, (name, label) in enumerate(items):
            datum = to_datum(args, name, label)
            if datum is None:
                glog.error("io.cpp:76", f"Could not open or find file {args.root}{name}: left out")
                continue
            if args.check_size:
                found = _size(datum)
                if size is not None and found != size:
                    raise CaffeError(
                        f"{args.list}: {name} has {found} values, the images before it {size}; "
                        "wanted one size: give --resize_width and --resize_height"
                    )
                size = found
            put(f"{number:08d}_{name}".encode(), datum.SerializeToString())
            done += 1
            if done % 1000 == 0:
                glog.info("convert_imageset.cpp:146", f"Processed {done} files.")
        if not done:
            raise CaffeError(f"{args.list}: none of its {len(items)} images can be read below {args.root}")
    glog.info("convert_imageset.cpp:153", f"Processed {done} files.")
    if done < len(items):
        glog.error("convert_imageset.cpp:154", f"{len(items) - done} of {len(items)} images were left out, see above")


def read_list(path):
    """[(path, label)] of a list file; the last blank of a line stands before the label, so paths may have some."""
    items = []
    try:
        with open_file(path, MOST_LIST) as f:
            lines = f.read().decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError as e:
        raise CaffeError(f"cannot read {path}: {e.strerror or e}") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        try:
            items.append((name.strip(), int(label)))
        except ValueError:
            name = ""
        if not name:
            raise CaffeError(f"{path}, line {number}: {line.strip()!r}; wanted a path, a blank and a label (a number)")
    if not items:
        raise CaffeError(f"{path}: names no images; wanted lines like `cat/1.jpg 0`")
    return items


def to_datum(args, name, label):
    """The image as a Datum; None: it cannot be read."""
    path = args.root + name  # as in Caffe, where the folder is written with its slash
    try:
        with open_file(path if os.path.exists(path) else os.path.join(args.root, name), MOST_IMAGE) as f:
            content = f.read()
    except OSError:
        return None
    resized = args.resize_width > 0 and args.resize_height > 0
    suffix = os.path.splitext(name)[1].lower().lstrip(".")
    image = decode(content, cv2.IMREAD_GRAYSCALE if args.gray else cv2.IMREAD_COLOR)
    if image is None:
        return None
    encoded = args.encoded or bool(args.encode_type)
    if encoded and not resized and not args.gray and _alike(args.encode_type or suffix, suffix):
        return caffe_pb2.Datum(data=content, label=label, encoded=True)
    if resized:
        image = cv2.resize(image, (args.resize_width, args.resize_height))
    if not encoded:
        return array_to_datum(planes(image), label)
    try:
        good, content = cv2.imencode(f".{args.encode_type or suffix}", image)
    except cv2.error:
        good = False
    if not good:
        raise CaffeError(f"{name}: cannot be encoded as {args.encode_type or suffix!r}; give --encode_type=png or jpg")
    return caffe_pb2.Datum(data=content.tobytes(), label=label, encoded=True)


def _alike(a, b):
    return a == b or {a, b} == {"jpg", "jpeg"}


def _size(datum):
    if not datum.encoded:
        return datum.channels * datum.height * datum.width
    return int(decode(datum.data, cv2.IMREAD_UNCHANGED).size)


if __name__ == "__main__":
    sys.exit(main())
