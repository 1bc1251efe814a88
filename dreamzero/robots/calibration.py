"""Between a servo's ticks and the units of the card; JSON-able, so that it travels with the arm."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

# Feetech's STS and Dynamixel's X servos alike; 253 and 254 mean something else on some bus.
TICKS_PER_TURN = 4096
MAX_ID = 252
# 256 turns either way, which is as far as any of them counts.
MAX_TICK = 256 * TICKS_PER_TURN - 1


@dataclass(frozen=True)
class JointCalibration:
    """One servo: ``value = sign * (tick - zero_tick) * scale``.

    Attributes:
        name: of the joint.
        id: of the servo on the bus.
        zero_tick: tick at 0 rad, or at a closed gripper.
        sign: +1 or -1, which way the ticks run.
        scale: rad a tick; for the gripper, opening (0..1) a tick.
        min_tick, max_tick: ticks that may be commanded; beyond 0..4095 where a servo counts turns.
        homing_offset: what the servo's register of that name held when the ticks were recorded; a
            servo that holds something else now counts from elsewhere. None: not known.
    """

    name: str
    id: int
    zero_tick: int = TICKS_PER_TURN // 2
    sign: int = 1
    scale: float = 2 * math.pi / TICKS_PER_TURN
    min_tick: int = 0
    max_tick: int = TICKS_PER_TURN - 1
    homing_offset: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAX_ID:
            raise UserError(f"calibration of {self.name}: servo id {self.id} is not 0..{MAX_ID}")
        if self.sign not in (1, -1):
            raise UserError(f"calibration of {self.name}: sign {self.sign} is not 1 or -1")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"calibration of {self.name}: scale {self.scale} is not > 0")
        if not -MAX_TICK <= self.min_tick < self.max_tick <= MAX_TICK:
            raise UserError(
                f"calibration of {self.name}: ticks {self.min_tick}..{self.max_tick} are not an "
                f"ascending range inside {-MAX_TICK}..{MAX_TICK}"
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
        """Ids of the servos, in the order of the joints."""
        return tuple(joint.id for joint in self.joints)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the joints."""
        return tuple(joint.name for joint in self.joints)

    def to_values(self, ticks: dict[int, int]) -> np.ndarray:
        """Servo id -> tick to float32 ``[a]``."""
        return np.array([j.to_value(ticks[j.id]) for j in self.joints], dtype=np.float32)

    def to_ticks(self, values: np.ndarray) -> dict[int, int]:
        """Float ``[a]`` to servo id -> tick."""
        return {j.id: j.to_tick(float(v)) for j, v in zip(self.joints, values, strict=True)}

    def within(self, limits: Mapping[int, tuple[int, int]]) -> Calibration:
        """The same, with no joint's range beyond what its servo takes: id -> (least, greatest tick).

        Raises:
            UserError: nothing of a joint's range is left.
        """
        joints = []
        for joint in self.joints:
            low, high = limits[joint.id]
            low, high = max(low, joint.min_tick), min(high, joint.max_tick)
            if low >= high:
                raise UserError(
                    f"calibration of {joint.name}: ticks {joint.min_tick}..{joint.max_tick} are not "
                    f"what servo id {joint.id} can go to ({limits[joint.id][0]}.."
                    f"{limits[joint.id][1]}): calibrate again"
                )
            joints.append(replace(joint, min_tick=low, max_tick=high))
        return Calibration(tuple(joints))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; ``from_json`` is the inverse."""
        return {"joints": [asdict(joint) for joint in self.joints]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """From ``to_json``, or from a calibration file of LeRobot."""
        if "joints" not in data and all(isinstance(entry, dict) for entry in data.values()):
            return cls(tuple(_from_lerobot(*entry) for entry in data.items() if _leads(entry[0])))
        return cls(tuple(JointCalibration(**joint) for joint in data["joints"]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole file or nothing."""
        place = Path(path)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(self.to_json(), indent=2) + "\n")
            beside.replace(place)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise UserError(f"calibration cannot be written to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """From a file of ``save`` or of LeRobot; UserError says what is wrong in which file."""
        try:
            return cls.from_json(json.loads(Path(path).read_text()))
        except FileNotFoundError:
            raise UserError(f"calibration file {path} does not exist") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"calibration file {path} is neither one of ours nor LeRobot's: {error}"
            ) from error


def _leads(name: str) -> bool:
    """LeRobot lists the second servo of a joint as well, which follows the first."""
    return not name.endswith("_shadow")


def _from_lerobot(name: str, entry: Mapping[str, Any]) -> JointCalibration:
    """One joint of a LeRobot calibration (huggingface/lerobot, motors/motors_bus.py).

    LeRobot writes ``homing_offset`` into the servo and records the range behind it; a joint is at 0
    in the middle of its range, a gripper is closed at its low end.
    """
    low, high = int(entry["range_min"]), int(entry["range_max"])
    if int(entry["drive_mode"]) & 1:
        # Feetech's driver turns such a joint around in software, Dynamixel's servo turns by itself.
        raise UserError(
            f"calibration of {name}: drive_mode {entry['drive_mode']} (reversed) means different "
            "things for different servos: calibrate with `dreamzero robot calibrate` instead"
        )
    if low >= high:
        raise UserError(f"calibration of {name}: range_min {low} is not below range_max {high}")
    grips = name == "gripper"
    return JointCalibration(
        name,
        int(entry["id"]),
        zero_tick=low if grips else round((low + high) / 2),
        scale=1 / (high - low) if grips else JointCalibration.scale,
        min_tick=low,
        max_tick=high,
        homing_offset=int(entry["homing_offset"]),
    )


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
