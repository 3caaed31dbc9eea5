"""The exceptions of the runtime: a mistake of the user's, told in one sentence."""


class CaffeError(Exception):
    """Bad input: its text names the file, layer or argument, what was found and what was wanted."""


def note_layer(error, node) -> None:
    """Tell in an exception which layer it came out of: a CaffeError in its sentence, others in a note below their text
    (shown by Python 3.11 and later, and by `caffe`). It stays what it is, because callers may wait for its class."""
    if not isinstance(error, CaffeError):
        cls = type(node.layer)
        where = f"(in layer '{node.name}', {cls.__module__}.{cls.__qualname__})"
        error.__notes__ = [*getattr(error, "__notes__", []), where]
    elif f"'{node.name}'" not in str(error):
        error.args = (f"layer '{node.name}' ({node.type}): {error}",)


class NotPickled:
    """Nets and what belongs to them are not pickled; `instead` says what to do."""

    __slots__ = ()
    instead = ""

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} of Caffe is not pickled or copied; {self.instead}")


class PythonLayerError(CaffeError):
    """A Python layer cannot be made; the command line exits 1 then, as Caffe does."""
