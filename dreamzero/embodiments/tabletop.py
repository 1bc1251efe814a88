"""Cards of the simulated tabletop: four bodies before the same camera.

Video and actions at 15 Hz: a block is 8 frames and 8 actions (0.53 s), the window of four blocks 2.1 s.
Short blocks look again before small errors grow: at this size that decides whether a push hits.
"""

from __future__ import annotations

import math

from .card import Embodiment, Field

VIEWS = ("front", "side", "wrist")


def _deg(*values: float) -> tuple[float, ...]:
    return tuple(math.radians(v) for v in values)


def _card(
    robot: str,
    lower: tuple[float, ...],
    upper: tuple[float, ...],
    velocity: tuple[float, ...],
) -> Embodiment:
    """An arm of revolute joints (limits in rad, rad/s) and one gripper, seen from the front."""
    joints = len(lower)
    gripper = Field("gripper_position", joints, joints + 1, unit="1")
    return Embodiment(
        name=f"tabletop_{robot}",
        robot=robot,
        views=("observation.images.front",),
        layout="single",
        canvas_px=(64, 64),
        state=(Field("joint_position", 0, joints), gripper),
        action=(Field("joint_position", 0, joints, relative=True), gripper),
        video_hz=15.0,
        action_hz=15.0,
        horizon=8,
        memory_blocks=0,
        prompt=f"a {robot} arm: {{instruction}}",
        lower=(*lower, 0.0),
        upper=(*upper, 1.0),
        velocity=(*velocity, 4.0),
    )


# SO-101: limits of the published URDF (TheRobotStudio/SO-ARM100); STS3215 servos at 7.4 V.
SO101 = _card(
    "so101",
    lower=(-1.91986, -1.74533, -1.69, -1.65806, -2.74385),
    upper=(1.91986, 1.74533, 1.69, 1.65806, 2.84121),
    velocity=(4.7,) * 5,
)

# Franka Emika Panda: limits of the manufacturer's data sheet.
FRANKA = _card(
    "franka",
    lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
)

# Universal Robots UR5e: +-360 degrees, the elbow +-180; 180 degrees/s.
UR5E = _card(
    "ur5e",
    lower=_deg(-360, -360, -180, -360, -360, -360),
    upper=_deg(360, 360, 180, 360, 360, 360),
    velocity=_deg(180, 180, 180, 180, 180, 180),
)

# A bare hand: video only, so it has neither state nor action.
HAND = SO101.with_(
    name="tabletop_hand",
    robot="hand",
    state=(),
    action=(),
    prompt="a hand: {instruction}",
    lower=(),
    upper=(),
    velocity=(),
    has_action=False,
)

CARDS = (SO101, FRANKA, UR5E, HAND)
