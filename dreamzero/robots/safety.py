"""Limits between a policy and a motor: pure functions of the command, the last command and time.

Nothing here does I/O, and no robot acts without it (``Robot.act`` in base.py). The rules, in order: a
command that is not finite is refused and the last one repeated; every joint stays inside its limits;
no joint is asked to move faster than its velocity, however late the last command was, nor further than
its step; a command that would take the tool out of its workspace is refused like the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from .workspace import Workspace

RULES = ("refused", "position", "velocity", "step", "workspace")


@dataclass(frozen=True)
class Limits:
    """What each action dimension may do, SI units (rad, rad/s; the gripper 0..1 and per second).

    Attributes:
        lower, upper: position limits, ``[a]``.
        velocity: most change per second, ``[a]``.
        period_s: nominal time between commands. A velocity is multiplied with the time since the
            last command, but never with more than two periods: after a pause the arm does not jump.
        step: most change from one command to the next whatever the time, ``[a]``; empty: no such limit.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    period_s: float = 1 / 15
    step: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        steps = self.step or self.velocity
        widths = {len(self.lower), len(self.upper), len(self.velocity), len(steps)}
        if len(widths) != 1:
            raise UserError(
                f"limits of different widths: {sorted(widths)}; one number a joint each"
            )
        values = np.array([self.lower, self.upper, self.velocity, steps], dtype=float)
        if not np.isfinite(values).all():
            raise UserError("joint limits must be finite numbers")
        if (values[0] >= values[1]).any() or (values[2:] <= 0).any() or self.period_s <= 0:
            raise UserError("joint limits need lower < upper, velocity, step and period_s > 0")

    @property
    def width(self) -> int:
        """a, dimensions of a command."""
        return len(self.lower)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Float64 ``[a]`` each: lower, upper, velocity, step (infinite where there is none)."""
        step = self.step or (np.inf,) * self.width
        return tuple(np.array(x, np.float64) for x in (self.lower, self.upper, self.velocity, step))

    @classmethod
    def from_card(
        cls, card: Embodiment, speed: float = 1.0, step_rad: float | None = None
    ) -> Limits:
        """Limits of the embodiment card.

        Args:
            speed: in (0, 1], scales the velocities down.
            step_rad: most change of a joint in one command (m for axes that slide; grippers are free).

        Raises:
            UserError: the card knows no limits, ``speed`` is outside (0, 1], or the step not > 0.
        """
        if not 0 < speed <= 1:
            raise UserError(f"speed {speed} is outside (0, 1]: a part of the arm's full velocity")
        if not card.lower:
            raise UserError(
                f"embodiment {card.name!r} has no joint limits, so nothing may drive it"
            )
        velocity = tuple(speed * v for v in card.velocity)
        step: tuple[float, ...] = ()
        if step_rad is not None:
            spans = np.subtract(card.upper, card.lower)
            free = [f.unit == "1" for f in card.action for _ in range(f.width)]
            step = tuple(float(x) for x in np.where(free, spans, step_rad))
        return cls(card.lower, card.upper, velocity, 1 / card.action_hz, step)


@dataclass(frozen=True)
class Decision:
    """What became of one command.

    Attributes:
        action: float32 ``[a]``, what may be sent.
        refused: the command was not finite and the last one stands in for it.
        position, velocity, step: bool ``[a]``, dimensions that the limit of that name changed.
        workspace: the tool would have left its box and the last command stands in.
    """

    action: np.ndarray
    refused: bool
    position: np.ndarray
    velocity: np.ndarray
    step: np.ndarray
    workspace: bool = False

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that changed the command, of :data:`RULES`."""
        changed = (self.refused, self.position.any(), self.velocity.any(), self.step.any())
        return tuple(r for r, on in zip(RULES, (*changed, self.workspace), strict=True) if on)

    @property
    def clipped(self) -> bool:
        """Whether anything but the command itself is sent."""
        return bool(self.rules)


@dataclass
class Guard:
    """Applies ``Limits`` to a stream of commands.

    ``reset`` names the pose the arm is really in; until then every command is refused by raising,
    because no step could be bounded.

    Attributes:
        limits: of the joints.
        workspace: of the tool. An arm that is found outside may move only where the tool gets no
            further out.
        counts: commands that each rule has changed.
    """

    limits: Limits
    workspace: Workspace | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    _last: np.ndarray | None = None
    _last_s: float = 0.0

    def reset(self, pose: np.ndarray, time_s: float) -> None:
        """Start from the measured pose, float ``[a]``.

        A pose outside the limits is taken as it is: the first commands lead back in, at the
        velocity limit.

        Raises:
            UserError: the pose has another width, or is not finite.
        """
        pose = np.asarray(pose, dtype=np.float64)
        if pose.shape != (self.limits.width,) or not np.isfinite(pose).all():
            raise UserError(
                f"measured pose {pose.tolist()} is not {self.limits.width} finite numbers"
            )
        # The pose has been held for a while: the first command may go as far as any other.
        self._last, self._last_s = pose.copy(), time_s - self.limits.period_s

    @property
    def last(self) -> np.ndarray:
        """Float ``[a]``: the command now in force (or the pose given to ``reset``)."""
        if self._last is None:
            raise UserError("the arm's pose is not known yet: connect before acting")
        return self._last.copy()

    def check(self, action: np.ndarray, time_s: float) -> Decision:
        """Bound one command, float ``[a]`` in SI units, given at ``time_s``.

        Raises:
            UserError: the command has another width than the arm, or ``reset`` was never called.
        """
        last = self.last
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != last.shape:
            raise UserError(
                f"action of shape {list(wanted.shape)} for an arm of {len(last)} dimensions"
            )
        if not np.isfinite(wanted).all():
            none = np.zeros(last.shape, dtype=bool)
            return self._count(Decision(last.astype(np.float32), True, none, none, none))
        lower, upper, velocity, step = self.limits.arrays
        inside = np.minimum(np.maximum(wanted, lower), upper)
        elapsed_s = min(max(time_s - self._last_s, 0.0), 2 * self.limits.period_s)
        reach = velocity * elapsed_s
        slow = np.minimum(np.maximum(inside, last - reach), last + reach)
        short = np.minimum(np.maximum(slow, last - step), last + step)
        out = self._leaves(last, short)
        if not out:
            self._last, self._last_s = short, max(time_s, self._last_s)
        return self._count(
            Decision(
                self.last.astype(np.float32),
                False,
                position=inside != wanted,
                velocity=slow != inside,
                step=short != slow,
                workspace=out,
            )
        )

    def _leaves(self, last: np.ndarray, wanted: np.ndarray) -> bool:
        """Whether the tool would leave its box, or go further out of it."""
        if self.workspace is None or (outside_m := self.workspace.outside_m(wanted)) == 0:
            return False
        return outside_m > self.workspace.outside_m(last)

    def _count(self, decision: Decision) -> Decision:
        for rule in decision.rules:
            self.counts[rule] += 1
        return decision


@dataclass
class Watchdog:
    """Tells when no fresh command has come for ``limit_s``; the caller then holds, and ends."""

    limit_s: float
    _fed_s: float | None = None

    def __post_init__(self) -> None:
        if not self.limit_s > 0:
            raise UserError(f"watchdog_s is {self.limit_s}; give seconds > 0")

    def feed(self, time_s: float) -> None:
        """A fresh command came at ``time_s``."""
        self._fed_s = time_s

    def expired(self, time_s: float) -> bool:
        """False until the first ``feed``: an arm that was never moved needs no stopping."""
        return self._fed_s is not None and time_s - self._fed_s > self.limit_s
