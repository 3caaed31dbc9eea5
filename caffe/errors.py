"""The exceptions of the runtime: a mistake of the user's, told in one sentence."""


class CaffeError(Exception):
    """Bad input: its text names the file, layer or argument, what was found and what was wanted."""


class PythonLayerError(CaffeError):
    """A Python layer cannot be made; the command line exits 1 then, as Caffe does."""
