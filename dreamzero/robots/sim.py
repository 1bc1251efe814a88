"""The simulated arm as a ``Robot``: no wire, no waiting; its clock turns the physics."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..embodiments import Embodiment
from ..errors import UserError
from ..sim import arms
from ..types import Observation
from .base import Features, Robot
from .camera import short
from .clock import ManualClock
from .emulation import plants
from .uri import Uri


class SimClock(ManualClock):
    """Sleeping until a time advances the table there in whole control steps."""

    def __init__(self, robot: SimRobot) -> None:
        super().__init__()
        self._robot = robot
        self._steps = 0

    def sleep_until(self, time_s: float) -> None:
        super().sleep_until(time_s)
        hz = self._robot.card.action_hz
        while (self._steps + 1) / hz <= self.now() + 1e-6:
            self._robot.step()
            self._steps += 1


class SimRobot(Robot):
    """``sim://so101?task=push-red-left&suite=seen&seed=0&size=64`` on ``dreamzero.sim.Tabletop``.

    A command is in force until the next; one control step passes whenever the clock is slept on for
    1 / ``card.action_hz``, so an episode is bit for bit the simulation's own.

    Args:
        uri: the address; its host must be the card's robot.
        card: a card of the tabletop.
    """

    def __init__(self, uri: Uri, card: Embodiment, move: bool = True, speed: float = 1.0) -> None:
        uri.allow("task", "suite", "seed", "size")
        if uri.host != card.robot:
            raise UserError(f"{uri}: this is no {card.robot}, which {card.name} is the card of")
        self.uri = uri
        text = uri.query.get("seed", "0")
        if not text.isdigit():
            raise UserError(f"{uri}: seed={text} is not a whole number")
        self._scene = (uri.query.get("task"), uri.query.get("suite", "seen"), int(text))
        size = uri.number("size", card.canvas_px[1])
        views = {view: (size, size) for view in card.views}
        joints = (*arms.get(card.robot).joints, "gripper")
        super().__init__(card, Features.from_card(card, views, joints), SimClock(self), move, speed)
        self._size_px = size
        self.table: Any = None
        self._target = np.zeros(card.action_dim)

    def __str__(self) -> str:
        return str(self.uri)

    @property
    def instruction(self) -> str:
        """What the scene asks for, in words."""
        return str(self.table.scene.instruction) if self.table is not None else ""

    def reset(self, seed: int, task: str | None = None, suite: str = "seen") -> None:
        """Start another scene; the arm is where that scene puts it."""
        self.table.reset(options={"scene": plants.scene(task, suite, seed)})
        self._target = self.table.state().astype(np.float64)
        self.guard.reset(self._target, self.clock.now())

    def step(self) -> None:
        """One control step under the command in force."""
        self.table.advance(self._target)

    def score(self) -> dict[str, object] | None:
        return plants.tabletop_score(self.table) if self.table is not None else None

    def _open(self) -> None:
        from ..sim import Tabletop

        views = tuple(short(view) for view in self.card.views)
        self.table = Tabletop(robot=self.card.robot, views=views, size_px=self._size_px)
        task, suite, seed = self._scene
        self.reset(seed, task, suite)

    def _observe(self, views: tuple[str, ...]) -> Observation:
        drawn = self.table.render_views(tuple(short(view) for view in views)) if views else {}
        frames = {view: drawn[short(view)] for view in views}
        return Observation(frames, self.table.state(), self.clock.now())

    def _send(self, action: np.ndarray) -> np.ndarray:
        if self.move:
            self._target = np.asarray(action, dtype=np.float64)
        return np.asarray(action, dtype=np.float32)

    def _close(self) -> None:
        if self.table is not None:
            self.table.close()
            self.table = None
