"""A bare hand that moves freely: x, y, z and turn, thumb against three fingers.

It stands for people on video: the pictures are recorded, its joints are not, so its card has neither
state nor action.
"""

from __future__ import annotations

import math
from typing import Any

from ...embodiments import Embodiment
from . import mjcf

JOINTS = ("hand_x", "hand_y", "hand_z", "hand_turn")
FINGERS = ("thumb", "fingers")
_STROKE_M = 0.08
# Where the wrist starts, high above the table: slides are counted from here.
_BASE_M = (0.0, 0.0, 0.0)
_LIMITS = ((-0.35, 0.35), (-0.35, 0.35), (-0.01, 0.45), (-math.pi, math.pi))
_AXES = ("1 0 0", "0 1 0", "0 0 1", "0 0 1")
_SKIN = "skin"


def build(card: Embodiment) -> dict[str, Any]:
    """Fields of ``arms.Arm`` for the hand; ``card`` holds no limits for it."""
    inner, finger_servos = mjcf.parallel_fingers(0.0, _STROKE_M, 0.05, FINGERS, _SKIN)
    palm = (
        '<geom class="arm" type="ellipsoid" size="0.022 0.042 0.040" pos="0 0 -0.090" '
        f'material="{_SKIN}"/>'
        + mjcf.capsule((0.004, -0.030, -0.085), (0.004, -0.010, -0.045), 0.011, _SKIN)
        + mjcf.capsule((0.004, 0.032, -0.095), (0.004, 0.010, -0.045), 0.010, _SKIN)
        + mjcf.capsule((-0.010, 0.026, -0.100), (-0.006, 0.010, -0.050), 0.009, _SKIN)
        + mjcf.capsule((0, 0, -0.11), (0.10, 0, -0.18), 0.022, _SKIN)
        + mjcf.capsule((0.12, 0, -0.192), (0.42, 0, -0.36), 0.032, "sleeve")
        + mjcf.wrist_camera(reach_m=0.10, aside_m=0.08)
    )
    # The hand's z axis points down: turned by 180 degrees about y, x towards the body.
    hand = mjcf.body("hand", (0, 0, 0), palm + inner, "0 0 1 0")
    scale = (8.0, 8.0, 8.0, 0.2)
    joints = "".join(
        mjcf.joint(n, axis, *limit, scale=s, kind="hinge" if n == "hand_turn" else "slide")
        for n, axis, limit, s in zip(JOINTS, _AXES, _LIMITS, scale, strict=True)
    )
    servos = "".join(
        mjcf.servo(n, *limit, force=60.0, scale=s)
        for n, limit, s in zip(JOINTS, _LIMITS, scale, strict=True)
    )
    return {
        "joints": JOINTS,
        "fingers": FINGERS,
        "closed": 0.0,
        "opened": _STROKE_M / 2,
        "base_m": _BASE_M,
        "home_rad": (-0.05, 0.0, 0.11, 0.0),
        "tilt": (),
        "tip_half_m": 0.011,
        "grasp_offset_m": 0.0,
        "grasp_open": 0.8,
        "noise": (0.02, 0.02, 0.015, 0.15),
        "free_limits": (*_LIMITS, (0.0, 1.0)),
        "mjcf": (mjcf.body("base", _BASE_M, joints + hand), servos + finger_servos),
    }
