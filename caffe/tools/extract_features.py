"""extract_features: what blobs of a net hold, batch by batch, as databases (Caffe: extract_features.cpp).

    extract_features net.caffemodel net.prototxt fc6,fc7 fc6_lmdb,fc7_lmdb 10 lmdb

runs the net, whose data layer brings the images, in phase TEST for 10 batches, and writes a Datum of floats for every
item of a batch; keys are the items' numbers, ten digits.
"""

import contextlib
import sys

from caffe import glog, program
from caffe.errors import CaffeError
from caffe.io import array_to_datum
from caffe.tools import command


@program.installed
def main(argv=None) -> int:
    parser = command.parser(
        "extract_features",
        "WEIGHTS NET BLOB[,BLOB...] DB[,DB...] BATCHES DB_TYPE [CPU/GPU] [DEVICE_ID=0]",
        "Write blobs of a net as databases.",
    )
    parser.add_argument("weights", help=".caffemodel (or .h5)")
    parser.add_argument("net", help="prototxt with a data layer in phase TEST")
    parser.add_argument("blobs", help="names of blobs, separated by commas")
    parser.add_argument("databases", help="as many folders to write, separated by commas")
    parser.add_argument("batches", type=int, help="how many batches to run")
    parser.add_argument("backend", help="lmdb or leveldb")
    parser.add_argument("mode", nargs="?", default="CPU", help="CPU (default) or GPU")
    parser.add_argument("device", nargs="?", default="DEVICE_ID=0", help="DEVICE_ID=0, for GPU")
    return command.run(extract, command.parse(parser, argv))


def extract(args):
    import caffe

    names, databases = args.blobs.split(","), args.databases.split(",")
    if len(names) != len(databases):
        raise CaffeError(f"{len(names)} blobs but {len(databases)} databases; the number of both must be equal")
    if args.batches < 1:
        raise CaffeError(f"{args.batches} batches; wanted at least one")
    if args.mode.upper() == "GPU":
        number = args.device.upper().removeprefix("DEVICE_ID=")
        if not number.isdecimal():
            raise CaffeError(f"which GPU is {args.device!r}? Wanted DEVICE_ID=0 or the like")
        caffe.set_mode_gpu()
        caffe.set_device(int(number))
    elif args.mode.upper() != "CPU":
        raise CaffeError(f"mode {args.mode!r}; wanted CPU or GPU")
    net = caffe.Net(args.net, caffe.TEST, weights=args.weights)
    for name in names:
        if name not in net.blobs:
            raise CaffeError(f"{args.net}: has no blob {name!r} (it has: {', '.join(net.blobs)})")

    glog.info("extract_features.cpp:131", "Extracting Features")
    counts = [0] * len(names)
    with contextlib.ExitStack() as stack:
        puts = [stack.enter_context(command.new_database(path, args.backend)) for path in databases]
        for _ in range(args.batches):
            net.forward()
            for i, (name, put) in enumerate(zip(names, puts)):
                for item in net.blobs[name].data:
                    datum = array_to_datum(item.reshape(_channels_height_width(item.shape)))
                    put(f"{counts[i]:010d}".encode(), datum.SerializeToString())
                    counts[i] += 1
    for name, count in zip(names, counts):
        glog.info("extract_features.cpp:175", f"Extracted features of {count} query images for feature blob {name}")
    glog.info("extract_features.cpp:181", "Successfully extracted the features!")


def _channels_height_width(shape):
    if len(shape) > 3:
        raise CaffeError(f"a blob whose items have shape {shape} does not fit a Datum (channels, height, width)")
    return (*shape, 1, 1, 1)[:3]


if __name__ == "__main__":
    sys.exit(main())
