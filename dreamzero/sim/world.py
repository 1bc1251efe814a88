"""The world around the arm in MJCF: table, three blocks, two zones, clutter, cameras, light.

Everything any task or look may need is always there; what a scene does not use lies hidden, so that
one compiled model serves every scene of a robot.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import UserError
from .arms import Arm
from .layout import BLOCK_HALF_M, ZONE_HALF_M
from .render import mujoco
from .splits import Scene
from .tasks import COLOURS

CONTROL_HZ = 15.0
SUBSTEPS = 16
BLOCKS, ZONES, CLUTTER = 3, 2, 4
# A corner of the table that no camera sees: unused blocks wait there.
AWAY_M = (-0.52, 0.52)
# Exterior cameras look at a point just above the table: (azimuth, elevation, distance, fovy) in
# degrees and m; azimuth 0 is opposite the arm, 90 to the right of the front picture.
CAMERAS = {"front": (0.0, 57.0, 0.76, 28.0), "side": (62.0, 38.0, 0.76, 28.0)}
LOOK_AT_M = (-0.028, 0.0, 0.025)


def camera_pose(
    name: str, azimuth_rad: float = 0.0, elevation_rad: float = 0.0, shift_m: tuple = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Position ``[3]``, m, and rotation ``[3, 3]`` (right, up, back) of an exterior camera."""
    azimuth, elevation, distance, _ = CAMERAS[name]
    az, el = math.radians(azimuth) + azimuth_rad, math.radians(elevation) + elevation_rad
    back = np.array([math.cos(el) * math.cos(az), math.cos(el) * math.sin(az), math.sin(el)])
    right = np.array([-math.sin(az), math.cos(az), 0.0])
    target = np.array(LOOK_AT_M) + (*shift_m, 0.0)
    return target + distance * back, np.stack((right, np.cross(back, right), back), axis=1)


def mjcf(arm: Arm) -> str:
    """The whole model as MJCF text."""
    body, actuators = arm.mjcf
    blocks = "".join(
        f'<body name="block{i}" pos="{1 + i} 0 {BLOCK_HALF_M}"><freejoint name="block{i}"/>'
        f'<geom name="block{i}" class="block"/></body>'
        for i in range(BLOCKS)
    )
    zones = "".join(
        f'<geom name="zone{i}" class="decor" type="box" pos="0 0 0.0005" '
        f'size="{ZONE_HALF_M} {ZONE_HALF_M} 0.0005" rgba="1 1 1 0"/>'
        for i in range(ZONES)
    )
    clutter = "".join(
        f'<geom name="clutter{i}" class="decor" type="sphere" pos="0.5 0.5 -0.2" size="0.01 0.01 0.01" '
        'rgba="1 1 1 0"/>'
        for i in range(CLUTTER)
    )
    cameras = "".join(f'<camera name="{n}" fovy="{CAMERAS[n][3]}"/>' for n in CAMERAS)
    return f"""
<mujoco model="tabletop_{arm.name}">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{1 / CONTROL_HZ / SUBSTEPS}" integrator="implicitfast" cone="elliptic"
    impratio="3" iterations="20" ls_iterations="20">
    <flag eulerdamp="disable"/>
  </option>
  <size memory="4M"/>
  <visual>
    <quality shadowsize="0" offsamples="0" numslices="12" numstacks="6" numquads="1"/>
    <headlight ambient="0.45 0.45 0.45" diffuse="0 0 0" specular="0 0 0"/>
    <map znear="0.02" zfar="20"/>
    <global offwidth="1024" offheight="1024"/>
  </visual>
  <asset>
    <material name="shell" rgba="0.90 0.89 0.86 1" specular="0.1"/>
    <material name="motor" rgba="0.10 0.10 0.11 1" specular="0.1"/>
    <material name="accent" rgba="0.30 0.32 0.34 1" specular="0.1"/>
    <material name="pale" rgba="0.72 0.75 0.78 1" specular="0.1"/>
    <material name="steel" rgba="0.45 0.51 0.55 1" specular="0.1"/>
    <material name="skin" rgba="0.87 0.64 0.50 1" specular="0.05"/>
    <material name="sleeve" rgba="0.22 0.28 0.38 1" specular="0.05"/>
    <material name="jaw" rgba="0.16 0.16 0.18 1" specular="0.1"/>
  </asset>
  <default>
    <geom solref="0.012 1" solimp="0.9 0.97 0.001" condim="4" friction="0.5 0.004 0.0001"/>
    <default class="arm"><geom contype="2" conaffinity="0" density="300"/></default>
    <default class="finger">
      <geom contype="2" conaffinity="0" density="300" priority="1" friction="1.0 0.01 0.0001"/>
    </default>
    <default class="block">
      <geom type="box" size="{BLOCK_HALF_M} {BLOCK_HALF_M} {BLOCK_HALF_M}" mass="0.06"
        contype="1" conaffinity="3"/>
    </default>
    <default class="decor"><geom contype="0" conaffinity="0" mass="0"/></default>
  </default>
  <worldbody>
    <light name="sun" directional="true" castshadow="false" diffuse="0.55 0.55 0.55"
      specular="0 0 0" ambient="0 0 0"/>
    <geom name="table" type="box" pos="0 0 -0.05" size="0.6 0.6 0.05" contype="1" conaffinity="3"/>
    {cameras}{zones}{clutter}{blocks}
    {body}
  </worldbody>
  <actuator>{actuators}</actuator>
</mujoco>"""


_SHAPES = {"box": 6, "cylinder": 5, "sphere": 2}  # mjtGeom


def dress(model: Any, scene: Scene) -> None:
    """Gives a compiled model the look and the zones of a scene (blocks are the caller's)."""
    look = scene.look
    if len(look.clutter) > CLUTTER:
        raise UserError(f"a look holds at most {CLUTTER} pieces of clutter")
    model.geom("table").rgba[:3] = look.table_rgb
    model.vis.headlight.ambient[:] = look.ambient
    sun = model.light("sun")
    az, el = look.light_azimuth_rad, look.light_elevation_rad
    sun.dir[:] = (-math.cos(el) * math.cos(az), -math.cos(el) * math.sin(az), -math.sin(el))
    sun.diffuse[:] = 0.55 * look.light
    for name in CAMERAS:
        position, rotation = camera_pose(
            name, look.camera_azimuth_rad, look.camera_elevation_rad, look.camera_shift_m
        )
        model.camera(name).pos[:] = position
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, rotation.ravel())
        model.camera(name).quat[:] = quat
    for i in range(CLUTTER):
        geom = model.geom(f"clutter{i}")
        geom.rgba[3] = float(i < len(look.clutter))
        if i < len(look.clutter):
            thing = look.clutter[i]
            geom.type[:] = _SHAPES[thing.shape]
            geom.size[:] = thing.size_m
            geom.pos[:] = (thing.x_m, thing.y_m, thing.size_m)
            geom.rgba[:3] = thing.rgb
    for i in range(ZONES):
        geom = model.geom(f"zone{i}")
        geom.rgba[3] = float(i < len(scene.zones))
        if i < len(scene.zones):
            zone = scene.zones[i]
            geom.pos[:2] = (zone.x_m, zone.y_m)
            geom.rgba[:3] = COLOURS[zone.colour]
