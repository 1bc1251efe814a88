"""States of a UR controller, and what a person has to do about each that stands in the way.

Sources: RTDE guide (bits of ``safety_status_bits``), "Remote Control via TCP/IP" (robot and safety
modes), dashboard server manual (names as it spells them).
"""

from __future__ import annotations

from enum import IntEnum


class RobotMode(IntEnum):
    """Mode of the arm, as RTDE's ``robot_mode`` counts it."""

    NO_CONTROLLER = -1
    DISCONNECTED = 0
    CONFIRM_SAFETY = 1
    BOOTING = 2
    POWER_OFF = 3
    POWER_ON = 4
    IDLE = 5
    BACKDRIVE = 6
    RUNNING = 7
    UPDATING_FIRMWARE = 8


class SafetyMode(IntEnum):
    """Mode of the safety system, as RTDE's ``safety_mode`` counts it."""

    NORMAL = 1
    REDUCED = 2
    PROTECTIVE_STOP = 3
    RECOVERY = 4
    SAFEGUARD_STOP = 5
    SYSTEM_EMERGENCY_STOP = 6
    ROBOT_EMERGENCY_STOP = 7
    VIOLATION = 8
    FAULT = 9
    VALIDATE_JOINT_ID = 10
    UNDEFINED_SAFETY_MODE = 11


class RuntimeState(IntEnum):
    """Of the program: ``runtime_state``."""

    STOPPING = 0
    STOPPED = 1
    PLAYING = 2
    PAUSING = 3
    PAUSED = 4
    RESUMING = 5


# Bits of safety_status_bits, from 0 on.
SAFETY_BITS = (
    "normal mode",
    "reduced mode",
    "protective stopped",
    "recovery mode",
    "safeguard stopped",
    "system emergency stopped",
    "robot emergency stopped",
    "emergency stopped",
    "violation",
    "fault",
    "stopped due to safety",
)
STOPPED_DUE_TO_SAFETY = 1 << SAFETY_BITS.index("stopped due to safety")

_EMERGENCY = "release the emergency stop, then `power on` and `brake release` on the dashboard"
_REMEDIES = {
    SafetyMode.PROTECTIVE_STOP: "look what the arm hit or strained at, free it, then "
    "`unlock protective stop` on the dashboard (5 s after the stop at the earliest)",
    SafetyMode.SAFEGUARD_STOP: "close the safeguard (door, curtain, enabling device) and reset it",
    SafetyMode.SYSTEM_EMERGENCY_STOP: _EMERGENCY,
    SafetyMode.ROBOT_EMERGENCY_STOP: _EMERGENCY,
    SafetyMode.RECOVERY: "lead the arm back into its limits with the pendant",
    SafetyMode.VIOLATION: "read the pendant's log, then `restart safety` on the dashboard",
    SafetyMode.FAULT: "read the pendant's log, then `restart safety` on the dashboard",
}
_MOVES = (SafetyMode.NORMAL, SafetyMode.REDUCED)


def name(kind: type[IntEnum], value: int) -> str:
    """Name of a state, or its number where newer software has more of them."""
    try:
        return kind(value).name
    except ValueError:
        return f"{kind.__name__} {value}"


def what_is_wrong(robot_mode: int, safety_mode: int, safety_bits: int = 1) -> str:
    """Why the arm cannot move and what to do about it, one clause; empty if it can.

    Args:
        robot_mode, safety_mode, safety_bits: ``robot_mode``, ``safety_mode`` and
            ``safety_status_bits`` as RTDE has them.
    """
    if safety_mode not in _MOVES:
        try:
            remedy = _REMEDIES[SafetyMode(safety_mode)]
        except (KeyError, ValueError):
            remedy = "the pendant says more"
        return f"{name(SafetyMode, safety_mode)}: {remedy}"
    # Newer kinds of stop (enabling devices) have no safety mode, but the bit.
    if safety_bits & STOPPED_DUE_TO_SAFETY:
        bits = [bit for i, bit in enumerate(SAFETY_BITS) if safety_bits >> i & 1]
        return f"{', '.join(bits)}: the pendant says more"
    if robot_mode != RobotMode.RUNNING:
        remedy = {
            RobotMode.POWER_OFF: "`power on`, then `brake release` on the dashboard",
            RobotMode.IDLE: "`brake release` on the dashboard",
            RobotMode.CONFIRM_SAFETY: "confirm the safety configuration on the pendant",
            RobotMode.BACKDRIVE: "leave freedrive on the pendant",
        }.get(robot_mode, "wait until it is RUNNING")  # type: ignore[call-overload]
        return f"the arm is {name(RobotMode, robot_mode)}: {remedy}"
    return ""
