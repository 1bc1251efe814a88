"""Inverse kinematics of the tip by damped least squares on MuJoCo's Jacobians."""

from __future__ import annotations

import math

import numpy as np

from .arms import Arm
from .render import mujoco

_DOWN = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
_ROTATION_WEIGHT = 0.15
_DAMPING = 1e-5
_HOMING = 0.1


class Solver:
    """Joint positions that bring the tip to a point with the gripper pointing down.

    Short arms lean outward with the distance from their foot (``Arm.tilt``); the fingers open along
    world y turned by ``yaw_rad``.
    """

    def __init__(self, model: mujoco.MjModel, arm: Arm) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._arm = arm
        self._home = np.array(arm.home_rad)
        self._site = model.site("tip").id
        ids = [model.joint(name).id for name in arm.joints]
        self._q = model.jnt_qposadr[ids]
        self._v = model.jnt_dofadr[ids]
        self._lower, self._upper = model.jnt_range[ids].T + np.array([[1e-3], [-1e-3]])
        self._jac = np.zeros((2, 3, model.nv))

    def tip(self, joints: np.ndarray) -> np.ndarray:
        """Tip position (3), m, of joint positions (s - 1), rad."""
        self._data.qpos[self._q] = joints
        mujoco.mj_kinematics(self._model, self._data)
        return self._data.site_xpos[self._site].copy()

    def orientation(self, point_m: np.ndarray, yaw_rad: float = 0.0) -> np.ndarray:
        """Wanted rotation (3, 3) of the tip at a point."""
        rel = point_m[:2] - self._arm.base_m[:2]
        radius = float(np.hypot(*rel))
        tilt = sum(max(0.0, radius - start) * per_m for start, per_m in self._arm.tilt)
        phi = math.atan2(rel[1], rel[0])
        cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        # Rodrigues about the horizontal axis square to the radius: -z leans toward +radius.
        axis = np.array([-math.sin(phi), math.cos(phi), 0.0])
        k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        lean = np.eye(3) - math.sin(tilt) * k + (1 - math.cos(tilt)) * (k @ k)
        return lean @ turn @ _DOWN

    def solve(
        self, point_m: np.ndarray, start: np.ndarray, yaw_rad: float = 0.0, iterations: int = 12
    ) -> np.ndarray:
        """Joint positions float64 (s - 1), rad, inside the limits, for a tip position (3), m.

        ``start`` decides among several solutions: the nearest in joint space is found.
        """
        want = self.orientation(point_m, yaw_rad)
        joints = np.clip(start, self._lower, self._upper)
        for _ in range(iterations):
            self._data.qpos[self._q] = joints
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_comPos(self._model, self._data)
            rotation = self._data.site_xmat[self._site].reshape(3, 3)
            miss = point_m - self._data.site_xpos[self._site]
            turn = 0.5 * np.cross(rotation.T, want.T).sum(0)
            if np.linalg.norm(miss) < 2e-4 and np.linalg.norm(turn) < 2e-3:
                break
            mujoco.mj_jacSite(self._model, self._data, self._jac[0], self._jac[1], self._site)
            jac = np.concatenate((self._jac[0], _ROTATION_WEIGHT * self._jac[1]))[:, self._v]
            error = np.concatenate((miss, _ROTATION_WEIGHT * turn))
            normal = jac @ jac.T + _DAMPING * np.eye(6)
            step = jac.T @ np.linalg.solve(normal, error)
            if len(joints) > 6:
                # A free elbow drifts with the path taken; drawn home, one point has one pose.
                pull = _HOMING * (self._home - joints)
                step += pull - jac.T @ np.linalg.solve(normal, jac @ pull)
            joints = np.clip(joints + np.clip(step, -0.4, 0.4), self._lower, self._upper)
        return joints
