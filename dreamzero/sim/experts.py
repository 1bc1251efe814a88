"""The scripted expert: absolute joint targets through inverse kinematics at 15 Hz.

It moves a reference point with bounded speed and acceleration through the phases of a skill
(``skills``) and commands the joints that put the tip there. It looks at the blocks where they are, so
that it recovers when it is pushed off its way.
"""

from __future__ import annotations

import zlib

import numpy as np

from .layout import free_ways
from .skills import Chain, Grasp, Mover, Play, Push, Reach, Skill
from .tabletop import Tabletop
from .tasks import DIRECTIONS


class Expert:
    """Does a scene's task. ``reset`` after the environment's, then ``act`` once a control step."""

    def __init__(self, env: Tabletop) -> None:
        self._env = env
        self.reset()

    def reset(self) -> None:
        """Starts from where the arm is."""
        self._mover = Mover(self._env)
        self._skill = self._choose()
        self._joints = self._env.state()[:-1].astype(np.float64)

    @property
    def phase(self) -> str:
        """What it is doing, for pictures and logs."""
        return self._skill.phase

    def act(self) -> np.ndarray:
        """The next command, float32 ``[a]``: absolute joint targets (rad) and gripper."""
        aim = self._skill.aim()
        self._mover.toward(aim.point_m, *aim.limits)
        self._joints = self._env.solver.solve(self._mover.reference, self._joints, aim.yaw_rad)
        return np.append(self._joints, aim.gripper).astype(np.float32)

    def _choose(self) -> Skill:
        task, scene = self._env.scene.task, self._env.scene
        if task.verb == "reach":
            return Reach(self._env, self._mover, task.colour)
        if task.verb == "push":
            return Push(self._env, self._mover, np.array(task.direction))
        # What the scene leaves open is drawn from the scene, so that an episode repeats.
        rng = np.random.default_rng(zlib.crc32(repr(scene.blocks).encode()))
        if task.verb == "shove":
            order = sorted(scene.blocks, key=lambda block: block.colour != task.colour)
            ways = free_ways(np.array([(b.x_m, b.y_m) for b in order]))
            return Push(self._env, self._mover, np.array(DIRECTIONS[str(rng.choice(ways))]))
        if task.verb == "play":
            return Play(self._env, self._mover, rng)
        if task.verb == "lift":
            return Grasp(self._env, self._mover)
        zone = next(z for z in scene.zones if z.colour == task.target)
        goal = np.array((zone.x_m, zone.y_m))
        if task.verb == "place":
            return Grasp(self._env, self._mover, goal)
        if task.verb == "chain":
            return Chain(self._env, self._mover, goal)
        return Push(self._env, self._mover, None, goal)
