"""From chunks to setpoints: which command is due now, and whether a new chunk may have the arm."""

from __future__ import annotations

from collections import deque

import numpy as np

from ..errors import UserError
from ..types import ActionChunk
from . import smoothing
from .base import Robot
from .options import Options
from .plan import EPS_S, Plan, straight


class Pilot:
    """Holds the chunk in execution and what was sent lately.

    Args:
        robot: of the chunks.
        options: blending, smoothing, and how the first chunk is met.
        steps: action steps from one observation to the next, the least a chunk may have.

    Attributes:
        plan: the chunk in execution.
        pose: float ``[a]``, where the arm was when it was read last.
        approaching: the arm goes slowly to where a first chunk begins.
    """

    def __init__(self, robot: Robot, options: Options, steps: int) -> None:
        self.robot, self.options, self.steps = robot, options, steps
        self.period_s = 1 / options.rate_hz(robot.card)
        self.plan: Plan | None = None
        self.pose: np.ndarray = robot.guard.last
        self.approaching = False
        self._overlapped = options.mode == "overlapped"
        # A first chunk, at the start or after an outage, has to begin where the arm is.
        self._unproven = True
        units = np.array(robot.features.units)
        self._smooth, self._turns = units != "1", units == "rad"
        seconds = (smoothing.PAST + robot.card.horizon + 1) / robot.card.action_hz
        self._past: deque[tuple[float, np.ndarray]] = deque(maxlen=round(seconds / self.period_s))

    def lose(self) -> None:
        """The arm was out of reach: whatever was planned is over."""
        self.plan, self.approaching, self._unproven = None, False, True
        self._past.clear()

    def sent(self, due: float, action: np.ndarray) -> None:
        """Remember a command, float ``[a]``, as the limits let it through."""
        self._past.append((due, action))

    def target(self, due: float) -> np.ndarray | None:
        """Setpoint that is due, float ``[a]``; None if there is none now."""
        if self.plan is None:
            return None
        return self.plan.at(due, self.period_s, self.robot.guard.last)

    def adopt(self, chunk: ActionChunk, due: float, observed_s: float) -> tuple[float, int] | None:
        """Take over a chunk.

        Args:
            observed_s: time of its observation.

        Returns:
            (time of its first step, steps that are over); None where the arm goes to its beginning first.

        Raises:
            UserError: it is another robot's, is too short, or begins too far away.
        """
        actions = self._checked(chunk)
        # The first chunk met an arm at rest: its observation still holds when it is ready.
        anchor = observed_s if self._overlapped and self.plan is not None else due
        # Steps that are no numbers are refused: it begins with the first that is.
        finite = actions[np.isfinite(actions).all(axis=1)]
        if self._unproven and len(finite) and self._too_far(finite[0]):
            self._approach(due, finite[0])
            return None
        self._unproven, self.approaching = self._unproven and not len(finite), False
        rate_hz = chunk.rate_hz
        self.plan = Plan(self._shaped(actions, anchor, rate_hz, due), anchor, rate_hz)
        return anchor, round((due - anchor) * rate_hz)

    def _checked(self, chunk: ActionChunk) -> np.ndarray:
        card, actions = self.robot.card, chunk.actions
        if actions.ndim != 2 or actions.shape[1] != card.action_dim:
            raise UserError(
                f"the policy's chunk has shape {list(actions.shape)}; {card.name} "
                f"takes [k, {card.action_dim}]"
            )
        if len(actions) < self.steps:
            raise UserError(
                f"the policy's chunk has {len(actions)} steps, fewer than the {self.steps} "
                "executed between two observations"
            )
        return np.asarray(actions, np.float64)

    def _shaped(self, actions: np.ndarray, anchor: float, rate_hz: float, due: float) -> np.ndarray:
        """The chunk as it will be executed: faded in from the one before, and smoothed."""
        old, options = self.plan, self.options
        late = (due - anchor) * rate_hz
        if old is not None and self._overlapped and options.blend_s > 0 and old.rate_hz == rate_hz:
            shift = (anchor - old.anchor_s) * rate_hz
            width = options.blend_s * rate_hz
            actions = smoothing.crossfade(actions, old.actions, shift, late, width)
        if options.smooths and np.isfinite(actions).all():
            # Steps that are over when the chunk comes are not what was planned but what was sent.
            over = min(max(0, int(np.floor(late + EPS_S))), len(actions))
            steps = np.arange(over - smoothing.PAST, over)
            past = self._executed(anchor + (steps + 1) / rate_hz - self.period_s)
            smooth = smoothing.savgol(actions[over:, self._smooth], past[:, self._smooth])
            actions = actions.copy()
            actions[over:, self._smooth] = smooth
        return actions

    def _executed(self, times_s: np.ndarray) -> np.ndarray:
        """Float ``[n, a]``: the command in force at times of the past; the pose before the first."""
        if not self._past:
            return np.repeat(self.robot.guard.last[None], len(times_s), axis=0)
        due = np.array([time_s for time_s, _ in self._past])
        rows = np.clip(np.searchsorted(due, times_s + EPS_S) - 1, 0, len(due) - 1)
        return np.array([sent for _, sent in self._past])[rows]

    def _too_far(self, first: np.ndarray) -> bool:
        """Whether the first command is too far from where the arm is; raises if it may not go there."""
        most = self.options.max_start_offset_rad
        if most is None:
            return False
        offsets = np.where(self._turns, np.abs(first - self.pose), 0.0)
        worst = int(np.argmax(offsets))
        if offsets[worst] <= most:
            return False
        if self.options.approach is not None and not self.approaching:
            return True
        name = self.robot.features.joints[worst]
        raise UserError(
            f"{self.robot}: the policy begins with {name} at {first[worst]:+.2f} rad, and it is at "
            f"{self.pose[worst]:+.2f}: more than {most:g} rad away; move the arm there, let it go "
            "there slowly (approach) or allow more (max_start_offset_rad)"
        )

    def _approach(self, due: float, goal: np.ndarray) -> None:
        features, share = self.robot.features, self.options.approach
        velocity = np.asarray(self.robot.guard.limits.velocity) * (share or 1.0)
        inside = np.clip(goal, features.lower, features.upper)
        self.plan = straight(self.robot.guard.last, inside, velocity, due, 1 / self.period_s)
        self.approaching = True
