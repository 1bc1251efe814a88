"""Cards of arms of Dynamixel servos: views, rates and blocks as those of the tabletop's SO-101."""

from __future__ import annotations

import math

from .card import Field
from .tabletop import SO101

# Koch v1.1 has the SO-101's joints in the SO-101's order; its own limits depend on how it was put
# together, and the SO-101's stand in. In the emulator it moves the SO-101's simulated body.
KOCH = SO101.with_(name="tabletop_koch", robot="koch", prompt="a koch arm: {instruction}")


def _rad(*parts: float) -> tuple[float, ...]:
    return tuple(math.pi * part for part in parts)


def _deg(*values: float) -> tuple[float, ...]:
    return tuple(math.radians(value) for value in values)


# Limits of ROBOTIS' URDF (ROBOTIS-GIT/turtlebot3_manipulation, open_manipulator_x.urdf.xacro).
OPENMANIPULATOR_X = SO101.with_(
    name="openmanipulator_x",
    robot="openmanipulator_x",
    prompt="an openmanipulator_x arm: {instruction}",
    state=(Field("joint_position", 0, 4), Field("gripper_position", 4, 5, unit="1")),
    action=(
        Field("joint_position", 0, 4, relative=True),
        Field("gripper_position", 4, 5, unit="1"),
    ),
    lower=(*_rad(-0.9, -0.57, -0.3, -0.57), 0.0),
    upper=(*_rad(0.9, 0.5, 0.44, 0.65), 1.0),
    velocity=(4.8,) * 4 + (4.0,),
)

# Limits of Interbotix' URDF (interbotix_xsarm_descriptions/urdf/vx300s.urdf.xacro).
VX300S = SO101.with_(
    name="vx300s",
    robot="vx300s",
    prompt="a vx300s arm: {instruction}",
    state=(Field("joint_position", 0, 6), Field("gripper_position", 6, 7, unit="1")),
    action=(
        Field("joint_position", 0, 6, relative=True),
        Field("gripper_position", 6, 7, unit="1"),
    ),
    lower=(*_deg(-180, -106, -101, -180, -107, -180), 0.0),
    upper=(*_deg(180, 72, 92, 180, 128, 180), 1.0),
    velocity=(math.pi,) * 6 + (4.0,),
)

CARDS = (KOCH, OPENMANIPULATOR_X, VX300S)
