"""What a process that was forked for a scenario does from its beginning to its end."""

import os
import sys
import traceback


def say_into(log):
    """What the process says goes to the file `log` from now on."""
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(number, stream)
    os.close(number)


def end_with(work):
    """Run `work`, and end the process with the status that it gives; with 1, and a traceback, where it fails."""
    status = 1
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
