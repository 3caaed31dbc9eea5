"""The SHA-256 of a file: what tells its contents from all others."""

import hashlib


def sha256(path):
    """64 hexadecimal digits; the file is read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
