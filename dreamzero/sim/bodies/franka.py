"""Franka Emika Panda with its hand: seven joints, two fingers, 8 cm stroke.

Modified (Craig) Denavit-Hartenberg parameters of the manufacturer: d1 0.333, d3 0.316, d5 0.384, a4
0.0825, a5 -0.0825, a7 0.088, flange 0.107; the hand turned by -45 degrees, finger tips 0.1034 beyond
the flange.
"""

from __future__ import annotations

import math
from typing import Any

from ...embodiments import Embodiment
from . import mjcf

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGERS = ("finger_left", "finger_right")
_STROKE_M = 0.08
_FLANGE_M, _TIP_M = 0.107, 0.1034
_BASE_M = (-0.47, 0.0, 0.0)
# (a, alpha, d) that lead from one joint frame to the next.
_DH = (
    (0.0, 0.0, 0.333),
    (0.0, -math.pi / 2, 0.0),
    (0.0, math.pi / 2, 0.316),
    (0.0825, math.pi / 2, 0.0),
    (-0.0825, -math.pi / 2, 0.384),
    (0.0, math.pi / 2, 0.0),
    (0.088, math.pi / 2, 0.0),
)
_RADIUS = (0.06, 0.06, 0.05, 0.05, 0.042, 0.036, 0.032)


def build(card: Embodiment) -> dict[str, Any]:
    """Fields of ``arms.Arm`` for the Panda."""
    limits = list(zip(card.lower, card.upper, strict=True))[:7]
    fingers, finger_servos = mjcf.parallel_fingers(
        _FLANGE_M + _TIP_M, _STROKE_M, 0.045, FINGERS, "jaw"
    )
    hand = (
        mjcf.knuckle((0, 0, 0.085), 0.034, 0.026, "shell")
        + '<geom class="arm" type="box" size="0.020 0.052 0.026" pos="0 0 0.137" material="shell"/>'
        + mjcf.wrist_camera(at=_FLANGE_M + _TIP_M, reach_m=0.10, aside_m=0.075)
        + fingers
    )
    inner = mjcf.body("hand", (0, 0, 0), hand, mjcf.turn_z(3 * math.pi / 4))
    for i in reversed(range(7)):
        offsets = [_offset(k) for k in range(7)]
        shape = mjcf.knuckle((0, 0, 0), _RADIUS[i] + 0.004, 0.046, "accent" if i % 2 else "shell")
        if i < 6 and math.dist((0, 0, 0), offsets[i + 1]) > 0.02:
            shape += mjcf.capsule((0, 0, 0), offsets[i + 1], _RADIUS[i], "shell")
        inner = mjcf.body(
            f"link{i + 1}",
            offsets[i],
            mjcf.joint(JOINTS[i], "0 0 1", *limits[i], scale=2.0) + shape + inner,
            mjcf.turn_x(_DH[i][1]),
        )
    foot = mjcf.capsule((0, 0, 0.03), (0, 0, 0.26), 0.065, "shell")
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
        "home_rad": (0.0, -0.15, 0.0, -2.35, 0.0, 2.2, math.pi / 4),
        "tilt": (),
        "tip_half_m": 0.011,
        "grasp_offset_m": 0.0,
        "grasp_open": 0.9,
        "noise": (0.045,) * 7,
        "mjcf": (mjcf.body("base", _BASE_M, foot + inner), servos + finger_servos),
    }


def _offset(i: int) -> mjcf.Vec:
    a, alpha, d = _DH[i]
    return a, -math.sin(alpha) * d, math.cos(alpha) * d
