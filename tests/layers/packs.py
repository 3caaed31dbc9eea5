"""The index of a pack, read and replaced, for the tests of layers and tools."""

import json
import os
import zlib

from layers import pack


def index_of(file):
    """The index at the end of the pack in `file`, open for reading, as it was written."""
    file.seek(-pack.END.size, os.SEEK_END)
    length, _, _ = pack.END.unpack(file.read())
    file.seek(-pack.END.size - length, os.SEEK_END)
    return json.loads(file.read(length))


def write_index(file, index):
    """Append `index` (an object or ready bytes) and an end that vouches for it, whatever it says."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    file.seek(0, os.SEEK_END)
    file.write(text + pack.END.pack(len(text), zlib.crc32(text), pack.MAGIC))
