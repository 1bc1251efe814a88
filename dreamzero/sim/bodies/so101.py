"""SO-101: five joints and one moving jaw.

At zero the upper arm stands up, forearm and gripper point ahead. Lengths of the URDF: pan axis to
lift axis 0.0304 ahead and 0.0542 up, elbow 0.1126 up and 0.028 ahead, forearm 0.1349, wrist to roll
axis 0.0611, from there to the tip 0.0981. The jaw turns from -0.17 to 1.75 rad on the real arm; here
0 is where the jaws meet.
"""

from __future__ import annotations

from typing import Any

from ...embodiments import Embodiment
from . import mjcf
from .mjcf import armature, joint, servo

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
_JAW_RAD = 1.7453
_JAW_SCALE = 0.05
# The jaw's pad is parallel to the fixed one when it holds a block of 4 cm; shut, it sinks into it.
_PAD_RAD = 0.698
_AXES = ("0 0 1", "0 1 0", "0 1 0", "0 1 0", "1 0 0")
# A stand of 5 cm lets the short arm point its gripper down over the whole workspace.
_BASE_M = (-0.245, 0.0, 0.05)


def build(card: Embodiment) -> dict[str, Any]:
    """Fields of ``arms.Arm`` for the SO-101."""
    limits = list(zip(card.lower, card.upper, strict=True))
    pan, lift, elbow, wrist, roll = (
        joint(name, axis, *limit)
        for name, axis, limit in zip(JOINTS, _AXES, limits[:5], strict=True)
    )
    x, y, z = _BASE_M
    body = f"""
<body name="base" pos="{x} {y} {z}" gravcomp="1">
  <geom class="arm" type="box" size="0.055 0.06 0.025" pos="0 0 -0.025" rgba="0.66 0.66 0.64 1"/>
  <geom class="arm" type="cylinder" size="0.034 0.028" pos="0 0 0.028" material="shell"/>
  <body name="shoulder" pos="0 0 0.0624" gravcomp="1">
    {pan}
    <geom class="arm" type="box" size="0.024 0.024 0.022" pos="0.01 0 0.02" material="motor"/>
    <geom class="arm" type="cylinder" size="0.02 0.03" pos="0.0304 0 0.0542" zaxis="0 1 0"
      material="motor"/>
    <body name="upper_arm" pos="0.0304 0 0.0542" gravcomp="1">
      {lift}
      <geom class="arm" type="capsule" size="0.017" fromto="0 0 0 0.028 0 0.1126"
        material="shell"/>
      <geom class="arm" type="cylinder" size="0.02 0.026" pos="0.028 0 0.1126" zaxis="0 1 0"
        material="motor"/>
      <body name="forearm" pos="0.028 0 0.1126" gravcomp="1">
        {elbow}
        <geom class="arm" type="capsule" size="0.015" fromto="0 0 0 0.1349 0 0" material="shell"/>
        <geom class="arm" type="cylinder" size="0.018 0.022" pos="0.1349 0 0" zaxis="0 1 0"
          material="motor"/>
        <body name="wrist" pos="0.1349 0 0" gravcomp="1">
          {wrist}
          <geom class="arm" type="capsule" size="0.014" fromto="0 0 0 0.05 0 0" material="motor"/>
          <body name="gripper" pos="0.0611 0 0" gravcomp="1">
            {roll}
            <geom class="arm" type="box" size="0.016 0.024 0.016" pos="0.008 0.004 0"
              material="shell"/>
            <geom class="finger" type="box" size="0.0395 0.0055 0.010" pos="0.0586 -0.0055 0"
              material="jaw"/>
            <site name="tip" pos="0.0981 0 0" quat="0.70710678 0 0.70710678 0"/>
            {mjcf.wrist_camera("x", reach_m=0.105, aside_m=0.05, at=0.0981)}
            <body name="jaw" pos="0.0234 0.019 0" gravcomp="1">
              <joint name="jaw" axis="0 0 1" range="-0.02 {_JAW_RAD}"
                armature="{armature(_JAW_SCALE)}"/>
              <geom class="arm" type="cylinder" size="0.011 0.010" material="motor"/>
              <geom class="finger" type="box" size="0.0375 0.0055 0.010"
                pos="0.0372 -0.0135 0" material="jaw"/>
              <geom class="finger" type="box" size="0.008 0.003 0.008" pos="0.0634 -0.0222 0"
                quat="{mjcf.turn_z(-_PAD_RAD)}" mass="0" material="jaw"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>"""
    actuators = "".join(
        servo(name, *limit, force=30.0) for name, limit in zip(JOINTS, limits[:5], strict=True)
    ) + servo("jaw", -0.02, _JAW_RAD, force=1.5, scale=_JAW_SCALE)
    return {
        "joints": JOINTS,
        "fingers": ("jaw",),
        "closed": 0.0,
        "opened": _JAW_RAD,
        "base_m": _BASE_M,
        "home_rad": (0.0, 0.0, 0.3, 1.27, 0.0),
        "tilt": ((0.20, 3.5), (0.35, 6.0)),
        "tip_half_m": 0.011,
        "grasp_offset_m": 0.024,
        "grasp_open": 0.6,
        "noise": (0.075,) * 5,
        "mjcf": (body, actuators),
    }
