"""What counts as done, and how much of it is done.

reach   the tip came within 8 mm of the block before the arm touched another one; stays true.
push    now: the block has moved at least 4 cm along the direction, and less across than along.
"""

from __future__ import annotations

import math

import numpy as np

from .render import mujoco
from .splits import BLOCK_HALF_M, Scene

TOUCH_M = 0.008
PUSHED_M = 0.04


class Judge:
    """Watches one episode; ``watch`` after every control step."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, scene: Scene) -> None:
        self._data, self._scene = data, scene
        self._index = {b.colour: i for i, b in enumerate(scene.blocks)}
        self._blocks = [model.geom(f"block{i}").id for i in range(len(scene.blocks))]
        self._is_arm = model.geom_contype == 2
        self._start = self._centre()
        self._start_gap_m = self._gap_m()
        self._done = False
        self._spoiled = False
        self.watch()

    def block(self, colour: str) -> tuple[np.ndarray, float]:
        """Centre (3), m, and yaw (rad) of a block."""
        pose = self._data.joint(f"block{self._index[colour]}").qpos
        w, x, y, z = pose[3:]
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return pose[:3].copy(), yaw

    def watch(self) -> None:
        """Takes note of what happened in the last step."""
        if self._scene.task.verb == "reach" and not self._done and not self._spoiled:
            self._done = self._gap_m() < TOUCH_M
            self._spoiled = not self._done and self._touches_another()

    def success(self) -> bool:
        """Whether the task is done (see the module for what that means)."""
        if self._scene.task.verb == "reach":
            return self._done
        along, across = self._moved()
        return along >= PUSHED_M and abs(across) < along

    def progress(self) -> float:
        """In [0, 1]; 1 only on success. Reach: how much nearer the tip is; push: metres along."""
        if self.success():
            return 1.0
        if self._scene.task.verb == "reach":
            part = 1.0 - self._gap_m() / max(self._start_gap_m, 1e-6)
        else:
            part = self._moved()[0] / PUSHED_M
        return float(np.clip(part, 0.0, 0.99))

    def _centre(self) -> np.ndarray:
        return self.block(self._scene.task.colour)[0]

    def _moved(self) -> tuple[float, float]:
        """Motion of the block along and across the direction of the push, m."""
        dx, dy = self._scene.task.direction
        moved = self._centre() - self._start
        return float(moved[0] * dx + moved[1] * dy), float(moved[1] * dx - moved[0] * dy)

    def _gap_m(self) -> float:
        """Distance of the tip from the surface of the block, m; 0 inside."""
        i = self._blocks[self._index[self._scene.task.colour]]
        rel = self._data.site("tip").xpos - self._data.geom_xpos[i]
        local = self._data.geom_xmat[i].reshape(3, 3).T @ rel
        return float(np.linalg.norm(np.maximum(np.abs(local) - BLOCK_HALF_M, 0.0)))

    def _touches_another(self) -> bool:
        target = self._blocks[self._index[self._scene.task.colour]]
        others = set(self._blocks) - {target}
        for a, b in self._data.contact.geom:
            if (a in others and self._is_arm[b]) or (b in others and self._is_arm[a]):
                return True
        return False
