"""Time for the control loop: the machine's monotonic clock, or one that a simulation turns."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

# Above everything ordinary, below what the kernel and audio use.
_PRIORITY = 10


class Clock(Protocol):
    """Seconds that only grow. ``simulated`` is true where sleeping costs no wall time."""

    @property
    def simulated(self) -> bool:
        """Whether sleeping costs no wall time."""

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


def punctual_process() -> bool:
    """Let this whole process run before ordinary ones, one that sleeps most of the time.

    A punctual thread alone is not enough where others share its interpreter: one of them may be put
    aside by the kernel while it holds the lock that the punctual one needs. Threads started later
    inherit this; a thread inside ``punctual`` still comes first.

    Returns:
        Whether the kernel granted it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY - 1))
    except (OSError, AttributeError):
        return False
    return True


@contextmanager
def punctual() -> Iterator[bool]:
    """Let the calling thread run before others, for a loop that sleeps most of the time.

    Shortens the wait for Python's interpreter lock (5 ms by default), and asks the kernel for
    real-time scheduling of this thread, which needs rights (root, or ``ulimit -r``) and is done
    without where they are missing. Threads started inside do not inherit it.

    Yields:
        Whether real-time scheduling was granted.
    """
    _Interval.take()
    before = None
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(_PRIORITY))
        granted = True
    except (OSError, AttributeError):
        granted = False
    try:
        yield granted
    finally:
        _Interval.give_back()
        if granted and before is not None:
            os.sched_setscheduler(0, *before)


class _Interval:
    """The switch interval is one for all threads: the last punctual one to end puts it back."""

    lock = threading.Lock()
    takers = 0
    before_s = 0.0

    @classmethod
    def take(cls) -> None:
        with cls.lock:
            if not cls.takers:
                cls.before_s = sys.getswitchinterval()
                sys.setswitchinterval(0.0005)
            cls.takers += 1

    @classmethod
    def give_back(cls) -> None:
        with cls.lock:
            cls.takers -= 1
            if not cls.takers:
                sys.setswitchinterval(cls.before_s)
