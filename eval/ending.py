"""How a command ends: with an exit status, and one sentence where it could not do what was asked."""

import sys

from layers.frames import DataError

GOES_ON = "the same command goes on from here"


def exit_status(run, *args, errors=(), stopped=GOES_ON):
    """The exit status of run(*args): what it gives, where None is 0; 1 after a line `error: ...`; 130 after Ctrl-C.

    errors: further exceptions whose text is for the user, besides DataError, ValueError, OSError and CaffeError."""
    try:
        return run(*args) or 0
    except KeyboardInterrupt:
        print(f"\nstopped; {stopped}", file=sys.stderr)
        return 130
    except (DataError, ValueError, OSError, *errors) as e:
        return fail(sentence(e))
    except Exception as e:
        if type(e).__name__ != "CaffeError":  # known without importing the runtime, which most commands do not need
            raise
        return fail(e)


def fail(told):
    print(f"error: {told}", file=sys.stderr)
    return 1


def sentence(error):
    """What to say of an exception; of the system's own the file and the reason, without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error
