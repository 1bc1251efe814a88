"""How an arm of servos is put together, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..calibration import Calibration


class Setting(NamedTuple):
    """What an EEPROM register should hold, in the bits of ``mask``."""

    value: int
    mask: int = 0xFF

    def met(self, held: int) -> bool:
        return (held ^ self.value) & self.mask == 0

    def into(self, held: int) -> int:
        return held & ~self.mask | self.value & self.mask


@dataclass(frozen=True)
class Build:
    """How an arm is put together: data, one a robot.

    Attributes:
        calibration: names and ids from the base up, and what ticks mean until it is calibrated.
        models: joint -> model numbers that may sit there, the usual one first.
        zero_pose: the pose in which the card's joints are 0, for the person who calibrates.
        shadows: joint -> id of a second servo that follows the first.
    """

    calibration: Calibration
    models: Mapping[str, tuple[int, ...]]
    zero_pose: str
    shadows: Mapping[str, int] = field(default_factory=dict)

    def settings(self, joint: str) -> Mapping[str, Setting]:
        """Registers of the joint's servo, as ``configure`` leaves them."""
        return {"return_delay": Setting(0)}

    def shadow_settings(self, joint: str, lead: int) -> Mapping[str, Setting]:
        """Registers of the joint's second servo; ``lead`` is the id of the first."""
        return self.settings(joint)
