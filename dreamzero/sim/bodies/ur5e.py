"""Universal Robots UR5e with a two-finger gripper of 8.5 cm stroke (Robotiq 2F-85's lengths).

Denavit-Hartenberg parameters of the manufacturer: d1 0.1625, a2 -0.425, a3 -0.3922, d4 0.1333, d5
0.0997, d6 0.0996; the finger tips 0.163 beyond the flange. The foot is turned by 180 degrees, so
that at zero the arm points at the workspace.
"""

from __future__ import annotations

import math
from typing import Any

from ...embodiments import Embodiment
from . import mjcf

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
FINGERS = ("finger_left", "finger_right")
_STROKE_M = 0.085
_TIP_M = 0.163
_BASE_M = (-0.52, 0.0, 0.0)
# (d, a, alpha) that lead from one joint frame to the next.
_DH = (
    (0.1625, 0.0, math.pi / 2),
    (0.0, -0.425, 0.0),
    (0.0, -0.3922, 0.0),
    (0.1333, 0.0, math.pi / 2),
    (0.0997, 0.0, -math.pi / 2),
    (0.0996, 0.0, 0.0),
)
_RADIUS = (0.055, 0.046, 0.036, 0.030, 0.030, 0.028)


def build(card: Embodiment) -> dict[str, Any]:
    """Fields of ``arms.Arm`` for the UR5e."""
    limits = list(zip(card.lower, card.upper, strict=True))[:6]
    fingers, finger_servos = mjcf.parallel_fingers(_TIP_M, _STROKE_M, 0.05, FINGERS, "jaw")
    gripper = (
        mjcf.knuckle((0, 0, 0.03), 0.030, 0.035, "motor")
        + '<geom class="arm" type="box" size="0.018 0.054 0.024" pos="0 0 0.088" material="motor"/>'
        + mjcf.wrist_camera(at=_TIP_M, reach_m=0.10, aside_m=0.075)
        + fingers
    )
    inner = mjcf.body("gripper", (0, 0, 0.0996), gripper)
    for i in reversed(range(6)):
        d, a, _ = _DH[i]
        # The first joint's frame lies in the table top, which nothing may touch.
        low = 0.0 if i else 0.065
        shape = mjcf.knuckle((0, 0, low), _RADIUS[i] + 0.004, 0.042, "steel")
        if i < 5:
            shape += mjcf.capsule((0, 0, low), (a, 0, d), _RADIUS[i], "pale")
        before = _DH[i - 1] if i else (0.0, 0.0, 0.0)
        inner = mjcf.body(
            f"link{i + 1}",
            (before[1], 0.0, before[0]),
            mjcf.joint(JOINTS[i], "0 0 1", *limits[i], scale=2.0) + shape + inner,
            mjcf.turn_x(before[2]),
        )
    foot = mjcf.knuckle((0, 0, 0.02), 0.075, 0.02, "steel")
    servos = "".join(
        mjcf.servo(n, *limit, force=120.0, scale=2.0)
        for n, limit in zip(JOINTS, limits, strict=True)
    )
    return {
        "joints": JOINTS,
        "fingers": FINGERS,
        "closed": 0.0,
        "opened": _STROKE_M / 2,
        "base_m": _BASE_M,
        "home_rad": (0.27, -1.75, 2.1, -1.92, -math.pi / 2, 0.27 + math.pi / 2),
        "tilt": (),
        "tip_half_m": 0.011,
        "grasp_offset_m": 0.0,
        "grasp_open": 0.9,
        "noise": (0.04,) * 6,
        "mjcf": (mjcf.body("base", _BASE_M, foot + inner, "0 0 0 1"), servos + finger_servos),
    }
