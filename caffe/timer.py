"""Timer: pycaffe's stop watch; on a GPU it waits for the work that was queued."""

import sys
import time


class Timer:
    """timer = Timer(); timer.start(); ...; timer.stop(); timer.ms"""

    def __init__(self):
        self._begin = self._lapse = None

    def start(self) -> None:
        synchronize()
        self._begin, self._lapse = time.perf_counter(), None

    def stop(self) -> None:
        if self._begin is not None and self._lapse is None:
            synchronize()
            self._lapse = time.perf_counter() - self._begin

    @property
    def ms(self) -> float:
        """Milliseconds from start to stop (a running timer is stopped); 0 when it was never started."""
        self.stop()
        return 1e3 * (self._lapse or 0.0)


def synchronize() -> None:
    """Wait for what was queued on the GPU, where there is one at work."""
    torch = sys.modules.get("torch")  # without it nothing can be queued
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
