"""The one exception of the runtime: a mistake of the user's, told in one sentence."""


class CaffeError(Exception):
    """Bad input: its text names the file, layer or argument, what was found and what was wanted."""
