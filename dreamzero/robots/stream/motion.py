"""From command to command at the arm's end: straight lines, inside the limits, or a hold."""

from __future__ import annotations

import numpy as np

from ..safety import Guard, Limits


class Motion:
    """The setpoint of the moment. Nothing here does I/O; times are seconds of one clock.

    Commands come a few times a second and late, an arm wants a setpoint every few ms: the setpoint runs from
    where it is to the newest command in the time the command gives, and the guard bounds each step of it.

    Args:
        limits: of the arm; ``period_s`` is that of the setpoints.
    """

    def __init__(self, limits: Limits) -> None:
        self._guard = Guard(limits)
        self._from = self._target = np.zeros(limits.width)
        self._since_s, self._duration_s = 0.0, 0.0
        self.holding = True
        self.limited = False

    @property
    def counts(self) -> dict[str, int]:
        """Setpoints that a limit changed, by which."""
        return self._guard.counts

    def hold(self, pose: np.ndarray, now_s: float) -> None:
        """Forget the command; the next one sets out from the measured ``pose``, float ``[a]``."""
        self._guard.reset(pose, now_s)
        self.holding, self.limited = True, False

    def aim(self, target: np.ndarray, duration_s: float, now_s: float) -> None:
        """Take over a command, finite float ``[a]``. Needs an earlier ``hold``."""
        self._from, self._target = self._guard.last, np.asarray(target, dtype=np.float64)
        self._since_s, self._duration_s = now_s, duration_s
        self.holding = False

    def step(self, now_s: float) -> np.ndarray | None:
        """The setpoint now, float64 ``[a]``; None while holding."""
        if self.holding:
            return None
        passed = now_s - self._since_s
        share = min(passed / self._duration_s, 1.0) if self._duration_s > 0 else 1.0
        wanted = self._from + max(share, 0.0) * (self._target - self._from)
        decision = self._guard.check(wanted, now_s)
        self.limited = decision.clipped
        return self._guard.last
