"""Scripted experts: one rule a verb, absolute joint targets through inverse kinematics at 15 Hz.

An expert moves a reference point with bounded speed and acceleration through a few phases and
commands the joints that put the tip there. It looks at the blocks where they are, so that it
recovers when it is pushed off its way. One scene has one right motion: the pusher always comes
down behind the block, square to the direction, and pushes 6.5 cm straight.
"""

from __future__ import annotations

import numpy as np

from . import world
from .splits import BLOCK_HALF_M, PUSH_M
from .tabletop import Tabletop

HOVER_M = 0.072
_PUSH_HEIGHT_M = 0.016
_TOUCH_HEIGHT_M = 2 * BLOCK_HALF_M + 0.001
_STAND_OFF_M = 0.016
_DT_S = 1.0 / world.CONTROL_HZ
_TRANSIT, _DESCEND, _PUSH = (0.17, 0.55), (0.12, 0.6), (0.085, 0.5)  # m/s, m/s2


class Expert:
    """Follows a scene's task. ``reset`` after the environment's, then ``act`` once a control step."""

    def __init__(self, env: Tabletop) -> None:
        self._env = env
        self.reset()

    def reset(self) -> None:
        """Starts from where the arm is."""
        env = self._env
        self.task = env.scene.task
        self._reference = env.tip()
        self._velocity = np.zeros(3)
        self._joints = env.state()[:-1].astype(np.float64)
        self._phase = "over"
        self._block0 = env.block(self.task.colour)[0]

    def act(self) -> np.ndarray:
        """The next command, float32 ``[a]``: absolute joint targets (rad) and gripper."""
        goal, limits = self._reach() if self.task.verb == "reach" else self._push()
        self._toward(goal, *limits)
        self._joints = self._env.solver.solve(self._reference, self._joints)
        return np.append(self._joints, 0.0).astype(np.float32)

    # -- verbs -------------------------------------------------------------------------------------

    def _reach(self) -> tuple[np.ndarray, tuple[float, float]]:
        block = self._env.block(self.task.colour)[0]
        over = np.array([block[0], block[1], HOVER_M])
        if self._phase == "over" and self._near(over, 0.012):
            self._phase = "down"
        if self._phase == "over":
            return over, _TRANSIT
        return np.array([block[0], block[1], _TOUCH_HEIGHT_M]), _DESCEND

    def _push(self) -> tuple[np.ndarray, tuple[float, float]]:
        env = self._env
        direction = np.array([*self.task.direction, 0.0])
        block = env.block(self.task.colour)[0] * (1, 1, 0)
        tip = env.tip()
        gap = BLOCK_HALF_M + env.arm.tip_half_m
        behind = block - direction * (gap + _STAND_OFF_M)
        over = behind + (0, 0, HOVER_M)
        along = float((block - self._block0) @ direction)
        offset = tip - behind
        across = float(np.abs(offset - (offset @ direction) * direction)[:2].max())
        astray = across > 0.02 or (tip - block) @ direction > -0.4 * gap
        if self._phase in ("down", "push") and along < PUSH_M - 0.02 and astray:
            # Knocked off the line, or past the block: go up and come again.
            self._phase = "up"
            self._reference, self._velocity = tip, np.zeros(3)
        if self._phase == "up" and tip[2] > HOVER_M - 0.012:
            self._phase = "over"
        if self._phase == "over" and self._near(over, 0.010):
            self._phase = "down"
        if self._phase == "down" and tip[2] < _PUSH_HEIGHT_M + 0.008:
            self._phase = "push"
        if self._phase == "push" and along >= PUSH_M - 0.004:
            self._phase = "hold"
            self._hold = self._reference.copy()
        if self._phase == "up":
            return self._reference * (1, 1, 0) + (0, 0, HOVER_M), _DESCEND
        if self._phase == "over":
            return over, _TRANSIT
        if self._phase == "down":
            return behind + (0, 0, _PUSH_HEIGHT_M), _DESCEND
        if self._phase == "hold":
            return self._hold, _PUSH
        left = PUSH_M - along
        end = block + direction * (left - gap)
        return end + (0, 0, _PUSH_HEIGHT_M), _PUSH

    # -- motion ------------------------------------------------------------------------------------

    def _near(self, goal: np.ndarray, within_m: float) -> bool:
        """Reference at the goal, and the arm itself not far."""
        return bool(
            np.linalg.norm(self._reference - goal) < within_m
            and np.linalg.norm(self._env.tip() - goal) < within_m + 0.012
        )

    def _toward(self, goal: np.ndarray, speed: float, acceleration: float) -> None:
        """Moves the reference one step: bounded speed and acceleration, no overshoot."""
        way = goal - self._reference
        distance = float(np.linalg.norm(way))
        # Braking from v takes v^2 / 2a; half a step is kept in hand.
        brake = float(np.sqrt(2 * acceleration * distance + (acceleration * _DT_S / 2) ** 2))
        wanted = min(speed, brake - acceleration * _DT_S / 2, distance / _DT_S)
        change = way / max(distance, 1e-9) * wanted - self._velocity
        most = acceleration * _DT_S
        change *= min(1.0, most / max(float(np.linalg.norm(change)), 1e-9))
        self._velocity = self._velocity + change
        self._reference = self._reference + self._velocity * _DT_S
