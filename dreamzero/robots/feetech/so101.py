"""SO-100/101: five joints and a gripper of Feetech STS3215 on one bus, cameras beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from ..base import RobotFault
from ..calibration import SO101, TICKS_PER_TURN
from ..servos.arm import ServoArm
from ..servos.build import Build, Setting
from . import protocol as feetech
from .bus import Bus

_POSITION_MODE = 0


class Sts3215Arm(Build):
    """An arm of STS3215 servos."""

    def settings(self, joint: str) -> Mapping[str, Setting]:
        return {"return_delay": Setting(0), "operating_mode": Setting(_POSITION_MODE)}


class So101(ServoArm):
    """The arm behind a byte stream; see ``ServoArm``."""

    bus_type = Bus
    builds: ClassVar[Mapping[str, Build]] = {
        "so101": Sts3215Arm(
            SO101,
            dict.fromkeys(SO101.names, (feetech.MODEL_STS3215,)),
            "every joint in the middle of its range, the gripper half open",
        )
    }

    def _check(self) -> None:
        super()._check()
        for servo, mode in self.ask("operating_mode").items():
            if mode != _POSITION_MODE:
                raise RobotFault(
                    f"{self}: servo id {servo} is in operating mode {mode}, not in position mode "
                    f"({_POSITION_MODE}): `dreamzero robot calibrate --configure` sets it"
                )

    def center(self) -> None:
        # The position shown is the encoder's less the offset (LeRobot, motors/feetech/feetech.py).
        shown, held = self.ask("present_position"), self.ask("homing_offset")
        middle, register = TICKS_PER_TURN // 2, self.register("homing_offset")
        for servo, tick in shown.items():
            offset = (tick + held[servo]) % TICKS_PER_TURN - middle
            self.bus.unlock(servo)
            self.bus.write(servo, register, max(offset, register.range[0]))
            self.bus.lock(servo)
        time.sleep(0.05)  # their memory is slow

    def reach(self) -> dict[int, tuple[int, int]]:
        # Equal limits mean none at all: the servo then turns and turns.
        whole = (0, TICKS_PER_TURN - 1)
        return {i: span if span[0] < span[1] else whole for i, span in super().reach().items()}
