"""Protobuf's wire format: a message's fields as they lie in its bytes, found without building the message.

Imports nothing of this package, see `caffe.whole`.
"""

NUMBER, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # kinds of fields; a group, which Caffe never had, is another


def fields(message):
    """[(number, kind, where the field begins, where its content does, where it ends)] of `message`, a sequence of
    bytes. ValueError: it is cut short, or no message."""
    found, end = [], 0
    while end < len(message):
        begin = end
        tag, at = varint(message, begin)
        kind = tag & 7
        if kind == NUMBER:
            end = varint(message, at)[1]
        elif kind == BYTES:
            size, at = varint(message, at)
            end = at + size
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            end = at + (8 if kind == EIGHT_BYTES else 4)
        else:
            raise ValueError(f"a field of type {kind}")
        if end > len(message):
            raise ValueError("it ends too early")
        found.append((tag >> 3, kind, begin, at, end))
    return found


def varint(message, place):
    """(the number that is written at `place`, where it ends)."""
    number = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("it ends too early")
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def written(number) -> bytes:
    """`number` as a varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def head(field, content) -> bytes:
    """What stands before the `content` of field number `field`."""
    return written(field << 3 | BYTES) + written(len(content))
