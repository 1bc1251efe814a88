"""Snippets of MJCF that the bodies share."""

from __future__ import annotations

# A servo tracks a ramp 2 / _SERVO_RAD_S = 45 ms late: armature dominates the links' inertia, so that one
# pair of gains is critically damped in every pose.
_SERVO_RAD_S = 44.0
_ARMATURE = 0.06


def joint(name: str, axis: str, lower: float, upper: float) -> str:
    """A hinge with the limits of the card (rad)."""
    return (
        f'<joint name="{name}" axis="{axis}" range="{lower:.6f} {upper:.6f}" '
        f'armature="{_ARMATURE}"/>'
    )


def servo(joint_name: str, lower: float, upper: float, torque: float, scale: float = 1.0) -> str:
    """A position servo on a joint; ``scale`` is its armature over that of an arm joint."""
    kp = _ARMATURE * scale * _SERVO_RAD_S**2
    kv = 2 * _ARMATURE * scale * _SERVO_RAD_S
    return (
        f'<position name="{joint_name}" joint="{joint_name}" kp="{kp:.4f}" kv="{kv:.4f}" '
        f'ctrlrange="{lower:.6f} {upper:.6f}" forcerange="{-torque} {torque}"/>'
    )


def armature(scale: float) -> float:
    """Armature of a joint driven by ``servo(..., scale=scale)``."""
    return _ARMATURE * scale
