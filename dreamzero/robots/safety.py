"""Limits between a policy and a motor: pure functions of the command, the last command and time.

Nothing here does I/O, and no robot acts without it (``Robot.act`` in base.py). Three rules, in order:
a command that is not finite is refused and the last one repeated; every joint stays inside its
limits; no joint is asked to move faster than its velocity, however late the last command was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError


@dataclass(frozen=True)
class Limits:
    """What each action dimension may do, SI units (rad, rad/s; the gripper 0..1 and per second).

    Attributes:
        lower, upper: position limits, ``[a]``.
        velocity: most change per second, ``[a]``.
        period_s: nominal time between commands. A velocity is multiplied with the time since the
            last command, but never with more than two periods: after a pause the arm does not jump.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    period_s: float = 1 / 15

    def __post_init__(self) -> None:
        widths = {len(self.lower), len(self.upper), len(self.velocity)}
        if len(widths) != 1:
            raise UserError(
                f"limits of different widths: {sorted(widths)}; one number a joint each"
            )
        values = np.array([self.lower, self.upper, self.velocity], dtype=float)
        if not np.isfinite(values).all():
            raise UserError("joint limits must be finite numbers")
        if (values[0] >= values[1]).any() or (values[2] <= 0).any() or self.period_s <= 0:
            raise UserError("joint limits need lower < upper, velocity > 0 and period_s > 0")

    @property
    def width(self) -> int:
        return len(self.lower)

    @classmethod
    def from_card(cls, card: Embodiment, speed: float = 1.0) -> Limits:
        """Limits of the embodiment card; ``speed`` in (0, 1] scales the velocities down.

        Raises:
            UserError: the card knows no limits, or ``speed`` is outside (0, 1].
        """
        if not 0 < speed <= 1:
            raise UserError(f"speed {speed} is outside (0, 1]: a part of the arm's full velocity")
        if not card.lower:
            raise UserError(
                f"embodiment {card.name!r} has no joint limits, so nothing may drive it"
            )
        velocity = tuple(speed * v for v in card.velocity)
        return cls(card.lower, card.upper, velocity, 1 / card.action_hz)


@dataclass(frozen=True)
class Decision:
    """What became of one command.

    Attributes:
        action: float32 ``[a]``, what may be sent.
        refused: the command was not finite and the last one stands in for it.
        position, velocity: bool ``[a]``, dimensions that the limit of that name changed.
    """

    action: np.ndarray
    refused: bool
    position: np.ndarray
    velocity: np.ndarray

    @property
    def clipped(self) -> bool:
        """Whether anything but the command itself is sent."""
        return bool(self.refused or self.position.any() or self.velocity.any())


@dataclass
class Guard:
    """Applies :class:`Limits` to a stream of commands.

    ``reset`` names the pose the arm is really in; until then every command is refused by raising,
    because no step could be bounded.
    """

    limits: Limits
    counts: dict[str, int] = field(
        default_factory=lambda: {"refused": 0, "position": 0, "velocity": 0}
    )
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
        none = np.zeros(last.shape, dtype=bool)
        if not np.isfinite(wanted).all():
            self.counts["refused"] += 1
            return Decision(last.astype(np.float32), True, none, none.copy())
        inside = np.clip(wanted, self.limits.lower, self.limits.upper)
        elapsed_s = min(max(time_s - self._last_s, 0.0), 2 * self.limits.period_s)
        reach = np.asarray(self.limits.velocity) * elapsed_s
        sent = np.clip(inside, last - reach, last + reach)
        position, velocity = inside != wanted, sent != inside
        self.counts["position"] += int(position.any())
        self.counts["velocity"] += int(velocity.any())
        self._last, self._last_s = sent, max(time_s, self._last_s)
        return Decision(sent.astype(np.float32), False, position, velocity)


@dataclass
class Watchdog:
    """Tells when no fresh command has come for ``limit_s``; the caller then holds, and ends."""

    limit_s: float
    _fed_s: float | None = None

    def __post_init__(self) -> None:
        if not self.limit_s > 0:
            raise UserError(f"watchdog_s is {self.limit_s}; give seconds > 0")

    def feed(self, time_s: float) -> None:
        self._fed_s = time_s

    def expired(self, time_s: float) -> bool:
        """False until the first ``feed``: an arm that was never moved needs no stopping."""
        return self._fed_s is not None and time_s - self._fed_s > self.limit_s
