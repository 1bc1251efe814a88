"""The driver of all arms of Dynamixel X servos: Koch v1.1, OpenManipulator-X, ViperX 300 S."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ...errors import UserError
from ..base import RobotFault
from ..servos.arm import ServoArm
from .arms import ARMS
from .bus import Bus
from .table import MODELS, MULTI_TURN, TICKS_PER_TURN, Drive, Mode

_POSITION_MODES = (Mode.POSITION, Mode.EXTENDED_POSITION, Mode.CURRENT_BASED_POSITION)
# Two servos of one joint further apart than 5 degrees strain against each other.
_SHADOW_TICKS = 57
_REMEDY = "`dreamzero robot calibrate --configure` sets it"


class DynamixelArm(ServoArm):
    """The arm behind a byte stream; see ``ServoArm``.

    In the modes of several turns a servo forgets its turns when it is switched off and begins anew
    within one; the driver counts from the turn that puts the joint nearest to the middle of its
    calibrated range. Velocity and acceleration profiles are left as they are unless set.

    Args:
        uri: further options: ``fast=1`` reads all servos in one packet (firmware 45, or 46 of XL330,
            on); ``grip_ma`` limits the gripper's current, in mA; ``profile_velocity`` (0.229 rev/min)
            and ``profile_acceleration`` (214.577 rev/min^2) for every joint, both in ms where its drive mode
            asks for profiles by time.
    """

    bus_type = Bus
    builds = ARMS
    options = (*ServoArm.options, "fast", "grip_ma", "profile_velocity", "profile_acceleration")

    _modes: Mapping[int, int] = {}
    _offsets: Mapping[int, int] = {}
    _turns: Mapping[int, int] = {}
    _fast = False

    def reach(self) -> dict[int, tuple[int, int]]:
        single = super().reach()
        many = (-MULTI_TURN, MULTI_TURN)
        return {i: single[i] if m == Mode.POSITION else many for i, m in self._modes.items()}

    def _open(self) -> None:
        self._turns, self._fast = {}, False
        super()._open()

    def _check(self) -> None:
        super()._check()
        modes = self.ask("operating_mode", self.servos)
        for servo, mode in modes.items():
            if mode not in _POSITION_MODES:
                name = Mode(mode).name.lower() if mode in set(Mode) else "an unknown one"
                raise RobotFault(
                    f"{self}: servo id {servo} is in operating mode {mode} ({name}), not in one of "
                    f"position (3, 4, 5): {_REMEDY}"
                )
        self._modes = {i: modes[i] for i in self.calibration.ids}
        self._offsets = self.ask("homing_offset")
        self._check_drives()
        self._check_shadows(modes)
        raw = self.ask("present_position")
        self._turns = {
            j.id: round(((j.min_tick + j.max_tick) / 2 - raw[j.id]) / TICKS_PER_TURN)
            for j in self._given.joints
        }
        if self.uri.query.get("fast") == "1":
            self._check_firmware()

    def _check_drives(self) -> None:
        drives = self.ask("drive_mode", self.servos)
        for servo, name, setting in self._settings():
            if name == "drive_mode" and not setting.met(drives[servo]):
                what = "turns the wrong way round for this arm"
                if drives[servo] & Drive.TORQUE_ON_BY_GOAL:
                    what = "switches torque on by itself when a goal comes"
                raise RobotFault(
                    f"{self}: servo id {servo} {what} (drive mode {drives[servo]}): {_REMEDY}"
                )

    def _check_shadows(self, modes: Mapping[int, int]) -> None:
        """Two servos on one joint must be one: told the same, standing in the same place."""
        if not self.build.shadows:
            return
        where = self.ask("present_position", self.servos)
        follows = self.ask("secondary_id", tuple(self.build.shadows.values()))
        for joint in self.calibration.joints:
            shadow = self.build.shadows.get(joint.name)
            if shadow is None:
                continue
            if follows[shadow] != joint.id or modes[shadow] != modes[joint.id]:
                raise RobotFault(
                    f"{self}: servo id {shadow} does not follow id {joint.id} on the {joint.name} "
                    f"(secondary id {follows[shadow]}, operating mode {modes[shadow]}): {_REMEDY}"
                )
            gap = where[shadow] - where[joint.id]
            if modes[shadow] == Mode.POSITION:
                gap = (gap + TICKS_PER_TURN // 2) % TICKS_PER_TURN - TICKS_PER_TURN // 2
            if abs(gap) > _SHADOW_TICKS:
                raise RobotFault(
                    f"{self}: servos id {joint.id} and {shadow} share the {joint.name} and stand "
                    f"{abs(gap)} ticks apart, so they would strain against each other: set the "
                    "homing offset of one (Interbotix' calibration does), then try again"
                )

    def _check_firmware(self) -> None:
        models, versions = self.ask("model"), self.ask("firmware")
        for servo, version in versions.items():
            least = MODELS[models[servo]].fast_firmware
            if version < least:
                raise UserError(
                    f"{self.uri}: servo id {servo} has firmware {version}, and fast=1 needs {least}: "
                    "leave it out, or update the servo with Dynamixel Wizard"
                )
        self._fast = True

    def _ticks(self, shown: Mapping[int, int]) -> dict[int, int]:
        return {servo: self._unwound(servo, tick) for servo, tick in shown.items()}

    def _unwound(self, servo: int, tick: int) -> int:
        if self._modes[servo] == Mode.POSITION:
            # With torque off it counts turns in this mode too, and drops them when torque comes.
            offset = self._offsets[servo]
            return (tick - offset) % TICKS_PER_TURN + offset
        return tick + TICKS_PER_TURN * self._turns[servo]

    def _shown(self, ticks: Mapping[int, int]) -> dict[int, int]:
        return {
            servo: tick
            if self._modes[servo] == Mode.POSITION
            else tick - TICKS_PER_TURN * self._turns[servo]
            for servo, tick in ticks.items()
        }

    def _positions(self) -> dict[int, int]:
        if not self._fast:
            return super()._positions()
        register = self.register("present_position")
        bus = cast(Bus, self.bus)
        return self._ticks(bus.fast_sync_read(register, self.calibration.ids, self.within_s))

    def _hold(self) -> None:
        for name in ("profile_acceleration", "profile_velocity"):
            if name in self.uri.query:
                value = self.uri.number(name, 0)
                self.bus.sync_write(self.register(name), dict.fromkeys(self.servos, value))
        if "grip_ma" in self.uri.query:
            self._limit_grip(self.uri.number("grip_ma", 0))
        super()._hold()
        for servo, on in self.ask("torque_enable", self.servos).items():
            if not on:
                raise RobotFault(f"{self}: torque of servo id {servo} stays off")

    def _limit_grip(self, current_ma: int) -> None:
        gripper = self.calibration.joints[-1]
        unit_ma = MODELS[self.ask("model")[gripper.id]].current_ma
        if self._modes[gripper.id] != Mode.CURRENT_BASED_POSITION or not unit_ma:
            raise UserError(
                f"{self.uri}: grip_ma needs the gripper in current-based position mode (5), and it "
                f"is in mode {self._modes[gripper.id]}: {_REMEDY}"
            )
        self.bus.write(gripper.id, self.register("goal_current"), round(current_ma / unit_ma))
