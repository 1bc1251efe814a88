"""Time for the control loop: the machine's monotonic clock, or one that a simulation turns."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow. ``simulated`` is true where sleeping costs no wall time."""

    @property
    def simulated(self) -> bool: ...

    def now(self) -> float:
        """Seconds since an arbitrary zero."""

    def sleep_until(self, time_s: float) -> None:
        """Return at ``time_s``, at once if it has passed."""


class MonotonicClock:
    """``time.monotonic``: on Linux one zero for all processes, so an emulator's stamps compare."""

    simulated = False

    # The kernel wakes a sleeper up to ~0.1 ms late; the last stretch is spent yielding instead.
    _SPIN_S = 0.0003

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, time_s: float) -> None:
        while (left := time_s - time.monotonic()) > 0:
            time.sleep(left - self._SPIN_S if left > self._SPIN_S else 0)


class ManualClock:
    """A clock that moves only when told: sleeping jumps to the deadline (tests, simulation)."""

    simulated = True

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; what a slow device or a slow thought would cost."""
        self._now_s += seconds

    def sleep_until(self, time_s: float) -> None:
        self._now_s = max(self._now_s, time_s)
