"""Snippets of MJCF that the bodies share."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vec = tuple[float, float, float]

# A servo tracks a ramp 2 / _SERVO_RAD_S = 45 ms late. Armature (the rotor behind its gear) outweighs
# the links, so that one pair of gains is critically damped in every pose.
_SERVO_RAD_S = 44.0
_ARMATURE = 0.06


def armature(scale: float) -> float:
    """Armature of a joint driven by ``servo(..., scale=scale)``: kg m2, or kg on a slide."""
    return _ARMATURE * scale


def joint(
    name: str, axis: str, lower: float, upper: float, scale: float = 1.0, kind: str = "hinge"
) -> str:
    """A joint with its limits (rad or m)."""
    return (
        f'<joint name="{name}" type="{kind}" axis="{axis}" range="{lower:.6f} {upper:.6f}" '
        f'armature="{armature(scale)}"/>'
    )


def servo(joint_name: str, lower: float, upper: float, force: float, scale: float = 1.0) -> str:
    """A position servo on a joint; ``scale`` is its armature over that of an arm joint."""
    kp = armature(scale) * _SERVO_RAD_S**2
    kv = 2 * armature(scale) * _SERVO_RAD_S
    return (
        f'<position name="{joint_name}" joint="{joint_name}" kp="{kp:.4f}" kv="{kv:.4f}" '
        f'ctrlrange="{lower:.6f} {upper:.6f}" forcerange="{-force} {force}"/>'
    )


def text(vector: Sequence[float]) -> str:
    """Numbers as an attribute."""
    return " ".join(f"{v:.6f}" for v in vector)


def turn_x(angle_rad: float) -> str:
    """Quaternion attribute of a turn about x."""
    return text((math.cos(angle_rad / 2), math.sin(angle_rad / 2), 0.0, 0.0))


def turn_z(angle_rad: float) -> str:
    """Quaternion attribute of a turn about z."""
    return text((math.cos(angle_rad / 2), 0.0, 0.0, math.sin(angle_rad / 2)))


def body(name: str, pos: Vec, inner: str, quat: str = "1 0 0 0") -> str:
    """A body that gravity does not pull: the controllers of real arms compensate it."""
    return f'<body name="{name}" pos="{text(pos)}" quat="{quat}" gravcomp="1">{inner}</body>'


def capsule(start: Vec, stop: Vec, radius: float, material: str) -> str:
    """A piece of an arm."""
    return (
        f'<geom class="arm" type="capsule" size="{radius}" fromto="{text((*start, *stop))}" '
        f'material="{material}"/>'
    )


def knuckle(pos: Vec, radius: float, half: float, material: str) -> str:
    """A cylinder about the z axis of a body: the housing of a joint."""
    return (
        f'<geom class="arm" type="cylinder" size="{radius} {half}" pos="{text(pos)}" '
        f'material="{material}"/>'
    )


def parallel_fingers(
    tip_z: float, stroke_m: float, length_m: float, names: tuple[str, str], material: str
) -> tuple[str, str]:
    """Two fingers that slide apart along y, in a body whose z axis points out of the gripper.

    Args:
        tip_z: where the finger tips are, m.
        stroke_m: distance between the pads when open.
    Returns:
        (bodies with the ``tip`` site, actuators). Each joint runs from 0 (closed) to half the stroke.
    """
    inner = ""
    for name, side in zip(names, (1, -1), strict=True):
        slide = joint(name, f"0 {side} 0", -0.001, stroke_m / 2, scale=5.0, kind="slide")
        pad = (
            f'<geom class="finger" type="box" size="0.010 0.0055 {length_m / 2}" '
            f'pos="0 {side * 0.0055} {-length_m / 2}" material="{material}"/>'
        )
        inner += body(name, (0.0, 0.0, tip_z), slide + pad)
    inner += f'<site name="tip" pos="0 0 {tip_z}" group="4"/>'
    servos = "".join(servo(n, -0.001, stroke_m / 2, force=30.0, scale=5.0) for n in names)
    return inner, servos


def wrist_camera(
    tip: str = "z", reach_m: float = 0.1, aside_m: float = 0.055, at: float = 0
) -> str:
    """A camera on the gripper's side towards the arm, looking past the finger tips.

    Args:
        tip: axis of the body along which the gripper points, "z" (fingers open along y) or "x".
        reach_m: how far behind the tips it sits; aside_m: how far off the gripper's axis.
        at: where the tips are along that axis, m.
    """
    lean = 0.5
    cos, sin = math.cos(lean), math.sin(lean)
    # In the frame of the tip: x towards the arm, y along the opening, z out of the gripper.
    pos, right, up = (aside_m, 0.0, at - reach_m), (0.0, -1.0, 0.0), (-cos, 0.0, -sin)
    if tip == "x":
        pos, right, up = ((v[2], v[1], -v[0]) for v in (pos, right, up))
    return f'<camera name="wrist" pos="{text(pos)}" xyaxes="{text((*right, *up))}" fovy="75"/>'
