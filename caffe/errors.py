"""The exceptions of the runtime: a mistake of the user's, told in one sentence."""


class CaffeError(Exception):
    """Bad input: its text names the file, layer or argument, what was found and what was wanted."""


def note_layer(error, node) -> None:
    """Note on an exception which layer it came out of: shown below its text (by Python 3.11 and later, and by `caffe`).
    The exception stays what it is, because callers may wait for its class."""
    if not isinstance(error, CaffeError):  # those name their layer
        cls = type(node.layer)
        where = f"(in layer '{node.name}', {cls.__module__}.{cls.__qualname__})"
        error.__notes__ = [*getattr(error, "__notes__", []), where]


class PythonLayerError(CaffeError):
    """A Python layer cannot be made; the command line exits 1 then, as Caffe does."""
