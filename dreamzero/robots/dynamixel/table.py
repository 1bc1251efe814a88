"""Dynamixel X series: control table, models, operating modes, error bits.

Source: ROBOTIS e-Manual, pages of XL330-M077, XL330-M288, XL430-W250, XC430-W150, XM430-W210,
XM430-W350 and XM540-W270 (emanual.robotis.com/docs/en/dxl/x): one layout for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..servos.codec import Register, table

# Addresses below are EEPROM: writable only while torque is off, and kept without power.
EEPROM_END = 64
MEMORY_BYTES = 148
TICKS_PER_TURN = 4096
# Ticks that may be commanded in the two modes of several turns: 256 turns either way.
MULTI_TURN = 1_048_575
NO_SECONDARY_ID = 255
# Values 0 to 6 of the register baud_rate.
BAUD_RATES = (9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
HARDWARE_ERRORS = {
    0: "input voltage",
    2: "overheating",
    3: "motor encoder",
    4: "electrical shock",
    5: "overload",
}
OVERLOAD = 1 << 5


class Mode(IntEnum):
    """Values of operating_mode."""

    CURRENT = 0
    VELOCITY = 1
    POSITION = 3
    EXTENDED_POSITION = 4
    CURRENT_BASED_POSITION = 5
    PWM = 16


class Drive(IntEnum):
    """Bits of drive_mode."""

    REVERSE = 0x01
    SLAVE = 0x02
    TIME_PROFILE = 0x04
    TORQUE_ON_BY_GOAL = 0x08


@dataclass(frozen=True)
class Model:
    """A kind of servo.

    Attributes:
        current_ma: what one count of the current registers is; 0 where the servo measures none (it
            then reports load, in 0.1 %, where others report current, and has no current-based mode).
        fast_firmware: first firmware that knows the fast sync read.
    """

    name: str
    current_ma: float
    fast_firmware: int


MODELS = {
    1020: Model("XM430-W350", 2.69, 45),
    1030: Model("XM430-W210", 2.69, 45),
    1060: Model("XL430-W250", 0.0, 45),
    1070: Model("XC430-W150", 0.0, 45),
    1120: Model("XM540-W270", 2.69, 45),
    1190: Model("XL330-M077", 1.0, 46),
    1200: Model("XL330-M288", 1.0, 46),
}

_SPEED, _ACCELERATION = "0.229 rev/min", "214.577 rev/min^2"

X_SERIES = table(
    (
        Register("model", 0, 2, writable=False),
        Register("model_information", 2, 4, writable=False),
        Register("firmware", 6, 1, writable=False),
        Register("id", 7, 1),
        Register("baud_rate", 8, 1),
        Register("return_delay", 9, 1, unit="2 us"),
        Register("drive_mode", 10, 1),
        Register("operating_mode", 11, 1),
        Register("secondary_id", 12, 1),
        Register("protocol", 13, 1),
        Register("homing_offset", 20, 4, signed=True, unit="tick"),
        Register("moving_threshold", 24, 4, unit=_SPEED),
        Register("max_temperature", 31, 1, unit="degC"),
        Register("max_voltage", 32, 2, unit="0.1 V"),
        Register("min_voltage", 34, 2, unit="0.1 V"),
        Register("pwm_limit", 36, 2, unit="0.113 %"),
        Register("current_limit", 38, 2, unit="Model.current_ma"),
        Register("velocity_limit", 44, 4, unit=_SPEED),
        Register("max_position", 48, 4, unit="tick"),
        Register("min_position", 52, 4, unit="tick"),
        Register("startup_configuration", 60, 1),
        Register("shutdown", 63, 1),
        Register("torque_enable", 64, 1),
        Register("led", 65, 1),
        Register("response_level", 68, 1),
        Register("registered_instruction", 69, 1, writable=False),
        Register("hardware_error", 70, 1, writable=False),
        Register("velocity_i_gain", 76, 2),
        Register("velocity_p_gain", 78, 2),
        Register("position_d_gain", 80, 2),
        Register("position_i_gain", 82, 2),
        Register("position_p_gain", 84, 2),
        Register("feedforward_2nd_gain", 88, 2),
        Register("feedforward_1st_gain", 90, 2),
        Register("bus_watchdog", 98, 1, signed=True, unit="20 ms"),
        Register("goal_pwm", 100, 2, signed=True, unit="0.113 %"),
        Register("goal_current", 102, 2, signed=True, unit="Model.current_ma"),
        Register("goal_velocity", 104, 4, signed=True, unit=_SPEED),
        Register("profile_acceleration", 108, 4, unit=_ACCELERATION),
        Register("profile_velocity", 112, 4, unit=_SPEED),
        Register("goal_position", 116, 4, signed=True, unit="tick"),
        Register("realtime_tick", 120, 2, writable=False, unit="ms"),
        Register("moving", 122, 1, writable=False),
        Register("moving_status", 123, 1, writable=False),
        Register("present_pwm", 124, 2, signed=True, writable=False, unit="0.113 %"),
        Register("present_current", 126, 2, signed=True, writable=False, unit="Model.current_ma"),
        Register("present_velocity", 128, 4, signed=True, writable=False, unit=_SPEED),
        Register("present_position", 132, 4, signed=True, writable=False, unit="tick"),
        Register("velocity_trajectory", 136, 4, signed=True, writable=False, unit=_SPEED),
        Register("position_trajectory", 140, 4, signed=True, writable=False, unit="tick"),
        Register("present_voltage", 144, 2, writable=False, unit="0.1 V"),
        Register("present_temperature", 146, 1, writable=False, unit="degC"),
        Register("backup_ready", 147, 1, writable=False),
    )
)
