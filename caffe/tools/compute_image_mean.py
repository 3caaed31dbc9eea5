"""compute_image_mean: the mean of the images in a database (Caffe: compute_image_mean.cpp).

    compute_image_mean train_lmdb mean.binaryproto

Takes a database of Datum messages of one size and writes a BlobProto (1, channels, height, width), as `mean_file`
wants it; says the mean of each channel.
"""

import sys

import numpy as np
from google.protobuf.message import DecodeError

from caffe import glog, program
from caffe.errors import CaffeError
from caffe.files import write
from caffe.io import datum_to_array
from caffe.ops.records import Records
from caffe.proto import caffe_pb2
from caffe.tools import command


@program.installed
def main(argv=None) -> int:
    parser = command.parser("compute_image_mean", "INPUT_DB [OUTPUT_FILE]", "Compute the mean image of a database.")
    parser.add_argument("database", help="folder of an LMDB or LevelDB")
    parser.add_argument("output", nargs="?", help="BlobProto to write; without it only the channels' means are told")
    command.flag(parser, "backend", "lmdb", "the backend {lmdb, leveldb} containing the images")
    return command.run(compute, command.parse(parser, argv))


def compute(args):
    mean = mean_image(args.database, args.backend)
    if args.output:
        glog.info("compute_image_mean.cpp:99", f"Write to {args.output}")
        blob = caffe_pb2.BlobProto(num=1, channels=mean.shape[0], height=mean.shape[1], width=mean.shape[2])
        blob.data.extend(mean.ravel())
        write(args.output, blob.SerializeToString())
    glog.info("compute_image_mean.cpp:106", f"Number of channels: {len(mean)}")
    for number, plane in enumerate(mean):
        glog.info("compute_image_mean.cpp:110", f"mean_value channel [{number}]: {glog.number(float(plane.mean()))}")


def mean_image(database, backend):
    """The mean (channels, height, width), float32, of all images in the database, added up in float64."""
    if backend.upper() not in ("LMDB", "LEVELDB"):
        raise CaffeError(f"unknown backend {backend!r} (known: lmdb, leveldb)")
    try:
        records = Records(database, backend.upper())
        total, count = None, 0
        for key, value in records.once():
            image = _image(value, f"{database}: record {key!r}")
            if total is None:
                total = np.zeros(image.shape)
            if image.shape != total.shape:
                raise CaffeError(
                    f"record {key!r} is an image {image.shape}, those before it {total.shape}; "
                    "convert_imageset with --resize_width and --resize_height"
                )
            total += image
            count += 1
            if count % 10000 == 0:
                glog.info("compute_image_mean.cpp:87", f"Processed {count} files.")
    except CaffeError as e:
        raise CaffeError(f"cannot read {backend} {database!r}: {e}") from e
    assert total is not None  # Records refuses an empty database
    return (total / count).astype(np.float32)


def _image(value, where):
    try:
        return datum_to_array(caffe_pb2.Datum.FromString(value))
    except (DecodeError, ValueError) as e:
        raise CaffeError(f"{where} is no image: {e}") from e


if __name__ == "__main__":
    sys.exit(main())
