"""What stands behind a companion: the arm as its SDK moves it, its troubles, and the rules kept for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import UserError
from .bodies import Fault, describe


class ArmFault(Exception):
    """The arm is in trouble; a backend raises it from any method for as long as it is.

    Args:
        fault: what kind.
        joint: which joint, from 1; 0 where none.
    """

    def __init__(self, fault: Fault, joint: int = 0) -> None:
        super().__init__(describe(fault, joint))
        self.fault, self.joint = fault, joint


class Backend(Protocol):
    """An arm as its SDK moves it. Called from one thread, ``control_hz`` times a second; must not block.

    Values are the card's action, float ``[a]``: joints in rad, the gripper 0 (closed) to 1 (open).
    """

    def read(self) -> np.ndarray:
        """Where it is: float ``[a]`` in SI units."""

    def command(self, q: np.ndarray) -> None:
        """Go there, float ``[a]`` in SI units: inside the limits, and no further from the last than
        the velocities allow.
        """

    def hold(self) -> None:
        """Stay here until the next ``command``."""


@dataclass(frozen=True)
class Rules:
    """What the companion enforces.

    Attributes:
        watchdog_s: it holds when no command has come for so long.
        max_age_s: commands that may be older by the synchronised clocks are refused.
        state_hz, control_hz: states sent and setpoints made a second.
        session_s: a session that says nothing for so long is over.
        command_hz: most frames a second of one driver; more are dropped.
        speed: part of the card's joint velocities that is allowed, in (0, 1].
    """

    watchdog_s: float = 0.3
    max_age_s: float = 0.25
    state_hz: float = 100.0
    control_hz: float = 200.0
    session_s: float = 2.0
    command_hz: float = 1000.0
    speed: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"companion: {name}={value} must be > 0")
