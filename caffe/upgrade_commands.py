"""The commands upgrade_net_proto_text, upgrade_net_proto_binary, upgrade_solver_proto_text: old file to new file."""

import argparse

from caffe import program
from caffe.errors import CaffeError
from caffe.files import write
from caffe.glog import info
from caffe.proto import caffe_pb2
from caffe.read import read_binary, read_text
from caffe.text import message_to_text
from caffe.tools import command
from caffe.upgrade import upgrade_net, upgrade_solver


@program.installed
def net_text(argv=None) -> int:
    """upgrade_net_proto_text OLD.prototxt NEW.prototxt"""
    return _run("upgrade_net_proto_text", caffe_pb2.NetParameter, upgrade_net, argv)


@program.installed
def net_binary(argv=None) -> int:
    """upgrade_net_proto_binary OLD.caffemodel NEW.caffemodel"""
    return _run("upgrade_net_proto_binary", caffe_pb2.NetParameter, upgrade_net, argv, binary=True)


@program.installed
def solver_text(argv=None) -> int:
    """upgrade_solver_proto_text OLD.prototxt NEW.prototxt"""
    return _run("upgrade_solver_proto_text", caffe_pb2.SolverParameter, upgrade_solver, argv)


def _bytes(message, binary):
    if not binary:
        return message_to_text(message).encode()
    message.ClearField("checksum")  # of the old file
    return message.SerializeToString()


def _run(name, message_type, upgrade, argv, binary=False):
    kind, suffix = message_type.DESCRIPTOR.name, "caffemodel" if binary else "prototxt"
    parser = argparse.ArgumentParser(
        prog=name,
        description=f"Write a {kind} file in today's format. Example: {name} old.{suffix} new.{suffix}",
    )
    parser.add_argument("input", help="the old file")
    parser.add_argument("output", help="where to write the new one; may be the same name")

    def run(args):
        message = (read_binary if binary else read_text)(args.input, message_type)
        before = message.SerializeToString(deterministic=True)
        complete = upgrade(message, args.input)
        if message.SerializeToString(deterministic=True) == before:
            info(f"{name}.cpp:48", f"File already in latest proto format: {args.input}")
        write(args.output, _bytes(message, binary))
        info(f"{name}.cpp:54", f"Wrote upgraded {kind} to {args.output}")
        if complete is False:
            raise CaffeError(f"{args.input}: something in it has no place in the new format; see above")

    return command.run(run, parser.parse_args(argv))
