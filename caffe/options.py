"""Options of users' layer types, declared in Python: `mish_param { beta: 2 }` without a change to caffe.proto.

Each is an extension of LayerParameter, so that binary files hold it. Prototxts write its name as that of any other
field, where protobuf's text would have `[caffe.mish_param]`: `words.py` and `text.py` turn one into the other.
"""

import re
import zlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor as Field

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

FIRST, LAST = 1_000_000, 7_999_999  # the numbers that caffe.proto leaves to extensions
_KINDS: dict[type, Any] = {
    bool: Field.TYPE_BOOL,
    int: Field.TYPE_INT64,
    float: Field.TYPE_FLOAT,
    str: Field.TYPE_STRING,
}

of_type: dict[str, str] = {}  # layer type -> the name of its options
_declared: dict[str, tuple[bytes, Field]] = {}  # field name -> what it was declared as, its extension


def declare(name, fields, number=None) -> Field:
    """Give LayerParameter a field `name` ("mish_param"): a message with `fields`, {name: default}.

    A default is a bool, an int, a float or a string; a type (`float`) stands for a field that has none, and a list with
    a type in it (`[float]`) for a repeated field. `number` is the field's in binary files; without it one is made from
    the name, the same in every process. The same name can be declared twice if it is the same."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*_param", name):
        raise CaffeError(f"options are called '{name}'; wanted a name in small letters that ends in _param")
    if number is not None and not FIRST <= number <= LAST:
        raise CaffeError(f"options '{name}' have number {number}; wanted one of {FIRST} to {LAST}")
    if not isinstance(fields, dict):
        raise CaffeError(f"options '{name}' are {fields!r}; wanted a dict of fields and defaults, as in dict(beta=1.0)")
    file = _described(name, fields, number or FIRST + zlib.crc32(name.encode()) % (LAST - FIRST + 1))
    wire = file.SerializeToString()
    if name in _declared:
        if _declared[name][0] != wire:
            raise CaffeError(
                f"options '{name}' are declared already, with other fields; start Python again to change "
                "them, or take another name"
            )
        return _declared[name][1]
    if name in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
        raise CaffeError(f"options '{name}' are Caffe's own: read them with self.param.{name}, or take another name")
    for other, (_, field) in _declared.items():
        if field.number == file.extension[0].number:
            raise CaffeError(
                f"options '{name}' and '{other}' have one number, {field.number}; give one of them another"
            )
    pool = descriptor_pool.Default()
    try:
        pool.AddSerializedFile(wire)
        extension = pool.FindExtensionByName(f"caffe.{name}")
    except (TypeError, KeyError) as e:
        raise CaffeError(f"options '{name}' cannot be declared: {str(e).splitlines()[0]}") from e
    message_factory.GetMessageClass(pool.FindMessageTypeByName(file.extension[0].type_name[1:]))
    _declared[name] = wire, extension
    return extension


def extension(name):
    """The extension declared as `name`, or None."""
    return _declared[name][1] if name in _declared else None


def names():
    """The names of all that are declared."""
    return list(_declared)


def _described(name, fields, number):
    message = "".join(word.capitalize() for word in name.removesuffix("_param").split("_"))
    message += "Options"  # none of caffe.proto's is called so, as filler_param's would be with "Parameter"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"caffe/options/{name}.proto", package="caffe", syntax="proto2", dependency=["caffe.proto"]
    )
    described = file.message_type.add(name=message)
    for place, (field, default) in enumerate(fields.items(), 1):
        several = isinstance(default, list)
        kind = default[0] if several and len(default) == 1 else default
        as_type = kind if isinstance(kind, type) else type(kind)
        if as_type not in _KINDS or not isinstance(field, str) or not field.isidentifier():
            raise CaffeError(
                f"options '{name}': field {field!r} is declared as {default!r}; wanted a bool, int, float "
                "or str, one of these types, or a list with such a type in it"
            )
        added = described.field.add(name=field, number=place, type=_KINDS[as_type])
        added.label = described.field[0].LABEL_REPEATED if several else described.field[0].LABEL_OPTIONAL
        if not (several or isinstance(kind, type)):
            added.default_value = str(kind).lower() if as_type is bool else str(kind)
    file.extension.add(
        name=name,
        number=number,
        label=Field.LABEL_OPTIONAL,
        type=Field.TYPE_MESSAGE,
        type_name=f".caffe.{message}",
        extendee=".caffe.LayerParameter",
    )
    return file
