"""What counts as done, and how much of it is done.

- ``reach``: the tip came within 8 mm of the block before the arm touched another one; stays true.
- ``push``, now: the block has moved at least 4 cm along the direction, and less across than along.
- ``zone``, now: the block's centre is within 2.5 cm of the zone's, and it lies on the table.
- ``lift``, now: the block is at least 4 cm higher than at the start.
- ``place``, now: as zone, the block was lifted on the way, and the gripper has let go of it.
- ``shove``, now: the block has moved at least 4 cm, and lies on the table.
- ``chain``, now: as zone; and since the block first lay there, the tip came within 8 mm of the other one.
- ``play``: always.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import UserError
from .layout import BLOCK_HALF_M, ZONED_M
from .render import mujoco
from .splits import Scene

TOUCH_M = 0.008
PUSHED_M = 0.04
LIFTED_M = 0.04


class Judge:
    """Watches one episode; ``watch`` after every control step."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, scene: Scene) -> None:
        self._data, self._scene, self._task = data, scene, scene.task
        self._index = {b.colour: i for i, b in enumerate(scene.blocks)}
        for colour in filter(None, (self._task.colour, self._task.then)):
            if colour not in self._index:
                raise UserError(f"the scene has no {colour} block for {self._task.key}")
        self._blocks = [model.geom(f"block{i}").id for i in range(len(scene.blocks))]
        self._is_arm = model.geom_contype == 2
        self._zone = self._find_zone()
        self._done = self._spoiled = self._lifted = self._delivered = False
        if self._task.colour:
            self._start = self._centre()
            self._start_gap_m = self._gap_m(self._task.colour)
        self.watch()

    def block(self, colour: str) -> tuple[np.ndarray, float]:
        """Centre (3), m, and yaw (rad) of a block."""
        if colour not in self._index:
            raise UserError(f"the scene has no {colour} block, only {', '.join(self._index)}")
        pose = self._data.joint(f"block{self._index[colour]}").qpos
        w, x, y, z = pose[3:]
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return pose[:3].copy(), yaw

    def watch(self) -> None:
        """Takes note of what happened in the last step."""
        if self._task.verb == "reach" and not self._done and not self._spoiled:
            self._done = self._gap_m(self._task.colour) < TOUCH_M
            self._spoiled = not self._done and self._touched(others=True)
        if self._task.verb == "place" and self._height_m() > LIFTED_M:
            self._lifted = True
        if self._task.then is not None and not self._done:
            self._delivered |= self._on_zone()
            self._done = self._delivered and self._gap_m(self._task.then) < TOUCH_M

    def success(self) -> bool:
        """Whether the task is done (see the module for what that means)."""
        verb = self._task.verb
        if verb == "reach":
            return self._done
        if verb == "push":
            along, across = self._moved()
            return along >= PUSHED_M and abs(across) < along
        if verb == "lift":
            return self._height_m() >= LIFTED_M
        if verb == "shove":
            return self._shoved_m() >= PUSHED_M and self._height_m() < 0.005
        if verb == "play":
            return True
        there = self._on_zone()
        if verb == "chain":
            return there and self._done
        return there and (verb == "zone" or (self._lifted and not self._touched(others=False)))

    def progress(self) -> float:
        """In [0, 1]; 1 only on success.

        reach: how much nearer the tip is. push: metres along, of 4 cm. zone: how much nearer the block
        is to its zone. lift: half for the approach, half for the height. place: a quarter for the
        approach, a quarter for lifting, half for the way to the zone. shove: metres moved, of 4 cm.
        chain: half for the way to the zone, then half for touching.
        """
        if self.success():
            return 1.0
        near = _part(1.0 - self._gap_m(self._task.colour) / max(self._start_gap_m, 1e-6))
        verb = self._task.verb
        if verb == "reach":
            part = near
        elif verb == "push":
            part = self._moved()[0] / PUSHED_M
        elif verb == "shove":
            part = self._shoved_m() / PUSHED_M
        elif verb == "lift":
            part = 0.5 * near + 0.5 * _part(self._height_m() / LIFTED_M)
        else:
            start = float(np.linalg.norm(self._start[:2] - self._zone))
            part = 1.0 - self._off_zone_m() / max(start, 1e-6)
            if verb == "chain":
                part = 0.5 * (self._delivered or _part(part)) + 0.5 * self._done
            elif verb == "place":
                lifted = self._lifted or _part(self._height_m() / LIFTED_M)
                part = 0.5 * _part(part) * self._lifted + 0.25 * lifted + 0.25 * near
        return min(_part(part), 0.99)

    def _find_zone(self) -> np.ndarray:
        """Centre (2) of the task's zone; the origin where the task has none."""
        if self._task.verb not in ("zone", "place", "chain"):
            return np.zeros(2)
        for zone in self._scene.zones:
            if zone.colour == self._task.target:
                return np.array((zone.x_m, zone.y_m))
        raise UserError(f"the scene has no {self._task.target} zone for {self._task.key}")

    def _centre(self) -> np.ndarray:
        return self.block(self._task.colour)[0]

    def _moved(self) -> tuple[float, float]:
        """Motion of the block along and across the direction of the push, m."""
        dx, dy = self._task.direction
        moved = self._centre() - self._start
        return float(moved[0] * dx + moved[1] * dy), float(moved[1] * dx - moved[0] * dy)

    def _shoved_m(self) -> float:
        return float(np.linalg.norm((self._centre() - self._start)[:2]))

    def _on_zone(self) -> bool:
        return self._off_zone_m() < ZONED_M and self._height_m() < 0.005

    def _height_m(self) -> float:
        return float(self._centre()[2] - self._start[2])

    def _off_zone_m(self) -> float:
        return float(np.linalg.norm(self._centre()[:2] - self._zone))

    def _gap_m(self, colour: str) -> float:
        """Distance of the tip from the surface of a block, m; 0 inside."""
        i = self._blocks[self._index[colour]]
        rel = self._data.site("tip").xpos - self._data.geom_xpos[i]
        local = self._data.geom_xmat[i].reshape(3, 3).T @ rel
        return float(np.linalg.norm(np.maximum(np.abs(local) - BLOCK_HALF_M, 0.0)))

    def _touched(self, others: bool) -> bool:
        """Whether the arm now touches the task's block (or one of the others)."""
        own = {self._blocks[self._index[self._task.colour]]}
        watched = set(self._blocks) - own if others else own
        for a, b in self._data.contact.geom:
            if (a in watched and self._is_arm[b]) or (b in watched and self._is_arm[a]):
                return True
        return False


def _part(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0))
