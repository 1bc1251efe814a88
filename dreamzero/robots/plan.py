"""Which setpoint of which chunk is in force at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EPS_S = 1e-6


@dataclass
class Plan:
    """A chunk in execution: step k, float ``actions[k]``, is in force from ``anchor_s + k / rate_hz``."""

    actions: np.ndarray
    anchor_s: float
    rate_hz: float
    step: int = -1
    base: np.ndarray | None = None

    def at(self, time_s: float, period_s: float, last: np.ndarray) -> np.ndarray | None:
        """Setpoint at a time, float ``[a]``; None before the first and after the last step.

        Between the steps of a chunk the setpoint runs straight from the last command to the step's
        target, which it reaches with the last command before the next step. At one command a step
        that is the target itself.
        """
        place = (time_s - self.anchor_s) * self.rate_hz + EPS_S
        step = int(np.floor(place))
        if not 0 <= step < len(self.actions):
            return None
        if step != self.step or self.base is None:
            self.step, self.base = step, last
        share = min(1.0, place - step + self.rate_hz * period_s)
        return np.asarray(self.base + share * (self.actions[step] - self.base))


def straight(
    start: np.ndarray, goal: np.ndarray, velocity: np.ndarray, time_s: float, rate_hz: float
) -> Plan:
    """The way from pose to pose, all joints together, none faster than ``velocity``, float ``[a]``."""
    seconds = float(np.max(np.abs(goal - start) / velocity))
    count = max(1, int(np.ceil(seconds * rate_hz)))
    shares = np.arange(1, count + 1)[:, None] / count
    return Plan(start + shares * (goal - start), time_s, rate_hz)
