"""Arms of Dynamixel X servos: what they are made of, as data.

Sources: Koch v1.1, joints, servos, ids and modes as LeRobot has them (huggingface/lerobot,
robots/koch_follower); OpenManipulator-X, ids, modes and the gripper's way of ROBOTIS
(ROBOTIS-GIT/open_manipulator, ros2_control/open_manipulator_x_position.ros2_control.xacro); ViperX 300 S,
ids, shadows, drive modes and limits of Interbotix (Interbotix/interbotix_ros_manipulators,
interbotix_xsarm_control/config/vx300s.yaml) and servos of Trossen's specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..calibration import Calibration, JointCalibration
from ..servos.build import Build, Setting
from .table import MODELS, NO_SECONDARY_ID, Drive, Mode

_XM430_W350, _XL430, _XC430, _XM540 = 1020, 1060, 1070, 1120
_XL330_M077, _XL330_M288 = 1190, 1200
_MIDDLE, _TICKS_PER_RAD = 2048, 2048 / math.pi
# Which way it turns, and no torque merely because a goal came.
_DRIVE_BITS = Drive.REVERSE | Drive.TORQUE_ON_BY_GOAL


@dataclass(frozen=True)
class Arm(Build):
    """An arm of Dynamixels.

    Attributes:
        mode: operating mode of the joints; the gripper's is the current-based one where its servo
            measures current, so that it can hold a thing without crushing it or itself.
        reverse: joints whose (first) servo is mounted the other way round.
    """

    mode: Mode = Mode.POSITION
    reverse: frozenset[str] = field(default_factory=frozenset)

    def settings(self, joint: str) -> Mapping[str, Setting]:
        measures = MODELS[self.models[joint][0]].current_ma > 0
        grips = joint == "gripper" and measures
        return {
            "return_delay": Setting(0),
            "operating_mode": Setting(Mode.CURRENT_BASED_POSITION if grips else self.mode),
            "drive_mode": Setting(Drive.REVERSE * (joint in self.reverse), _DRIVE_BITS),
            "secondary_id": Setting(NO_SECONDARY_ID),
        }

    def shadow_settings(self, joint: str, lead: int) -> Mapping[str, Setting]:
        """The second servo listens to the first one's id and, facing it, turns the other way."""
        facing = Setting(Drive.REVERSE * (joint not in self.reverse), _DRIVE_BITS)
        return {**self.settings(joint), "drive_mode": facing, "secondary_id": Setting(lead)}


def _gripper(identity: int, closed_rad: float, open_rad: float) -> JointCalibration:
    """A gripper by the servo's angles at its ends."""
    closed, opened = (round(_MIDDLE + rad * _TICKS_PER_RAD) for rad in (closed_rad, open_rad))
    return JointCalibration(
        "gripper",
        identity,
        zero_tick=closed,
        sign=1 if opened > closed else -1,
        scale=1 / abs(opened - closed),
        min_tick=min(closed, opened),
        max_tick=max(closed, opened),
    )


_BIG, _SMALL = (_XL430, _XC430), (_XL330_M288, _XL330_M077)

# Built at home: where the horns sit decides what ticks mean, so it must be calibrated.
KOCH = Arm(
    Calibration(
        (
            JointCalibration("shoulder_pan", 1),
            JointCalibration("shoulder_lift", 2),
            JointCalibration("elbow_flex", 3),
            JointCalibration("wrist_flex", 4),
            JointCalibration("wrist_roll", 5),
            _gripper(6, 0.0, math.pi / 2),
        )
    ),
    models={
        "shoulder_pan": _BIG,
        "shoulder_lift": _BIG,
        "elbow_flex": _SMALL,
        "wrist_flex": _SMALL,
        "wrist_roll": _SMALL,
        "gripper": _SMALL,
    },
    zero_pose="every joint in the middle of its range, the gripper half open",
    mode=Mode.EXTENDED_POSITION,
)

_OPENMANIPULATOR_X = Calibration(
    (
        *(JointCalibration(f"joint{i}", 10 + i) for i in range(1, 5)),
        _gripper(15, 0.92, -1.52),
    )
)
OPENMANIPULATOR_X = Arm(
    _OPENMANIPULATOR_X,
    models=dict.fromkeys(_OPENMANIPULATOR_X.names, (_XM430_W350,)),
    zero_pose="the upper arm upright, all that follows stretched out level, the gripper half open",
)

# The gripper's servo at 42 and 114 mm between the fingers: crank of 22 mm, rod of 36 mm.
VX300S = Arm(
    Calibration(
        (
            JointCalibration("waist", 1),
            JointCalibration("shoulder", 2, min_tick=841, max_tick=2867),
            JointCalibration("elbow", 4, min_tick=898, max_tick=3094),
            JointCalibration("forearm_roll", 6),
            JointCalibration("wrist_angle", 7, min_tick=830, max_tick=3504),
            JointCalibration("wrist_rotate", 8),
            _gripper(9, -0.413, 1.332),
        )
    ),
    models={
        **dict.fromkeys(("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle"), (_XM540,)),
        **dict.fromkeys(("wrist_rotate", "gripper"), (_XM430_W350,)),
    },
    zero_pose="the upper arm upright, all that follows stretched out level, the gripper half open",
    shadows={"shoulder": 3, "elbow": 5},
    reverse=frozenset({"shoulder", "elbow", "wrist_angle"}),
)

ARMS: Mapping[str, Arm] = {
    "koch": KOCH,
    "openmanipulator_x": OPENMANIPULATOR_X,
    "vx300s": VX300S,
}
