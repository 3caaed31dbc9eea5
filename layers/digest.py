"""The SHA-256 of a file: what tells its contents from all others."""

import hashlib

from layers.bundled import regular

MOST_BYTES = 2**31  # of weights, or of features: a message has no more


def sha256(path):
    """64 hexadecimal digits; the file is read in pieces. OSError: it is no regular file, or longer than MOST_BYTES."""
    digest = hashlib.sha256()
    with regular.open_file(path, MOST_BYTES) as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
