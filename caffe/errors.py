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


class NotPickled:
    """Nets and what belongs to them are not pickled; `instead` says what to do."""

    __slots__ = ()
    instead = ""

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} of Caffe is not pickled or copied; {self.instead}")


class PythonLayerError(CaffeError):
    """A Python layer cannot be made; the command line exits 1 then, as Caffe does."""
