"""Between a servo's ticks and the units of the card; JSON-able, so that it travels with the arm."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

# Feetech's STS and Dynamixel's X servos alike; 253 and 254 mean something else on some bus.
TICKS_PER_TURN = 4096
MAX_ID = 252


@dataclass(frozen=True)
class JointCalibration:
    """One servo: ``value = sign * (tick - zero_tick) * scale``.

    Attributes:
        name: of the joint.
        id: of the servo on the bus.
        zero_tick: tick at 0 rad, or at a closed gripper.
        sign: +1 or -1, which way the ticks run.
        scale: rad a tick; for the gripper, opening (0..1) a tick.
        min_tick, max_tick: ticks that may be commanded.
    """

    name: str
    id: int
    zero_tick: int = TICKS_PER_TURN // 2
    sign: int = 1
    scale: float = 2 * math.pi / TICKS_PER_TURN
    min_tick: int = 0
    max_tick: int = TICKS_PER_TURN - 1

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAX_ID:
            raise UserError(f"calibration of {self.name}: servo id {self.id} is not 0..{MAX_ID}")
        if self.sign not in (1, -1):
            raise UserError(f"calibration of {self.name}: sign {self.sign} is not 1 or -1")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"calibration of {self.name}: scale {self.scale} is not > 0")
        if not 0 <= self.min_tick < self.max_tick < TICKS_PER_TURN:
            raise UserError(
                f"calibration of {self.name}: ticks {self.min_tick}..{self.max_tick} are not an "
                f"ascending range inside 0..{TICKS_PER_TURN - 1}"
            )

    def to_value(self, tick: int) -> float:
        """Ticks to rad (gripper: 0..1)."""
        return self.sign * (tick - self.zero_tick) * self.scale

    def to_tick(self, value: float) -> int:
        """Rad (gripper: 0..1) to the nearest tick that may be commanded."""
        tick = round(self.zero_tick + self.sign * value / self.scale)
        return min(max(tick, self.min_tick), self.max_tick)


@dataclass(frozen=True)
class Calibration:
    """All servos of one arm, in the order of the action."""

    joints: tuple[JointCalibration, ...]

    def __post_init__(self) -> None:
        ids = [joint.id for joint in self.joints]
        if len(set(ids)) != len(ids):
            raise UserError(f"calibration: two servos have the same id in {ids}")

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(joint.id for joint in self.joints)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    def to_values(self, ticks: dict[int, int]) -> np.ndarray:
        """Servo id -> tick to float32 ``[a]``."""
        return np.array([j.to_value(ticks[j.id]) for j in self.joints], dtype=np.float32)

    def to_ticks(self, values: np.ndarray) -> dict[int, int]:
        """Float ``[a]`` to servo id -> tick."""
        return {j.id: j.to_tick(float(v)) for j, v in zip(self.joints, values, strict=True)}

    def to_json(self) -> dict[str, Any]:
        return {"joints": [asdict(joint) for joint in self.joints]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        return cls(tuple(JointCalibration(**joint) for joint in data["joints"]))

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """From a file of :meth:`save`; UserError names the file and what is wrong in it."""
        try:
            return cls.from_json(json.loads(Path(path).read_text()))
        except FileNotFoundError:
            raise UserError(f"calibration file {path} does not exist") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"calibration file {path} is not one of ours: {error}") from error


# Servos of an SO-101 from the base up. A quarter turn opens the gripper.
SO101 = Calibration(
    (
        JointCalibration("shoulder_pan", 1),
        JointCalibration("shoulder_lift", 2),
        JointCalibration("elbow_flex", 3),
        JointCalibration("wrist_flex", 4),
        JointCalibration("wrist_roll", 5),
        JointCalibration("gripper", 6, scale=1 / 1024, min_tick=2048 - 100, max_tick=3072 + 100),
    )
)
