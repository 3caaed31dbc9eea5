"""What SIGINT and SIGHUP do to a training: --sigint_effect and --sighup_effect."""

import signal

from caffe.errors import CaffeError


class Signals:
    """What SIGINT and SIGHUP ask of the solver, told when it asks after an iteration."""

    EFFECTS = {"none": 0, "stop": 1, "snapshot": 2}  # the numbers are caffe.solver's NONE, STOP, SNAPSHOT

    def __init__(self, sigint_effect, sighup_effect):
        self.got: set[int] = set()
        self.effects = {}
        for name, effect in (("SIGINT", sigint_effect), ("SIGHUP", sighup_effect)):
            if effect not in self.EFFECTS:
                raise CaffeError(f'Invalid signal effect "{effect}" was specified (known: none, snapshot, stop)')
            if number := getattr(signal, name, None):  # Windows has no SIGHUP
                self.effects[number] = self.EFFECTS[effect]
                signal.signal(number, lambda n, _: self.got.add(n))

    def __call__(self):
        for number, effect in self.effects.items():
            if number in self.got:
                self.got.discard(number)
                return effect
        return self.EFFECTS["none"]
